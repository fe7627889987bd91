//! What an operator chooses about what is cached: checked when it is read, so that an invalid value
//! cannot exist further down, and changeable while the cache runs.
//!
//! | setting             | values                                            | default        |
//! |---------------------|---------------------------------------------------|----------------|
//! | `admission`         | `always`, `second-miss`, `never`                  | `always`       |
//! | `endurance`         | `unlimited`, `200GiB/day`, `200GiB/day:20GiB`     | `unlimited`    |
//! | `sequential-cutoff` | `never`, `1MiB`, `1MiB:when-full`                 | `1MiB:when-full` |
//! | `fill-width`        | `requested`, `line`, `adaptive`                   | `adaptive`     |
//! | `purge`             | `never`, `high=90%,low=80%,every=1m`              | `never`        |
//! | `pin-max`           | a share of the cache                              | `25%`          |
//! | `class`             | [`ClassRule`]s separated by `;`, or `none`        | `none`         |
//! | `volume`            | [`VolumeRule`]s separated by `;`, or `none`       | `none`         |
//! | `pin`               | [`Pin`]s separated by `;`, or `none`              | `none`         |
//!
//! Absent: which volumes there are. Rules name them; `Policy::set` is told the numbers.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use super::grammar::{self, Share};
use super::rules::{self, check_rules};
pub use super::rules::{ClassRule, Direction, Pin, VolumeRule};

/// Which missed lines are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Admission {
    /// Every one.
    #[default]
    Always,
    /// Those that were missed not long before.
    SecondMiss,
    /// None.
    Never,
}

impl Admission {
    /// Every value, from the most to the fewest lines.
    pub const ALL: [Self; 3] = [Self::Always, Self::SecondMiss, Self::Never];
}

impl Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::SecondMiss => "second-miss",
            Self::Never => "never",
        })
    }
}

impl FromStr for Admission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        grammar::one_of("admission", text, &Self::ALL)
    }
}

/// How much is read from the origin around what was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FillWidth {
    /// The blocks asked for.
    Requested,
    /// Whole lines.
    Line,
    /// Whole lines where what was read ahead before turned out to be used, one line more for
    /// sequential reads, else the blocks asked for.
    #[default]
    Adaptive,
}

impl FillWidth {
    /// Every value, from the narrowest on.
    pub const ALL: [Self; 3] = [Self::Requested, Self::Line, Self::Adaptive];
}

impl Display for FillWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::Line => "line",
            Self::Adaptive => "adaptive",
        })
    }
}

impl FromStr for FillWidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        grammar::one_of("fill-width", text, &Self::ALL)
    }
}

/// How much of a sequential run is cached: `never` cuts off, `1MiB`, `1MiB:when-full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequentialCutoff {
    /// Bytes of a run before it is past by; `u64::MAX` is never.
    pub(super) bytes: u64,
    /// Whether runs are still cached while there is free space.
    pub(super) when_full: bool,
}

impl SequentialCutoff {
    /// Every run is cached, however long.
    pub const NEVER: Self = Self { bytes: u64::MAX, when_full: false };
    const LEAST: u64 = 4096;
}

impl Default for SequentialCutoff {
    fn default() -> Self {
        Self { bytes: 1 << 20, when_full: true }
    }
}

impl Display for SequentialCutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes == u64::MAX {
            return f.write_str("never");
        }
        let when = if self.when_full { ":when-full" } else { "" };
        write!(f, "{}{when}", grammar::shown(self.bytes))
    }
}

impl FromStr for SequentialCutoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::NEVER);
        }
        let refused = |error: String| {
            format!(
                "sequential-cutoff '{text}': must be never, or a size of at least 4KiB such as \
                 1MiB or 1MiB:when-full{error}"
            )
        };
        let (size, when_full) = match text.split_once(':') {
            None => (text, false),
            Some((size, "when-full")) => (size, true),
            Some(_) => return Err(refused(String::new())),
        };
        let bytes = grammar::bytes("it", size).map_err(|error| refused(format!(" ({error})")))?;
        if (Self::LEAST..u64::MAX).contains(&bytes) {
            Ok(Self { bytes, when_full })
        } else {
            Err(refused(String::new()))
        }
    }
}

/// How much may be written to the cache device: `unlimited`, `200GiB/day`, and how much of it at
/// once, `200GiB/day:20GiB` (else a tenth of a day's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Endurance(pub(super) Option<DailyBytes>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DailyBytes {
    pub(super) per_day: u64,
    pub(super) burst: u64,
}

impl Endurance {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);
    /// Less would be spent by one line fill after another's reserve.
    const LEAST: u64 = 1 << 20;
}

impl Display for Endurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unlimited"),
            Some(DailyBytes { per_day, burst }) => {
                write!(f, "{}/day:{}", grammar::shown(per_day), grammar::shown(burst))
            }
        }
    }
}

