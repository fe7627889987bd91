//! What stands on a cache device besides the data: formats, and nothing that does I/O.
//!
//! ```text
//!  byte 0        64K     128K             …            …              …
//!  superblock A │ superblock B │ activity pages │ journal ring │ line table │ data slots
//! ```
//! [`layout`] says where each part lies, [`superblock`] what the device says of itself and of the
//! volumes ([`volume_record`]) it caches, [`probe`] whether a device is ours at all, and
//! [`identity`] whether what it holds may be served. Numbers are little-endian, and every structure
//! carries a CRC32C.
//!
//! Absent: when what is written (`cache/persistence` decides), and the devices.

pub(crate) mod activity_page;
pub mod examination;
pub mod identity;
pub(crate) mod journal_block;
pub mod layout;
pub(crate) mod line_page;
pub mod probe;
pub mod superblock;
pub mod volume_record;

pub use layout::Layout;
pub use superblock::{State, Superblock};
pub use volume_record::{Generation, IdentityKind, OriginIdentity, VolumeRecord};

use std::fmt;

/// Bytes of a page: the unit in which everything but data is read and written.
pub const PAGE_SIZE: usize = 4096;

/// What tells one formatting of a device from every other: 16 random bytes. A page that bears
/// another one is as good as empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FormatId(pub [u8; 16]);

impl fmt::Display for FormatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The `N` bytes of `bytes` from `at` on; the caller has made sure that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the structure's length was checked")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
