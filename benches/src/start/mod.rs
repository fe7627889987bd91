//! Starts of a cache of 1 TiB with lines of 16 KiB, nearly all of them in use, on a sparse file.
//!
//! ```text
//!   table.rs writes superblock and line table ─▶ start, stop in order ─▶ … ─▶ start: in order
//!   this program, as a child: start, fill, write ─▶ SIGKILL ─▶ start: after a kill ─▶ lines left
//! ```
//! The file is read and written around the page cache (O_DIRECT), through the reactor. Its data
//! are holes, whose zeroes have the checksums that the table says, so that lines stand their first
//! verification. The origin completes at once. `FOREBAY_BENCH_FOLDER` names the folder for the
//! file, which takes 2 to 4 GiB there; else it is the system's for temporary files.
//!
//! A time to a first answer counts from opening the file; the volume's record is durable by then,
//! as it must be. *Warm* is when every line is in use or dropped. Lines left are reads that were
//! hits before the kill and are hits after it, outside the extents that the child wrote to.

mod table;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use block_io::DeviceError;
use block_io::device::file::{FileDevice, OpenOptions};
use block_io::device::null::NullDevice;
use block_io::reactor::{Reactor, ReactorConfig};
use block_io::sim::Random;
use cache_engine::backend::Backend;
use cache_engine::cache::Event;

use crate::results::Results;
use crate::served::Served;
use crate::{Failure, Plan};

const CACHE: u64 = 1 << 40;
const VOLUME: u64 = 1 << 40;
const LINE: u64 = 16 << 10;
/// Bytes at the volume's start that the child writes to.
const WRITTEN: u64 = 64 << 20;
/// Lines that are looked for before and after the kill.
const SAMPLE: usize = 10_000;
/// How long the child works before it is killed.
const WORK: Duration = Duration::from_secs(3);
const RUNS_MAX: u32 = 3;

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    if !plan.wants("start.") {
        return Ok(());
    }
    let folder = match std::env::var_os("FOREBAY_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(PathBuf::from(folder)),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(|error| format!("temporary folder: {error}"))?;
    let path = folder.path().join("cache");
    let lines = table::write(&path, CACHE, VOLUME).map_err(|error| format!("{error}"))?;
    results.beside("start: lines recorded", &lines.to_string());
    measure(plan, &path, results).map_err(|error| error.to_string())
}

/// Milliseconds from opening the file on.
#[derive(Default)]
struct Times {
    first_read: Vec<f64>,
    first_write: Vec<f64>,
    warm: Vec<f64>,
}

impl Times {
    fn record(&self, name: &str, results: &mut Results) {
        results.record(&format!("start.{name}.first_read"), "ms", &self.first_read);
        results.record(&format!("start.{name}.first_write"), "ms", &self.first_write);
        results.record(&format!("start.{name}.warm"), "ms", &self.warm);
    }
}

fn measure(plan: &Plan, path: &Path, results: &mut Results) -> Result<(), DeviceError> {
    let runs = plan.runs.min(RUNS_MAX);
    let (mut clean, mut killed, mut left) = (Times::default(), Times::default(), Vec::new());
    for _ in 0..runs {
        start(path, &mut clean)?.stop()?;
    }
    for run in 0..runs {
        let mut served = start(path, &mut clean)?;
        let before = hits(&mut served, run.into())?;
        served.stop()?;
        let kept = before.len();
        kill_child(path)?;
        let mut served = start(path, &mut killed)?;
        let found = count_hits(&mut served, &before)?;
        left.push(found as f64 / kept as f64 * 100.0);
        served.stop()?;
    }
    clean.record("clean", results);
    killed.record("killed", results);
    results.record("start.killed.lines_left", "%", &left);
    Ok(())
}

fn start(path: &Path, times: &mut Times) -> Result<Served, DeviceError> {
    let begin = Instant::now();
    let elapsed = || begin.elapsed().as_secs_f64() * 1000.0;
    let mut served = open(path)?;
    served.ask([VOLUME / 2], false, 4096, 1)?;
    times.first_read.push(elapsed());
    served.ask([VOLUME - LINE], true, 4096, 1)?;
    times.first_write.push(elapsed());
    served.until(&Event::Loaded)?;
    times.warm.push(elapsed());
    Ok(served)
}

fn open(path: &Path) -> Result<Served, DeviceError> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let device = FileDevice::open(path, OpenOptions::default())?;
    if !device.is_direct() {
        return Err(DeviceError::new("the folder's file system has no O_DIRECT"));
    }
    Served::start(reactor, &Backend::File(device), &Backend::Null(NullDevice::new(VOLUME)))
}

/// Lines of a random sample, outside of what the child writes, that are hits.
fn hits(served: &mut Served, seed: u64) -> Result<Vec<u64>, DeviceError> {
    let mut random = Random::new(seed);
    let first = WRITTEN / LINE;
    let mut hits = Vec::new();
    for _ in 0..SAMPLE {
        let place = (first + random.below(VOLUME / LINE - 2 * first)) * LINE;
        if count_hits(served, &[place])? == 1 {
            hits.push(place);
        }
    }
    Ok(hits)
}

fn count_hits(served: &mut Served, places: &[u64]) -> Result<u64, DeviceError> {
    let before = served.statistics().read_hits;
    served.ask(places.iter().copied(), false, 4096, 1)?;
    Ok(served.statistics().read_hits - before)
}

/// Has the cache served by another process and kills that in the middle of its work.
fn kill_child(path: &Path) -> Result<(), DeviceError> {
    let failed = |error| DeviceError::with_source("the child", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("--serve-until-killed").arg(path).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take().expect("it was piped");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(failed)?;
    std::thread::sleep(WORK);
    // SIGKILL.
    child.kill().map_err(failed)?;
    child.wait().map_err(failed)?;
    match line.trim() {
        "ready" => Ok(()),
        _ => Err(DeviceError::new("the child ended before it served")),
    }
}

/// The child: fills lines all over and writes to the first extents, until it is killed.
pub(crate) fn serve_until_killed(path: &Path) -> Result<(), Failure> {
    let work = || -> Result<(), DeviceError> {
        let mut served = open(path)?;
        served.until(&Event::Loaded)?;
        println!("ready");
        let mut random = Random::new(u64::from(std::process::id()));
        loop {
            let reads: Vec<_> = (0..64).map(|_| random.below(VOLUME / LINE) * LINE).collect();
            served.ask(reads, false, LINE as usize, 16)?;
            let writes: Vec<_> = (0..64).map(|_| random.below(WRITTEN / 4096) * 4096).collect();
            served.ask(writes, true, 4096, 16)?;
        }
    };
    work().map_err(|error| error.to_string())
}
