//! Putting settings into force: all of them are compiled first, so that what contradicts itself
//! changes nothing, and then take the place of the earlier ones.
//!
//! Absent: what the settings are and how they are written ([`super::settings`]).

use block_io::Timestamp;

use super::admission::Doorkeeper;
use super::endurance::Tokens;
use super::limits::Capacity;
use super::pins::Pins;
use super::settings::{Admission, Endurance, Purge};
use super::watermarks::Watch;
use super::{Policy, PolicySettings, Share};
use crate::cache::config::{VOLUMES_MAX, VolumeId};

impl Policy {
    /// Changes the settings for whatever is asked from now on; also to be called, with the same
    /// settings, when volumes come, go or change their numbers.
    ///
    /// # Errors
    /// As [`new`](Self::new); nothing has changed then.
    pub(crate) fn set(
        &mut self,
        now: Timestamp,
        settings: &PolicySettings,
        volume: impl Fn(&str) -> Option<VolumeId>,
    ) -> Result<(), String> {
        settings.check()?;
        let line = self.line_size.bytes();
        let pins = Pins::compile(settings, self.slots, line, &volume)?;
        let (classes, moved) = self.classes.compile(&settings.classes, &volume);
        let capacity = Capacity { slots: self.slots, line };
        let class_limits = capacity.of_classes(settings, &classes)?;
        let volume_limits = capacity.of_volumes(settings, &volume)?;

        self.pins = pins;
        self.classes = classes;
        self.shares.move_classes(&moved, self.classes.are_several());
        self.shares.set_limits(
            |volume| volume_limits[usize::from(volume.0) % VOLUMES_MAX],
            |class| class_limits[class.index()],
        );
        self.cutoffs.fill(settings.sequential_cutoff);
        for rule in &settings.volumes {
            if let (Some(volume), Some(cutoff)) = (volume(&rule.volume), rule.cutoff) {
                self.cutoffs[usize::from(volume.0) % VOLUMES_MAX] = cutoff;
            }
        }
        self.set_budget(now, settings.endurance);
        self.set_purge(now, settings.purge);
        let needs_doorkeeper = self.tokens.is_some()
            || settings.admission == Admission::SecondMiss
            || settings.classes.iter().any(|rule| rule.admit == Some(Admission::SecondMiss));
        if !needs_doorkeeper {
            self.doorkeeper = None;
        } else if self.doorkeeper.is_none() {
            self.doorkeeper = Some(Doorkeeper::new(self.slots));
        }
        self.unresolved = unresolved(settings, &volume);
        self.settings.clone_from(settings);
        Ok(())
    }

    fn set_budget(&mut self, now: Timestamp, endurance: Endurance) {
        self.tokens = endurance.0.map(|budget| match self.tokens {
            Some(mut tokens) => {
                tokens.set(now, budget);
                tokens
            }
            None => Tokens::new(now, budget),
        });
    }

    fn set_purge(&mut self, now: Timestamp, purge: Purge) {
        // Sets fill unevenly, so that many evict long before the last place is taken.
        self.full_at = self.slots / 8 * 7;
        if let Some(watermarks) = purge.0 {
            let low = Share::of_percent(watermarks.low).lines(self.slots, self.line_size.bytes());
            self.full_at = self.full_at.min(low);
        }
        // Setting the same again, as when volumes come and go, does not put off the next look.
        if purge != self.settings.purge || self.watch.is_none() {
            self.watch = purge.0.map(|watermarks| Watch::new(now, watermarks, self.slots));
        }
    }
}

fn unresolved(settings: &PolicySettings, volume: impl Fn(&str) -> Option<VolumeId>) -> Vec<String> {
    let of_classes = settings.classes.iter().filter_map(|rule| rule.volume.as_ref());
    let of_volumes = settings.volumes.iter().map(|rule| &rule.volume);
    let of_pins = settings.pins.iter().map(|pin| &pin.volume);
    let mut names: Vec<String> = of_classes
        .chain(of_volumes)
        .chain(of_pins)
        .filter(|name| volume(name).is_none())
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
