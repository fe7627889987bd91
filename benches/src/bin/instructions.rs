//! One case so many times, for an emulator that counts instructions: what
//! `cargo xtask instructions` runs.
//!
//! `instructions list` names the cases, `instructions CASE COUNT` runs one, and `instructions CASE
//! COUNT without-cache` sends its requests through nothing: what is not the engine's in the count.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the output module")]

use std::process::ExitCode;

use forebay_benches::cases::{Bench, COUNTED};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            COUNTED.iter().for_each(|case| println!("{}", case.name));
            Ok(())
        }
        [name, count] => run(name, count, true),
        [name, count, "without-cache"] => run(name, count, false),
        _ => Err("usage: instructions list | instructions CASE COUNT [without-cache]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, count: &str, with_cache: bool) -> Result<(), String> {
    let case = COUNTED.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("case '{name}': `list` says which there are"))?;
    let count = count.parse().map_err(|_| format!("count '{count}': must be a number"))?;
    let mut bench = Bench::new(case)?;
    if !with_cache {
        bench.pass_without_cache(&mut case.places(), count);
        return Ok(());
    }
    bench.pass(&mut case.places(), count);
    bench.check()
}
