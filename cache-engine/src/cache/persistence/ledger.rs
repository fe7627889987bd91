//! The superblock of a running cache: changes to it are collected while it is being written, and
//! go with the next write.
//!
//! ```text
//!   change ─▶ wanted version ──nothing in flight──▶ copy (sequence mod 2) ──FUA──▶ durable version
//! ```
//! One copy is in flight at the most, and always the one that is not the newest on the device: a
//! write that failed goes to the same copy with the same sequence number again, whatever has
//! changed since.

use super::device::{Device, Purpose, may_land_late};
use crate::cache::metadata::superblock::Superblock;
use block_io::{BufferPool, IoError};

/// The superblock and how much of it is durable.
pub(super) struct Ledger {
    superblock: Superblock,
    /// The newest sequence number on the device.
    sequence: u64,
    wanted: u64,
    writing: Option<u64>,
    durable: u64,
    /// The version that could not be written last.
    failed: u64,
    /// A write of it may still land, whatever is written after it.
    in_doubt: bool,
}

impl Ledger {
    /// The superblock as it was read from the device.
    pub(super) fn new(superblock: Superblock) -> Self {
        let sequence = superblock.sequence;
        Self {
            superblock,
            sequence,
            wanted: 0,
            writing: None,
            durable: 0,
            failed: 0,
            in_doubt: false,
        }
    }

    pub(super) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Changes it, and says by which ticket to ask whether the change is durable.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> u64 {
        change(&mut self.superblock);
        self.wanted += 1;
        self.wanted
    }

    pub(super) fn is_durable(&self, ticket: u64) -> bool {
        self.durable >= ticket
    }

    /// Whether an older version may still land over a newer one: nothing that is written counts
    /// from then on.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether no change is left that a failed write did not carry: another try is no use.
    pub(super) fn is_last_failed(&self) -> bool {
        self.failed == self.wanted
    }

    pub(super) fn write(&mut self, device: &mut Device, pool: &BufferPool) {
        if self.writing.is_some() || self.durable == self.wanted {
            return;
        }
        self.writing = Some(self.wanted);
        self.superblock.sequence = self.sequence + 1;
        let bytes = self.superblock.encode();
        let buffer = pool.allocate(bytes.len());
        buffer.copy_from_slice(&bytes);
        device.write(Purpose::Superblock, self.superblock.offset(), buffer, true);
    }

    pub(super) fn written(&mut self, result: Result<(), IoError>) {
        let version = self.writing.take();
        match result {
            Ok(()) => {
                self.sequence += 1;
                self.durable = version.unwrap_or(self.durable);
            }
            Err(error) => {
                self.in_doubt |= may_land_late(error);
                self.failed = version.unwrap_or(self.failed);
            }
        }
    }
}
