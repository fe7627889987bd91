//! `forebay demo`: a software target, a cache in front of it, and a client that believes nothing.
//!
//! ```text
//!   client ──NBD──▶ exports ┬─ "origin" ─────────────▶ NVMe/TCP ──▶ target ──▶ delay ──▶ file
//!   (model)                 └─ "cached" ──▶ cache ──▶ NVMe/TCP ──▶
//! ```
//! At last the cache is stopped, and once killed, and started again over the same file.
//!
//! Everything lies in a folder that is removed at the end.

mod client;
mod folder;
mod phase;
mod progress;
mod report;
mod scene;
mod workload;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use cache_engine::backend::address::Size;
use cache_engine::cache::Statistics;

use crate::arguments::{DemoArguments, Format};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;

use client::Client;
use folder::Folder;
use phase::{Outcome, Popular, Sweep};
use progress::Progress;
use report::{Report, Row, Settings};
use scene::{CACHED, Ending, ORIGIN, Scene, SceneSettings};
use workload::{BLOCK_SIZE, Model, Random, Zipf};

/// Writes among 100 requests of the mixed phase.
const WRITE_PERCENT: u64 = 30;

/// How far into a phase the hit ratio is looked at for the first time.
const EARLY: Duration = Duration::from_secs(1);

/// Requests in flight while the origin is read whole.
const SWEEP_DEPTH: usize = 16;

/// Plays the demo and shows its report.
///
/// # Errors
/// When it could not be set up, was interrupted, or read a wrong byte.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let signals = Signals::new()?;
    let folder = Folder::new()?;
    let report = play(arguments, folder.path(), &signals)?;
    folder.remove()?;
    match arguments.format {
        Format::Table => output::print(report.table())?,
        Format::Json => output::print(report.json())?,
    }
    match report.wrong_bytes() {
        0 => Ok(()),
        wrong => Err(Failure::new(format!("{wrong} bytes were wrong (seed {})", arguments.seed))),
    }
}

fn play(arguments: &DemoArguments, folder: &Path, signals: &Signals) -> Result<Report, Failure> {
    let size = arguments.size.bytes();
    let cache_size = Size::from_bytes(size / 4);
    let settings = SceneSettings {
        namespace: folder.join("namespace"),
        cache: folder.join("cache"),
        cache_size,
        socket: folder.join("nbd.sock"),
        latency: arguments.latency,
    };
    let progress = Progress::new();
    let model = Model::new(arguments.seed, size / BLOCK_SIZE as u64);
    progress.begin("writing the volume", 0.04);
    fill(&settings.namespace, &model, &|| signals.arrived(), &mut |done| progress.show(done))
        .map_err(|error| Failure::because("writing the demo's volume", error))?;
    let scene = Scene::start(&settings)?;
    let mut stage = Stage { arguments, signals, scene, model, progress, random: 0 };
    let played = stage.play();
    let Stage { scene, progress, .. } = stage;
    progress.finish();
    // A thread that failed is why the client failed.
    scene.end()?;
    let (rows, sweep) = played?;
    let settings = Settings {
        latency: arguments.latency,
        volume_bytes: size,
        cache_bytes: cache_size.bytes(),
        queue_depth: arguments.queue_depth,
        write_percent: WRITE_PERCENT,
        seed: arguments.seed,
    };
    Ok(Report { settings, rows, sweep })
}

/// Writes version 0 of every block.
fn fill(
    path: &Path,
    model: &Model,
    interrupted: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(f64),
) -> io::Result<()> {
    const CHUNK_BLOCKS: u64 = 256;
    let mut file = File::create_new(path)?;
    let mut chunk = vec![0; CHUNK_BLOCKS as usize * BLOCK_SIZE];
    // The size is whole MiB, so whole chunks.
    for first in (0..model.blocks()).step_by(CHUNK_BLOCKS as usize) {
        if interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        for (block, content) in (first..).zip(chunk.chunks_exact_mut(BLOCK_SIZE)) {
            model.fill(block, 0, content);
        }
        file.write_all(&chunk)?;
        progress(first as f64 / model.blocks() as f64);
    }
    file.sync_data()
}

/// The demo in play.
struct Stage<'arguments> {
    arguments: &'arguments DemoArguments,
    signals: &'arguments Signals,
    scene: Scene,
    model: Model,
    progress: Progress,
    /// Random sources given out so far: each phase asks for something else.
    random: u64,
}

