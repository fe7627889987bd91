//! What an operator chooses: parsed once, so that an invalid value cannot exist further down.

use std::fmt;
use std::str::FromStr;

use super::metadata::activity_page::PLACES;
use super::policy::PolicySettings;

/// What the cache does with reads and writes; may be changed while requests are in flight, and
/// takes effect for each request as it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CacheMode {
    /// Writes go to the origin and into the cache; reads fill the cache.
    #[default]
    WriteThrough,
    /// Writes go to the origin and drop the cached copy; reads fill the cache.
    WriteAround,
    /// Everything goes to the origin; writes still drop the cached copy, so that what is cached
    /// stays right for a later switch back.
    PassThrough,
}

impl CacheMode {
    /// Every mode, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::WriteThrough, Self::WriteAround, Self::PassThrough];
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteThrough => "write-through",
            Self::WriteAround => "write-around",
            Self::PassThrough => "pass-through",
        })
    }
}

impl FromStr for CacheMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mode| mode.to_string() == text).ok_or_else(|| {
            format!("mode '{text}': must be write-through, write-around or pass-through")
        })
    }
}

/// Bytes in a cache line: the unit of lookup and eviction. Validity is kept per 4 KiB block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineSize(u32);

impl LineSize {
    /// Every size there is, ascending.
    pub const ALL: [Self; 5] =
        [Self(4 << 10), Self(8 << 10), Self(16 << 10), Self(32 << 10), Self(64 << 10)];

    /// The size of `bytes` bytes.
    ///
    /// # Errors
    /// When it is none of 4096, 8192, 16384, 32768 and 65536.
    pub fn from_bytes(bytes: u64) -> Result<Self, String> {
        Self::ALL.into_iter().find(|size| u64::from(size.0) == bytes).ok_or_else(|| {
            format!("line size {bytes}: must be 4096, 8192, 16384, 32768 or 65536 bytes")
        })
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    pub(crate) const fn shift(self) -> u32 {
        self.0.trailing_zeros()
    }
}

impl Default for LineSize {
    /// 16 KiB: a quarter of the memory of 4 KiB lines, and a gain in hits where requests have
    /// spatial locality.
    fn default() -> Self {
        Self(16 << 10)
    }
}

impl fmt::Display for LineSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}k", self.0 >> 10)
    }
}

impl FromStr for LineSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|size| size.to_string() == text || size.0.to_string() == text)
            .ok_or_else(|| format!("line size '{text}': must be 4k, 8k, 16k, 32k or 64k"))
    }
}

/// A volume's number in its cache: its place in the table of volumes, below [`VOLUMES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VolumeId(pub u16);

/// Volumes that one cache serves at the most.
pub const VOLUMES_MAX: usize = 256;

/// When what the cache device returns is checked against the checksum of what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Verification {
    /// Not at all. After an unclean stop nothing can be trusted then, and the cache starts cold.
    Never,
    /// The first time that a line is read after an unclean stop.
    #[default]
    AfterUncleanStop,
    /// Every time. Costs 1 MiB of memory a GiB of cache, and the time of the check.
    Always,
}

impl Verification {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Never, Self::AfterUncleanStop, Self::Always];
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::AfterUncleanStop => "after-unclean-stop",
            Self::Always => "always",
        })
    }
}

impl FromStr for Verification {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|when| when.to_string() == text).ok_or_else(|| {
            format!("verification '{text}': must be never, after-unclean-stop or always")
        })
    }
}

/// Records that can wait in a small cache, if it has that many lines: what a client fills while one
/// write of the journal is on its way. About 150 KiB.
pub(crate) const RECORDS_MIN: u64 = 2048;

/// How a cache is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheConfig {
    /// Line size.
    pub line_size: LineSize,
    /// When what is read from the cache device is checked.
    pub verification: Verification,
    /// Client requests in flight at the most, of all volumes; further ones are handed back.
    pub requests_max: usize,
    /// Stores into the cache device in flight at the most; further data is not cached. Bounds the
    /// memory that a slow cache device can hold on to.
    pub fills_max: usize,
    /// Errors of the cache device within a minute of each other that it may have; one more, and
    /// the cache is given up.
    pub errors_max: u32,
    /// Lines sampled at a time for the miss-ratio curve ([`Cache::miss_ratio_curve`]), each about
    /// 100 bytes of memory; 0 draws none.
    ///
    /// [`Cache::miss_ratio_curve`]: super::Cache::miss_ratio_curve
    pub miss_ratio_samples: usize,
    /// Extents of 4 MiB that a page of the activity log names at the most, up to what it has room
    /// for. A crash drops what was cached of them; the fewer, the more often they are written.
    pub extents_per_page: usize,
    /// Records of lines that can wait at the least, in a cache that has so many lines: more than
    /// `fills_max` and 32, or nothing can be dropped beside the stores in flight.
    pub records_min: u64,
    /// What enters the cache, and what leaves it.
    pub policy: PolicySettings,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            line_size: LineSize::default(),
            verification: Verification::default(),
            requests_max: 256,
            fills_max: 512,
            errors_max: 64,
            miss_ratio_samples: 8192,
            extents_per_page: PLACES,
            records_min: RECORDS_MIN,
            policy: PolicySettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_line_sizes_read_as_they_print() {
        for mode in CacheMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for size in LineSize::ALL {
            assert_eq!(size.to_string().parse(), Ok(size));
            assert_eq!(LineSize::from_bytes(size.bytes()), Ok(size));
        }
        for when in Verification::ALL {
            assert_eq!(when.to_string().parse(), Ok(when));
        }
        assert!("writeback".parse::<CacheMode>().expect_err("unknown").contains("'writeback'"));
        assert!("12k".parse::<LineSize>().expect_err("unknown").contains("'12k'"));
        assert!(LineSize::from_bytes(512).is_err());
    }
}
