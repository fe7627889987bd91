//! The numbers of the NBD protocol, as `doc/proto.md` of the NetworkBlockDevice project gives them.
//!
//! All integers on the wire are big-endian. Only what this server sends or understands is here.

//= NBD proto.md "Newstyle negotiation"
pub(super) const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic, option, length.
pub(super) const OPTION_HEADER_LENGTH: usize = 16;

//= NBD proto.md "Handshake flags" and "Client flags": the two sides use the same bits
pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
pub(super) const FLAG_NO_ZEROES: u16 = 1 << 1;
/// Zero bytes after an answer to EXPORT_NAME, unless NO_ZEROES is agreed.
pub(super) const EXPORT_NAME_PADDING: usize = 124;

/// Options. //= NBD proto.md "Option types"
pub(super) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

/// Answers to options. //= NBD proto.md "Option reply types"
pub(super) mod option_reply {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    pub(crate) const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub(crate) const ERR_INVALID: u32 = (1 << 31) + 3;
    pub(crate) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub(crate) const ERR_BLOCK_SIZE_REQD: u32 = (1 << 31) + 8;
    pub(crate) const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Information items of INFO and GO. //= NBD proto.md "NBD_INFO_EXPORT" and on
pub(super) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DESCRIPTION: u16 = 2;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags. //= NBD proto.md "Transmission flags"
pub(super) mod transmission_flag {
    pub(crate) const HAS_FLAGS: u16 = 1 << 0;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_FAST_ZERO: u16 = 1 << 11;
}

//= NBD proto.md "Request message"
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic, flags, type, cookie, offset, length.
pub(super) const REQUEST_LENGTH: usize = 28;

/// Commands. //= NBD proto.md "Request types"
pub(super) mod command {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// Command flags. //= NBD proto.md "Command flags"
pub(super) mod command_flag {
    pub(crate) const FUA: u16 = 1 << 0;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
    pub(crate) const FAST_ZERO: u16 = 1 << 4;
}

//= NBD proto.md "Simple reply message": magic, error, cookie
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
//= NBD proto.md "Structured reply chunk message": magic, flags, type, cookie, length
pub(super) const CHUNK_MAGIC: u32 = 0x668e_33ef;
pub(super) const CHUNK_FLAG_DONE: u16 = 1 << 0;

/// Chunks of a structured reply. //= NBD proto.md "Structured reply types"
pub(super) mod chunk {
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const ERROR: u16 = (1 << 15) + 1;
}

/// The one metadata context here. //= NBD proto.md "Metadata namespaces"
pub(super) const BASE_NAMESPACE: &str = "base:";
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
/// What we call it on the wire; any number will do.
pub(super) const BASE_ALLOCATION_ID: u32 = 1;

/// The longest string that a peer may send. //= NBD proto.md "Values": strings of 4096 bytes
pub(super) const STRING_MAX: usize = 4096;
/// The longest payload of one read or write: 32 MiB. //= NBD proto.md "Block size constraints"
pub(super) const PAYLOAD_MAX: u32 = 32 << 20;
