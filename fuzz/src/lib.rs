//! Fuzz targets: everything that reads what a stranger can send, as functions of bytes.
//!
//! ```text
//!   guided.rs (libFuzzer, by coverage, long) ─┐
//!                                             ├──▶ targets::*::run(&[u8]) ──▶ state machines
//!   main.rs ──▶ runner ──▶ mutation ──────────┘
//!   (short, by seed)
//! ```
//! A target panics when something is wrong, and otherwise returns a [`Behaviour`]: a number that
//! differs when the code did something else. The runner keeps inputs whose behaviour is new and
//! mutates them further, which takes it past the first check without coverage from the compiler.
//!
//! What is absent: sockets, files, threads and time in the targets. Everything fuzzed here is a
//! state machine or a parser.

pub mod behaviour;
pub mod mutation;
pub mod runner;
pub mod targets;

pub use behaviour::Behaviour;

/// One thing to fuzz.
pub struct Target {
    /// As given on the command line.
    pub name: &'static str,
    /// Longest input made, in bytes: what a few messages of the kind need. Longer ones take longer
    /// and reach little more.
    pub length_max: usize,
    /// Does it; panics when the code under test is wrong.
    pub run: fn(&[u8]) -> Behaviour,
    /// How much longer one input takes than a parser's: a run makes that many times fewer.
    pub cost: u64,
    /// Inputs to start from: valid ones, so that mutation begins behind the first check.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target, in the order in which they run.
pub const TARGETS: &[Target] = &[
    targets::uri::TARGET,
    targets::superblock::TARGET,
    targets::trace::TARGET,
    targets::cache_records::ACTIVITY_PAGE,
    targets::cache_records::JOURNAL_BLOCK,
    targets::cache_records::LINE_PAGE,
    targets::nbd::handshake::TARGET,
    targets::nbd::transmission::TARGET,
    targets::nvme::pdu_decode::TARGET,
    targets::nvme::host_connection::TARGET,
    targets::nvme::association::TARGET,
    targets::nvme::auth_messages::TARGET,
    targets::nvme::discovery_log::TARGET,
    targets::nvme::reservation_image::TARGET,
    targets::nvme::target_connection::TARGET,
    targets::nvme::target_script::TARGET,
    targets::nvme::tls_hello::TARGET,
    targets::nvme::tls_records::TARGET,
    targets::management_call::TARGET,
    targets::cache_against_reference::TARGET,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_its_seeds_and_is_deterministic() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            for seed in seeds.iter().chain([&Vec::new(), &vec![0xff; 4096]]) {
                let first = (target.run)(seed);
                assert_eq!(first, (target.run)(seed), "{} is not deterministic", target.name);
            }
        }
    }
}
