//! Commands on namespaces: from an entry to what a device is asked, and from its errors to a
//! status. Pure; the connection moves the bytes.

use block_io::{Extent, IoError, Operation};

use super::admin::{INVALID_FIELD, check_common};
use super::{Namespace, Subsystem};
use crate::spec::command::nvm::{RANGE_LENGTH, RANGES_MAX};
use crate::spec::command::{self, NvmCommand, Range, SubmissionEntry};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;

/// What an I/O command asks of a namespace's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The namespace's place in its subsystem.
    pub(super) namespace: usize,
    pub(super) task: Task,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Read(Extent),
    Write {
        extent: Extent,
        force_unit_access: bool,
    },
    Flush,
    /// Discards or write zeroes, as many as the device's limit makes of it.
    Pieces(Pieces),
    /// Discards of ranges that are the command's data.
    Ranges {
        /// How many.
        count: usize,
        /// Bytes of data that the command brings, at least the ranges'.
        length: u32,
        /// Whether to discard; otherwise the ranges are advice that is not followed.
        deallocate: bool,
    },
}

impl Task {
    /// Bytes that the host sends for it.
    pub(super) fn host_data_length(&self) -> u32 {
        match self {
            // Checked against the largest transfer.
            Self::Write { extent, .. } => extent.length as u32,
            Self::Ranges { length, .. } => *length,
            Self::Read(_) | Self::Flush | Self::Pieces(_) => 0,
        }
    }
}

/// Extents still to be asked for, cut to the device's limit as they are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    pub(super) operation: Operation,
    pub(super) force_unit_access: bool,
    /// The last one is the next.
    rest: Vec<Extent>,
    /// A multiple of the block size.
    length_max: u64,
}

impl Pieces {
    pub(super) fn next(&mut self) -> Option<Extent> {
        let extent = self.rest.pop()?;
        let length = extent.length.min(self.length_max);
        if length < extent.length {
            self.rest.push(Extent::new(extent.offset + length, extent.length - length));
        }
        Some(Extent::new(extent.offset, length))
    }
}

/// Checks a command and says what it asks. `capsule_data` is the bytes that came with it.
pub(super) fn plan(
    subsystem: &Subsystem,
    entry: &SubmissionEntry,
    capsule_data: u32,
) -> Result<Plan, Status> {
    check_common(entry)?;
    let command = NvmCommand::parse(entry);
    if let NvmCommand::Other(_) = command {
        return Err(Status::INVALID_OPCODE.do_not_retry());
    }
    // The broadcast id is for no command here: VWC says so of flush.
    let (place, namespace) = subsystem
        .find(command::namespace_id(entry))
        .ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
    if let Some(status) = subsystem.access_failure(namespace.access_group()) {
        return Err(status);
    }
    let task = match command {
        NvmCommand::Flush => Task::Flush,
        NvmCommand::Read { start, blocks, .. } => {
            let extent = transfer(subsystem, namespace, start, blocks)?;
            check_read_data(entry, capsule_data, extent.length)?;
            Task::Read(extent)
        }
        NvmCommand::Write { start, blocks, force_unit_access } => {
            let extent = transfer(subsystem, namespace, start, blocks)?;
            writable(namespace)?;
            check_write_data(entry, capsule_data, extent.length..=extent.length)?;
            Task::Write { extent, force_unit_access }
        }
        NvmCommand::WriteZeroes { start, blocks, force_unit_access, .. } => {
            if !namespace.geometry().write_zeroes {
                return Err(Status::INVALID_OPCODE.do_not_retry());
            }
            writable(namespace)?;
            let extent = namespace.extent(start, blocks.into()).ok_or(OUT_OF_RANGE)?;
            let pieces = pieces(namespace, Operation::WriteZeroes, vec![extent]);
            Task::Pieces(Pieces { force_unit_access, ..pieces })
        }
        NvmCommand::DatasetManagement { ranges, deallocate } => {
            if deallocate {
                writable(namespace)?;
            }
            let count = usize::from(ranges);
            // Linux sends room for all 256 ranges, however many it names.
            let lengths = (count * RANGE_LENGTH) as u64..=(RANGES_MAX * RANGE_LENGTH) as u64;
            let length = check_write_data(entry, capsule_data, lengths)?;
            Task::Ranges { count, length, deallocate }
        }
        NvmCommand::Other(_) => return Err(Status::INVALID_OPCODE.do_not_retry()),
    };
    Ok(Plan { namespace: place, task })
}

/// Checks that a plan, which may have waited for memory or data, is still one: its namespace may
/// have been removed, cut or become inaccessible meanwhile, and a late write must not land.
pub(super) fn check_again(subsystem: &Subsystem, plan: &Plan) -> Result<(), Status> {
    let namespace = subsystem
        .namespaces()
        .get(plan.namespace)
        .ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
    if let Some(status) = subsystem.access_failure(namespace.access_group()) {
        return Err(status);
    }
    match &plan.task {
        Task::Read(extent) | Task::Write { extent, .. }
            if extent.end() > namespace.geometry().capacity =>
        {
            Err(OUT_OF_RANGE)
        }
        _ => Ok(()),
    }
}