impl Stage<'_> {
    fn play(&mut self) -> Result<(Vec<Row>, Outcome), Failure> {
        let mut origin = self.connect(ORIGIN)?;
        let mut cached = self.connect(CACHED)?;
        let mut rows = vec![self.popular(&mut origin, "origin alone", 0, false)?];
        for (name, write_percent) in
            [("cached, cold", 0), ("cached, warm", 0), ("cached, 30 % writes", WRITE_PERCENT)]
        {
            rows.push(self.popular(&mut cached, name, write_percent, true)?);
        }
        self.flush(&mut cached)?;
        let sweep = self.sweep(&mut origin)?;
        disconnect([origin, cached])?;
        for (name, ending) in [("after a stop", Ending::Stopped), ("after a kill", Ending::Killed)]
        {
            self.scene.restart(ending)?;
            let mut cached = self.connect(CACHED)?;
            rows.push(self.popular(&mut cached, name, 0, true)?);
            disconnect([cached])?;
        }
        Ok((rows, sweep))
    }

    fn connect(&self, export: &str) -> Result<Client, Failure> {
        let client = Client::connect(self.scene.socket(), export)
            .map_err(|error| Failure::because(format!("connecting to export {export}"), error))?;
        let (found, expected) = (client.capacity(), self.arguments.size.bytes());
        if found == expected {
            return Ok(client);
        }
        Err(Failure::new(format!("export {export}: has {found} bytes instead of {expected}")))
    }

    fn popular(
        &mut self,
        client: &mut Client,
        name: &'static str,
        write_percent: u64,
        is_cached: bool,
    ) -> Result<Row, Failure> {
        self.progress.begin(name, 0.146);
        self.random += 1;
        let interrupted = || self.signals.arrived();
        let mut source = Popular {
            zipf: Zipf::new(self.model.blocks()),
            random: Random::new(self.arguments.seed.wrapping_mul(1000).wrapping_add(self.random)),
            write_percent,
            start: Instant::now(),
            duration: Duration::from_secs(u64::from(self.arguments.seconds)),
            interrupted: &interrupted,
        };
        let depth = self.arguments.queue_depth as usize;
        let before = self.scene.statistics()?;
        let mut early = None;
        let (scene, progress, start) = (&self.scene, &self.progress, source.start);
        let mut show = |done| {
            progress.show(done);
            if early.is_none() && start.elapsed() >= EARLY {
                // A thread that has ended fails the next request.
                early = scene.statistics().ok();
            }
        };
        let outcome = phase::run(client, &mut self.model, &mut source, depth, &mut show);
        let outcome = self.unless_interrupted(name, outcome)?;
        let after = self.scene.statistics()?;
        let ratio = |after| hit_ratio(before, after).filter(|_| is_cached);
        let (hit_ratio, hit_ratio_early) = (ratio(after), ratio(early.unwrap_or(after)));
        Ok(Row { name, outcome, hit_ratio, hit_ratio_early })
    }

    fn sweep(&mut self, client: &mut Client) -> Result<Outcome, Failure> {
        let name = "reading the origin";
        self.progress.begin(name, 0.08);
        let interrupted = || self.signals.arrived();
        let mut source = Sweep { next: 0, blocks: self.model.blocks(), interrupted: &interrupted };
        let mut show = |done| self.progress.show(done);
        let outcome = phase::run(client, &mut self.model, &mut source, SWEEP_DEPTH, &mut show);
        self.unless_interrupted(name, outcome)
    }

    fn flush(&self, client: &mut Client) -> Result<(), Failure> {
        client.flush(0);
        let reply = client.send().and_then(|()| client.reply());
        match self.unless_interrupted("flush", reply)?.error {
            0 => Ok(()),
            error => Err(Failure::because(
                "flush of the cached volume",
                io::Error::from_raw_os_error(error as i32),
            )),
        }
    }

    fn unless_interrupted<Value>(
        &self,
        name: &str,
        result: io::Result<Value>,
    ) -> Result<Value, Failure> {
        if self.signals.arrived() {
            return Err(Failure::new("interrupted; everything is removed"));
        }
        result.map_err(|error| Failure::because(name, error))
    }
}

fn disconnect(clients: impl IntoIterator<Item = Client>) -> Result<(), Failure> {
    let disconnected = clients.into_iter().try_for_each(Client::disconnect);
    disconnected.map_err(|error| Failure::because("disconnecting", error))
}

/// The share of reads between two looks at the counters that the cache answered alone.
fn hit_ratio(before: Statistics, after: Statistics) -> Option<f64> {
    let reads = after.reads - before.reads;
    (reads > 0).then(|| (after.read_hits - before.read_hits) as f64 / reads as f64)
}
