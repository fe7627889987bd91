//! The traces of the ARC paper (Megiddo and Modha, FAST 2003): `start_block count ignored
//! sequence`, reads only, in blocks of 512 bytes.

use super::text::LineParser;
use super::{ADDRESS_UNIT, Access, number, request, shown};

pub(super) struct ArcList;

impl LineParser for ArcList {
    fn line(&mut self, line: &str) -> Result<Option<Access>, String> {
        let mut fields = line.split_ascii_whitespace();
        let (Some(start), Some(count), Some(_), Some(_), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(format!(
                "`{}`: must be four numbers: start block, count, ignored, sequence",
                shown(line)
            ));
        };
        let blocks = number("count", count)?;
        let length = blocks.saturating_mul(ADDRESS_UNIT);
        request(number("start block", start)?, ADDRESS_UNIT, length, false)
    }
}
