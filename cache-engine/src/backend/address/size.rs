//! Sizes as people write them: `4k`, `10M`, `1GiB`, plain bytes.
//!
//! Units are powers of 1024. Decimal-looking units (`MB`) are refused, because half the world
//! means 1000 by them; fractions are refused, because they need not come out as whole bytes.

use std::fmt;
use std::str::FromStr;

use super::AddressError;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Letters of the units, from KiB up.
const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

impl Size {
    /// A size of `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(AddressError::new(format!(
                "size `{text}`: must begin with a whole number, such as 4k, 10M, 1GiB or 4096"
            )));
        }
        if unit.starts_with(['.', ',']) {
            return Err(AddressError::new(format!(
                "size `{text}`: must be a whole number of a smaller unit, such as 1536M for 1.5G"
            )));
        }
        let too_large = || {
            AddressError::new(format!("size `{text}`: must be at most {} bytes (16 EiB)", u64::MAX))
        };
        let number: u64 = number.parse().map_err(|_| too_large())?;
        let shift = shift_of(unit, text)?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(too_large)
    }
}

/// The power of two that `unit` stands for.
fn shift_of(unit: &str, text: &str) -> Result<u32, AddressError> {
    let mut letters = unit.chars();
    let Some(letter) = letters.next() else { return Ok(0) };
    let rest = letters.as_str();
    if letter.eq_ignore_ascii_case(&'b') && rest.is_empty() {
        return Ok(0);
    }
    let known = UNITS.iter().position(|known| letter.eq_ignore_ascii_case(known));
    match (known, rest) {
        (Some(index), "" | "i" | "iB" | "ib" | "IB") => Ok(10 * (index as u32 + 1)),
        (Some(index), "B" | "b") => Err(AddressError::new(format!(
            "size `{text}`: unit `{unit}` may mean powers of 1000 or 1024; write {}iB (1024)",
            UNITS[index]
        ))),
        _ => Err(AddressError::new(format!(
            "size `{text}`: unknown unit `{unit}`; known are k, M, G, T, P (also as KiB, MiB, …), \
             powers of 1024"
        ))),
    }
}

impl fmt::Display for Size {
    /// In the largest unit that leaves a whole number, so that it parses back to the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = (self.0.trailing_zeros() / 10).min(UNITS.len() as u32);
        match units {
            _ if self.0 == 0 => f.write_str("0"),
            0 => write!(f, "{}", self.0),
            units => write!(f, "{}{}iB", self.0 >> (10 * units), UNITS[units as usize - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_sizes() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("512", 512, "512"),
            ("512B", 512, "512"),
            ("4k", 4096, "4KiB"),
            ("4K", 4096, "4KiB"),
            ("4KiB", 4096, "4KiB"),
            ("4kib", 4096, "4KiB"),
            ("4096", 4096, "4KiB"),
            ("10M", 10 << 20, "10MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1Gi", 1 << 30, "1GiB"),
            ("1536M", 1536 << 20, "1536MiB"),
            ("2t", 2 << 40, "2TiB"),
            ("3P", 3 << 50, "3PiB"),
            ("4097", 4097, "4097"),
            ("18446744073709551615", u64::MAX, "18446744073709551615"),
        ] {
            let size: Size = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(size), "what is shown parses back");
        }
    }

    #[test]
    fn bad_sizes_are_told_what_would_be_right() {
        for (text, expected) in [
            ("", "whole number"),
            ("k", "whole number"),
            ("-1", "whole number"),
            (" 4k", "whole number"),
            ("4 k", "unknown unit ` k`"),
            ("4x", "unknown unit `x`"),
            ("4kk", "unknown unit `kk`"),
            ("4Kéé", "unknown unit `Kéé`"),
            ("1.5G", "smaller unit"),
            ("1,5G", "smaller unit"),
            ("10MB", "write MiB"),
            ("10gb", "write GiB"),
            ("18446744073709551616", "at most"),
            ("16384P", "at most"),
            ("99999999999999999999k", "at most"),
        ] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains(&format!("size `{text}`")), "{text}: {error}");
        }
    }
}
