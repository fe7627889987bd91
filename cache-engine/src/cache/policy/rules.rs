//! Rules that an operator writes: for classes of requests, for volumes, for pinned ranges.
//!
//! ```text
//!   class=db,volume=pg,range=0-10GiB,size=..16k,direction=write,min=10%,max=50%,admit=never
//!         └ what matches: all that stand there ───────────────┘ └ what the class gets ─────┘
//!   volume=pg,min=10%,max=50%,cutoff=4MiB
//!   volume=pg,range=0-1GiB                                                      (a pin)
//! ```
//! Absent: meaning. How rules are applied is in `classes`, `shares` and `pins`.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::grammar::{self, Range, Share, Sizes};
use super::settings::{Admission, SequentialCutoff};

/// The class of whatever no rule matches.
pub(super) const DEFAULT_CLASS: &str = "default";

/// Classes at the most, the default one included.
pub(super) const CLASSES_MAX: usize = 16;

/// Rules of classes at the most: each costs every request a nanosecond or so.
pub(super) const CLASS_RULES_MAX: usize = 64;

/// Pins at the most.
pub(super) const PINS_MAX: usize = 256;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the client.
    Read,
    /// From the client.
    Write,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];
}

impl Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Which requests belong to a class, and what the class gets: `class=NAME` and any of `volume=`,
/// `range=`, `size=`, `direction=`, `min=`, `max=`, `admit=`. A request is in the range in which
/// it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    pub(super) class: String,
    pub(super) volume: Option<String>,
    pub(super) range: Range,
    pub(super) sizes: Sizes,
    pub(super) direction: Option<Direction>,
    pub(super) minimum: Option<Share>,
    pub(super) maximum: Option<Share>,
    pub(super) admit: Option<Admission>,
}

impl ClassRule {
    fn matches_all(&self) -> bool {
        self.volume.is_none()
            && self.direction.is_none()
            && self.range == Range::ALL
            && self.sizes == Sizes::ALL
    }
}

impl FromStr for ClassRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self {
            class: String::new(),
            volume: None,
            range: Range::ALL,
            sizes: Sizes::ALL,
            direction: None,
            minimum: None,
            maximum: None,
            admit: None,
        };
        for (field, value) in grammar::fields("class rule", text)? {
            match field {
                "class" => rule.class = grammar::name(field, value)?,
                "volume" => rule.volume = Some(grammar::name(field, value)?),
                "range" => rule.range = Range::parse(field, value)?,
                "size" => rule.sizes = Sizes::parse(field, value)?,
                "direction" => {
                    rule.direction = Some(grammar::one_of(field, value, &Direction::ALL)?);
                }
                "min" => rule.minimum = Some(Share::parse(field, value)?),
                "max" => rule.maximum = Some(Share::parse(field, value)?),
                "admit" => rule.admit = Some(grammar::one_of(field, value, &Admission::ALL)?),
                _ => {
                    let known = "class, volume, range, size, direction, min, max or admit";
                    return Err(grammar::unknown("class rule", field, known));
                }
            }
        }
        if rule.class.is_empty() {
            return Err(format!("class rule '{text}': must name its class, such as class=db"));
        }
        check_order("class rule", text, rule.minimum, rule.maximum)?;
        Ok(rule)
    }
}

impl Display for ClassRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "class={}", self.class)?;
        optional(f, "volume", self.volume.as_ref())?;
        optional(f, "range", (self.range != Range::ALL).then_some(self.range))?;
        optional(f, "size", (self.sizes != Sizes::ALL).then_some(self.sizes))?;
        optional(f, "direction", self.direction)?;
        optional(f, "min", self.minimum)?;
        optional(f, "max", self.maximum)?;
        optional(f, "admit", self.admit)
    }
}

/// What is different for a volume: `volume=NAME` and any of `min=`, `max=`, `cutoff=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRule {
    pub(super) volume: String,
    pub(super) minimum: Option<Share>,
    pub(super) maximum: Option<Share>,
    pub(super) cutoff: Option<SequentialCutoff>,
}

impl FromStr for VolumeRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self { volume: String::new(), minimum: None, maximum: None, cutoff: None };
        for (field, value) in grammar::fields("volume rule", text)? {
            match field {
                "volume" => rule.volume = grammar::name(field, value)?,
                "min" => rule.minimum = Some(Share::parse(field, value)?),
                "max" => rule.maximum = Some(Share::parse(field, value)?),
                "cutoff" => rule.cutoff = Some(value.parse()?),
                _ => {
                    let known = "volume, min, max or cutoff";
                    return Err(grammar::unknown("volume rule", field, known));
                }
            }
        }
        if rule.volume.is_empty() {
            return Err(format!("volume rule '{text}': must name its volume, such as volume=pg"));
        }
        check_order("volume rule", text, rule.minimum, rule.maximum)?;
        Ok(rule)
    }
}

