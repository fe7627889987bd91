//! The grammar of `forebay replay`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use cache_engine::advice::simulate::Policy;
use cache_engine::advice::trace::{CsvColumns, Format, TraceOptions};
use cache_engine::backend::address::Size;
use cache_engine::cache::{CacheMode, LineSize};
use clap::{Args, ValueEnum};

use super::plot;
use crate::failure::Failure;

/// `forebay replay`.
#[derive(Debug, Args)]
#[command(long_about = "\
Say what caches of some sizes would have done for recorded requests.

Replays each trace in simulated caches of every size, line size and policy asked for, and shows \
how many reads they would have answered, and how many bytes they would have read from the origin \
all the same. `ours` is this cache's own code. Formats: the ARC paper's lists, CSV (CloudPhysics \
and others, with --csv-columns), libCacheSim's oracleGeneral, blkparse's text, blktrace's records \
(merge the CPUs by `blkparse -d`), fio's iolog 2 and 3; each plain or compressed by zstd.")]
#[command(after_long_help = "\
Examples:
  How large should a cache be?
    forebay replay OLTP.lis.zst --plot curve.svg

  Which line size, at 64 MiB and at a tenth of what is used?
    forebay replay disk.csv --size 64MiB,10% --line-size 4k,16k,64k --policy ours

  What a running machine's disk would gain:
    blktrace -d /dev/sdb -w 600 && blkparse sdb -d sdb.blktrace
    forebay replay sdb.blktrace --json

  A CSV file without a header:
    forebay replay msr.csv --csv-columns 'offset-col=5, obj-size-col=6, op-col=4'")]
pub(crate) struct ReplayArguments {
    /// Files of recorded requests
    #[arg(value_name = "TRACE", required = true)]
    pub(super) traces: Vec<PathBuf>,

    /// Format of the traces: arc, csv, oracle-general, blkparse, blktrace or iolog; found out from
    /// their first bytes where not given
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Columns of a CSV file, counted from 1, as libCacheSim writes them: 'obj-id-col=5,
    /// obj-size-col=4, op-col=3, has-header=true'; offset-col is in bytes
    #[arg(long, value_name = "COLUMNS")]
    csv_columns: Option<CsvColumns>,

    /// What block numbers count by in CSV and oracle-general traces
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = address_unit)]
    address_unit: u64,

    /// Cache sizes: per cent of the different blocks in the trace, or bytes [default: 1%,10%, and
    /// more for a plot]
    #[arg(long = "size", value_name = "SIZE", value_delimiter = ',')]
    sizes: Vec<CacheSize>,

    /// Bytes in a cache line: 4k, 8k, 16k, 32k or 64k
    #[arg(long = "line-size", value_name = "SIZE", value_delimiter = ',', default_value = "4k")]
    pub(super) line_sizes: Vec<LineSize>,

    /// What chooses the lines that stay: ours, s3-fifo, lru or belady (which knows the future)
    #[arg(long = "policy", value_name = "POLICY", value_delimiter = ',')]
    #[arg(default_value = "ours,s3-fifo,lru,belady")]
    pub(super) policies: Vec<Policy>,

    /// What is cached: write-through or write-around (reads only)
    #[arg(long, default_value_t)]
    pub(super) mode: CacheMode,

    /// What a miss brings: the blocks of 4 KiB that were asked for, or whole lines
    #[arg(long, value_name = "WHAT", default_value = "blocks")]
    pub(super) fill: Fill,

    /// Print JSON for programs, on one line
    #[arg(long)]
    pub(super) json: bool,

    /// Also draw hit ratio over size into this file, .svg or .png
    #[arg(long, value_name = "FILE", value_parser = plot::PlotFile::parse)]
    pub(super) plot: Option<plot::PlotFile>,
}

/// Sizes of a plot: close enough for a curve.
const PLOT_SIZES: [f64; 11] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 70.0, 100.0];
/// Sizes of a table.
const TABLE_SIZES: [f64; 2] = [1.0, 10.0];

impl ReplayArguments {
    /// What the grammar cannot say.
    ///
    /// # Errors
    /// A mode that caches nothing.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.mode == CacheMode::PassThrough {
            let message = "--mode pass-through: must be write-through or write-around, for \
                           pass-through caches nothing";
            return Err(Failure::Usage(message.to_owned()));
        }
        Ok(())
    }

    pub(super) fn trace_options(&self) -> TraceOptions {
        TraceOptions {
            format: self.format,
            csv_columns: self.csv_columns.clone(),
            address_unit: self.address_unit,
        }
    }

    pub(super) fn sizes(&self) -> Vec<CacheSize> {
        let shares = if self.plot.is_some() { &PLOT_SIZES[..] } else { &TABLE_SIZES };
        if self.sizes.is_empty() {
            return shares.iter().map(|percent| CacheSize::Percent(*percent)).collect();
        }
        self.sizes.clone()
    }
}

/// What a miss brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Fill {
    /// The blocks that were asked for
    Blocks,
    /// Whole lines
    Lines,
}

/// The size of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum CacheSize {
    /// Of the different blocks in the trace.
    Percent(f64),
    Bytes(u64),
}

impl CacheSize {
    pub(super) fn bytes(self, footprint: u64) -> u64 {
        match self {
            Self::Percent(percent) => (footprint as f64 * percent / 100.0).round() as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

impl FromStr for CacheSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.trim().parse().ok().filter(|p| *p > 0.0 && *p <= 100.0);
            return percent.map(Self::Percent).ok_or_else(|| {
                format!("size `{text}`: must be more than 0% and at most 100%, such as 1% or 0.5%")
            });
        }
        let size: Size = text.parse().map_err(|error| format!("{error}, or per cent: 10%"))?;
        if size.bytes() == 0 {
            return Err(format!("size `{text}`: must be more than 0 bytes"));
        }
        Ok(Self::Bytes(size.bytes()))
    }
}

fn address_unit(text: &str) -> Result<u64, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    let bytes = size.bytes();
    if bytes.is_power_of_two() && bytes <= 1 << 20 {
        return Ok(bytes);
    }
    Err(format!("address unit `{text}`: must be a power of two from 1 to 1M bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shares_or_bytes() {
        assert_eq!("0.5%".parse(), Ok(CacheSize::Percent(0.5)));
        assert_eq!("64MiB".parse(), Ok(CacheSize::Bytes(64 << 20)));
        assert_eq!(CacheSize::Percent(1.0).bytes(4096 * 250), 10240);
        assert_eq!(CacheSize::Bytes(7).bytes(4096), 7);
        for text in ["0%", "101%", "-1%", "NaN%", "x%", "%", "0", "1.5G", "inf%"] {
            let error = text.parse::<CacheSize>().expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn address_units_are_powers_of_two() {
        assert_eq!(address_unit("4k"), Ok(4096));
        assert_eq!(address_unit("1"), Ok(1));
        for text in ["0", "3", "2M"] {
            assert!(address_unit(text).is_err(), "{text}");
        }
    }
}
