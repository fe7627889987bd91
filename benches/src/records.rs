//! What the cache writes about its lines: bytes of records per GiB of data.
//!
//! Fills are of lines drawn all over the cache, each once; rewriting is of blocks in extents that
//! are active, of few lines (their records wait until the end) and of more than can wait. A steady
//! state is measured: folding included, where a half of the journal is filled.

use std::time::Duration;

use block_io::BufferPool;
use forebay_benches::cases::{Bench, Case};
use forebay_benches::metadata::Written;

use crate::results::Results;
use crate::{Failure, Plan};

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;

/// Name, bytes of the cache device, bytes of a line, lines filled: more than one fold's.
const FILLS: [(&str, u64, usize, usize); 4] = [
    ("records.fill_64gib_4k", 64 << 30, 4 << 10, 2 << 20),
    ("records.fill_64gib_16k", 64 << 30, 16 << 10, 2 << 20),
    ("records.fill_1tib_4k", 1 << 40, 4 << 10, 36 << 20),
    ("records.fill_1tib_16k", 1 << 40, 16 << 10, 20 << 20),
];
/// Name and bytes that are rewritten, in a cache of 64 GiB with lines of 16 KiB.
const REWRITES: [(&str, u64); 2] =
    [("records.rewrite_64mib", 64 << 20), ("records.rewrite_1gib", 1 << 30)];
/// Writes of 4 KiB that are measured: a GiB.
const WRITES: u64 = 1 << 18;

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let pool = BufferPool::heap();
    for (name, size, line, lines) in FILLS.iter().filter(|(name, ..)| plan.wants(name)) {
        let mut bench = Bench::empty(&Case::fills(*size, *line))?;
        let before = bench.metadata().written();
        bench.fill(&pool, *lines);
        bench.rest(Duration::from_secs(1));
        let bytes = bench.bytes_filled();
        record(results, name, before, bench.metadata().written(), bytes);
    }
    for (name, working_set) in REWRITES.iter().filter(|(name, _)| plan.wants(name)) {
        let case = Case::rewrites(64 << 30, 16 << 10, *working_set);
        let (mut bench, mut places) = (Bench::new(&case)?, case.places());
        // All of it active, and in the table of what waits, if it can be.
        bench.pass(&mut places, WRITES);
        let before = bench.metadata().written();
        bench.pass(&mut places, WRITES);
        bench.check()?;
        record(results, name, before, bench.metadata().written(), WRITES * 4096);
    }
    Ok(())
}

fn record(results: &mut Results, name: &str, before: Written, after: Written, bytes: u64) {
    let gib = bytes as f64 / GIB;
    let mib = |bytes: u64| bytes as f64 / MIB / gib;
    results.record(name, "MiB", &[mib(after.total() - before.total())]);
    let (journal, table) = (after.journal - before.journal, after.table - before.table);
    results.beside("of it journal, MiB", &format!("{:.3}", mib(journal)));
    results.beside("of it line table, MiB", &format!("{:.3}", mib(table)));
}