impl Display for VolumeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume={}", self.volume)?;
        optional(f, "min", self.minimum)?;
        optional(f, "max", self.maximum)?;
        optional(f, "cutoff", self.cutoff)
    }
}

/// A range of a volume that is always admitted and stays: `volume=NAME,range=START-END`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub(super) volume: String,
    pub(super) range: Range,
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut volume, mut range) = (None, None);
        for (field, value) in grammar::fields("pin", text)? {
            match field {
                "volume" => volume = Some(grammar::name(field, value)?),
                "range" => range = Some(Range::parse(field, value)?),
                _ => return Err(grammar::unknown("pin", field, "volume or range")),
            }
        }
        match (volume, range) {
            (Some(volume), Some(range)) if range.end < u64::MAX => Ok(Self { volume, range }),
            _ => Err(format!(
                "pin '{text}': must be a volume and a range with an end, such as \
                 volume=pg,range=0-1GiB"
            )),
        }
    }
}

impl Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume={},range={}", self.volume, self.range)
    }
}

fn optional(f: &mut fmt::Formatter<'_>, field: &str, value: Option<impl Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, ",{field}={value}"))
}

/// Rules as [`list`] reads them.
pub(super) fn shown(rules: &[impl Display]) -> String {
    if rules.is_empty() {
        return "none".to_owned();
    }
    let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
    rules.join(";")
}

/// Rules separated by `;`, or `none`.
pub(super) fn list<Rule: FromStr<Err = String>>(text: &str) -> Result<Vec<Rule>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    text.split(';').map(str::parse).collect()
}

/// Shares in different units are compared when the size of the cache is known.
fn check_order(
    setting: &str,
    text: &str,
    minimum: Option<Share>,
    maximum: Option<Share>,
) -> Result<(), String> {
    let (Some(minimum), Some(maximum)) = (minimum, maximum) else { return Ok(()) };
    match (minimum.percent(), maximum.percent()) {
        (Some(least), Some(most)) if least > most => {
            Err(format!("{setting} '{text}': min must not be above max"))
        }
        _ => Ok(()),
    }
}

/// Whether the rules agree with each other.
pub(super) fn check_rules(
    classes: &[ClassRule],
    volumes: &[VolumeRule],
    pins: &[Pin],
) -> Result<(), String> {
    check_count("class", classes.len(), CLASS_RULES_MAX)?;
    check_count("pin", pins.len(), PINS_MAX)?;
    check_count("volume", volumes.len(), super::super::config::VOLUMES_MAX)?;
    for (index, rule) in classes.iter().enumerate() {
        let earlier = &classes[..index];
        if let Some(all) = earlier.iter().find(|other| other.matches_all()) {
            return Err(format!(
                "class rule '{rule}': is never reached, because '{all}' before it matches every \
                 request; put that one last"
            ));
        }
        let given = |other: &&ClassRule| {
            other.class == rule.class
                && (rule.minimum.is_some() && other.minimum.is_some()
                    || rule.maximum.is_some() && other.maximum.is_some()
                    || rule.admit.is_some() && other.admit.is_some())
        };
        if let Some(other) = earlier.iter().find(given) {
            return Err(format!(
                "class rule '{rule}': min, max and admit of class '{}' must stand in one of its \
                 rules; '{other}' has them too",
                rule.class
            ));
        }
    }
    let names = class_names(classes);
    if names.len() >= CLASSES_MAX {
        return Err(format!(
            "class: {} classes: must be at most {} beside the default one",
            names.len(),
            CLASSES_MAX - 1
        ));
    }
    for (index, rule) in volumes.iter().enumerate() {
        if volumes[..index].iter().any(|other| other.volume == rule.volume) {
            return Err(format!("volume rule '{rule}': must be the only one of its volume"));
        }
    }
    check_minima("class", classes.iter().map(|rule| rule.minimum))?;
    check_minima("volume", volumes.iter().map(|rule| rule.minimum))
}

/// The classes that rules name, without the default one, in order of appearance.
pub(super) fn class_names(classes: &[ClassRule]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for rule in classes {
        if rule.class != DEFAULT_CLASS && !names.contains(&rule.class.as_str()) {
            names.push(&rule.class);
        }
    }
    names
}

fn check_count(setting: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most {
        return Err(format!("{setting}: {count} rules: must be at most {most}"));
    }
    Ok(())
}

fn check_minima(setting: &str, minima: impl Iterator<Item = Option<Share>>) -> Result<(), String> {
    let sum: u32 = minima.flatten().filter_map(Share::percent).map(u32::from).sum();
    if sum > 100 {
        return Err(format!("{setting}: the minima are {sum}% together: must be at most 100%"));
    }
    Ok(())
}
