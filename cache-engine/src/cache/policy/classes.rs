//! Classes of requests: up to sixteen, by volume, range, size and direction; the first rule that
//! matches wins, and class 0 is what no rule matches.
//!
//! Rules are compiled to plain comparisons: a rule without a condition on something compares with
//! bounds that everything is within. Without rules classifying is one branch.
//!
//! A class keeps its number while the cache runs, so that what lines know about their class stays
//! true when rules change; see [`Classes::compile`].
//!
//! Absent: what classes may take of the cache (`shares`).

use block_io::{Extent, Operation};

use super::super::config::VolumeId;
use super::rules::{CLASSES_MAX, ClassRule, DEFAULT_CLASS, Direction, class_names};
use super::settings::Admission;

/// A class's number, below 16; 0 is the default class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClassId(pub(super) u8);

impl ClassId {
    /// The class of whatever no rule matches.
    pub const DEFAULT: Self = Self(0);

    /// As an index into a table of classes.
    pub const fn index(self) -> usize {
        self.0 as usize % CLASSES_MAX
    }
}

#[derive(Clone, Copy)]
struct Compiled {
    start: u64,
    end: u64,
    least: u64,
    most: u64,
    /// A volume matches if it equals `volume` in the bits of the mask; none are any volume.
    volume: u16,
    volume_mask: u16,
    /// Bit 0: reads match; bit 1: writes do.
    directions: u8,
    class: ClassId,
}

/// The classes and their rules. See the module.
pub(super) struct Classes {
    rules: Vec<Compiled>,
    names: [Option<String>; CLASSES_MAX],
    admit: [Option<Admission>; CLASSES_MAX],
}

impl Default for Classes {
    fn default() -> Self {
        let mut names = [const { None }; CLASSES_MAX];
        names[0] = Some(DEFAULT_CLASS.to_owned());
        Self { rules: Vec::new(), names, admit: [None; CLASSES_MAX] }
    }
}

impl Classes {
    /// The classes of `rules`, which were checked. Those that had a number keep it. `volume` gives
    /// the number of a named volume; rules of one that is not there match nothing.
    ///
    /// Also returned: for each old number the class its lines belong to now, which is the default
    /// one for a class that is gone.
    pub(super) fn compile(
        &self,
        rules: &[ClassRule],
        volume: impl Fn(&str) -> Option<VolumeId>,
    ) -> (Self, [ClassId; CLASSES_MAX]) {
        let wanted = class_names(rules);
        let mut new = Self::default();
        let mut moved = [ClassId::DEFAULT; CLASSES_MAX];
        for (number, name) in self.names.iter().enumerate().skip(1) {
            if name.as_deref().is_some_and(|name| wanted.contains(&name)) {
                new.names[number].clone_from(name);
                moved[number] = ClassId(number as u8);
            }
        }
        for name in wanted {
            if new.find(name).is_none() {
                let free = new.names.iter().position(Option::is_none);
                new.names[free.expect("rules were checked to name 15 at most")] = Some(name.into());
            }
        }
        for rule in rules {
            let class = new.find(&rule.class).expect("every class has a number now");
            if rule.admit.is_some() {
                new.admit[class.index()] = rule.admit;
            }
            new.rules.extend(compiled(rule, class, &volume));
        }
        (new, moved)
    }

    pub(super) fn find(&self, name: &str) -> Option<ClassId> {
        let at = self.names.iter().position(|other| other.as_deref() == Some(name))?;
        Some(ClassId(at as u8))
    }

    /// The classes there are, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &str)> {
        let named = |(number, name): (usize, &'_ Option<String>)| {
            name.is_some().then_some(ClassId(number as u8))
        };
        let numbers = self.names.iter().enumerate().filter_map(named);
        numbers.map(|class| (class, self.names[class.index()].as_deref().unwrap_or_default()))
    }

    /// Whether there is any but the default class.
    pub(super) fn are_several(&self) -> bool {
        self.names[1..].iter().any(Option::is_some)
    }

    pub(super) fn classify(
        &self,
        volume: VolumeId,
        operation: Operation,
        extent: Extent,
    ) -> ClassId {
        if self.rules.is_empty() {
            return ClassId::DEFAULT;
        }
        let direction = if operation.changes_content() { 2 } else { 1 };
        let matches = |rule: &&Compiled| {
            (volume.0 & rule.volume_mask == rule.volume)
                & (rule.start <= extent.offset)
                & (extent.offset < rule.end)
                & (rule.least <= extent.length)
                & (extent.length <= rule.most)
                & (rule.directions & direction != 0)
        };
        self.rules.iter().find(matches).map_or(ClassId::DEFAULT, |rule| rule.class)
    }

    /// What the class says about admission, if anything.
    pub(super) fn admit(&self, class: ClassId) -> Option<Admission> {
        self.admit[class.index()]
    }
}

