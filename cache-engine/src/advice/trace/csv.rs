//! Comma-separated values: one request a line, in columns that a header or an option names.
//!
//! ```text
//!   version,time,op,size,lbn            CloudPhysics, as libCacheSim has it
//!   1,5633898,2a,512,42932745           op: a SCSI opcode; size: bytes; lbn: 512-byte blocks
//! ```
//! The option is written as libCacheSim's `--trace-type-params`, so that it can be copied:
//! `time-col=2, obj-id-col=5, obj-size-col=4, delimiter=,, has-header=true`. Columns count from 1.
//! Absent: quotes around delimiters.

use std::str::FromStr;

use super::text::LineParser;
use super::{Access, number, request, shown};

/// Where a CSV file has what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvColumns {
    address: Address,
    size: usize,
    operation: Option<usize>,
    delimiter: char,
    has_header: bool,
}

/// The column of a request's address, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Blocks(usize),
    Bytes(usize),
}

/// Names of columns that hold a block's number.
const BLOCK_NAMES: [&str; 6] = ["lbn", "lba", "sector", "block", "obj_id", "obj-id"];
/// Names of columns that hold an offset in bytes.
const OFFSET_NAMES: [&str; 2] = ["offset", "byte_offset"];
/// Names of columns that hold a length in bytes.
const SIZE_NAMES: [&str; 5] = ["size", "length", "bytes", "obj_size", "obj-size"];
/// Names of columns that tell reads from writes.
const OPERATION_NAMES: [&str; 6] = ["op", "operation", "opcode", "type", "rw", "cmd"];

/// What a column's number can be at most; far above what anybody's file has.
const COLUMN_MAX: usize = 1000;

const EXAMPLE: &str = "such as `obj-id-col=5, obj-size-col=4, op-col=3, has-header=true`";

impl CsvColumns {
    fn of_header(line: &str) -> Result<Self, String> {
        let delimiter = if line.contains(',') { ',' } else { ';' };
        let names: Vec<String> =
            line.split(delimiter).map(|name| unquoted(name).to_ascii_lowercase()).collect();
        let find = |wanted: &[&str]| {
            wanted.iter().find_map(|wanted| names.iter().position(|name| name == wanted))
        };
        let address = match (find(&OFFSET_NAMES), find(&BLOCK_NAMES)) {
            (Some(column), _) => Address::Bytes(column),
            (None, Some(column)) => Address::Blocks(column),
            (None, None) => return Err(unnamed(line, "address", &BLOCK_NAMES)),
        };
        let size = find(&SIZE_NAMES).ok_or_else(|| unnamed(line, "size", &SIZE_NAMES))?;
        let operation = find(&OPERATION_NAMES);
        Ok(Self { address, size, operation, delimiter, has_header: true })
    }
}

fn unnamed(line: &str, what: &str, names: &[&str]) -> String {
    format!(
        "`{}`: must be a header with a column for the {what} ({}); or name the columns, {EXAMPLE}",
        shown(line),
        names.join(", ")
    )
}

impl FromStr for CsvColumns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut address = None;
        let mut size = None;
        let mut operation = None;
        let mut delimiter = ',';
        let mut has_header = false;
        // The delimiter may be the comma that also separates the settings.
        let text = text.replace("delimiter=,", "delimiter=comma");
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let wrong = || format!("csv column `{}`: must be KEY=VALUE, {EXAMPLE}", shown(setting));
            let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
            let value = unquoted(value);
            match key.trim() {
                "obj-id-col" | "lbn-col" => address = Some(Address::Blocks(column(key, value)?)),
                "offset-col" => address = Some(Address::Bytes(column(key, value)?)),
                "obj-size-col" | "size-col" => size = Some(column(key, value)?),
                "op-col" => operation = Some(column(key, value)?),
                "delimiter" => delimiter = delimiter_of(value)?,
                "has-header" => has_header = boolean(key, value)?,
                // Known to libCacheSim, and not needed here.
                "time-col" | "ttl-col" | "tenant-col" | "obj-id-is-num" => {}
                _ => {
                    return Err(format!(
                        "csv column `{}`: must be one of obj-id-col, offset-col, obj-size-col, \
                         op-col, delimiter, has-header, {EXAMPLE}",
                        shown(key)
                    ));
                }
            }
        }
        let missing = |what: &str| format!("csv columns: {what} is missing, {EXAMPLE}");
        Ok(Self {
            address: address.ok_or_else(|| missing("obj-id-col or offset-col"))?,
            size: size.ok_or_else(|| missing("obj-size-col"))?,
            operation,
            delimiter,
            has_header,
        })
    }
}

fn column(key: &str, value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=COLUMN_MAX).contains(number));
    number.map(|number: usize| number - 1).ok_or_else(|| {
        format!("{} `{}`: must be a column from 1 to {COLUMN_MAX}", key.trim(), shown(value))
    })
}

fn delimiter_of(value: &str) -> Result<char, String> {
    match value {
        "comma" => Ok(','),
        "tab" | "\\t" => Ok('\t'),
        ";" => Ok(';'),
        "|" => Ok('|'),
        "space" | "" => Ok(' '),
        _ => Err(format!("delimiter `{}`: must be a comma, ;, |, tab or space", shown(value))),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{} `{}`: must be true or false", key.trim(), shown(value))),
    }
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

/// A CSV file.
pub(super) struct Csv {
    columns: Option<CsvColumns>,
    unit: u64,
    is_first: bool,
}

impl Csv {
    /// `unit` is what block numbers count by, in bytes.
    pub(super) fn new(columns: Option<CsvColumns>, unit: u64) -> Self {
        Self { columns, unit, is_first: true }
    }
}

impl LineParser for Csv {
    fn line(&mut self, line: &str) -> Result<Option<Access>, String> {
        let is_first = std::mem::take(&mut self.is_first);
        let columns = match &self.columns {
            Some(columns) => columns,
            None => {
                self.columns = Some(CsvColumns::of_header(line)?);
                return Ok(None);
            }
        };
        if is_first && columns.has_header || line.starts_with('#') {
            return Ok(None);
        }
        let field = |column: usize| {
            let field = line.split(columns.delimiter).nth(column).map(unquoted);
            field.ok_or_else(|| {
                format!("`{}`: must have {} columns or more", shown(line), column + 1)
            })
        };
        let Some(is_write) =
            columns.operation.map_or(Ok(Some(false)), |column| field(column).and_then(is_write))?
        else {
            return Ok(None);
        };
        let size = number("size", field(columns.size)?)?;
        match columns.address {
            Address::Blocks(column) => {
                request(number("block", field(column)?)?, self.unit, size, is_write)
            }
            Address::Bytes(column) => request(number("offset", field(column)?)?, 1, size, is_write),
        }
    }
}

/// Whether an operation writes; none for those that carry no data.
fn is_write(operation: &str) -> Result<Option<bool>, String> {
    // SCSI opcodes in hexadecimal: SBC-4 §5, READ and WRITE (6), (10), (12) and (16).
    match operation.trim_start_matches("0x").to_ascii_lowercase().as_str() {
        "r" | "rs" | "read" | "08" | "8" | "28" | "a8" | "88" => Ok(Some(false)),
        "w" | "ws" | "write" | "0a" | "a" | "2a" | "aa" | "8a" | "2e" => Ok(Some(true)),
        "d" | "discard" | "trim" | "unmap" | "f" | "flush" | "sync" | "35" | "91" | "42" | "00" => {
            Ok(None)
        }
        _ => Err(format!(
            "operation `{}`: must be read or write, R or W, or a SCSI opcode such as 28 or 2a",
            shown(operation)
        )),
    }
}
