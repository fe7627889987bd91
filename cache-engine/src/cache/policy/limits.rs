//! Minima and maxima of volumes and classes, from shares as they are written to lines of a cache.
//!
//! Absent: what they do; see `shares`.

use std::fmt::Display;

use super::super::config::{VOLUMES_MAX, VolumeId};
use super::classes::Classes;
use super::grammar::Share;
use super::rules::CLASSES_MAX;
use super::settings::PolicySettings;

/// A minimum and a maximum, in lines.
pub(super) type Limits = (u64, u64);

/// No limits.
pub(super) const UNLIMITED: Limits = (0, u64::MAX);

/// How large a cache is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) slots: u64,
    /// Bytes in a line.
    pub(super) line: u64,
}

impl Capacity {
    /// The limits of each class, by number.
    ///
    /// # Errors
    /// When a minimum is above its maximum or the minima are more than the cache; in words.
    pub(super) fn of_classes(
        self,
        settings: &PolicySettings,
        classes: &Classes,
    ) -> Result<[Limits; CLASSES_MAX], String> {
        let mut limits = [UNLIMITED; CLASSES_MAX];
        for (class, name) in classes.iter() {
            let of_class = || settings.classes.iter().filter(|rule| rule.class == name);
            let minimum = of_class().find_map(|rule| rule.minimum);
            let maximum = of_class().find_map(|rule| rule.maximum);
            let rule = format!("class={name}");
            limits[class.index()] = self.lines(&rule, minimum, maximum)?;
        }
        self.check_minima("class", limits.iter().copied())?;
        Ok(limits)
    }

    /// The limits of each volume, by number. Minima of volumes that are not there count.
    ///
    /// # Errors
    /// As [`of_classes`](Self::of_classes).
    pub(super) fn of_volumes(
        self,
        settings: &PolicySettings,
        volume: impl Fn(&str) -> Option<VolumeId>,
    ) -> Result<Box<[Limits; VOLUMES_MAX]>, String> {
        let mut limits = Box::new([UNLIMITED; VOLUMES_MAX]);
        let mut all = Vec::with_capacity(settings.volumes.len());
        for rule in &settings.volumes {
            let of_rule = self.lines(rule, rule.minimum, rule.maximum)?;
            all.push(of_rule);
            if let Some(volume) = volume(&rule.volume) {
                limits[usize::from(volume.0) % VOLUMES_MAX] = of_rule;
            }
        }
        self.check_minima("volume", all.into_iter())?;
        Ok(limits)
    }

    fn lines(
        self,
        rule: &impl Display,
        minimum: Option<Share>,
        maximum: Option<Share>,
    ) -> Result<Limits, String> {
        let lines = |share: Share| share.lines(self.slots, self.line);
        let (minimum, maximum) = (minimum.map_or(0, lines), maximum.map_or(u64::MAX, lines));
        if minimum > maximum {
            return Err(format!(
                "rule '{rule}': min is {minimum} lines of this cache and max {maximum}; min must \
                 not be above max"
            ));
        }
        Ok((minimum, maximum))
    }

    fn check_minima(
        self,
        setting: &str,
        limits: impl Iterator<Item = Limits>,
    ) -> Result<(), String> {
        let sum = limits.fold(0_u64, |sum, (minimum, _)| sum.saturating_add(minimum));
        if sum > self.slots {
            return Err(format!(
                "{setting}: the minima are {sum} lines together: must be at most the {} lines of \
                 this cache",
                self.slots
            ));
        }
        Ok(())
    }
}