impl FromStr for Endurance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let refused = |error: String| {
            format!(
                "endurance '{text}': must be unlimited, or bytes a day and what may be written \
                 at once, each at least 1MiB, such as 200GiB/day or 200GiB/day:20GiB{error}"
            )
        };
        let (per_day, rest) = text.split_once("/day").ok_or_else(|| refused(String::new()))?;
        let size =
            |size: &str| grammar::bytes("it", size).map_err(|error| refused(format!(" ({error})")));
        let per_day = size(per_day)?;
        let burst = match rest.strip_prefix(':') {
            Some(burst) => size(burst)?,
            None if rest.is_empty() => (per_day / 10).max(Self::LEAST),
            None => return Err(refused(String::new())),
        };
        if per_day < Self::LEAST || burst < Self::LEAST {
            return Err(refused(String::new()));
        }
        Ok(Self(Some(DailyBytes { per_day, burst })))
    }
}

/// Keeps a part of the cache free: `never`, or `high=90%,low=80%,every=1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Purge(pub(super) Option<Watermarks>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    /// Percent of the lines, `low < high`.
    pub(super) high: u8,
    pub(super) low: u8,
    pub(super) every: Duration,
}

impl Purge {
    /// Lines go only when others need their places.
    pub const NEVER: Self = Self(None);
}

impl Display for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("never"),
            Some(Watermarks { high, low, every }) => {
                write!(f, "high={high}%,low={low}%,every={}", grammar::shown_duration(every))
            }
        }
    }
}

impl FromStr for Purge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::NEVER);
        }
        let (mut high, mut low, mut every) = (None, None, Duration::from_secs(60));
        for (field, value) in grammar::fields("purge", text)? {
            match field {
                "high" => high = Some(grammar::percent("high", value)?),
                "low" => low = Some(grammar::percent("low", value)?),
                "every" => every = grammar::duration("every", value)?,
                _ => return Err(grammar::unknown("purge", field, "high, low or every")),
            }
        }
        match (high, low) {
            (Some(high), Some(low)) if low < high => {
                Ok(Self(Some(Watermarks { high, low, every })))
            }
            _ => Err(format!(
                "purge '{text}': must be never, or have low below high, such as \
                 high=90%,low=80%,every=1m"
            )),
        }
    }
}

/// Everything that can be chosen. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// Which missed lines are stored.
    pub admission: Admission,
    /// How much may be written to the cache device.
    pub endurance: Endurance,
    /// How much of a sequential run is cached, for volumes without one of their own.
    pub sequential_cutoff: SequentialCutoff,
    /// How much is read from the origin around what was missed.
    pub fill_width: FillWidth,
    /// Whether a part of the cache is kept free.
    pub purge: Purge,
    /// How much of the cache pins may take together.
    pub pin_max: Share,
    /// Which requests belong to which class; the first match wins.
    pub classes: Vec<ClassRule>,
    /// What is different for a volume.
    pub volumes: Vec<VolumeRule>,
    /// What stays in the cache once it is there.
    pub pins: Vec<Pin>,
}

impl Default for PolicySettings {
    /// What suits most: see `docs/design/0005-policies.md` for the reasons.
    fn default() -> Self {
        Self {
            admission: Admission::default(),
            endurance: Endurance::default(),
            sequential_cutoff: SequentialCutoff::default(),
            fill_width: FillWidth::default(),
            purge: Purge::default(),
            pin_max: Share::of_percent(25),
            classes: Vec::new(),
            volumes: Vec::new(),
            pins: Vec::new(),
        }
    }
}

impl PolicySettings {
    /// The settings' names, in the order of [`entries`](Self::entries).
    pub const NAMES: [&'static str; 9] = [
        "admission",
        "endurance",
        "sequential-cutoff",
        "fill-width",
        "purge",
        "pin-max",
        "class",
        "volume",
        "pin",
    ];

