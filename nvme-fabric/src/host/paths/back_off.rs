//! How long to wait before the next attempt to connect: twice as long after each failure, up to a
//! bound, and never exactly, so that many hosts of a target that was away do not come back at once.

use std::time::Duration;

use super::Settings;

/// The jitter's source: splitmix64, seeded by whoever makes the paths. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// The pause after `failures` attempts in a row have failed: half of it certain, half by chance.
pub(super) fn pause(settings: &Settings, failures: u32, jitter: &mut Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let whole = settings
        .reconnect_delay_min
        .saturating_mul(1 << doublings)
        .min(settings.reconnect_delay_max.max(settings.reconnect_delay_min));
    let half = u64::try_from(whole.as_nanos() / 2).unwrap_or(u64::MAX);
    let chance = (u128::from(jitter.next()) * u128::from(half)) >> 64;
    Duration::from_nanos(half.saturating_add(chance as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_differ() {
        let settings = Settings {
            reconnect_delay_min: Duration::from_millis(100),
            reconnect_delay_max: Duration::from_secs(1),
            ..Settings::default()
        };
        let mut jitter = Jitter::new(7);
        for (failures, whole_ms) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (99, 1000)]
        {
            let some: Vec<_> = (0..64).map(|_| pause(&settings, failures, &mut jitter)).collect();
            let whole = Duration::from_millis(whole_ms);
            assert!(some.iter().all(|one| (whole / 2..whole).contains(one)), "{failures}");
            let distinct: std::collections::HashSet<_> = some.iter().collect();
            assert!(distinct.len() > 60, "{failures}: {} of 64", distinct.len());
            let near =
                |part: u32| some.iter().any(|one| one.abs_diff(whole / 8 * part) < whole / 16);
            assert!(near(5) && near(7), "{failures}: spread over the half");
        }
    }
}
