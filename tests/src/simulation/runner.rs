//! Many seeds on all cores: each thread takes the next seed, and a failing one ends the run.
//!
//! Absent: printing, which is the program's business, and any order between seeds.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use block_io::{BufferPool, PoolLayout};

use super::{Outcome, Scenario, Trace, run};

/// Requests of each run, before everything is read twice.
pub const OPERATIONS: u64 = 2000;

/// What to run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// The first seed; the others follow it.
    pub first: u64,
    /// Seeds at the most.
    pub seeds: u64,
    /// Stop taking seeds after this long.
    pub time: Option<Duration>,
    /// The scenario of all seeds; without it each seed has its own.
    pub scenario: Option<&'static Scenario>,
    /// Threads.
    pub threads: usize,
}

/// What has been run so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Seeds that ended well.
    pub seeds: u64,
    /// Requests of clients.
    pub operations: u64,
    /// Crashes.
    pub crashes: u64,
    /// The runs together.
    pub outcome: Outcome,
    /// Since the start.
    pub elapsed: Duration,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its scenario's name.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub message: String,
}

impl Failure {
    /// The command that runs this seed again.
    pub fn command(&self) -> String {
        format!("cargo xtask simulate --seed {} --scenario {}", self.seed, self.scenario)
    }
}

/// Runs what is planned, and tells of the progress about once in `period`.
///
/// # Errors
/// The first failure.
pub fn run_all(
    plan: &Plan,
    period: Duration,
    mut tell: impl FnMut(&Progress),
) -> Result<Progress, Failure> {
    let start = Instant::now();
    let next = AtomicU64::new(plan.first);
    let stop = AtomicBool::new(false);
    let end = plan.first.saturating_add(plan.seeds);
    let deadline = plan.time.map(|time| start + time);
    let mut progress = Progress::default();
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..plan.threads.max(1) {
            let sender = sender.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                let taken = || {
                    let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let stopped = over || stop.load(Ordering::Relaxed);
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    (!stopped && seed < end).then_some(seed)
                };
                work(plan.scenario, std::iter::from_fn(taken), &sender);
            });
        }
        drop(sender);
        let mut told = start;
        loop {
            match results.recv_timeout(period) {
                Ok(Ok(outcome)) => progress.add(&outcome),
                Ok(Err(failure)) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            progress.elapsed = start.elapsed();
            if told.elapsed() >= period {
                told = Instant::now();
                tell(&progress);
            }
        }
    })?;
    progress.elapsed = start.elapsed();
    Ok(progress)
}

/// One thread's part: seeds until there are none, or nobody listens.
fn work(
    scenario: Option<&'static Scenario>,
    seeds: impl Iterator<Item = u64>,
    results: &Sender<Result<Outcome, Failure>>,
) {
    let pool = BufferPool::new(PoolLayout::STANDARD);
    for seed in seeds {
        let scenario = scenario.unwrap_or_else(|| Scenario::of_seed(seed));
        let result = attempt(scenario, seed, &pool, None);
        // A panic may have left buffers behind; the run ends anyway.
        if results.send(result).is_err() {
            return;
        }
    }
}

/// One run, with a panic as its failure.
///
/// # Errors
/// What the panic said.
pub fn attempt(
    scenario: &'static Scenario,
    seed: u64,
    pool: &BufferPool,
    trace: Option<&Trace>,
) -> Result<Outcome, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(scenario, seed, OPERATIONS, pool, trace))).map_err(
        |said| {
            let hooked = SAID.with_borrow_mut(Option::take);
            let text = said.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| said.downcast_ref::<&str>().copied());
            let message = hooked.unwrap_or_else(|| text.unwrap_or("a panic").to_owned());
            Failure { scenario: scenario.name, seed, message }
        },
    )
}

thread_local! {
    /// What this thread's panic said, and where.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has panics kept for [`attempt`] in place of printed. For programs; tests print them.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        SAID.with_borrow_mut(|said| *said = Some(panic.to_string()));
    }));
}

impl Progress {
    /// Seeds a second.
    pub fn seeds_per_second(&self) -> f64 {
        self.seeds as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// What the runs are about and none of them met.
    pub fn unmet(&self) -> Vec<&'static str> {
        let named = self.outcome.named();
        named.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.operations += outcome.operations;
        self.crashes += outcome.crashes;
        self.outcome.add(outcome);
    }
}
