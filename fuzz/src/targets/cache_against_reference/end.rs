//! The end of an input: everything is answered, everything is read twice, and origins and
//! references agree.
//!
//! Absent: faults, which are over by then.

use std::time::Duration;

use block_io::{Extent, Operation};
use cache_engine::cache::CacheMode;

use super::devices::Landing;
use super::harness::Harness;

/// Turns in which whatever was begun ends.
const PATIENCE: u32 = 20_000;

impl Harness {
    pub(super) fn finish(&mut self) {
        self.add_all();
        self.drain();
        for number in 0..self.volumes.len() {
            let id = self.volumes[number].id.expect("all were added");
            let full = self.volumes[number].full;
            self.cache.resize_volume(id, full).expect("within its room");
            self.volumes[number].capacity = full;
            self.fence(number);
            self.set_mode(number, CacheMode::WriteThrough);
        }
        self.drain();
        // Twice: what the first filled, the second reads from the cache device.
        for _ in 0..2 {
            for number in 0..self.volumes.len() {
                for extent in Extent::new(0, self.volumes[number].full).split(64 << 10) {
                    self.request(number, Operation::Read, extent);
                    self.drain();
                }
            }
        }
        for volume in &mut self.volumes {
            if let Err(mismatch) = volume.reference.check_content(0, volume.origin.content()) {
                panic!("the origin: {mismatch}");
            }
            let id = volume.id.expect("all were added");
            let statistics = self.cache.statistics(id).expect("the volume is there");
            let mut words = format!("{statistics:?}");
            words.retain(|character| !character.is_ascii_digit() || character == '0');
            self.observer.note(words);
        }
    }

    pub(super) fn drain(&mut self) {
        self.until("a request", |harness| {
            let volumes = &harness.volumes;
            volumes.iter().all(|volume| volume.reference.in_flight() == 0)
                && harness.cache.in_flight() == 0
                && harness.cache.fills_in_flight() == 0
        });
    }

    /// Answers everything and lets time pass until `reached`.
    pub(super) fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            while self.cache_device.in_flight() > 0 || self.origins_in_flight() > 0 {
                for number in 0..self.volumes.len() {
                    self.complete_origin(number, 0, Ok(()), Landing::All);
                }
                self.complete_cache(0, Ok(()), Landing::All);
            }
            if reached(self) {
                return;
            }
            if !self.cache.tick(self.now) {
                let later = self.now + Duration::from_millis(1);
                self.now = self.cache.next_deadline().map_or(later, |due| due.max(self.now));
            }
            self.empty_outbox();
        }
        panic!("{what} that never ends");
    }

    fn origins_in_flight(&self) -> usize {
        self.volumes.iter().map(|volume| volume.origin.in_flight()).sum()
    }
}
