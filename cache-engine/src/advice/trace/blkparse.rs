//! What `blkparse` prints, in its default form:
//!
//! ```text
//!   major,minor cpu sequence seconds.nanoseconds pid action rwbs sector + sectors [process]
//!         8,0    3        1     0.000000000       697   Q    WS  223490 + 8 [kjournald]
//! ```
//! Requests are the lines of action Q: what was asked of the device, before the kernel merged or
//! split it. Everything else, the summary at the end among it, is passed over.

use super::text::LineParser;
use super::{ADDRESS_UNIT, Access, number, request, shown};

pub(super) struct Blkparse;

impl LineParser for Blkparse {
    fn line(&mut self, line: &str) -> Result<Option<Access>, String> {
        if !is_event(line) {
            return Ok(None);
        }
        let mut fields = line.split_ascii_whitespace().skip(5);
        if fields.next() != Some("Q") {
            return Ok(None);
        }
        let Some(kind) = fields.next() else {
            return Err("rwbs: missing; must be letters such as R or WS".to_owned());
        };
        // Flushes (FN) and discards (D, DE) carry no data.
        let is_write = kind.contains('W');
        if !(is_write || kind.contains('R')) {
            return Ok(None);
        }
        let (Some(sector), Some("+"), Some(sectors)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("`{}`: must end in `sector + sectors`", shown(line)));
        };
        let length = number("sectors", sectors)?.saturating_mul(ADDRESS_UNIT);
        request(number("sector", sector)?, ADDRESS_UNIT, length, is_write)
    }
}

/// Whether a line begins with a device's numbers, as events do.
pub(super) fn is_event(line: &str) -> bool {
    let first = line.split_ascii_whitespace().next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    first.split_once(',').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}
