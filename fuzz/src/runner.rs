//! Runs a target on mutated inputs without libFuzzer, and says which input broke it.
//!
//! A panic is caught, its input written to the artifacts folder and named. An input that does not
//! end is found by a second thread, which ends the process: nothing else can stop it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mutation::Mutator;
use crate::{Behaviour, Target};

/// Longest input made of any target.
pub const INPUT_LENGTH_MAX: usize = 64 * 1024;
/// Inputs kept for their behaviour; further ones replace old ones.
const CORPUS_MAX: usize = 4096;
/// How long one input may take before it counts as endless. Far above what a state machine takes
/// for 64 KiB, so that a slow machine does not decide.
const ENDLESS: Duration = Duration::from_secs(60);

/// A run's parameters.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Inputs to make, the seeds not counted.
    pub iterations: u64,
    /// Makes as many as this time is enough for instead.
    pub time: Option<Duration>,
    /// A folder whose files are seeds too: what libFuzzer has found.
    pub corpus: Option<PathBuf>,
    /// Decides every input.
    pub seed: u64,
    /// Where failing inputs are written to.
    pub artifacts: PathBuf,
}

/// What a run without failure did.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Inputs run, seeds included.
    pub inputs: u64,
    /// Different behaviours seen.
    pub behaviours: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs `target` on its seeds and then on `plan.iterations` mutations.
///
/// # Errors
/// When an input made the target panic; says where that input is and how to run it again.
pub fn run(target: &Target, plan: &Plan) -> Result<Summary, String> {
    let watch = Watch::start(target.name, &plan.artifacts);
    let mut mutator = Mutator::new(plan.seed, target.length_max);
    let mut corpus = Vec::new();
    let mut seen = BTreeSet::new();
    let mut inputs = 0;
    let mut seeds = (target.seeds)();
    if let Some(folder) = &plan.corpus {
        seeds.extend(files_of(folder).map_err(|error| format!("{}: {error}", folder.display()))?);
    }
    let mut seeds = seeds.into_iter();
    let start = Instant::now();
    let goes_on = |inputs: u64| match plan.time {
        // A clock that is asked each time would be a large part of a fast target.
        Some(time) => !inputs.is_multiple_of(64) || start.elapsed() < time,
        None => inputs < plan.iterations,
    };
    while goes_on(inputs) || seeds.len() > 0 {
        let input = match seeds.next() {
            Some(seed) => seed,
            None if corpus.is_empty() => return Err(format!("{} has no seeds", target.name)),
            None => mutator.next_input(&corpus),
        };
        watch.begin(&input);
        let behaviour = run_once(target, &input)
            .map_err(|panic| failure(target, plan, inputs, &input, &panic))?;
        inputs += 1;
        if seen.insert(behaviour) {
            keep(&mut corpus, input, inputs);
        }
    }
    Ok(Summary { inputs, behaviours: seen.len(), elapsed: start.elapsed() })
}

