//! Header and data digests: CRC32C over bytes as they pass.
//!
//! Absent: what a mismatch means; it is the connection's end for a header and the command's for
//! data.

/// Bytes of a digest on the wire, little-endian. NVMe/TCP Transport 1.1 §3.3.1.1
pub(super) const DIGEST_LENGTH: usize = 4;

/// Which digests a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// HDGST: on every header.
    pub header: bool,
    /// DDGST: on every PDU's data.
    pub data: bool,
}
