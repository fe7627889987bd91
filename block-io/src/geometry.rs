//! What a device is: its size, its blocks, what it can do and what it prefers.
//!
//! A frontend tells its client these numbers and refuses requests outside them
//! ([`Geometry::check`]); a device may rely on that.

use crate::{Extent, IoError, Operation};

/// The smallest block of any device here, and the unit of the cache's validity map: 512 bytes.
pub const SECTOR_SIZE: u32 = 512;

/// Size, block sizes, limits and capabilities of a device. All sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes on the device; a multiple of `block_size`.
    pub capacity: u64,
    /// Every offset and length must be a multiple of this; a power of two, at least 512.
    pub block_size: u32,
    /// What the device works best in; a power of two, at least `block_size`.
    pub preferred_block_size: u32,
    /// The most bytes that one read or write may carry; frontends split above it.
    pub transfer_max: u32,
    /// The most bytes that one discard or write-zeroes may cover.
    pub zeroes_max: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Completed writes may be lost by a power cut until a flush; without it flush does nothing.
    pub volatile_cache: bool,
    /// Discard is more than a no-op here.
    pub discard: bool,
    /// Write zeroes is done by the device and costs less than writing that many zero bytes.
    pub write_zeroes: bool,
}

impl Geometry {
    /// A read-write device of `capacity` bytes with 512-byte blocks, 4 KiB preferred, no volatile
    /// cache, discard and write zeroes supported, and 1 MiB transfers.
    pub const fn new(capacity: u64) -> Self {
        Self {
            capacity,
            block_size: SECTOR_SIZE,
            preferred_block_size: 4096,
            transfer_max: 1 << 20,
            zeroes_max: 1 << 30,
            read_only: false,
            volatile_cache: false,
            discard: true,
            write_zeroes: true,
        }
    }

    /// Whether a request of this kind and extent may be sent to the device at all.
    ///
    /// # Errors
    /// `ReadOnly`, `InvalidArgument` (alignment, length zero or above the limit) or `OutOfRange`.
    pub fn check(&self, operation: Operation, extent: Extent) -> Result<(), IoError> {
        let length_max = match operation {
            Operation::Flush => return Ok(()),
            Operation::Read | Operation::Write => u64::from(self.transfer_max),
            Operation::Discard | Operation::WriteZeroes => self.zeroes_max,
        };
        if self.read_only && operation != Operation::Read {
            return Err(IoError::ReadOnly);
        }
        if extent.is_empty()
            || extent.length > length_max
            || !extent.is_aligned(u64::from(self.block_size))
        {
            return Err(IoError::InvalidArgument);
        }
        if extent.end() > self.capacity {
            return Err(IoError::OutOfRange);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_names_what_is_wrong() {
        let geometry = Geometry { read_only: false, ..Geometry::new(1 << 20) };
        let check =
            |operation, offset, length| geometry.check(operation, Extent::new(offset, length));
        assert_eq!(check(Operation::Read, 0, 1 << 20), Ok(()));
        assert_eq!(check(Operation::Read, 512, 1 << 20), Err(IoError::OutOfRange));
        assert_eq!(check(Operation::Read, 1, 512), Err(IoError::InvalidArgument));
        assert_eq!(check(Operation::Write, 0, 0), Err(IoError::InvalidArgument));
        assert_eq!(check(Operation::Write, u64::MAX - 511, 512), Err(IoError::OutOfRange));
        assert_eq!(check(Operation::Flush, 0, 0), Ok(()));
        let read_only = Geometry { read_only: true, ..geometry };
        assert_eq!(
            read_only.check(Operation::Discard, Extent::new(0, 512)),
            Err(IoError::ReadOnly)
        );
        assert_eq!(read_only.check(Operation::Read, Extent::new(0, 512)), Ok(()));
    }
}
