//! A host's own clock: begun at another time than others', and slower than they are.

use block_io::Timestamp;

const MILLION: u64 = 1_000_000;

/// A clock that loses `slow_ppm` millionths of true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostClock {
    /// What it shows when the world begins.
    pub(super) begin: Timestamp,
    pub(super) slow_ppm: u64,
}

impl HostClock {
    /// What it shows at a true time.
    pub(super) fn at(self, time: Timestamp) -> Timestamp {
        let lost = u128::from(time.0) * u128::from(self.slow_ppm) / u128::from(MILLION);
        Timestamp(self.begin.0 + time.0 - lost as u64)
    }

    /// The true time of a deadline that it has not shown yet at `time`.
    pub(super) fn deadline(self, shown: Option<Timestamp>, time: Timestamp) -> Option<Timestamp> {
        shown.filter(|shown| *shown > self.at(time)).map(|shown| self.when(shown))
    }

    /// A true time at which it shows as much, at most two nanoseconds after the first.
    pub(super) fn when(self, shown: Timestamp) -> Timestamp {
        let passed = u128::from(shown.0.saturating_sub(self.begin.0)) * u128::from(MILLION);
        Timestamp(passed.div_ceil(u128::from(MILLION - self.slow_ppm)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clock_shows_less_and_is_waited_for() {
        let clock = HostClock { begin: Timestamp(500), slow_ppm: 100_000 };
        assert_eq!(clock.at(Timestamp(1000)), Timestamp(1400));
        for shown in 500..3000 {
            let time = clock.when(Timestamp(shown));
            assert!(clock.at(time) >= Timestamp(shown), "{shown}");
            assert!(time.0 < 2 || clock.at(Timestamp(time.0 - 2)) < Timestamp(shown), "{shown}");
        }
        assert_eq!(HostClock::default().when(Timestamp(7)), Timestamp(7));
    }
}
