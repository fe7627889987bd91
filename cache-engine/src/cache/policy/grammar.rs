//! The small grammar in which settings are written: `field=value,field=value`.
//!
//! ```text
//!   class=db,volume=pg,range=0-10GiB,size=..16k,direction=write,min=10%,max=50%,admit=never
//!   └field─┘ └fields, each at most once, in any order──────────────────────────────────────┘
//! ```
//! Every value prints as it reads. Sizes are those of the addresses (`4k`, `10GiB`).
//!
//! Absent: quoting. A name that contains a comma, a semicolon or an equals sign cannot be written,
//! and is refused where names are given.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use crate::backend::address::Size;

/// Bytes of a volume's or class's name at the most.
const NAME_MAX: usize = 64;

/// The fields of `text`, in order. Each stands at most once.
pub(super) fn fields<'text>(
    setting: &str,
    text: &'text str,
) -> Result<Vec<(&'text str, &'text str)>, String> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for field in text.split(',') {
        let Some((name, value)) = field.split_once('=') else {
            return Err(format!(
                "{setting} '{text}': '{field}' must be field=value, fields separated by commas"
            ));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(format!("{setting} '{text}': field '{name}' must stand once"));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// The error for a field that `setting` does not have.
pub(super) fn unknown(setting: &str, field: &str, known: &str) -> String {
    format!("{setting}: unknown field '{field}': must be {known}")
}

/// The one of `all` that prints as `text`.
pub(super) fn one_of<Choice: Copy + Display>(
    field: &str,
    text: &str,
    all: &[Choice],
) -> Result<Choice, String> {
    all.iter().copied().find(|choice| choice.to_string() == text).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(Choice::to_string).collect();
        format!("{field} '{text}': must be one of {}", known.join(", "))
    })
}

/// A name of a volume or class.
pub(super) fn name(field: &str, text: &str) -> Result<String, String> {
    let plain = |character: char| !character.is_control() && !",;= ".contains(character);
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(plain) {
        return Err(format!(
            "{field} '{text}': must be a name of 1 to {NAME_MAX} bytes without space, comma, \
             semicolon or equals sign"
        ));
    }
    Ok(text.to_owned())
}

/// A number of bytes.
pub(super) fn bytes(field: &str, text: &str) -> Result<u64, String> {
    text.parse().map(Size::bytes).map_err(|error| format!("{field}: {error}"))
}

/// A number of bytes, as it reads.
pub(super) fn shown(bytes: u64) -> Size {
    Size::from_bytes(bytes)
}

/// A whole number of percent up to 100.
pub(super) fn percent(field: &str, text: &str) -> Result<u8, String> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("{field} '{text}': must be 0% to 100%, in whole percent"))
}

/// A time of whole seconds, minutes, hours or days, at least a second and at most a year.
pub(super) fn duration(field: &str, text: &str) -> Result<Duration, String> {
    let refused =
        || format!("{field} '{text}': must be a whole number and s, m, h or d, from 1s to 365d");
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let (_, scale) = UNITS.into_iter().find(|(known, _)| *known == unit).ok_or_else(refused)?;
    let digits = &text[..text.len() - 1];
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| plain).ok_or_else(refused)?;
    let seconds = count.checked_mul(scale).filter(|all| (1..=365 * 86_400).contains(all));
    seconds.map(Duration::from_secs).ok_or_else(refused)
}

/// Largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// A time of whole seconds, as it reads.
pub(super) fn shown_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, scale) =
        UNITS.into_iter().find(|(_, scale)| seconds.is_multiple_of(*scale)).unwrap_or(('s', 1));
    format!("{}{unit}", seconds / scale)
}

/// A part of the cache: of its capacity in percent, or in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(Amount);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Percent(u8),
    Bytes(u64),
}

impl Share {
    /// A share of `percent` of the capacity; more than 100 are 100.
    pub const fn of_percent(percent: u8) -> Self {
        Self(Amount::Percent(if percent > 100 { 100 } else { percent }))
    }

    /// A share of so many bytes.
    pub const fn of_bytes(bytes: u64) -> Self {
        Self(Amount::Bytes(bytes))
    }

    /// In lines of a cache of `slots` lines of `line` bytes, rounded down, at most all of them.
    pub(super) fn lines(self, slots: u64, line: u64) -> u64 {
        match self.0 {
            Amount::Percent(percent) => {
                (u128::from(slots) * u128::from(percent) / 100).try_into().unwrap_or(slots)
            }
            Amount::Bytes(bytes) => (bytes / line).min(slots),
        }
    }

    /// In percent, if it is written so.
    pub(super) fn percent(self) -> Option<u8> {
        match self.0 {
            Amount::Percent(percent) => Some(percent),
            Amount::Bytes(_) => None,
        }
    }

