//! The budget of bytes that may be written to the cache device: a token bucket, in bytes a day.
//!
//! ```text
//!   ──▶ burst ┤ plenty: admission as it is set
//!             │
//!     1/4 of ─┤ scarce: at a line's second miss only
//!             │
//!         0 ──┤ spent: nothing, but what is pinned (down to one burst of debt)
//! ```
//! Tokens are kept in bytes times nanoseconds of a day, in 128 bits: what flows in between two
//! moments is exactly `bytes a day × nanoseconds`, however often somebody looks, so that nothing
//! is lost by rounding and nothing drifts. No sum overflows: a level is at most 2^64 bytes of
//! 8.64e13 parts each, below 2^111.
//!
//! Absent: clocks. A time that does not advance brings nothing in.

use block_io::Timestamp;

use super::settings::DailyBytes;

/// Parts of a byte: nanoseconds of a day.
const PARTS: i128 = 86_400_000_000_000;

/// How much of the budget is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Budget {
    /// There is no limit.
    #[default]
    Unlimited,
    /// More than a quarter of what may be written at once.
    Plenty,
    /// A quarter or less: lines are stored at their second miss.
    Scarce,
    /// Nothing: no line is stored but pinned ones.
    Spent,
}

/// A token bucket. See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    per_day: i128,
    burst: i128,
    level: i128,
    at: Timestamp,
}

impl Tokens {
    /// A full bucket.
    pub(super) fn new(now: Timestamp, budget: DailyBytes) -> Self {
        let burst = i128::from(budget.burst) * PARTS;
        Self { per_day: i128::from(budget.per_day), burst, level: burst, at: now }
    }

    /// The same bucket under another budget: what is in it stays in it, as far as it fits. So
    /// changing the setting back and forth makes no tokens.
    pub(super) fn set(&mut self, now: Timestamp, budget: DailyBytes) {
        self.refill(now);
        self.per_day = i128::from(budget.per_day);
        self.burst = i128::from(budget.burst) * PARTS;
        self.level = self.level.clamp(-self.burst, self.burst);
    }

    /// How much is left for a store of `bytes`.
    pub(super) fn budget(&mut self, now: Timestamp, bytes: u64) -> Budget {
        self.refill(now);
        if self.level < i128::from(bytes) * PARTS {
            Budget::Spent
        } else if self.level <= self.burst / 4 {
            Budget::Scarce
        } else {
            Budget::Plenty
        }
    }

    /// Takes tokens for a store; what is not there becomes debt, up to one burst.
    pub(super) fn take(&mut self, now: Timestamp, bytes: u64) {
        self.refill(now);
        self.level = (self.level - i128::from(bytes) * PARTS).max(-self.burst);
    }

    /// Whole bytes that may be written at `now`.
    pub(super) fn available(mut self, now: Timestamp) -> u64 {
        self.refill(now);
        u64::try_from(self.level.max(0) / PARTS).unwrap_or(u64::MAX)
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = i128::from(now.0.saturating_sub(self.at.0));
        self.at = self.at.max(now);
        // Below 2^64 each, so the product may pass 2^127: then the bucket is full anyway.
        let inflow = self.per_day.saturating_mul(elapsed);
        self.level = self.level.saturating_add(inflow).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;
    const DAY: u64 = 86_400_000_000_000;

    fn tokens(per_day: u64, burst: u64) -> Tokens {
        Tokens::new(Timestamp(0), DailyBytes { per_day, burst })
    }

    #[test]
    fn the_budget_goes_from_plenty_over_scarce_to_spent_and_comes_back() {
        let mut tokens = tokens(100 * MIB, 8 * MIB);
        let now = Timestamp(5);
        assert_eq!(tokens.budget(now, MIB), Budget::Plenty);
        tokens.take(now, 6 * MIB);
        assert_eq!(tokens.budget(now, MIB), Budget::Scarce);
        tokens.take(now, 2 * MIB);
        assert_eq!(tokens.budget(now, 4096), Budget::Spent);
        tokens.take(now, 100 * MIB);
        assert_eq!(tokens.available(now), 0);
        // 16 MiB of inflow pay one burst of debt and fill the bucket.
        let later = now + Duration::from_secs(86_400 * 16 / 100);
        assert_eq!(tokens.budget(later, 4096), Budget::Plenty);
        assert_eq!(tokens.available(later), 8 * MIB);
    }

    #[test]
    fn what_flows_in_is_exact_however_often_one_looks() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let per_day = random.range(MIB..=1 << 50);
            let mut tokens = tokens(per_day, u64::MAX / 2);
            tokens.take(Timestamp(0), u64::MAX / 2);
            let (mut now, mut taken) = (0_u64, 0_u64);
            for _ in 0..5000 {
                let longest = 1 << random.below(40);
                now += random.below(longest);
                if random.coin() {
                    let bytes = random.below(tokens.available(Timestamp(now)).min(1 << 40) + 1);
                    tokens.take(Timestamp(now), bytes);
                    taken += bytes;
                }
                let came = u128::from(per_day) * u128::from(now) / u128::from(DAY);
                let left = came - u128::from(taken);
                assert_eq!(u128::from(tokens.available(Timestamp(now))), left, "seed {seed}");
            }
        }
    }

    #[test]
    fn never_more_than_the_burst_and_no_overflow_at_the_extremes() {
        let mut tokens = tokens(u64::MAX, u64::MAX);
        tokens.take(Timestamp(0), u64::MAX);
        tokens.take(Timestamp(0), u64::MAX);
        assert_eq!(tokens.budget(Timestamp(0), 1), Budget::Spent);
        assert_eq!(tokens.available(Timestamp(u64::MAX)), u64::MAX);
        assert_eq!(tokens.budget(Timestamp(u64::MAX), u64::MAX), Budget::Plenty);
    }

    #[test]
    fn an_earlier_time_brings_nothing_in_and_nothing_twice() {
        let mut tokens = tokens(86_400 * MIB, 100 * MIB);
        tokens.take(Timestamp(0), 100 * MIB);
        let second = 1_000_000_000;
        assert_eq!(tokens.budget(Timestamp(10 * second), 1), Budget::Scarce);
        tokens.take(Timestamp(3 * second), 0);
        assert_eq!(tokens.available(Timestamp(10 * second)), 10 * MIB);
    }

    #[test]
    fn changing_the_budget_makes_no_tokens() {
        let mut tokens = tokens(MIB, 8 * MIB);
        tokens.take(Timestamp(0), 8 * MIB);
        for burst in [MIB, 100 * MIB, MIB, 8 * MIB] {
            tokens.set(Timestamp(0), DailyBytes { per_day: MIB, burst });
            assert_eq!(tokens.available(Timestamp(0)), 0);
        }
    }
}