const OUT_OF_RANGE: Status = Status::LBA_OUT_OF_RANGE.do_not_retry();

/// The bytes of a read or write, within the device and MDTS.
fn transfer(
    subsystem: &Subsystem,
    namespace: &Namespace,
    start: u64,
    blocks: u32,
) -> Result<Extent, Status> {
    let length = u64::from(blocks) * u64::from(namespace.geometry().block_size);
    if length > u64::from(subsystem.transfer_max()) {
        return Err(INVALID_FIELD);
    }
    namespace.extent(start, blocks.into()).ok_or(OUT_OF_RANGE)
}

fn writable(namespace: &Namespace) -> Result<(), Status> {
    if namespace.geometry().read_only {
        return Err(Status::NAMESPACE_WRITE_PROTECTED.do_not_retry());
    }
    Ok(())
}

fn check_read_data(entry: &SubmissionEntry, capsule_data: u32, length: u64) -> Result<(), Status> {
    let data = command::data(entry);
    if capsule_data != 0 {
        return Err(INVALID_FIELD);
    }
    if data.kind != Descriptor::KIND_TRANSPORT {
        return Err(Status::SGL_TYPE_INVALID.do_not_retry());
    }
    if u64::from(data.length) != length {
        return Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
    }
    Ok(())
}

/// Checks where the host's data come from and how long they are; returns their length.
fn check_write_data(
    entry: &SubmissionEntry,
    capsule_data: u32,
    lengths: std::ops::RangeInclusive<u64>,
) -> Result<u32, Status> {
    let data = command::data(entry);
    match data.kind {
        Descriptor::KIND_IN_CAPSULE if data.address != 0 => {
            // ICDOFF is 0: in-capsule data start where the capsule's data do.
            return Err(Status::SGL_OFFSET_INVALID.do_not_retry());
        }
        Descriptor::KIND_IN_CAPSULE if data.length != capsule_data => {
            return Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
        }
        Descriptor::KIND_TRANSPORT if capsule_data != 0 => return Err(INVALID_FIELD),
        Descriptor::KIND_IN_CAPSULE | Descriptor::KIND_TRANSPORT => {}
        _ => return Err(Status::SGL_TYPE_INVALID.do_not_retry()),
    }
    // Data lengths are of dwords. NVMe/TCP Transport, "Data Transfers".
    if !lengths.contains(&u64::from(data.length)) || !data.length.is_multiple_of(4) {
        return Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
    }
    Ok(data.length)
}

fn pieces(namespace: &Namespace, operation: Operation, rest: Vec<Extent>) -> Pieces {
    let geometry = namespace.geometry();
    // At least a block, which the namespace's check sees to.
    let length_max = geometry.zeroes_max - geometry.zeroes_max % u64::from(geometry.block_size);
    Pieces { operation, force_unit_access: false, rest, length_max }
}

/// The discards of a dataset management command, from its data: all of them, or none when one is
/// out of range. Allocates, which a rare command may.
pub(super) fn discards(namespace: &Namespace, ranges: &[u8]) -> Result<Pieces, Status> {
    let (ranges, _) = ranges.as_chunks::<RANGE_LENGTH>();
    let mut extents = Vec::with_capacity(ranges.len());
    for range in ranges.iter().rev().map(Range::parse) {
        let extent = namespace.extent(range.start, range.blocks.into()).ok_or(OUT_OF_RANGE)?;
        if !extent.is_empty() && namespace.geometry().discard {
            extents.push(extent);
        }
    }
    Ok(pieces(namespace, Operation::Discard, extents))
}

/// What a device's error is to a host.
pub(super) fn status(error: IoError, entry: &SubmissionEntry) -> Status {
    match error {
        IoError::InvalidArgument => INVALID_FIELD,
        IoError::OutOfRange => OUT_OF_RANGE,
        IoError::ReadOnly => Status::NAMESPACE_WRITE_PROTECTED.do_not_retry(),
        IoError::NoSpace => Status::CAPACITY_EXCEEDED.do_not_retry(),
        IoError::Unsupported => Status::INVALID_OPCODE.do_not_retry(),
        IoError::Media if command::opcode(entry) == command::nvm::OPCODE_READ => {
            Status::UNRECOVERED_READ_ERROR
        }
        IoError::Media => Status::WRITE_FAULT,
        // These may pass, so the host may try again.
        IoError::TimedOut
        | IoError::ConnectionLost
        | IoError::Cancelled
        | IoError::OutOfMemory
        | IoError::Other(_) => Status::INTERNAL_ERROR,
    }
}