    pub(super) fn parse(field: &str, text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            return percent(field, text).map(Self::of_percent);
        }
        bytes(field, text)
            .map(Self::of_bytes)
            .map_err(|error| format!("{error}; or a share of the cache such as 10%"))
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Amount::Percent(percent) => write!(f, "{percent}%"),
            Amount::Bytes(bytes) => write!(f, "{}", shown(bytes)),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse("share", text)
    }
}

/// A volume's bytes from `start` up to, not including, `end`: `0-10GiB`; `10GiB-` has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    pub(super) const ALL: Self = Self { start: 0, end: u64::MAX };

    pub(super) fn parse(field: &str, text: &str) -> Result<Self, String> {
        let Some((start, end)) = text.split_once('-') else {
            return Err(format!(
                "{field} '{text}': must be START-END in bytes of the volume (the end not \
                 included), such as 0-10GiB or 10GiB-"
            ));
        };
        let start = bytes(field, start)?;
        let end = if end.is_empty() { u64::MAX } else { bytes(field, end)? };
        if start >= end {
            return Err(format!("{field} '{text}': the end must be above the start"));
        }
        Ok(Self { start, end })
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", shown(self.start))?;
        if self.end == u64::MAX { Ok(()) } else { write!(f, "{}", shown(self.end)) }
    }
}

/// Requests of `least` to `most` bytes, both included: `4k..16k`, `..16k`, `64k..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Sizes {
    pub(super) const ALL: Self = Self { least: 0, most: u64::MAX };

    pub(super) fn parse(field: &str, text: &str) -> Result<Self, String> {
        let Some((least, most)) = text.split_once("..") else {
            return Err(format!(
                "{field} '{text}': must be LEAST..MOST bytes of a request, both included, such \
                 as 4k..16k, ..16k or 64k.."
            ));
        };
        let least = if least.is_empty() { 0 } else { bytes(field, least)? };
        let most = if most.is_empty() { u64::MAX } else { bytes(field, most)? };
        if least > most {
            return Err(format!("{field} '{text}': the most must not be below the least"));
        }
        Ok(Self { least, most })
    }
}

impl Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least > 0 {
            write!(f, "{}", shown(self.least))?;
        }
        f.write_str("..")?;
        if self.most == u64::MAX { Ok(()) } else { write!(f, "{}", shown(self.most)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_they_read() {
        for text in ["0%", "100%", "10GiB", "4097"] {
            assert_eq!(text.parse::<Share>().map(|share| share.to_string()), Ok(text.to_owned()));
        }
        for text in ["0-10GiB", "10GiB-", "4KiB-1MiB"] {
            assert_eq!(Range::parse("range", text).map(|r| r.to_string()), Ok(text.to_owned()));
        }
        for text in ["..16KiB", "64KiB..", "4KiB..16KiB", ".."] {
            assert_eq!(Sizes::parse("size", text).map(|s| s.to_string()), Ok(text.to_owned()));
        }
        for text in ["1s", "90s", "5m", "1h", "365d"] {
            assert_eq!(duration("every", text).map(shown_duration), Ok(text.to_owned()));
        }
    }

    #[test]
    fn errors_name_field_value_and_what_would_be_right() {
        let share = |text: &str| text.parse::<Share>().expect_err(text);
        for (error, expected) in [
            (share("101%"), "'101%': must be 0% to 100%"),
            (share("-1%"), "'-1%': must be 0%"),
            (share("+5%"), "'+5%': must be 0%"),
            (share("ten"), "or a share of the cache such as 10%"),
            (Range::parse("range", "5").expect_err("5"), "range '5': must be START-END"),
            (Range::parse("range", "5-5").expect_err("5-5"), "end must be above"),
            (Range::parse("range", "1GB-").expect_err("1GB-"), "range: size `1GB`"),
            (Sizes::parse("size", "16k").expect_err("16k"), "size '16k': must be LEAST..MOST"),
            (Sizes::parse("size", "2..1").expect_err("2..1"), "not be below"),
            (duration("every", "").expect_err("empty"), "every ''"),
            (duration("every", "5é").expect_err("é"), "s, m, h or d"),
            (duration("every", "0s").expect_err("0s"), "from 1s"),
            (duration("every", "99999999999999999999d").expect_err("big"), "to 365d"),
            (name("class", "a b").expect_err("a b"), "class 'a b': must be a name"),
            (fields("pin", "a=1,a=2").expect_err("twice"), "field 'a' must stand once"),
            (fields("pin", "a=1,").expect_err("empty"), "'' must be field=value"),
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn shares_are_lines_rounded_down_and_at_most_all() {
        assert_eq!(Share::of_percent(33).lines(10, 4096), 3);
        assert_eq!(Share::of_percent(100).lines(u64::MAX, 4096), u64::MAX);
        assert_eq!(Share::of_bytes(8191).lines(10, 4096), 1);
        assert_eq!(Share::of_bytes(u64::MAX).lines(10, 4096), 10);
    }
}
