//! Traces of lines: takes them apart one line at a time, in bounded memory.

use std::io::{BufRead, Read};

use super::Access;
use super::error::{Place, TraceError};

/// Bytes of the longest line that is read; longer ones mean that this is no such trace.
const LINE_MAX: u64 = 8192;

/// A format whose requests are lines.
pub(super) trait LineParser {
    /// The request that a line is, if it is one. The line has no newline and no space at its ends
    /// and is not empty.
    ///
    /// # Errors
    /// Which field is wrong and what would be right; the caller adds the line's number.
    fn line(&mut self, line: &str) -> Result<Option<Access>, String>;
}

/// Hands every request of `source` to `sink`.
pub(super) fn read(
    source: &mut dyn BufRead,
    parser: &mut dyn LineParser,
    sink: &mut dyn FnMut(Access),
) -> Result<(), TraceError> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let length = (&mut *source)
            .take(LINE_MAX)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| TraceError::reading(&error))?;
        if length == 0 {
            break;
        }
        let at = |message| TraceError::new(Place::Line(number), message);
        if length as u64 == LINE_MAX && bytes.last() != Some(&b'\n') {
            return Err(at(format!("a line must be shorter than {LINE_MAX} bytes")));
        }
        let line = std::str::from_utf8(&bytes)
            .map_err(|_| at("a line must be text in UTF-8".to_owned()))?
            .trim();
        if line.is_empty() {
            continue;
        }
        if let Some(access) = parser.line(line).map_err(at)? {
            sink(access);
        }
    }
    Ok(())
}
