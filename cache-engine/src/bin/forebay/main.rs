//! `forebay`: the command, which is the daemon too.
//!
//! ```text
//!   arguments ──▶ run      plan ──▶ cache, volumes ──▶ serve (NBD)
//!             ├─▶ target   devices ──▶ an NVMe/TCP subsystem
//!             ├─▶ nvme     discover, identify, list, host
//!             ├─▶ replay   traces ──▶ hit ratios of simulated caches
//!             ├─▶ cache    format, inspect, check
//!             ├─▶ status, set, volume, miss-ratio, cache replace    of a service that runs
//!             └─▶ demo     target + volume + client in one process
//! ```
//! A file per verb. Standard output and standard error are written in [`output`] only. Absent:
//! daemonising and log files, which are a service manager's.

mod arguments;
mod cache;
mod control;
mod control_verbs;
mod demo;
mod failure;
mod mdns;
mod nvme;
mod output;
mod reactors;
mod replay;
mod run;
mod serve;
mod served;
mod signals;
mod target;
mod volume;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Verb};

fn main() -> ExitCode {
    // Wrong grammar ends here, with exit code 2; help and version with 0.
    let arguments = Arguments::parse();
    let result = match &arguments.verb {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Target(arguments) => target::run(arguments),
        Verb::Nvme { verb } => nvme::run(verb),
        Verb::Replay(arguments) => replay::run(arguments),
        Verb::Cache { verb } => cache::run(verb),
        Verb::Status(arguments) => control_verbs::status(arguments),
        Verb::Set(arguments) => control_verbs::set(arguments),
        Verb::Volume { verb } => control_verbs::volume(verb),
        Verb::MissRatio(arguments) => control_verbs::miss_ratio(arguments),
        Verb::Demo(arguments) => demo::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(&failure);
            failure.exit_code()
        }
    }
}
