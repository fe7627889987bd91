//! Anything the network and the targets may do, by chance: a seed decides how many targets there
//! are, what the connections are like, and when they are cut, silenced, damaged and refused,
//! targets killed and started again, access switched, and writes carried out late.
//!
//! ```text
//!   Story (the seed's choices) ──▶ Rig: host, network, targets, disk
//!                              ──▶ History: each answer, and the disk at the end, against what
//!                                  they may be
//! ```
//! What must hold: every request gets one answer, in bounded time once all is well again; no answer
//! and no byte of the disk is other than the acknowledged writes allow; and when the host has left,
//! nobody holds anything.
//!
//! `FOREBAY_SEEDS=N` runs so many seeds in place of a thousand, from `FOREBAY_FIRST_SEED` on;
//! `FOREBAY_SEED=S` runs one and tells what happened. Absent: disks that hang or lose power, TLS.
#![allow(clippy::print_stdout, reason = "the seed that failed, and what the others met")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use block_io::Timestamp;
use block_io::sim::{Direction, NetworkFaults, Random};
use nvme_fabric::host::paths::{LostChanges, PathPolicy, Settings};
use nvme_fabric::pdu::Digests;
use nvme_fabric::spec::log_page::AccessState;

use super::history::History;
use super::rig::{Late, Rig};

/// Seeds when nothing is said.
const SEEDS: u64 = 1000;
/// Tests that share the seeds, so that several cores have some.
const SHARES: u64 = 4;
/// Seeds that meet, together, all that this is about.
const ENOUGH: u64 = 200;
/// Requests of a run.
const REQUESTS: u64 = 100;
/// Events of a run at the most; then all is well.
const EVENTS: u32 = 24;
/// How long requests may take from then on: every fence, every pause between two attempts, and a
/// command that is lost once more.
const RECOVERY: Duration = Duration::from_secs(240);

/// How often each kind of event happened.
type Counts = BTreeMap<&'static str, u64>;

/// All kinds: none may be missing from enough seeds.
const KINDS: [&str; 14] = [
    "cuts",
    "cuts at a byte",
    "silences",
    "targets killed",
    "targets started",
    "connections refused",
    "access switched",
    "bytes damaged",
    "damage reported",
    "paths lost",
    "fences",
    "writes applied late",
    "requests failed",
    "requests done",
];

struct Story {
    rig: Rig,
    history: History,
    random: Random,
    counts: Counts,
    is_told: bool,
    sites: usize,
    /// Targets that are not there now.
    dead: Vec<bool>,
    with_access: bool,
}

fn duration(random: &mut Random, milliseconds: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.range(milliseconds))
}

fn settings(random: &mut Random) -> Settings {
    let lost_changes = match random.below(4) {
        0 => LostChanges::Fail,
        _ => LostChanges::AfterFence,
    };
    Settings {
        lost_changes,
        fast_io_fail: random.chance(300).then(|| duration(random, 500..=20_000)),
        policy: *random.choose(&PathPolicy::ALL),
        keep_alive: Duration::from_secs(random.range(1..=6)),
        reconnect_delay_min: duration(random, 10..=1000),
        ..Settings::default()
    }
}

fn network(random: &mut Random) -> NetworkFaults {
    match random.below(4) {
        0 => NetworkFaults { chunk_max: 3000, ..NetworkFaults::fragmented() },
        1 => NetworkFaults {
            delay_max: Duration::from_millis(3),
            short_send: 100,
            ..NetworkFaults::default()
        },
        _ => NetworkFaults { chunk_max: 9000, ..NetworkFaults::default() },
    }
}