    /// Every setting, as [`change`](Self::change) reads it.
    pub fn entries(&self) -> [(&'static str, String); 9] {
        let values = [
            self.admission.to_string(),
            self.endurance.to_string(),
            self.sequential_cutoff.to_string(),
            self.fill_width.to_string(),
            self.purge.to_string(),
            self.pin_max.to_string(),
            rules::shown(&self.classes),
            rules::shown(&self.volumes),
            rules::shown(&self.pins),
        ];
        let mut names = Self::NAMES.into_iter();
        values.map(|value| (names.next().expect("as many names as values"), value))
    }

    /// Changes one setting; lists are replaced whole. Nothing is changed on an error.
    ///
    /// # Errors
    /// When there is no such setting, the value is not one of its values, or the settings would
    /// contradict each other; in words for a person.
    pub fn change(&mut self, name: &str, value: &str) -> Result<(), String> {
        let mut changed = self.clone();
        match name {
            "admission" => changed.admission = value.parse()?,
            "endurance" => changed.endurance = value.parse()?,
            "sequential-cutoff" => changed.sequential_cutoff = value.parse()?,
            "fill-width" => changed.fill_width = value.parse()?,
            "purge" => changed.purge = value.parse()?,
            "pin-max" => changed.pin_max = Share::parse("pin-max", value)?,
            "class" => changed.classes = rules::list(value)?,
            "volume" => changed.volumes = rules::list(value)?,
            "pin" => changed.pins = rules::list(value)?,
            _ => {
                let known = Self::NAMES.join(", ");
                return Err(format!("setting '{name}': must be one of {known}"));
            }
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// Whether the settings agree with each other.
    ///
    /// # Errors
    /// The first contradiction, in words for a person.
    pub fn check(&self) -> Result<(), String> {
        check_rules(&self.classes, &self.volumes, &self.pins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(name: &str, value: &str) -> Result<PolicySettings, String> {
        let mut settings = PolicySettings::default();
        settings.change(name, value).map(|()| settings)
    }

    #[test]
    fn every_setting_reads_as_it_prints() {
        let defaults = PolicySettings::default();
        let mut again = PolicySettings::default();
        for (name, value) in defaults.entries() {
            again.change(name, &value).expect("a default");
        }
        assert_eq!(again, defaults);
        for (name, value) in [
            ("admission", "second-miss"),
            ("endurance", "200GiB/day:20GiB"),
            ("sequential-cutoff", "never"),
            ("sequential-cutoff", "64KiB"),
            ("sequential-cutoff", "1MiB:when-full"),
            ("fill-width", "line"),
            ("purge", "high=90%,low=80%,every=5m"),
            ("pin-max", "10GiB"),
            (
                "class",
                "class=db,volume=pg,range=0-10GiB,size=..16KiB,direction=write,min=10%,max=50%,\
                 admit=never;class=scan,size=256KiB..;class=default,max=1GiB",
            ),
            ("volume", "volume=pg,min=10%,max=50%,cutoff=4MiB:when-full;volume=vm"),
            ("pin", "volume=pg,range=0-1GiB;volume=pg,range=4KiB-8KiB"),
        ] {
            let settings = changed(name, value).expect(value);
            let shown = settings.entries().into_iter().find(|(other, _)| *other == name);
            assert_eq!(shown, Some((name, value.to_owned())));
        }
        let endurance = changed("endurance", "200GiB/day").expect("a tenth at once").endurance;
        assert_eq!(endurance.to_string(), "200GiB/day:20GiB");
    }

    #[test]
    fn errors_name_the_field_the_value_and_what_would_be_right() {
        for (name, value, expected) in [
            ("cutoff", "1MiB", "setting 'cutoff': must be one of admission, endurance"),
            ("admission", "nhit", "admission 'nhit': must be one of always, second-miss, never"),
            ("fill-width", "", "fill-width '': must be one of requested"),
            ("sequential-cutoff", "0", "sequential-cutoff '0': must be never, or a size"),
            ("sequential-cutoff", "1MB", "unit `MB`"),
            ("sequential-cutoff", "1MiB:full", "such as 1MiB or 1MiB:when-full"),
            ("endurance", "200GiB", "endurance '200GiB': must be unlimited, or bytes a day"),
            ("endurance", "200GiB/dayé", "must be unlimited"),
            ("endurance", "200GiB/day:1k", "each at least 1MiB"),
            ("purge", "high=80%,low=90%", "must be never, or have low below high"),
            ("purge", "high=80%,low=70%,by=1", "unknown field 'by': must be high, low or every"),
            ("pin-max", "200%", "pin-max '200%': must be 0% to 100%"),
            ("pin", "volume=pg,range=5-", "must be a volume and a range with an end"),
            ("volume", "max=5%", "must name its volume"),
            ("volume", "volume=a,min=60%;volume=b,min=41%", "minima are 101% together"),
            ("volume", "volume=a;volume=a", "must be the only one of its volume"),
            ("class", "", "'' must be field=value"),
            ("class", "volume=pg", "must name its class"),
            ("class", "class=a,pid=3", "unknown field 'pid': must be class, volume"),
            ("class", "class=a,min=5%,max=4%", "min must not be above max"),
            ("class", "class=a;class=b,volume=pg", "is never reached, because 'class=a' before"),
            ("class", "class=a,volume=x,max=1%;class=a,volume=y,max=2%", "in one of its rules"),
            ("class", "class=a,direction=trim", "direction 'trim': must be one of read, write"),
        ] {
            let error = changed(name, value).expect_err(value);
            assert!(error.contains(expected), "{name} {value}: {error}");
        }
        let classes = |count: usize| {
            let rules: Vec<_> = (0..count).map(|n| format!("class=c{n},volume=pg")).collect();
            changed("class", &rules.join(";"))
        };
        assert!(classes(15).is_ok());
        assert!(classes(16).expect_err("too many").contains("must be at most 15 beside"));
        let same = vec!["class=a,volume=pg"; 65].join(";");
        assert!(changed("class", &same).expect_err("too many").contains("65 rules"));
    }

    #[test]
    fn an_error_changes_nothing() {
        let mut settings = changed("volume", "volume=a,min=60%").expect("fine");
        let before = settings.clone();
        assert!(settings.change("volume", "volume=a,min=60%;volume=b,min=50%").is_err());
        assert_eq!(settings, before);
    }
}
