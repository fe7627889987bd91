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
}

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
};

/// Every scenario. A seed that is run without a name takes the one at its number modulo their
/// count.
pub const SCENARIOS: &[Scenario] = &[
    SOUND,
    Scenario {
        name: "failing-cache-device",
        cache_device: |random| DiskFaults { hang: 5, ..hostile_cache(random, 200) },
        cache_vanishes: true,
        ..SOUND
    },
    Scenario {
        name: "slow-cache-device",
        cache_device: |_| DiskFaults { slow: 500, ..DiskFaults::unordered() },
        ..SOUND
    },
    Scenario {
        name: "failing-origin",
        origin: |random| DiskFaults::hostile(random.below(100) as u32),
        cache_device: |random| hostile_cache(random, 50),
        never_fails: false,
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
        ..SOUND
    },
    Scenario { name: "crashes", crashes: 2, ..SOUND },
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
        ..SOUND
    },
    Scenario {
        name: "administration",
        cache_device: |random| hostile_cache(random, 50),
        cache_vanishes: true,
        administration: 20,
        restarts: 1,
        ..SOUND
    },
    Scenario { name: "restarts", restarts: 3, restarts_are_warm: true, administration: 3, ..SOUND },
    Scenario {
        name: "crashes-and-administration",
        crashes: 3,
        restarts: 2,
        administration: 10,
        ..SOUND
    },
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

    /// The scenario that `seed` runs when none is named.
    pub fn of_seed(seed: u64) -> &'static Self {
        &SCENARIOS[(seed % SCENARIOS.len() as u64) as usize]
    }
}
