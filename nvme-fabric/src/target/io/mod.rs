//! Commands on namespaces: from an entry to what a device is asked, and from its errors to a
//! status. Pure; the connection moves the bytes.
//!
//! By file: `extents` (who is at which blocks, over all connections), `sequence` (commands of
//! several steps).
//!
//! Absent: write uncorrectable. A mark that a block is bad must outlive this process, and hold on
//! every path to the device, or a host that marked a block because its content is lost reads the
//! old content as if it were good. A block device below keeps no such marks, so none are offered
//! (nor does Linux's target).

mod extents;
mod sequence;

use block_io::{Extent, Geometry, IoError, Operation};

pub(super) use self::extents::{Claim, Extents, Ticket};
pub(super) use self::sequence::{Failure, Next, PIECE_MAX, Sequence};
use super::admin::{INVALID_FIELD, check_common};
use super::reservation;
use super::{Namespace, Subsystem};
use crate::spec::command::nvm::{RANGE_LENGTH, RANGES_MAX};
use crate::spec::command::{
    self, CopyFormat, CopySource, NvmCommand, Range, ReservationCommand, SubmissionEntry,
};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;

/// Bytes of the largest compare and write.
pub(super) const ATOMIC_MAX: u32 = 64 << 10;

/// MSRC: source ranges of one copy.
pub(super) const COPY_RANGES_MAX: usize = 128;

/// Bytes of one source range of a copy, and of all of them: what a device does within a host's
/// patience.
const COPY_RANGE_MAX: u32 = 32 << 20;
const COPY_MAX: u32 = 64 << 20;

/// MSSRL: blocks of one source range, which a field of 16 bits holds.
pub(super) fn copy_range_blocks_max(geometry: &Geometry) -> u32 {
    (COPY_RANGE_MAX / geometry.block_size).min(0xffff)
}

/// MCL: blocks of one copy.
pub(super) fn copy_blocks_max(geometry: &Geometry) -> u32 {
    COPY_MAX / geometry.block_size
}

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
    Compare {
        extent: Extent,
        /// Bytes of memory for a piece of it.
        piece: u32,
    },
    Verify {
        extent: Extent,
        piece: u32,
    },
    /// A copy of ranges that are the command's data.
    Copy {
        destination: u64,
        count: usize,
        format: CopyFormat,
        /// Bytes of data that the command brings.
        length: u32,
        force_unit_access: bool,
        piece: u32,
    },
    /// The second half of a fused pair, with its first half's place.
    CompareAndWrite {
        first: u16,
        extent: Extent,
        force_unit_access: bool,
        piece: u32,
    },
    /// The first half of a fused pair, whose data are arriving.
    FirstHalf {
        length: u32,
    },
    Reservation {
        command: ReservationCommand,
        /// Bytes of data that the command brings.
        length: u32,
    },
}

impl Task {
    /// Bytes that the host sends for it.
    pub(super) fn host_data_length(&self) -> u32 {
        match self {
            // Checked against the largest transfer.
            Self::Write { extent, .. }
            | Self::Compare { extent, .. }
            | Self::CompareAndWrite { extent, .. } => extent.length as u32,
            Self::Ranges { length, .. }
            | Self::Copy { length, .. }
            | Self::FirstHalf { length }
            | Self::Reservation { length, .. } => *length,
            Self::Read(_) | Self::Flush | Self::Pieces(_) | Self::Verify { .. } => 0,
        }
    }