/// The contents of a folder's files, in the order of their names.
fn files_of(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Runs one input.
///
/// # Errors
/// The panic's message.
pub fn run_once(target: &Target, input: &[u8]) -> Result<Behaviour, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

fn keep(corpus: &mut Vec<Vec<u8>>, input: Vec<u8>, inputs: u64) {
    if corpus.len() < CORPUS_MAX {
        corpus.push(input);
    } else {
        // The count is as good as any choice, and the same in every run.
        corpus[inputs as usize % CORPUS_MAX] = input;
    }
}

fn failure(target: &Target, plan: &Plan, iteration: u64, input: &[u8], panic: &str) -> String {
    let seed = plan.seed;
    let place = match write_artifact(&plan.artifacts, target.name, input) {
        Ok(path) => format!("cargo xtask fuzz {} --input {}", target.name, path.display()),
        Err(error) => format!("its input could not be written ({error}): {}", hex(input)),
    };
    format!(
        "{}: panicked at input {iteration} of seed {seed} ({} bytes): {panic}\n{place}",
        target.name,
        input.len()
    )
}

fn write_artifact(folder: &Path, name: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let mut observer = crate::behaviour::Observer::default();
    observer.note(input);
    let path = folder.join(format!("{name}-{:016x}", observer.behaviour().0));
    std::fs::write(&path, input)?;
    Ok(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks after inputs that do not end.
struct Watch {
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    /// Counts inputs, so that the same bytes twice are two.
    number: u64,
    input: Vec<u8>,
    finished: bool,
}

impl Watch {
    fn start(name: &'static str, artifacts: &Path) -> Self {
        let current = Arc::new(Mutex::new(Current::default()));
        let (watched, artifacts) = (Arc::clone(&current), artifacts.to_owned());
        std::thread::spawn(move || {
            let mut number = 0;
            loop {
                std::thread::sleep(ENDLESS);
                let Ok(current) = watched.lock() else { return };
                if current.finished {
                    return;
                }
                if current.number == number {
                    report_endless(name, &artifacts, &current.input);
                    std::process::abort();
                }
                number = current.number;
            }
        });
        Self { current }
    }

    fn begin(&self, input: &[u8]) {
        if let Ok(mut current) = self.current.lock() {
            current.number += 1;
            current.input.clear();
            current.input.extend_from_slice(input);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(mut current) = self.current.lock() {
            current.finished = true;
        }
    }
}

#[allow(clippy::print_stderr, reason = "the process ends here and nobody else can say why")]
fn report_endless(name: &str, artifacts: &Path, input: &[u8]) {
    match write_artifact(artifacts, name, input) {
        Ok(path) => {
            eprintln!("{name}: an input did not end within {ENDLESS:?}: {}", path.display())
        }
        Err(_) => eprintln!("{name}: an input did not end within {ENDLESS:?}: {}", hex(input)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Observer;

    /// Panics on a word that is behind a length and a checksum-like gate.
    fn gated(input: &[u8]) -> Behaviour {
        let mut observer = Observer::default();
        let [length, rest @ ..] = input else { return observer.behaviour() };
        if usize::from(*length) == rest.len() {
            observer.note("length");
            if rest.first() == Some(&0x7f) {
                observer.note("gate");
                assert!(rest.get(1) != Some(&0xff), "found it");
            }
        }
        observer.behaviour()
    }

    fn plan(artifacts: &Path) -> Plan {
        let artifacts = artifacts.to_owned();
        Plan { iterations: 200_000, time: None, corpus: None, seed: 1, artifacts }
    }

    #[test]
    fn a_panic_behind_two_gates_is_found_and_its_input_replays() {
        let artifacts = std::env::temp_dir().join(format!("forebay-fuzz-{}", std::process::id()));
        let target = Target {
            name: "gated",
            length_max: INPUT_LENGTH_MAX,
            run: gated,
            cost: 1,
            seeds: || vec![vec![3, 1, 2, 3]],
        };
        let error = run(&target, &plan(&artifacts)).unwrap_err();
        assert!(error.contains("found it") && error.contains("of seed 1"), "{error}");
        assert_eq!(run(&target, &plan(&artifacts)).unwrap_err(), error, "the seed decides");
        let path = error.rsplit(' ').next().unwrap();
        let input = std::fs::read(path).unwrap();
        assert_eq!(run_once(&target, &input), Err("found it".to_owned()));
        std::fs::remove_dir_all(&artifacts).unwrap();
    }

    #[test]
    fn a_good_target_runs_to_the_end() {
        let target = Target {
            name: "good",
            length_max: INPUT_LENGTH_MAX,
            run: |input| Behaviour(input.len().min(3) as u64),
            cost: 1,
            seeds: || vec![vec![1], vec![2, 2]],
        };
        let plan = Plan { iterations: 500, ..plan(Path::new("/nonexistent")) };
        let summary = run(&target, &plan).unwrap();
        assert_eq!((summary.inputs, summary.behaviours), (500, 4));
    }
}
