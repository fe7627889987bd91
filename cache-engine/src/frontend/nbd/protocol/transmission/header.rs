//! A request's 28 bytes: read, and checked against what the export can do.

use block_io::{Extent, Geometry, IoError, Operation};

use super::super::handshake::number;
use super::super::spec::{PAYLOAD_MAX, REQUEST_LENGTH, REQUEST_MAGIC, command, command_flag};

/// A request as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) extent: Extent,
}

impl Header {
    /// The fields, or the magic that is wrong.
    //= NBD proto.md "Request message": magic, flags, type, cookie, offset, length
    pub(super) fn parse(bytes: &[u8; REQUEST_LENGTH]) -> Result<Self, u32> {
        let magic = number(bytes, 0, 4) as u32;
        if magic != REQUEST_MAGIC {
            return Err(magic);
        }
        Ok(Self {
            flags: number(bytes, 4, 2) as u16,
            command: number(bytes, 6, 2) as u16,
            cookie: number(bytes, 8, 8),
            extent: Extent::new(number(bytes, 16, 8), number(bytes, 24, 4)),
        })
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether its payload follows it.
    pub(super) fn carries_payload(&self) -> bool {
        self.command == command::WRITE
    }

    /// Whether it stores bytes, so that it may fail for want of space.
    pub(super) fn writes(&self) -> bool {
        matches!(self.command, command::WRITE | command::WRITE_ZEROES)
    }

    /// The device's operation for it; none for a block status.
    ///
    /// # Errors
    /// What the client is to be told when it asked for something that is not to be had.
    pub(super) fn check(&self, geometry: &Geometry) -> Result<Option<Operation>, IoError> {
        // FUA is allowed with every command, and means something only to those that write.
        //= NBD proto.md "Command flags"
        let (operation, flags) = match self.command {
            command::READ => (Some(Operation::Read), command_flag::DF),
            command::WRITE => (Some(Operation::Write), 0),
            command::FLUSH => (Some(Operation::Flush), 0),
            command::TRIM => (Some(Operation::Discard), 0),
            command::WRITE_ZEROES => {
                (Some(Operation::WriteZeroes), command_flag::NO_HOLE | command_flag::FAST_ZERO)
            }
            command::BLOCK_STATUS => (None, command_flag::REQ_ONE),
            _ => return Err(IoError::InvalidArgument),
        };
        if self.flags & !(flags | command_flag::FUA) != 0 {
            return Err(IoError::InvalidArgument);
        }
        if operation == Some(Operation::Flush) {
            let plain = self.extent == Extent::default();
            return if plain { Ok(operation) } else { Err(IoError::InvalidArgument) };
        }
        if geometry.read_only && operation.is_some_and(Operation::changes_content) {
            return Err(IoError::ReadOnly);
        }
        if operation == Some(Operation::Discard) && !geometry.discard {
            return Err(IoError::Unsupported);
        }
        // A fast zero that is no faster than writing zeroes has to fail, and at once.
        //= NBD proto.md "NBD_CMD_FLAG_FAST_ZERO"
        if self.has(command_flag::FAST_ZERO) && !geometry.write_zeroes {
            return Err(IoError::Unsupported);
        }
        self.check_extent(operation, geometry)?;
        Ok(operation)
    }

    fn check_extent(
        &self,
        operation: Option<Operation>,
        geometry: &Geometry,
    ) -> Result<(), IoError> {
        let too_long = operation.is_some_and(Operation::carries_data)
            && self.extent.length > u64::from(PAYLOAD_MAX);
        if self.extent.is_empty()
            || too_long
            || !self.extent.is_aligned(u64::from(geometry.block_size))
        {
            return Err(IoError::InvalidArgument);
        }
        if self.extent.end() > geometry.capacity {
            return Err(IoError::OutOfRange);
        }
        Ok(())
    }
}