    /// Bytes of memory for a piece, beside the host's data.
    pub(super) fn piece_length(&self) -> u32 {
        match self {
            Self::Compare { piece, .. }
            | Self::Verify { piece, .. }
            | Self::Copy { piece, .. }
            | Self::CompareAndWrite { piece, .. } => *piece,
            _ => 0,
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

    /// All that is still to be asked for.
    pub(super) fn claim(&self) -> Claim {
        match self.rest[..] {
            [extent] => Claim::One(extent),
            _ => Claim::Many(self.rest.clone().into()),
        }
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
    if let NvmCommand::Other(_) | NvmCommand::WriteUncorrectable { .. } = command {
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
        NvmCommand::Compare { start, blocks, .. } => {
            let extent = transfer(subsystem, namespace, start, blocks)?;
            check_write_data(entry, capsule_data, extent.length..=extent.length)?;
            Task::Compare { extent, piece: piece_length(namespace, extent.length) }
        }
        NvmCommand::Verify { start, blocks, .. } => {
            let extent = namespace.extent(start, blocks.into()).ok_or(OUT_OF_RANGE)?;
            Task::Verify { extent, piece: piece_length(namespace, extent.length) }
        }
        NvmCommand::Copy { destination, ranges, format, force_unit_access } => {
            writable(namespace)?;
            let format = CopyFormat::parse(format).ok_or(INVALID_FIELD)?;
            let count = usize::from(ranges);
            if count > COPY_RANGES_MAX {
                return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
            }
            let least = (count * format.range_length()) as u64;
            let most = (COPY_RANGES_MAX * format.range_length()) as u64;
            let length = check_write_data(entry, capsule_data, least..=most)?;
            let piece = piece_length(namespace, PIECE_MAX);
            Task::Copy { destination, count, format, length, force_unit_access, piece }
        }
        NvmCommand::Reservation(command) => reserve(subsystem, entry, capsule_data, command)?,
        NvmCommand::WriteUncorrectable { .. } | NvmCommand::Other(_) => {
            return Err(Status::INVALID_OPCODE.do_not_retry());
        }
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

/// The plan of a fused pair, in command order, of entries whose FUSE is cleared; where there is
/// none, the status of each half. Base §3.4.2, NVM §3.1 (Compare and Write).
pub(super) fn plan_pair(
    subsystem: &Subsystem,
    first: (u16, &SubmissionEntry, u32),
    second: (&SubmissionEntry, u32),
) -> Result<(Plan, Plan), (Status, Status)> {
    let (place, entry, capsule_data) = first;
    const FAILED: Status = Status::ABORTED_FAILED_FUSED;
    let compare = plan(subsystem, entry, capsule_data).map_err(|status| (status, FAILED))?;
    let write = plan(subsystem, second.0, second.1).map_err(|status| (FAILED, status))?;
    let (Task::Compare { extent, piece }, Task::Write { extent: other, force_unit_access }) =
        (&compare.task, &write.task)
    else {
        return Err((FAILED, INVALID_FIELD));
    };
    if extent != other || compare.namespace != write.namespace {
        return Err((INVALID_FIELD, INVALID_FIELD));
    }
    if extent.length > u64::from(subsystem.atomic_max()) {
        return Err((FAILED, Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry()));
    }
    let task = Task::CompareAndWrite {
        first: place,
        extent: *extent,
        force_unit_access: *force_unit_access,
        piece: *piece,
    };
    let half = Task::FirstHalf { length: extent.length as u32 };
    let namespace = compare.namespace;
    Ok((Plan { namespace, task: half }, Plan { namespace, task }))
}

/// A reservation command, its data's length checked.
fn reserve(
    subsystem: &Subsystem,
    entry: &SubmissionEntry,
    capsule_data: u32,
    command: ReservationCommand,
) -> Result<Task, Status> {
    if let ReservationCommand::Report { length, .. } = command {
        if length > u64::from(subsystem.transfer_max()) {
            return Err(INVALID_FIELD);
        }
        check_read_data(entry, capsule_data, length)?;
        return Ok(Task::Reservation { command, length: 0 });
    }
    let length = reservation::data_length(command);
    let length = check_write_data(entry, capsule_data, length..=length)?;
    Ok(Task::Reservation { command, length })
}

/// Bytes at a time of something `length` bytes long.
fn piece_length(namespace: &Namespace, length: u64) -> u32 {
    let geometry = namespace.geometry();
    let most = geometry.transfer_max - geometry.transfer_max % geometry.block_size;
    length.min(PIECE_MAX).min(most.into()) as u32
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

/// Sources and destination of a copy, from its data. Allocates, which a rare command may.
pub(super) fn copy_sources(
    namespace: &Namespace,
    destination: u64,
    format: CopyFormat,
    ranges: &[u8],
) -> Result<(Vec<Extent>, Extent), Status> {
    let geometry = namespace.geometry();
    let mut sources = Vec::with_capacity(COPY_RANGES_MAX);
    let mut blocks = 0;
    for source in ranges.chunks_exact(format.range_length()).map(CopySource::parse) {
        blocks += source.blocks;
        if source.blocks > copy_range_blocks_max(geometry) || blocks > copy_blocks_max(geometry) {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
        }
        sources.push(namespace.extent(source.start, source.blocks.into()).ok_or(OUT_OF_RANGE)?);
    }
    let destination = namespace.extent(destination, blocks.into()).ok_or(OUT_OF_RANGE)?;
    Ok((sources, destination))
}

/// What a device's error is to a host.
pub(super) fn status(error: IoError, entry: &SubmissionEntry) -> Status {
    match error {
        IoError::Media if command::opcode(entry) == command::nvm::OPCODE_READ => {
            Status::UNRECOVERED_READ_ERROR
        }
        error => status_of(error),
    }
}

/// The same for a command that is not a read.
fn status_of(error: IoError) -> Status {
    match error {
        IoError::InvalidArgument => INVALID_FIELD,
        IoError::OutOfRange => OUT_OF_RANGE,
        IoError::ReadOnly => Status::NAMESPACE_WRITE_PROTECTED.do_not_retry(),
        IoError::NoSpace => Status::CAPACITY_EXCEEDED.do_not_retry(),
        IoError::Unsupported => Status::INVALID_OPCODE.do_not_retry(),
        IoError::Media => Status::WRITE_FAULT,
        IoError::Gone | IoError::DeviceChanged => Status::INTERNAL_ERROR.do_not_retry(),
        // These may pass, so the host may try again.
        IoError::TimedOut
        | IoError::ConnectionLost
        | IoError::Cancelled
        | IoError::OutOfMemory
        | IoError::Other(_) => Status::INTERNAL_ERROR,
    }
}
