//! What an origin with a volatile write cache has acknowledged and may still lose.
//!
//! ```text
//!   write acknowledged, or perhaps done ─▶ its extent noted, with the epoch
//!   flush begins ─▶ epoch e ends        flush e succeeds ─▶ extents of epochs up to e forgotten
//!   connection fenced ─▶ lines of the noted extents dropped; they stay noted until a flush
//!   places run out and no flush succeeds ─▶ let go: lines dropped, nothing cached until a flush
//! ```
//! A cache that outlives a power cut of its origin would otherwise serve what the origin has lost,
//! until the line is evicted: content that goes back in time without a write. So the extents of
//! writes that no flush has covered stay active in the cache's records, which a crash drops, and
//! are dropped when the origin comes back from wherever it was. Whether it has lost anything then
//! nobody knows: what is read anew may still be volatile, and lost the next time. The next flush of
//! a client fails for it, once.
//!
//! A flush of our own that fails is not sent again at once: after a pause that doubles each time.
//!
//! Absent: origins without a volatile cache, of which nothing is noted; what was written before the
//! volume was added, which whoever adds it has flushed; what was let go ([`super::doubt`]).

use std::collections::BTreeMap;
use std::time::Duration;

use block_io::{Extent, Timestamp};

use super::persistence::EXTENT_SIZE;

/// More extents than this are not left to clients to flush.
pub(crate) const EXTENTS_MAX: usize = 128;

/// Pauses between flushes of our own that fail.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Others wait this long for a flush of our own that is not answered.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// The epoch of the last write to each extent. A change of each is held on to.
    extents: BTreeMap<u64, u64>,
    epoch: u64,
    /// The extent of the last write, when it was in this epoch.
    last: Option<u64>,
    /// A flush of our own is in flight, of this epoch, since then.
    own: Option<(u64, Timestamp)>,
    /// After a flush of our own that failed: no other one before this, and the pause that it was.
    after: Timestamp,
    pause: Duration,
    /// The origin may have lost what it had acknowledged, and no client was told.
    lost: bool,
}

impl Unflushed {
    /// Notes a write that was acknowledged, or failed and may have been done. True when its extent
    /// was not noted before.
    pub(crate) fn note(&mut self, extent: Extent) -> bool {
        let number = extent.offset / EXTENT_SIZE;
        debug_assert!(extent.end() <= (number + 1) * EXTENT_SIZE, "within one extent");
        if self.last == Some(number) {
            return false;
        }
        self.last = Some(number);
        self.extents.insert(number, self.epoch).is_none()
    }

    /// The epoch of what is written now.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether there is so much that it is not left to clients to flush.
    pub(crate) fn is_much(&self) -> bool {
        self.extents.len() >= EXTENTS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// A flush is sent to the origin: covers what was noted so far. Returns its epoch.
    pub(crate) fn begin_flush(&mut self) -> u64 {
        self.epoch += 1;
        self.last = None;
        self.epoch - 1
    }

    /// Begins a flush of our own, unless one is in flight or failed a moment ago. True when it did.
    pub(crate) fn begin_own_flush(&mut self, now: Timestamp) -> bool {
        let begins = self.own.is_none() && self.after <= now;
        if begins {
            self.own = Some((self.begin_flush(), now));
        }
        begins
    }

    /// Our own flush has ended; its epoch if it was successful.
    pub(crate) fn end_own_flush(&mut self, succeeded: bool, now: Timestamp) -> Option<u64> {
        let (epoch, _) = self.own.take()?;
        if !succeeded {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.after = now + self.pause;
        }
        succeeded.then_some(epoch)
    }

    /// When a flush of our own may begin.
    pub(crate) fn flush_after(&self) -> Timestamp {
        self.after
    }

    pub(crate) fn is_flushing(&self) -> bool {
        self.own.is_some()
    }

    /// Whether the origin has failed a flush of our own and none has succeeded since, or does not
    /// answer one.
    pub(crate) fn is_hopeless(&self, now: Timestamp) -> bool {
        self.pause > Duration::ZERO || self.own.is_some_and(|(_, since)| since + ANSWER_MAX <= now)
    }

    /// The flush of that epoch was successful: the extents that it covered are forgotten and named
    /// to `forgotten`.
    pub(crate) fn flushed(&mut self, epoch: u64, mut forgotten: impl FnMut(Extent)) {
        (self.after, self.pause) = (Timestamp::default(), Duration::ZERO);
        self.extents.retain(|number, noted| {
            if *noted <= epoch {
                forgotten(extent_of(*number));
            }
            *noted > epoch
        });
    }

    /// All of them.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.extents.keys().map(|number| extent_of(*number)).collect()
    }

    /// Takes all of them out, with their epochs.
    pub(crate) fn take(&mut self) -> Vec<(Extent, u64)> {
        self.last = None;
        let extents = std::mem::take(&mut self.extents);
        extents.into_iter().map(|(number, epoch)| (extent_of(number), epoch)).collect()
    }

    /// The origin may have lost what it had acknowledged.
    pub(crate) fn note_loss(&mut self) {
        self.lost = true;
    }

    /// Whether it may have, and no client was told until now.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }
}

fn extent_of(number: u64) -> Extent {
    Extent::new(number * EXTENT_SIZE, EXTENT_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn write(number: u64) -> Extent {
        Extent::new(number * EXTENT_SIZE + 4096, 512)
    }

    #[test]
    fn a_flush_covers_what_was_acknowledged_before_it_began() {
        let mut unflushed = Unflushed::default();
        assert!(unflushed.note(write(1)) && !unflushed.note(write(1)));
        assert!(unflushed.note(write(2)));
        let first = unflushed.begin_flush();
        assert!(!unflushed.note(write(2)), "known, and written again behind the flush");
        assert!(unflushed.note(write(3)));
        let mut gone = Vec::new();
        unflushed.flushed(first, |extent| gone.push(extent.offset / EXTENT_SIZE));
        assert_eq!(gone, [1]);
        let second = unflushed.begin_flush();
        unflushed.flushed(second, |extent| gone.push(extent.offset / EXTENT_SIZE));
        assert_eq!(gone, [1, 2, 3]);
        assert!(unflushed.take().is_empty());
    }

    #[test]
    fn one_flush_of_our_own_at_a_time_and_a_longer_pause_after_each_that_fails() {
        let mut unflushed = Unflushed::default();
        let mut now = NOW;
        unflushed.note(write(1));
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            assert!(unflushed.begin_own_flush(now) && !unflushed.begin_own_flush(now));
            assert_eq!(unflushed.end_own_flush(false, now), None);
            assert!(unflushed.is_hopeless(now));
            now = now + Duration::from_millis(pause - 1);
            assert!(!unflushed.begin_own_flush(now), "{pause} ms are not over");
            now = now + Duration::from_millis(1);
        }
        assert!(unflushed.begin_own_flush(now));
        let epoch = unflushed.end_own_flush(true, now).expect("it was in flight");
        unflushed.flushed(epoch, |_| {});
        assert!(unflushed.is_empty() && !unflushed.is_hopeless(now));
        assert!(unflushed.begin_own_flush(now), "at once");
        assert!(!unflushed.is_hopeless(now) && unflushed.is_hopeless(now + ANSWER_MAX));
    }
}
