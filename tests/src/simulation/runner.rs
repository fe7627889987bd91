//! Many seeds on all cores: each thread takes the next seed, and a failing one ends the run.
//!
//! Absent: printing, which is the program's business, and any order between seeds.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use block_io::{BufferPool, PoolLayout};

use super::{Outcome, SCENARIOS, Scenario, Trace, run};

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

/// Seeds of a scenario that meet, together, all that it is about.
pub const ENOUGH: u64 = 200;

/// What has been run so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Seeds that ended well.
    pub seeds: u64,
    /// The runs together.
    pub outcome: Outcome,
    /// The same by scenario, in the order of [`SCENARIOS`], with the seeds of each.
    pub by_scenario: [(u64, Outcome); SCENARIOS.len()],
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
        let (sender, results) = mpsc::channel::<Ended>();
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
                Ok(Ok((scenario, outcome))) => progress.add(scenario, &outcome),
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

/// What a thread tells of each seed.
type Ended = Result<(&'static Scenario, Outcome), Failure>;

/// One thread's part: seeds until there are none, or nobody listens.
fn work(
    scenario: Option<&'static Scenario>,
    seeds: impl Iterator<Item = u64>,
    results: &Sender<Ended>,
) {
    let pool = BufferPool::new(PoolLayout::STANDARD);
    for seed in seeds {
        let scenario = scenario.unwrap_or_else(|| Scenario::of_seed(seed));
        let result = attempt(scenario, seed, &pool, None).map(|outcome| (scenario, outcome));
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

    /// What scenarios are about and none of enough of their seeds met: scenario and event.
    pub fn unmet(&self) -> Vec<(&'static str, &'static str)> {
        let mut unmet = Vec::new();
        for (scenario, (seeds, outcome)) in SCENARIOS.iter().zip(&self.by_scenario) {
            if *seeds >= ENOUGH {
                let missed = scenario.meets().filter(|event| outcome.of(event) == 0);
                unmet.extend(missed.map(|event| (scenario.name, event)));
            }
        }
        unmet
    }

    /// How often each kind of event happened: a row each, a column a scenario.
    pub fn table(&self) -> Vec<String> {
        let ran: Vec<usize> =
            (0..SCENARIOS.len()).filter(|at| self.by_scenario[*at].0 > 0).collect();
        let mut lines: Vec<String> = Vec::new();
        for (number, at) in ran.iter().enumerate() {
            let (seeds, _) = self.by_scenario[*at];
            let indent = "       │".repeat(number);
            lines.push(format!("{:>33}{indent} {} ({seeds} seeds)", "", SCENARIOS[*at].name));
        }
        for (row, (name, all)) in self.outcome.named().into_iter().enumerate() {
            let mut line = format!("{name:<24}{:>9}", compact(all));
            for at in &ran {
                let (_, count) = self.by_scenario[*at].1.named()[row];
                line += &format!("{:>8}", if count == 0 { "-".into() } else { compact(count) });
            }
            lines.push(line);
        }
        lines
    }

    fn add(&mut self, scenario: &Scenario, outcome: &Outcome) {
        self.seeds += 1;
        self.outcome.add(outcome);
        let at = SCENARIOS.iter().position(|other| other.name == scenario.name);
        let (seeds, sum) = &mut self.by_scenario[at.expect("one of them")];
        *seeds += 1;
        sum.add(outcome);
    }
}

/// A count in five characters or so.
fn compact(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}
