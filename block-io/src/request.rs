//! One request to a device and its one completion.

use crate::{Buffer, Extent, IoError};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Fill the buffer from the device.
    Read,
    /// Store the buffer on the device.
    Write,
    /// Make every write completed so far durable. No extent, no buffer.
    Flush,
    /// The content of the extent is no longer needed; it reads as anything (but always as the
    /// same thing) until written. No buffer.
    Discard,
    /// The extent reads as zeroes from now on. No buffer.
    WriteZeroes,
}

impl Operation {
    /// Whether it can change what a later read returns.
    pub const fn changes_content(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }

    /// Whether a request of this kind carries a buffer of the extent's length.
    pub const fn carries_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// The submitter's name for a request, unique among its requests in flight on one queue. The
/// device gives it back and reads nothing into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request. It owns its buffer from submission to completion.
#[derive(Debug)]
pub struct Request {
    /// The submitter's name for it.
    pub id: RequestId,
    /// What is asked for.
    pub operation: Operation,
    /// Where; `Extent::default()` for a flush.
    pub extent: Extent,
    /// Force unit access: a write (or write zeroes) is durable when it completes.
    pub force_unit_access: bool,
    /// Of exactly the extent's length for a read or write, absent otherwise.
    pub buffer: Option<Buffer>,
}

impl Request {
    /// A read of `buffer.len()` bytes from `offset`.
    pub fn read(id: RequestId, offset: u64, buffer: Buffer) -> Self {
        let extent = Extent::new(offset, buffer.len() as u64);
        Self {
            id,
            operation: Operation::Read,
            extent,
            force_unit_access: false,
            buffer: Some(buffer),
        }
    }

    /// A write of `buffer` at `offset`.
    pub fn write(id: RequestId, offset: u64, buffer: Buffer) -> Self {
        Self { operation: Operation::Write, ..Self::read(id, offset, buffer) }
    }

    /// A flush.
    pub fn flush(id: RequestId) -> Self {
        Self::without_data(id, Operation::Flush, Extent::default())
    }

    /// A discard of `extent`.
    pub fn discard(id: RequestId, extent: Extent) -> Self {
        Self::without_data(id, Operation::Discard, extent)
    }

    /// A write of zeroes over `extent`.
    pub fn write_zeroes(id: RequestId, extent: Extent) -> Self {
        Self::without_data(id, Operation::WriteZeroes, extent)
    }

    /// The same request with force unit access as given.
    pub fn with_force_unit_access(self, force_unit_access: bool) -> Self {
        Self { force_unit_access, ..self }
    }

    /// The completion that answers it, the buffer given back.
    pub fn complete(self, result: Result<(), IoError>) -> Completion {
        Completion { id: self.id, result, buffer: self.buffer }
    }

    fn without_data(id: RequestId, operation: Operation, extent: Extent) -> Self {
        Self { id, operation, extent, force_unit_access: false, buffer: None }
    }
}

/// The one answer to a request.
#[derive(Debug)]
pub struct Completion {
    /// The request's name.
    pub id: RequestId,
    /// Success, or why not. After a failed read the buffer's content is unspecified; after a
    /// failed write see [`IoError::outcome_unknown`].
    pub result: Result<(), IoError>,
    /// The request's buffer, given back. A device may still *read* a written buffer through its
    /// own reference after the completion (a cache storing its copy), so whoever wants to overwrite
    /// memory in place asks [`Buffer::is_unique`] first; dropping it is always right.
    pub buffer: Option<Buffer>,
}
