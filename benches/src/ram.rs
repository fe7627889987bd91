//! Memory that a cache takes: everything that its engine allocates, in MiB a GiB of cache device.
//!
//! ```text
//!   open, load ─▶ fill lines all over, rewrite some ─▶ drop ─▶ open again, load
//!                 └──── steady: the peak ──────────┘        └─ start: the peak ┘
//! ```
//! A persistent cache with default policies and one volume, of 64 GiB and of 1 TiB. The second
//! start finds what a kill leaves, a journal included. Its records are in memory in place of a
//! device, and are not counted; nor are the buffers of clients, or a reactor's arena, which do not
//! grow with it.

use block_io::BufferPool;
use forebay_benches::cases::{Bench, Case};

use crate::results::Results;
use crate::{Failure, Plan, allocations};

/// Names of benchmarks, bytes of a line, and lines that are filled in a cache of 64 GiB: so many
/// that half of the journal is folded, which takes the most memory, and it is not empty at the end.
const LINES: [(&str, usize, usize); 3] = [
    ("ram_per_gib_4k", 4 << 10, 4_500_000),
    ("ram_per_gib_16k", 16 << 10, 2_700_000),
    ("ram_per_gib_64k", 64 << 10, 1_000_000),
];
/// Names, bytes of the cache device, and how many times as many lines are filled: a journal that
/// is 8 times as large is half full with them.
const SIZES: [(&str, u64, usize); 2] = [("64gib", 64 << 30, 1), ("1tib", 1 << 40, 2)];
const REWRITES: u64 = 100_000;

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    for (name, line, lines) in LINES.iter().filter(|(name, ..)| plan.wants(name)) {
        let mut most: f64 = 0.0;
        for (size_name, size, times) in SIZES {
            let [steady, start] = measure(size, *line, times * *lines)?;
            results.record(&format!("{name}.{size_name}_steady"), "MiB", &[steady]);
            results.record(&format!("{name}.{size_name}_start"), "MiB", &[start]);
            most = most.max(steady).max(start);
        }
        results.record(name, "MiB", &[most]);
    }
    Ok(())
}

/// MiB a GiB in steady state and during a start.
fn measure(size: u64, line: usize, lines: usize) -> Result<[f64; 2], Failure> {
    let pool = BufferPool::heap();
    let before = allocations::now();
    allocations::forget_peak();
    let per_gib = |bytes: u64| bytes as f64 / (1 << 20) as f64 / (size >> 30) as f64;
    let case = Case::fills(size, line);
    let mut bench = Bench::empty(&case)?;
    bench.fill(&pool, lines);
    bench.pass(&mut case.places().take(REWRITES as usize), REWRITES);
    let not_ours = before + bench.metadata().memory_bytes();
    let steady = allocations::peak() - not_ours;
    // Of the first cache nothing is left when the second begins.
    let metadata = bench.into_metadata();
    allocations::forget_peak();
    let bench = Bench::restart(case, metadata)?;
    let start = allocations::peak() - not_ours;
    drop(bench);
    Ok([per_gib(steady), per_gib(start)])
}
