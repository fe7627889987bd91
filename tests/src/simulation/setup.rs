//! How an engine is set up: what an operator would choose, drawn by the seed.

use block_io::Extent;
use block_io::sim::Random;
use cache_engine::cache::metadata::Layout;
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::policy::settings::{Admission, FillWidth, SequentialCutoff};
use cache_engine::cache::{CacheConfig, CacheMode, LineSize, Verification};

use super::scenario::Scenario;

/// How an engine is set up, the same before and after a crash.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) config: CacheConfig,
    pub(super) mode: CacheMode,
    /// What is on the cache device is encrypted.
    pub(super) encrypted: bool,
    /// Bytes of the cache device.
    device_bytes: u64,
    /// Depths of the devices' queues, shallow ones too, so that refusals happen.
    pub(super) origin_depth: usize,
    pub(super) cache_depth: usize,
}

/// Stores in flight at the most in the setup for measuring latencies.
pub(super) const ROOMY_FILLS: usize = 64;

impl Setup {
    /// Any setup that suits the scenario.
    pub(super) fn draw(random: &mut Random, scenario: &Scenario) -> Self {
        // Mostly small lines: the same bytes make more of them, and more happens to each.
        let line_size = match random.below(3) {
            0 => *random.choose(&LineSize::ALL),
            _ => LineSize::ALL[0],
        };
        let sets = match (scenario.warm, line_size == LineSize::ALL[0]) {
            (true, true) => random.range(8..=24),
            (true, false) => random.range(1..=6),
            (false, true) => random.range(1..=8),
            (false, false) => random.range(1..=2),
        };
        let policy = PolicySettings {
            admission: *random.choose(&[
                Admission::Always,
                Admission::Always,
                Admission::SecondMiss,
            ]),
            fill_width: *random.choose(&[
                FillWidth::Requested,
                FillWidth::Line,
                FillWidth::Adaptive,
            ]),
            sequential_cutoff: *random
                .choose(&[SequentialCutoff::NEVER, SequentialCutoff::default()]),
            ..PolicySettings::default()
        };
        let config = CacheConfig {
            line_size,
            verification: match scenario.warm {
                // With 'never' a start after a crash is cold.
                true if random.chance(950) => {
                    *random.choose(&[Verification::AfterUncleanStop, Verification::Always])
                }
                _ => *random.choose(&Verification::ALL),
            },
            requests_max: random.range(1..=64) as usize,
            fills_max: random.range(1..=if scenario.few_records { 8 } else { 64 }) as usize,
            records_min: if scenario.few_records { 24 } else { CacheConfig::default().records_min },
            miss_ratio_samples: 64,
            errors_max: *random.choose(&[u32::MAX, u32::MAX, 20, 2]),
            // What is in doubt keeps its extent until it is fenced. The clients of a run wait for
            // that only if it is what the scenario is about.
            extents_per_page: match (scenario.warm, scenario.late_writes && scenario.outages == 0) {
                (_, true) => usize::MAX,
                (true, _) => *random.choose(&[2, 3, 3, 4, 6]),
                (false, _) => *random.choose(&[3, 4, 8, usize::MAX]),
            },
            policy,
        };
        Self {
            device_bytes: device_bytes(line_size, sets),
            config,
            mode: any_mode(random),
            encrypted: random.chance(300),
            origin_depth: random.range(1..=64) as usize,
            cache_depth: random.range(1..=64) as usize,
        }
    }

    /// A setup for measuring latencies: nothing is scarce but the lines and the fills.
    pub(super) fn roomy() -> Self {
        let policy =
            PolicySettings { fill_width: FillWidth::Requested, ..PolicySettings::default() };
        let config = CacheConfig { fills_max: ROOMY_FILLS, policy, ..CacheConfig::default() };
        let device_bytes = device_bytes(config.line_size, 16);
        let mode = CacheMode::WriteThrough;
        Self { config, mode, encrypted: false, device_bytes, origin_depth: 256, cache_depth: 256 }
    }

    /// A setup for crash images: the fewest lines, so that slots change hands, and few extents
    /// active at a time, so that lines outlive a crash.
    pub(super) fn cramped() -> Self {
        let policy =
            PolicySettings { fill_width: FillWidth::Requested, ..PolicySettings::default() };
        let config = CacheConfig {
            line_size: LineSize::ALL[0],
            extents_per_page: 2,
            policy,
            ..CacheConfig::default()
        };
        let device_bytes = device_bytes(config.line_size, 1);
        let mode = CacheMode::WriteThrough;
        Self { config, mode, encrypted: false, device_bytes, origin_depth: 64, cache_depth: 64 }
    }

    /// Where the lines are on the cache device.
    pub(super) fn data_extent(&self) -> Extent {
        let layout = Layout::for_device(self.device_bytes, self.config.line_size);
        let layout = layout.expect("worked out from it");
        Extent::new(layout.data_offset, layout.data_length())
    }

    /// Bytes that the lines take.
    pub(super) fn cached_bytes(&self) -> u64 {
        let layout = Layout::for_device(self.device_bytes, self.config.line_size);
        layout.expect("worked out from it").data_length()
    }

    /// Bytes of the cache device.
    pub(super) fn cache_device_bytes(&self) -> u64 {
        self.device_bytes
    }
}

/// Bytes of a device with so many sets: what is no data is the same for all small ones.
fn device_bytes(line_size: LineSize, sets: u64) -> u64 {
    let data = sets * 16 * line_size.bytes();
    let fits = |bytes: &u64| {
        Layout::for_device(*bytes, line_size).is_ok_and(|layout| layout.data_length() >= data)
    };
    (data..).step_by(16 << 10).find(fits).expect("some size is large enough")
}

/// Mostly the one in which most can go wrong.
pub(super) fn any_mode(random: &mut Random) -> CacheMode {
    match random.below(2) {
        0 => CacheMode::WriteThrough,
        _ => *random.choose(&CacheMode::ALL),
    }
}

/// Values of settings, any of which may be chosen at any time.
pub(super) const SETTINGS: &[(&str, &[&str])] = &[
    ("admission", &["always", "always", "second-miss", "never"]),
    ("sequential-cutoff", &["never", "16KiB", "1MiB:when-full"]),
    ("fill-width", &["requested", "line", "adaptive"]),
    ("purge", &["never", "high=60%,low=30%,every=1s"]),
    ("pin", &["none", "volume=volume 0,range=0-64k"]),
    ("volume", &["none", "volume=volume 0,max=30%", "volume=volume 1,min=30%"]),
    ("class", &["none", "class=small,size=..4k,max=40%"]),
];
