//! Which format a trace is in, from its first bytes.

use std::io::{BufRead, Read};

use super::error::{Place, TraceError};
use super::{Format, blkparse, blktrace, shown};

/// Bytes looked at.
const HEAD: u64 = 1024;

/// The first bytes, and a reader that still has them.
pub(super) fn look_ahead<'source>(
    mut source: Box<dyn BufRead + 'source>,
) -> Result<(Vec<u8>, Box<dyn BufRead + 'source>), TraceError> {
    let mut head = Vec::new();
    (&mut source).take(HEAD).read_to_end(&mut head).map_err(|error| TraceError::reading(&error))?;
    let whole = std::io::Cursor::new(head.clone()).chain(source);
    Ok((head, Box::new(whole)))
}

/// The format of a trace that begins with `head`.
pub(super) fn format_of(head: &[u8], columns_are_given: bool) -> Result<Format, TraceError> {
    if head.is_empty() {
        return Err(TraceError::new(Place::Whole, "is empty; must hold requests"));
    }
    if columns_are_given {
        return Ok(Format::Csv);
    }
    if blktrace::is_start(head) {
        return Ok(Format::Blktrace);
    }
    // No text has a zero byte, and no record is without one.
    if head.contains(&0) {
        return Ok(Format::OracleGeneral);
    }
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let numbers = line.split_ascii_whitespace().filter(|field| field.parse::<u64>().is_ok());
    if line.starts_with("fio version") {
        Ok(Format::Iolog)
    } else if blkparse::is_event(line) && line.split_ascii_whitespace().count() >= 6 {
        Ok(Format::Blkparse)
    } else if numbers.count() == 4 && line.split_ascii_whitespace().count() == 4 {
        Ok(Format::ArcList)
    } else if line.contains([',', ';']) {
        Ok(Format::Csv)
    } else {
        let all = Format::ALL.map(|format| format.to_string()).join(", ");
        let message = format!("begins with `{}`; name its format, one of {all}", shown(line));
        Err(TraceError::new(Place::Whole, message))
    }
}
