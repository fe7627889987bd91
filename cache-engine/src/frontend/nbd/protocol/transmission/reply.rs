//! Replies: simple ones to everything, structured ones to reads and block status when agreed.

use block_io::Buffer;

use super::super::error::WireError;
use super::super::outgoing::Outgoing;
use super::super::spec::{
    BASE_ALLOCATION_ID, CHUNK_FLAG_DONE, CHUNK_MAGIC, SIMPLE_REPLY_MAGIC, chunk,
};

/// A simple reply, an error or a success without data.
//= NBD proto.md "Simple reply message": magic, error, cookie
pub(super) fn simple(outgoing: &mut Outgoing, cookie: u64, error: Option<WireError>) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, |error| error as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    outgoing.push_bytes(&bytes);
}

/// A simple reply that carries what was read.
pub(super) fn simple_data(outgoing: &mut Outgoing, cookie: u64, data: Buffer) {
    simple(outgoing, cookie, None);
    outgoing.push_buffer(data);
}

/// The one and last chunk of a structured reply, all read data in it.
//= NBD proto.md "NBD_REPLY_TYPE_OFFSET_DATA": offset, data
pub(super) fn offset_data(outgoing: &mut Outgoing, cookie: u64, offset: u64, data: Buffer) {
    // A payload of at most 32 MiB and eight bytes.
    let length = 8 + data.len() as u32;
    let mut bytes = [0; 28];
    bytes[..20].copy_from_slice(&chunk_header(chunk::OFFSET_DATA, cookie, length));
    bytes[20..].copy_from_slice(&offset.to_be_bytes());
    outgoing.push_bytes(&bytes);
    outgoing.push_buffer(data);
}

/// The one and last chunk of a structured reply that failed.
//= NBD proto.md "NBD_REPLY_TYPE_ERROR": error, message length, message
pub(super) fn error_chunk(outgoing: &mut Outgoing, cookie: u64, error: WireError) {
    let mut bytes = [0; 26];
    bytes[..20].copy_from_slice(&chunk_header(chunk::ERROR, cookie, 6));
    bytes[20..24].copy_from_slice(&(error as u32).to_be_bytes());
    outgoing.push_bytes(&bytes);
}

/// `base:allocation` of one extent of `length` bytes: allocated, data.
//= NBD proto.md "NBD_REPLY_TYPE_BLOCK_STATUS": context, then length and flags by extent
pub(super) fn block_status(outgoing: &mut Outgoing, cookie: u64, length: u32) {
    let mut bytes = [0; 32];
    bytes[..20].copy_from_slice(&chunk_header(chunk::BLOCK_STATUS, cookie, 12));
    bytes[20..24].copy_from_slice(&BASE_ALLOCATION_ID.to_be_bytes());
    bytes[24..28].copy_from_slice(&length.to_be_bytes());
    outgoing.push_bytes(&bytes);
}

//= NBD proto.md "Structured reply chunk message": magic, flags, type, cookie, length
fn chunk_header(kind: u16, cookie: u64, length: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&CHUNK_FLAG_DONE.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}
