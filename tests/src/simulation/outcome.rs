//! What runs did, by kind of event: the table at the end of a simulation, and what its scenarios
//! have to have met.
//!
//! A simulation that never met what it is about proves nothing, so each scenario names the events
//! that it exists for, and a run of enough seeds fails when one of them never happened.

use super::counts::Counts;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests of clients, those of the last check included.
    pub operations: u64,
    /// Crashes.
    pub crashes: u64,
    /// Stops in order.
    pub restarts: u64,
    /// Hits after those that were hits before.
    pub survivors: u64,
    /// Crashes after which a line of before was read, found right and served.
    pub warm_crashes: u64,
    /// Blocks and sectors of lines that a crash spoilt.
    pub spoilt: u64,
    /// Writes to origins that the cache was told of.
    pub invalidations: u64,
    /// Volumes that shrank.
    pub resizes: u64,
    /// Changes of policies.
    pub policies: u64,
    /// Times that an origin could not be reached while the engine went on.
    pub outages: u64,
    /// Times that an origin lost what was not flushed while the engine went on.
    pub origin_power_cuts: u64,
    /// Turns of the world in which writes waited to be named on the cache device while an origin
    /// was away.
    pub waits_in_outages: u64,
    /// Volumes taken out of a running cache, and added to it.
    pub removals: u64,
    /// Volumes that came back to nothing, because somebody else had written to their origin.
    pub forgotten: u64,
    /// Hits that guests served in place.
    pub guest_hits: u64,
    /// Hits that guests threw away.
    pub guest_retries: u64,
    /// Cache devices that took the place of another.
    pub replacements: u64,
    /// Crashes while one was being replaced.
    pub crashes_in_replacement: u64,
    /// Leases renewed before their end.
    pub renewals: u64,
    /// Times that a host slept past the end of its lease.
    pub overslept: u64,
    /// Writes of another host while a lease was over.
    pub written_elsewhere: u64,
    /// What the engine says of itself.
    pub counts: Counts,
    /// A hash of everything that clients were told and when: the same for the same seed.
    pub fingerprint: u64,
}

impl Outcome {
    /// Adds another run's.
    pub(super) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.survivors += other.survivors;
        self.warm_crashes += other.warm_crashes;
        self.spoilt += other.spoilt;
        self.invalidations += other.invalidations;
        self.resizes += other.resizes;
        self.policies += other.policies;
        self.outages += other.outages;
        self.origin_power_cuts += other.origin_power_cuts;
        self.waits_in_outages += other.waits_in_outages;
        self.removals += other.removals;
        self.forgotten += other.forgotten;
        self.guest_hits += other.guest_hits;
        self.guest_retries += other.guest_retries;
        self.replacements += other.replacements;
        self.crashes_in_replacement += other.crashes_in_replacement;
        self.renewals += other.renewals;
        self.overslept += other.overslept;
        self.written_elsewhere += other.written_elsewhere;
        self.counts.add(other.counts);
    }

    /// What simulations are there for, with how often it happened.
    pub fn named(&self) -> [(&'static str, u64); EVENTS] {
        let counts = self.counts;
        [
            ("operations", self.operations),
            ("crashes", self.crashes),
            ("warm crashes", self.warm_crashes),
            ("lines verified", counts.lines_verified),
            ("spoilt", self.spoilt),
            ("checksum mismatches", counts.checksum_mismatches),
            ("lines dropped at starts", counts.lines_dropped),
            ("pages damaged", counts.pages_damaged),
            ("restarts", self.restarts),
            ("survivors of restarts", self.survivors),
            ("invalidations", self.invalidations),
            ("resizes", self.resizes),
            ("removals", self.removals),
            ("forgotten volumes", self.forgotten),
            ("replacements", self.replacements),
            ("crashes in these", self.crashes_in_replacement),
            ("guests' hits", self.guest_hits),
            ("guests' retries", self.guest_retries),
            ("renewals of leases", self.renewals),
            ("leases overslept", self.overslept),
            ("writes elsewhere", self.written_elsewhere),
            ("policy changes", self.policies),
            ("outages of origins", self.outages),
            ("origins' power cuts", self.origin_power_cuts),
            ("waits in outages", self.waits_in_outages),
            ("extents let go", counts.let_go),
            ("flushes told of losses", counts.losses_told),
            ("hits", counts.read_hits),
            ("partial hits", counts.read_partial_hits),
            ("encrypted hits", counts.encrypted_hits),
            ("hits started again", counts.hit_retries),
            ("evictions", counts.evictions),
            ("stored writes", counts.write_fills),
            ("sequential bypasses", counts.bypasses),
            ("degraded caches", counts.degraded),
            ("given up as dead", counts.impatient),
            ("extents retired", counts.retired),
            ("changes that waited", counts.waits),
            ("records lost", counts.records_lost),
            ("folds", counts.folds),
        ]
    }

    /// How often one of the [named](Self::named) happened.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn of(&self, name: &str) -> u64 {
        let found = self.named().into_iter().find(|(other, _)| *other == name);
        found.unwrap_or_else(|| panic!("event '{name}': there is none of that name")).1
    }
}

/// Kinds of events.
const EVENTS: usize = 40;
