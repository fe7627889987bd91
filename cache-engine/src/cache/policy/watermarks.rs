//! Keeps a part of the cache free: above the high watermark lines are purged, oldest first, until
//! the low one is reached.
//!
//! ```text
//!   occupancy ── high ─ ─ ─ ─ ─ ─/\─ ─ ─ ─ ─ ─ ─ ─ ─/\─ ─
//!                              /   ¯\_ a batch     /   ¯\_
//!                ── low ─ ─ ─/─ ─ ─ ─ ─\_________/─ ─ ─ ─ ─\_
//!   looked at      │        │        │        │        │       every `every`
//! ```
//! A look that finds more than the high watermark begins a purge; while it lasts there is a batch
//! of at most [`BATCH_MAX`] lines every 10 ms, so that requests hardly feel it. A batch after which
//! there are no fewer lines ends the purge until the next look. Looks stay on the grid of the
//! interval, however late somebody comes.
//!
//! Absent: which lines; see `Policy::victims`.

use std::time::Duration;

use block_io::Timestamp;

use super::settings::Watermarks;

/// Lines purged at once at the most: 400,000 lines a second.
pub(super) const BATCH_MAX: u64 = 4096;

const BATCH_INTERVAL: Duration = Duration::from_millis(10);

/// A running watch of the occupancy. See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    high: u64,
    low: u64,
    every: Duration,
    look_at: Timestamp,
    /// When the next batch is due, while a purge lasts.
    batch_at: Option<Timestamp>,
    /// Occupied lines at the last batch of this purge.
    before: u64,
}

impl Watch {
    pub(super) fn new(now: Timestamp, watermarks: Watermarks, slots: u64) -> Self {
        let lines = |percent: u8| {
            u64::try_from(u128::from(slots) * u128::from(percent) / 100).unwrap_or(slots)
        };
        Self {
            high: lines(watermarks.high),
            low: lines(watermarks.low),
            every: watermarks.every,
            look_at: now + watermarks.every,
            batch_at: None,
            before: u64::MAX,
        }
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        self.batch_at.unwrap_or(self.look_at)
    }

    /// How many of the `occupied` lines are to be purged now.
    pub(super) fn tick(&mut self, now: Timestamp, occupied: u64) -> u64 {
        if now < self.next_deadline() {
            return 0;
        }
        if now >= self.look_at {
            let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX).max(1);
            let late = (now.0 - self.look_at.0) / every * every;
            self.look_at = Timestamp(self.look_at.0.saturating_add(late)) + self.every;
            if occupied > self.high {
                (self.batch_at, self.before) = (Some(now), u64::MAX);
            }
        }
        if self.batch_at.is_none_or(|batch| now < batch) {
            return 0;
        }
        let lines = occupied.saturating_sub(self.low).min(BATCH_MAX);
        if occupied >= self.before {
            // What is left is pinned or spared, or comes as fast as it goes.
            self.batch_at = None;
            return 0;
        }
        self.before = occupied;
        let more = occupied.saturating_sub(lines) > self.low;
        self.batch_at = more.then(|| now + BATCH_INTERVAL);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn watch(slots: u64) -> Watch {
        let watermarks = Watermarks { high: 90, low: 50, every: Duration::from_secs(60) };
        Watch::new(Timestamp(0), watermarks, slots)
    }

    #[test]
    fn above_high_lines_are_purged_in_bounded_batches_until_low() {
        let (mut watch, mut occupied) = (watch(20_000), 18_001);
        assert_eq!(watch.tick(Timestamp(59 * SECOND), occupied), 0, "not looked at yet");
        let mut batches = Vec::new();
        for _ in 0..10 {
            let now = watch.next_deadline();
            let lines = watch.tick(now, occupied);
            assert_eq!(watch.tick(now, occupied - lines), 0, "nothing before the next deadline");
            occupied -= lines;
            batches.push(lines);
        }
        assert_eq!(batches, [4096, 3905, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(occupied, 10_000);
    }

    #[test]
    fn up_to_high_nothing_is_purged() {
        let mut watch = watch(20_000);
        assert_eq!(watch.tick(watch.next_deadline(), 18_000), 0);
        assert_eq!(watch.next_deadline(), Timestamp(120 * SECOND));
    }

    #[test]
    fn looks_stay_on_their_grid_however_late_one_is() {
        let mut watch = watch(1000);
        watch.tick(Timestamp(61 * SECOND), 0);
        assert_eq!(watch.next_deadline(), Timestamp(120 * SECOND));
        watch.tick(Timestamp(1000 * SECOND), 0);
        assert_eq!(watch.next_deadline(), Timestamp(1020 * SECOND));
        watch.tick(Timestamp(u64::MAX), 0);
        assert_eq!(watch.next_deadline(), Timestamp(u64::MAX));
    }

    #[test]
    fn a_purge_that_gets_nowhere_ends_until_the_next_look() {
        let mut watch = watch(20_000);
        assert_eq!(watch.tick(Timestamp(60 * SECOND), 20_000), 4096);
        assert_eq!(watch.tick(watch.next_deadline(), 20_000), 0);
        assert_eq!(watch.next_deadline(), Timestamp(120 * SECOND));
        assert_eq!(watch.tick(Timestamp(120 * SECOND), 20_000), 4096, "and begins again");
    }
}
