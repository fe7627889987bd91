//! What goes wrong: each scenario is one row.
//!
//! Absent: how it is brought about, which is in `run.rs`.

use std::time::Duration;

use block_io::sim::{DiskFaults, Random};

/// What goes wrong in a run.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// As `--scenario` takes it.
    pub name: &'static str,
    pub(super) origin: fn(&mut Random) -> DiskFaults,
    pub(super) cache_device: fn(&mut Random) -> DiskFaults,
    /// Writes that the origin lost may still land later.
    pub(super) late_writes: bool,
    /// The cache device goes and comes back at random.
    pub(super) cache_vanishes: bool,
    /// Chance of a crash beside each request, per mille.
    pub(super) crashes: u32,
    /// Chance that the cache is stopped in order and started again, likewise.
    pub(super) restarts: u32,
    /// What was a hit before a stop is one after it.
    pub(super) restarts_are_warm: bool,
    /// Chance that an origin is written to, or resized, by somebody else, likewise.
    pub(super) administration: u32,
    /// No request may fail.
    pub(super) never_fails: bool,
    /// Volumes of many extents, and a cache of which much outlives a crash.
    pub(super) warm: bool,
    /// Few records can wait, so that some find no room.
    pub(super) few_records: bool,
    /// How many volumes: any of these.
    pub(super) volumes: &'static [usize],
    /// The origins have volatile write caches, which they may lose at any time.
    pub(super) volatile_origins: bool,
    /// Chance that an origin can not be reached for a while, or loses power, as above.
    pub(super) outages: u32,
    /// Chance that a volume is taken out, or comes back, likewise.
    pub(super) membership: u32,
    /// Chance that another cache device takes the place of this one, likewise.
    pub(super) replacements: u32,
    /// Other cores serve hits in place.
    pub(super) guests: bool,
    /// Another host writes whenever the lease on the one origin is over. Of the rest only
    /// `crashes` counts, beside each step: see `lease.rs`.
    pub(super) leases: bool,
    /// Events that enough seeds of it meet, beside those that all of them meet.
    pub(super) meets: &'static [&'static str],
}

/// What every scenario meets.
const ALWAYS_MET: &[&str] = &[
    "operations",
    "hits",
    "partial hits",
    "encrypted hits",
    "evictions",
    "stored writes",
    "sequential bypasses",
    "policy changes",
    "changes that waited",
];

const SOUND: Scenario = Scenario {
    name: "sound-devices",
    origin: |_| DiskFaults::unordered(),
    cache_device: |_| DiskFaults::unordered(),
    late_writes: false,
    cache_vanishes: false,
    crashes: 0,
    restarts: 0,
    restarts_are_warm: false,
    administration: 0,
    never_fails: true,
    warm: false,
    few_records: false,
    volumes: &[1, 1, 2, 3],
    volatile_origins: false,
    outages: 0,
    membership: 0,
    replacements: 0,
    guests: false,
    leases: false,
    meets: &["folds", "extents retired"],
};