impl Story {
    fn begin(seed: u64, is_told: bool) -> Self {
        let mut random = Random::new(seed).fork("story");
        let sites = random.range(1..=3) as usize;
        let digests = Digests { header: random.coin(), data: random.coin() };
        let io_queues = random.range(1..=2) as u16;
        let queue_depth = *random.choose(&[2, 8, 128]);
        let mut rig = Rig::with(seed, sites, settings(&mut random), |options| {
            options.digests = digests;
            options.io_queues = io_queues;
            options.queue_depth = queue_depth;
        });
        rig.network.set_faults(network(&mut random));
        rig.loses_closes = random.coin();
        let with_access = random.chance(300);
        if with_access {
            (0..sites).for_each(|site| rig.with_access(site, AccessState::Optimized));
        }
        rig.disk.change_faults(|faults| {
            faults.reorder = random.coin();
            faults.slow = random.below(50) as u32;
            faults.slow_extra = Duration::from_millis(50);
            faults.read_error = [0, 0, 10][random.below(3) as usize];
            faults.write_error_torn = [0, 0, 10][random.below(3) as usize];
        });
        let queue = rig.bring_up(8);
        if random.chance(800) {
            rig.late = Some(Late {
                per_mille: random.below(400) as u32,
                connected: duration(&mut random, 1..=20_000),
                quiesce: duration(&mut random, 1..=800),
            });
        }
        if digests.header && digests.data {
            rig.damage_per_mille = random.below(30) as u32;
        }
        let history = History::new(&rig, queue, REQUESTS);
        let (counts, dead) = (Counts::new(), vec![false; sites]);
        Self { rig, history, random, counts, is_told, sites, dead, with_access }
    }

    fn note(&mut self, kind: &'static str, what: impl std::fmt::Display) {
        *self.counts.entry(kind).or_default() += 1;
        if self.is_told {
            println!("{:>15} ns  {kind}: {what}", self.rig.world.now().0);
        }
    }

    /// Goes on for a time; whether all requests are done.
    fn go_on(&mut self, time: Duration) -> bool {
        let Self { rig, history, .. } = self;
        let stop = rig.world.timer(rig.world.now() + time);
        let mut done = false;
        rig.run_until(|rig| {
            done = history.step(rig);
            done || stop.is_due()
        });
        done
    }

    /// One thing that goes wrong.
    fn event(&mut self) {
        let site = self.random.below(self.sites as u64) as usize;
        match self.random.below(12) {
            0..=2 => {
                self.rig.cut(site);
                self.note("cuts", site);
            }
            3 => {
                // Connections to come, in the order in which they are made.
                let direction =
                    *self.random.choose(&[Direction::ToListener, Direction::ToConnector]);
                let most = *self.random.choose(&[200, 4000, 60_000]);
                let bytes = self.random.below(most);
                self.rig.network.plan_cut(Some((direction, bytes)));
                self.note("cuts at a byte", bytes);
            }
            4..=6 => {
                self.rig.silence(site);
                self.note("silences", site);
            }
            7 if !self.dead[site] => {
                self.rig.kill(site);
                if self.with_access {
                    self.rig.with_access(site, AccessState::Optimized);
                }
                self.dead[site] = true;
                self.note("targets killed", site);
            }
            7 | 8 if self.dead[site] => self.start(site),
            9 => {
                let refuse = self.random.coin();
                self.rig.refuse(site, refuse);
                self.note("connections refused", refuse);
            }
            _ if self.with_access && !self.dead[site] => {
                let states = [
                    AccessState::Optimized,
                    AccessState::NonOptimized,
                    AccessState::Inaccessible,
                    AccessState::Change,
                ];
                let state = *self.random.choose(&states);
                self.rig.set_access(site, state);
                self.note("access switched", format!("{site} {}", state.name()));
            }
            _ => {
                self.rig.cut(site);
                self.note("cuts", site);
            }
        }
    }

    fn start(&mut self, site: usize) {
        self.rig.start(site);
        self.dead[site] = false;
        self.note("targets started", site);
    }

    fn all_is_well(&mut self) {
        for site in 0..self.sites {
            if self.dead[site] {
                self.start(site);
            }
            self.rig.refuse(site, false);
            if self.with_access {
                self.rig.set_access(site, AccessState::Optimized);
            }
        }
        self.rig.damage_per_mille = 0;
        // What is held already comes when it was to come.
        self.rig.late = self.rig.late.map(|late| Late { per_mille: 0, ..late });
        self.rig.disk.change_faults(|faults| {
            faults.read_error = 0;
            faults.write_error_torn = 0;
        });
    }

