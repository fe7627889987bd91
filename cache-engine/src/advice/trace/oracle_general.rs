//! libCacheSim's `oracleGeneral`: records of 24 bytes, little-endian, without padding.
//!
//! ```text
//!   0         4           12        16                24
//!   u32 time, u64 object, u32 size, i64 next access
//! ```
//! The object is taken as a block's number, which it is in traces of block devices. They do not
//! tell reads from writes; all are taken as reads.

use std::io::BufRead;

use super::error::{Place, TraceError};
use super::{Access, next_record, request};

const RECORD: usize = 24;

/// Hands every request of `source` to `sink`; objects count by `unit` bytes.
pub(super) fn read(
    source: &mut dyn BufRead,
    unit: u64,
    sink: &mut dyn FnMut(Access),
) -> Result<(), TraceError> {
    let mut place = 0;
    let mut bytes = [0; RECORD];
    loop {
        let at = |message: String| TraceError::new(Place::Byte(place), message);
        if !next_record(source, place, &mut bytes)? {
            return Ok(());
        }
        let (_, rest) = bytes.split_at(4);
        let (object, rest) = rest.split_first_chunk().expect("20 bytes are left");
        let (size, _) = rest.split_first_chunk().expect("12 bytes are left");
        let size = u32::from_le_bytes(*size);
        let access = request(u64::from_le_bytes(*object), unit, size.into(), false);
        if let Some(access) = access.map_err(at)? {
            sink(access);
        }
        place += RECORD as u64;
    }
}