/// Every scenario. A seed that is run without a name takes the one at its number modulo their
/// count.
pub const SCENARIOS: &[Scenario] = &[
    SOUND,
    Scenario {
        name: "failing-cache-device",
        cache_device: |random| DiskFaults { hang: 5, ..hostile_cache(random, 200) },
        cache_vanishes: true,
        meets: &["degraded caches"],
        ..SOUND
    },
    Scenario {
        name: "slow-cache-device",
        cache_device: |_| DiskFaults { slow: 500, ..DiskFaults::unordered() },
        meets: &[],
        ..SOUND
    },
    Scenario {
        name: "failing-origin",
        origin: |random| DiskFaults::hostile(random.below(100) as u32),
        cache_device: |random| hostile_cache(random, 50),
        never_fails: false,
        meets: &["degraded caches"],
        ..SOUND
    },
    Scenario {
        name: "late-writes",
        origin: |_| DiskFaults {
            lost: 50,
            late_max: Duration::from_millis(5),
            ..DiskFaults::unordered()
        },
        late_writes: true,
        never_fails: false,
        meets: &[],
        ..SOUND
    },
    Scenario { name: "crashes", crashes: 2, meets: &["crashes"], ..SOUND },
    Scenario {
        name: "crashes-and-failures",
        origin: |random| DiskFaults {
            lost: 10,
            late_max: Duration::from_millis(5),
            ..DiskFaults::hostile(random.below(50) as u32)
        },
        cache_device: |random| DiskFaults { hang: 2, ..hostile_cache(random, 50) },
        late_writes: true,
        cache_vanishes: true,
        crashes: 5,
        restarts: 1,
        administration: 5,
        never_fails: false,
        meets: &["crashes", "restarts", "invalidations", "resizes", "degraded caches"],
        ..SOUND
    },
    Scenario {
        name: "administration",
        cache_device: |random| hostile_cache(random, 50),
        cache_vanishes: true,
        administration: 20,
        restarts: 1,
        meets: &["restarts", "invalidations", "resizes", "degraded caches"],
        ..SOUND
    },
    Scenario {
        name: "restarts",
        restarts: 3,
        restarts_are_warm: true,
        administration: 3,
        meets: &["restarts", "survivors of restarts", "invalidations", "resizes"],
        ..SOUND
    },
    Scenario {
        name: "crashes-and-administration",
        crashes: 3,
        restarts: 2,
        administration: 10,
        meets: &["crashes", "restarts", "invalidations", "resizes", "lines dropped at starts"],
        ..SOUND
    },
    Scenario {
        name: "warm-crashes",
        crashes: 3,
        restarts: 1,
        administration: 2,
        warm: true,
        meets: WARM,
        ..SOUND
    },
    Scenario {
        name: "warm-crashes-and-failures",
        cache_device: |random| hostile_cache(random, 10),
        crashes: 3,
        restarts: 1,
        warm: true,
        meets: WARM,
        ..SOUND
    },
    Scenario {
        name: "origin-power-cuts",
        origin: |random| DiskFaults::hostile(random.below(30) as u32),
        volatile_origins: true,
        outages: 4,
        crashes: 1,
        warm: true,
        never_fails: false,
        meets: &[
            "origins' power cuts",
            "extents let go",
            "flushes told of losses",
            "lines verified",
            "extents retired",
            "folds",
        ],
        ..SOUND
    },
    Scenario {
        name: "origin-outages",
        origin: |_| DiskFaults {
            lost: 5,
            late_max: Duration::from_millis(5),
            ..DiskFaults::unordered()
        },
        late_writes: true,
        outages: 3,
        crashes: 1,
        warm: true,
        never_fails: false,
        meets: &["outages of origins", "waits in outages", "lines verified", "extents retired"],
        ..SOUND
    },
    Scenario {
        name: "few-records",
        crashes: 3,
        restarts: 1,
        warm: true,
        few_records: true,
        volatile_origins: true,
        outages: 2,
        never_fails: false,
        meets: &[
            "records lost",
            "crashes",
            "restarts",
            "lines verified",
            "lines dropped at starts",
            "origins' power cuts",
            "extents let go",
        ],
        ..SOUND
    },
    Scenario {
        name: "volumes-and-guests",
        crashes: 2,
        restarts: 1,
        administration: 5,
        membership: 10,
        replacements: 1,
        guests: true,
        warm: true,
        volumes: &[2, 2, 3],
        meets: &[
            "removals",
            "forgotten volumes",
            "replacements",
            "crashes in these",
            "guests' hits",
            "guests' retries",
            "lines verified",
        ],
        ..SOUND
    },
    Scenario {
        name: "leases",
        leases: true,
        crashes: 20,
        volumes: &[1],
        meets: &[
            "operations",
            "hits",
            "crashes",
            "renewals of leases",
            "leases overslept",
            "writes elsewhere",
            "guests' hits",
            "guests' retries",
            "encrypted hits",
        ],
        ..SOUND
    },
];

/// What scenarios meet of which much outlives a crash.
const WARM: &[&str] = &[
    "crashes",
    "warm crashes",
    "lines verified",
    "spoilt",
    "checksum mismatches",
    "lines dropped at starts",
    "restarts",
    "extents retired",
    "folds",
];

/// A cache device may leave anything behind when it fails.
fn hostile_cache(random: &mut Random, most: u64) -> DiskFaults {
    let per_mille = random.below(most) as u32;
    DiskFaults { write_error_garbage: per_mille, ..DiskFaults::hostile(per_mille) }
}

impl Scenario {
    /// The scenario called `name`.
    ///
    /// # Errors
    /// When there is none; the message lists those that there are.
    pub fn find(name: &str) -> Result<&'static Self, String> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            format!("scenario '{name}': must be one of {}", names.join(", "))
        })
    }

    /// Events that enough seeds of it meet, as [`Outcome::named`](super::Outcome::named) calls
    /// them.
    pub fn meets(&self) -> impl Iterator<Item = &'static str> {
        let always = if self.leases { &[] } else { ALWAYS_MET };
        always.iter().chain(self.meets).copied()
    }

    /// The scenario that `seed` runs when none is named.
    pub fn of_seed(seed: u64) -> &'static Self {
        &SCENARIOS[(seed % SCENARIOS.len() as u64) as usize]
    }
}
