//! Which of several good paths the next command takes.
//!
//! Only the best are ever asked for: the optimized ones, or the others when there is none. With one
//! candidate nothing is chosen and nothing is counted.

use std::time::Duration;

/// How commands are spread over equally good paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PathPolicy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest commands in flight.
    QueueDepth,
    /// The one that answers first, by what it took lately times what is in flight there.
    Latency,
}

impl PathPolicy {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::QueueDepth, Self::Latency];

    /// Its name; the first two are those of Linux's `iopolicy`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::QueueDepth => "queue-depth",
            Self::Latency => "latency",
        }
    }

    /// The one of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// One of so many commands goes to the next path in turn by [`PathPolicy::Latency`], so that a path
/// that was slow once is found out to be fast again.
const EXPLORE_EVERY: u32 = 64;
/// A measured latency counts for one of 2^this.
const AVERAGE_SHIFT: u32 = 3;

/// What is measured of a path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Commands in flight on its I/O queues.
    pub(super) in_flight: u32,
    /// Nanoseconds that commands took lately, on average; 0 before the first.
    latency: u64,
}

impl Load {
    pub(super) fn note(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.latency = match self.latency {
            0 => took,
            average => average - (average >> AVERAGE_SHIFT) + (took >> AVERAGE_SHIFT),
        };
    }

    pub(super) const fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency)
    }

    /// How long a further command would take, in no unit.
    const fn expected(&self) -> u64 {
        self.latency.saturating_mul(self.in_flight as u64 + 1)
    }
}

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Chooser {
    pub(super) policy: PathPolicy,
    /// Numbers of the paths to choose from, ascending.
    pub(super) candidates: Vec<u8>,
    turn: usize,
    chosen: u32,
}

impl Chooser {
    pub(super) fn new(policy: PathPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// The place among the candidates to try first; the others follow in order, round the end.
    /// `load` tells of a path by its number.
    pub(super) fn first(&mut self, load: impl Fn(u8) -> Load) -> usize {
        let count = self.candidates.len();
        if count <= 1 {
            return 0;
        }
        self.chosen = self.chosen.wrapping_add(1);
        self.turn = (self.turn + 1) % count;
        let least = |cost: &dyn Fn(Load) -> u64| {
            let places = (0..count).map(|step| (self.turn + step) % count);
            places.min_by_key(|place| cost(load(self.candidates[*place]))).unwrap_or(0)
        };
        match self.policy {
            PathPolicy::QueueDepth => least(&|load| u64::from(load.in_flight)),
            PathPolicy::Latency if !self.chosen.is_multiple_of(EXPLORE_EVERY) => {
                least(&|load| load.expected())
            }
            PathPolicy::RoundRobin => self.turn,
            PathPolicy::Latency => (self.chosen / EXPLORE_EVERY) as usize % count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(policy: PathPolicy, loads: &[Load]) -> Vec<usize> {
        let candidates = (0..loads.len() as u8).collect();
        let mut chooser = Chooser { policy, candidates, ..Chooser::default() };
        let mut shares = vec![0; loads.len()];
        for _ in 0..640 {
            shares[chooser.first(|path| loads[usize::from(path)])] += 1;
        }
        shares
    }

    fn load(in_flight: u32, latency: u64) -> Load {
        Load { in_flight, latency }
    }

    #[test]
    fn each_policy_spreads_as_it_says() {
        let uneven = [load(5, 1000), load(2, 1000), load(9, 1000)];
        assert_eq!(shares(PathPolicy::RoundRobin, &uneven[..2]), [320, 320]);
        assert_eq!(shares(PathPolicy::QueueDepth, &uneven), [0, 640, 0]);
        let even = [load(3, 1), load(3, 1)];
        assert_eq!(shares(PathPolicy::QueueDepth, &even), [320, 320]);
        let fast = shares(PathPolicy::Latency, &[load(1, 9000), load(4, 1000)]);
        assert!(fast[1] > 630 && fast[0] >= 4, "the slow one is tried now and then: {fast:?}");
        assert_eq!(shares(PathPolicy::Latency, &[load(0, 1000)]), [640]);
    }

    #[test]
    fn the_average_follows() {
        let mut load = Load::default();
        load.note(Duration::from_micros(100));
        assert_eq!(load.latency(), Duration::from_micros(100));
        for _ in 0..100 {
            load.note(Duration::from_micros(10));
        }
        assert!((9_900..10_200).contains(&load.latency().as_nanos()), "{:?}", load.latency());
    }
}
