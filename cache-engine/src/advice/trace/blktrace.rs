//! What `blktrace` writes for each CPU, and `blkparse -d` writes merged: records of 48 bytes, in
//! the byte order of the machine, each followed by as many bytes as its last field says.
//!
//! ```text
//!   0      4         8     16      24     28      32   36      40   44     46       48
//!   magic, sequence, time, sector, bytes, action, pid, device, cpu, error, pdu_len  pdu…
//! ```
//! Requests are the events of action Q, as in [`super::blkparse`].
//! Source: linux/include/uapi/linux/blktrace_api.h, `struct blk_io_trace`.

use std::io::{BufRead, Read};

use super::error::{Place, TraceError};
use super::{ADDRESS_UNIT, Access, next_record, request};

const RECORD: usize = 48;
/// The magic number's upper three bytes; the lowest is the version.
const MAGIC: u32 = 0x6561_7400;
const VERSION: u32 = 7;
/// Bits of `action`: what happened, and above it the categories.
const ACTION_MASK: u32 = 0xffff;
const ACTION_QUEUE: u32 = 1;
const CATEGORY_READ: u32 = 1 << 16;
const CATEGORY_WRITE: u32 = 1 << 17;
const CATEGORY_NOTIFY: u32 = 1 << 26;
const CATEGORY_DISCARD: u32 = 1 << 29;

/// Whether a trace begins as these do.
pub(super) fn is_start(head: &[u8]) -> bool {
    let magic = head.first_chunk().copied();
    magic.is_some_and(|magic| order(magic).is_some())
}

/// How the numbers of a record with this magic number are to be read.
fn order(magic: [u8; 4]) -> Option<Order> {
    match [u32::from_le_bytes(magic), u32::from_be_bytes(magic)] {
        [little, _] if little & !0xff == MAGIC => Some(Order::Little),
        [_, big] if big & !0xff == MAGIC => Some(Order::Big),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

struct Record<'bytes> {
    bytes: &'bytes [u8; RECORD],
    order: Order,
}

impl Record<'_> {
    fn field<const WIDTH: usize>(&self, at: usize) -> u64 {
        let field = self.bytes[at..at + WIDTH].iter();
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        match self.order {
            Order::Little => field.rev().fold(0, join),
            Order::Big => field.fold(0, join),
        }
    }

    fn access(&self) -> Result<Option<Access>, String> {
        let action = self.field::<4>(28) as u32;
        let is_write = action & CATEGORY_WRITE != 0;
        let is_request = action & ACTION_MASK == ACTION_QUEUE
            && (is_write || action & CATEGORY_READ != 0)
            && action & (CATEGORY_NOTIFY | CATEGORY_DISCARD) == 0;
        if !is_request {
            return Ok(None);
        }
        request(self.field::<8>(16), ADDRESS_UNIT, self.field::<4>(24), is_write)
    }
}

/// Hands every request of `source` to `sink`.
pub(super) fn read(
    source: &mut dyn BufRead,
    sink: &mut dyn FnMut(Access),
) -> Result<(), TraceError> {
    let mut place = 0u64;
    let mut bytes = [0; RECORD];
    loop {
        let at = |message: String| TraceError::new(Place::Byte(place), message);
        if !next_record(source, place, &mut bytes)? {
            return Ok(());
        }
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let Some(order) = order(magic) else {
            return Err(at(format!(
                "magic number {:#010x}: must be {MAGIC:#010x} plus the version",
                u32::from_le_bytes(magic)
            )));
        };
        let record = Record { bytes: &bytes, order };
        let version = record.field::<4>(0) as u32 & 0xff;
        if version != VERSION {
            return Err(at(format!("version {version}: must be {VERSION}")));
        }
        if let Some(access) = record.access().map_err(at)? {
            sink(access);
        }
        let payload = record.field::<2>(46);
        let skipped = std::io::copy(&mut (&mut *source).take(payload), &mut std::io::sink())
            .map_err(|error| TraceError::reading(&error))?;
        if skipped < payload {
            return Err(at(format!(
                "the trace is cut off; {payload} bytes must follow the record"
            )));
        }
        place += RECORD as u64 + payload;
    }
}
