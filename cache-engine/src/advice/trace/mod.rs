//! Traces of block requests, in the formats that people have.
//!
//! ```text
//!   bytes ──▶ compression ──▶ detect ──┬─▶ text    arc_list, csv, blkparse, iolog ─┐
//!             (zstd or none)           └─▶ records oracle_general, blktrace ───────┴─▶ Access
//! ```
//! A parser sees one line or record at a time and says what request it is, if any. Whatever it
//! cannot take is an error that names the place, the value and what would be right.
//!
//! Absent: times and processes; nothing here asks for them.

mod arc_list;
mod blkparse;
mod blktrace;
mod compression;
mod csv;
mod detect;
mod error;
mod iolog;
mod oracle_general;
mod text;

pub use csv::CsvColumns;
pub use error::TraceError;

use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

use block_io::Extent;

use error::Place;

/// One recorded read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its bytes; at least one, at most [`LENGTH_MAX`], ending at [`ADDRESS_MAX`] at the latest.
    pub extent: Extent,
    /// A write; otherwise a read.
    pub is_write: bool,
}

/// The longest request that is believed, in bytes.
pub const LENGTH_MAX: u64 = 1 << 30;

/// The end of the largest device that is believed, in bytes.
pub const ADDRESS_MAX: u64 = 1 << 60;

/// Bytes that block numbers count by, unless an option says otherwise.
pub const ADDRESS_UNIT: u64 = 512;

/// A format of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `start_block count ignored sequence` in blocks of 512 bytes: the traces of the ARC paper.
    ArcList,
    /// Comma-separated values with columns for address, size and operation.
    Csv,
    /// Records of 24 bytes: `u32` time, `u64` object, `u32` size, `i64` next access.
    OracleGeneral,
    /// What `blkparse` prints.
    Blkparse,
    /// What `blktrace` writes, or `blkparse -d`.
    Blktrace,
    /// What fio's `write_iolog` writes, version 2 or 3.
    Iolog,
}

impl Format {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::ArcList,
        Self::Csv,
        Self::OracleGeneral,
        Self::Blkparse,
        Self::Blktrace,
        Self::Iolog,
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArcList => "arc",
            Self::Csv => "csv",
            Self::OracleGeneral => "oracle-general",
            Self::Blkparse => "blkparse",
            Self::Blktrace => "blktrace",
            Self::Iolog => "iolog",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.to_string() == text).ok_or_else(|| {
            let all = Self::ALL.map(|format| format.to_string()).join(", ");
            format!("format `{text}`: must be one of {all}")
        })
    }
}

/// How a trace is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// Its format; found out from its first bytes where none is given.
    pub format: Option<Format>,
    /// Where a CSV file has what; found out from its header where nothing is given.
    pub csv_columns: Option<CsvColumns>,
    /// Bytes that the block numbers of CSV and oracle-general traces count by.
    pub address_unit: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { format: None, csv_columns: None, address_unit: ADDRESS_UNIT }
    }
}

/// Reads a trace, compressed by zstd or not, and hands each request to `sink` in order. Returns
/// the format it was in.
///
/// # Errors
/// The first place that is not of the format, or that there is no request at all.
pub fn read(
    source: &mut dyn BufRead,
    options: &TraceOptions,
    sink: &mut dyn FnMut(Access),
) -> Result<Format, TraceError> {
    let plain = compression::open(source)?;
    let (head, mut plain) = detect::look_ahead(plain)?;
    let format = match options.format {
        Some(format) => format,
        None => detect::format_of(&head, options.csv_columns.is_some())?,
    };
    let mut requests = 0u64;
    let mut counted = |access| {
        requests += 1;
        sink(access);
    };
    match format {
        Format::ArcList => text::read(&mut plain, &mut arc_list::ArcList, &mut counted)?,
        Format::Csv => {
            let columns = options.csv_columns.clone();
            let mut parser = csv::Csv::new(columns, options.address_unit);
            text::read(&mut plain, &mut parser, &mut counted)?;
        }
        Format::OracleGeneral => {
            oracle_general::read(&mut plain, options.address_unit, &mut counted)?;
        }
        Format::Blkparse => text::read(&mut plain, &mut blkparse::Blkparse, &mut counted)?,
        Format::Blktrace => blktrace::read(&mut plain, &mut counted)?,
        Format::Iolog => text::read(&mut plain, &mut iolog::Iolog::default(), &mut counted)?,
    }
    if requests == 0 {
        let message = format!("holds no read or write in the format {format}");
        return Err(TraceError::new(Place::Whole, message));
    }
    Ok(format)
}

/// Reads the next record of a binary trace, which begins at byte `place`. False at the end.
fn next_record(
    source: &mut dyn BufRead,
    place: u64,
    record: &mut [u8],
) -> Result<bool, TraceError> {
    if source.fill_buf().map_err(|error| TraceError::reading(&error))?.is_empty() {
        return Ok(false);
    }
    let length = record.len();
    source.read_exact(record).map_err(|_| {
        let message = format!("the trace is cut off; a record has {length} bytes");
        TraceError::new(Place::Byte(place), message)
    })?;
    Ok(true)
}

/// A request of `length` bytes from `number * unit` on; none when it is empty.
fn request(number: u64, unit: u64, length: u64, is_write: bool) -> Result<Option<Access>, String> {
    if length > LENGTH_MAX {
        return Err(format!("length {length}: must be at most {LENGTH_MAX} bytes"));
    }
    let offset = number.checked_mul(unit).filter(|offset| *offset <= ADDRESS_MAX - length);
    let Some(offset) = offset else {
        return Err(format!(
            "address {number} (times {unit} bytes): must lie below {ADDRESS_MAX} bytes; numbers \
             that are hashes are no addresses"
        ));
    };
    Ok((length > 0).then(|| Access { extent: Extent::new(offset, length), is_write }))
}

/// The number in `text`, which is the field `name`.
fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{name} `{}`: must be a whole number", shown(text)))
}

/// The start of a stranger's text, fit for a message.
fn shown(text: &str) -> String {
    const LENGTH_MAX: usize = 40;
    let mut shown: String = text.escape_debug().take(LENGTH_MAX).collect();
    if text.chars().nth(LENGTH_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