fn compiled(
    rule: &ClassRule,
    class: ClassId,
    volume: impl Fn(&str) -> Option<VolumeId>,
) -> Option<Compiled> {
    let (volume, volume_mask) = match &rule.volume {
        None => (0, 0),
        Some(name) => (volume(name)?.0, u16::MAX),
    };
    Some(Compiled {
        start: rule.range.start,
        end: rule.range.end,
        least: rule.sizes.least,
        most: rule.sizes.most,
        volume,
        volume_mask,
        directions: match rule.direction {
            None => 3,
            Some(Direction::Read) => 1,
            Some(Direction::Write) => 2,
        },
        class,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::rules;
    use block_io::sim::Random;

    fn volume(name: &str) -> Option<VolumeId> {
        ["pg", "vm"].iter().position(|known| *known == name).map(|at| VolumeId(at as u16 + 7))
    }

    fn compile(old: &Classes, text: &str) -> (Classes, [ClassId; CLASSES_MAX]) {
        let rules = rules::list::<ClassRule>(text).expect(text);
        rules::check_rules(&rules, &[], &[]).expect(text);
        old.compile(&rules, volume)
    }

    #[test]
    fn every_condition_must_hold_and_the_first_match_wins() {
        let text = "class=a,volume=pg,range=4k-1M,size=4k..16k,direction=write;class=b,volume=pg;\
                    class=c,volume=gone;class=a,size=1M..,admit=never";
        let (classes, _) = compile(&Classes::default(), text);
        let class = |volume, operation, offset, length| {
            let class = classes.classify(VolumeId(volume), operation, Extent::new(offset, length));
            classes.iter().find(|(id, _)| *id == class).expect("it has a name").1
        };
        use Operation::{Discard, Read, Write, WriteZeroes};
        assert_eq!(class(7, Write, 4096, 4096), "a");
        assert_eq!(class(7, WriteZeroes, (1 << 20) - 1, 16384), "a");
        assert_eq!(class(7, Discard, 4096, 16384), "a");
        assert_eq!(class(7, Read, 4096, 4096), "b");
        assert_eq!(class(7, Write, 4095, 4096), "b");
        assert_eq!(class(7, Write, 1 << 20, 4096), "b");
        assert_eq!(class(7, Write, 4096, 4095), "b");
        assert_eq!(class(7, Write, 4096, 16385), "b");
        assert_eq!(class(8, Write, 4096, 4096), "default");
        assert_eq!(class(8, Read, 0, 1 << 20), "a");
        assert_eq!(classes.admit(classes.find("a").expect("a")), Some(Admission::Never));
        assert_eq!(classes.admit(ClassId::DEFAULT), None);
    }

    #[test]
    fn classes_keep_their_numbers_while_rules_change() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut classes = Classes::default();
            for step in 0..20 {
                let mut names: Vec<u64> = (0..30).collect();
                random.shuffle(&mut names);
                names.truncate(random.below(16) as usize);
                let text: Vec<_> = names.iter().map(|n| format!("class=c{n},volume=pg")).collect();
                let text = if text.is_empty() { "none".into() } else { text.join(";") };
                let (new, moved) = compile(&classes, &text);
                for (class, name) in classes.iter() {
                    let expected = new.find(name).unwrap_or(ClassId::DEFAULT);
                    assert_eq!(moved[class.index()], expected, "seed {seed}, step {step}: {name}");
                }
                assert_eq!(new.iter().count(), names.len() + 1, "seed {seed}, step {step}");
                classes = new;
            }
        }
    }
}