    fn tell(mut self) -> Counts {
        let mut done = false;
        for _ in 0..EVENTS {
            // Within what is under way, between requests, and until after a fence.
            let most = *self.random.choose(&[300, 3000, 100_000, 5_000_000]);
            let pause = Duration::from_micros(self.random.below(most));
            done = self.go_on(pause);
            if done {
                break;
            }
            self.event();
        }
        self.all_is_well();
        let since = self.rig.world.now();
        if !done {
            done = self.go_on(RECOVERY);
        }
        let status = self.rig.host.status();
        assert!(done, "requests without an answer {RECOVERY:?} after {since:?}: {status:?}");
        // What targets are still at, and then everything as the host sees it.
        self.go_on(Duration::from_secs(60));
        self.history.read_all(&mut self.rig);
        assert!(self.go_on(RECOVERY), "reading it all takes too long");
        self.history.check(&self.rig);
        self.leave();
        self.count();
        self.counts
    }

    /// The host leaves; nothing of it stays.
    fn leave(&mut self) {
        self.rig.host.shut_down();
        self.rig.run_until(|rig| rig.host.is_over());
        self.rig.run_for(Duration::from_secs(60));
        for (number, site) in self.rig.sites.iter().enumerate() {
            assert_eq!(site.served(), 0, "connections left at target {number}");
            let controllers = site.target.controllers_in_use();
            assert_eq!(controllers, 0, "controllers left at target {number}");
        }
    }

    fn count(&mut self) {
        let paths = self.rig.host.status().paths;
        let losses = paths.iter().map(|path| path.losses).sum();
        let made = [
            ("paths lost", losses),
            ("fences", self.rig.host.fences()),
            ("writes applied late", self.rig.applied_late),
            ("bytes damaged", self.rig.damaged),
            ("damage reported", self.rig.damage_reported),
            ("requests failed", self.history.failed),
            ("requests done", self.history.succeeded),
        ];
        for (kind, count) in made {
            *self.counts.entry(kind).or_default() += count;
        }
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}; must be a number")))
}

fn run(seed: u64, is_told: bool) -> Counts {
    let story = || Story::begin(seed, is_told).tell();
    catch_unwind(AssertUnwindSafe(story)).unwrap_or_else(|panic| {
        println!("\nFAILED: seed {seed}; replay with:");
        println!(
            "FOREBAY_SEED={seed} cargo test -p nvme-fabric --test pair share_0 -- --nocapture"
        );
        resume_unwind(panic)
    })
}

/// Every `SHARES`th seed, from `share` on.
fn run_share(share: u64) {
    if let Some(seed) = number("FOREBAY_SEED") {
        if share == 0 {
            println!("{:?}", run(seed, true));
        }
        return;
    }
    let first = number("FOREBAY_FIRST_SEED").unwrap_or(0);
    let seeds = number("FOREBAY_SEEDS").unwrap_or(SEEDS);
    let mut counts = Counts::new();
    let mut ran = 0;
    for seed in (first..first + seeds).filter(|seed| seed % SHARES == share) {
        for (kind, count) in run(seed, false) {
            *counts.entry(kind).or_default() += count;
        }
        ran += 1;
        if ran % 1000 == 0 {
            println!("{ran} seeds, up to {seed}");
        }
    }
    println!("{ran} seeds of {first}..{}, every {SHARES}th from {share}", first + seeds);
    for kind in KINDS {
        let count = counts.get(kind).copied().unwrap_or(0);
        println!("{kind:>24} {count}");
        assert!(count > 0 || ran < ENOUGH, "{ran} seeds never met '{kind}'");
    }
}

#[test]
fn whatever_happens_no_answer_is_wrong_and_nobody_waits_for_ever_share_0() {
    run_share(0);
}

#[test]
fn whatever_happens_no_answer_is_wrong_and_nobody_waits_for_ever_share_1() {
    run_share(1);
}

#[test]
fn whatever_happens_no_answer_is_wrong_and_nobody_waits_for_ever_share_2() {
    run_share(2);
}

#[test]
fn whatever_happens_no_answer_is_wrong_and_nobody_waits_for_ever_share_3() {
    run_share(3);
}

#[test]
fn a_seed_is_the_same_run_again() {
    let of = |seed| {
        let mut story = Story::begin(seed, false);
        let mut ends: Vec<Timestamp> = Vec::new();
        for _ in 0..EVENTS {
            if story.go_on(Duration::from_millis(40)) {
                break;
            }
            story.event();
            ends.push(story.rig.world.now());
        }
        (story.counts, story.history.digest(), ends)
    };
    for seed in 0..8 {
        assert_eq!(of(seed), of(seed), "seed {seed}");
    }
    assert_ne!(of(0).1, of(1).1);
}
