//! A command of the owner's, cut into commands that the controller takes.

use block_io::{Buffer, BufferPool, Extent};

use super::{Command, CommandError};
use crate::host::connection::Data;
use crate::spec::command::nvm::{BLOCKS_MAX, NvmCommand};
use crate::spec::command::reservation::{acquire_action, register_action, release_action};
use crate::spec::command::{
    CopyFormat, CopySource, FUSE_FIRST, FUSE_SECOND, ReservationCommand, SubmissionEntry, set_fuse,
};
use crate::spec::identify::{
    IdentifyController, IdentifyControllerNvm, IdentifyNamespace, optional,
};
use crate::spec::reservation::{AcquireKeys, RegisterKeys};
use crate::spec::sgl::Descriptor;

/// What the controller and the namespace take in one command of each kind. Lengths are in bytes
/// and multiples of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// The namespace.
    pub namespace_id: u32,
    /// A block has 2^this bytes.
    pub block_shift: u32,
    /// Data of a compare: MDTS.
    pub data_max: u64,
    /// NOIOB: commands do not cross multiples of this; absent when it does not matter.
    pub boundary: Option<u64>,
    /// VSL.
    pub verify_max: u64,
    /// WUSL.
    pub write_uncorrectable_max: u64,
    /// ACWU: the most that a compare and write may cover; it is never split.
    pub compare_and_write_max: u64,
    /// MSSRL: one source range of a copy.
    pub copy_range_max: u64,
    /// MCL: one copy.
    pub copy_max: u64,
    /// MSRC: source ranges of one copy.
    pub copy_ranges_max: usize,
    /// The format of copies that both ends know.
    pub copy_format: Option<CopyFormat>,
    /// ONCS.
    pub commands: u16,
    /// FUSES.
    pub fused: u16,
}

impl CommandLimits {
    /// What identify structures say, `data_max` being MDTS in bytes and `page_shift` the smallest
    /// page's.
    pub fn new(
        namespace_id: u32,
        namespace: &IdentifyNamespace,
        controller: &IdentifyController,
        nvm: &IdentifyControllerNvm,
        data_max: u32,
        page_shift: u32,
    ) -> Self {
        let block_shift = u32::from(namespace.format.data_size_log2);
        let bytes = |blocks: u64| blocks << block_shift;
        let blocks_max = bytes(BLOCKS_MAX.into());
        // Powers of two of the smallest page; 0 is no limit. NVM §4.1.5.4
        let size = |power: u8| match u32::from(power) {
            0 => blocks_max,
            power => 1_u64.checked_shl(power + page_shift).unwrap_or(u64::MAX).min(blocks_max),
        };
        let copy_max = bytes(namespace.copy_blocks_max.into());
        let format = |bit| controller.copy_formats & bit != 0;
        Self {
            namespace_id,
            block_shift,
            data_max: u64::from(data_max).min(blocks_max),
            boundary: (namespace.optimal_boundary != 0)
                .then(|| bytes(namespace.optimal_boundary.into())),
            verify_max: size(nvm.verify_size_max),
            write_uncorrectable_max: size(nvm.write_uncorrectable_size_max),
            compare_and_write_max: bytes(u64::from(controller.atomic_compare_write_unit) + 1)
                .min(data_max.into()),
            copy_range_max: bytes(namespace.copy_range_blocks_max.into()).min(copy_max),
            copy_max,
            copy_ranges_max: usize::from(namespace.copy_ranges_max) + 1,
            copy_format: if format(optional::COPY_FORMAT_SHORT) {
                Some(CopyFormat::Short)
            } else {
                format(optional::COPY_FORMAT_LONG).then_some(CopyFormat::Long)
            },
            commands: controller.nvm_commands,
            fused: controller.fused_operations,
        }
    }

    /// Whether the controller can do this at all: what it lacks, or what is too long.
    pub(super) fn check(&self, command: &Command, capacity: u64) -> Result<(), CommandError> {
        let (name, bit) = match command {
            Command::Compare { .. } => ("compare", optional::COMMAND_COMPARE),
            Command::CompareAndWrite { .. } => ("compare and write", optional::COMMAND_COMPARE),
            Command::Verify { .. } => ("verify", optional::COMMAND_VERIFY),
            Command::Copy { .. } => ("copy", optional::COMMAND_COPY),
            Command::WriteUncorrectable { .. } => {
                ("write uncorrectable", optional::COMMAND_WRITE_UNCORRECTABLE)
            }
            _ => ("reservations", optional::COMMAND_RESERVATIONS),
        };
        let is_fused = matches!(command, Command::CompareAndWrite { .. });
        let lacks_format = matches!(command, Command::Copy { .. }) && self.copy_format.is_none();
        if self.commands & bit == 0
            || is_fused && self.fused & optional::FUSED_COMPARE_AND_WRITE == 0
            || lacks_format
        {
            return Err(CommandError::Unsupported(name));
        }
        for extent in command.extents() {
            let block = 1 << self.block_shift;
            if extent.is_empty() || !extent.is_aligned(block) || extent.end() > capacity {
                return Err(CommandError::Invalid(format!(
                    "{name} of {extent}: must be whole blocks of {block} bytes below {capacity}"
                )));
            }
        }
        let lengths_match = match command {
            Command::Compare { extent, data } => data.len() as u64 == extent.length,
            Command::CompareAndWrite { extent, compare, write, .. } => {
                compare.len() as u64 == extent.length && write.len() as u64 == extent.length
            }
            _ => true,
        };
        if !lengths_match {
            return Err(CommandError::Invalid(format!("{name}: data must be the extent's length")));
        }
        let most = self.compare_and_write_max;
        match command {
            Command::CompareAndWrite { extent, .. } if extent.length > most => {
                let length = extent.length;
                Err(CommandError::Invalid(format!(
                    "{name} of {length} bytes: must be at most {most}, which are atomic (ACWU)"
                )))
            }
            Command::Copy { .. } if self.copy_range_max == 0 => {
                Err(CommandError::Unsupported(name))
            }
            _ => Ok(()),
        }
    }

    /// The first part of `rest`, at most `most` bytes and not across the boundary.
    fn part(&self, rest: Extent, most: u64) -> Extent {
        let room = self.boundary.map_or(u64::MAX, |boundary| boundary - rest.offset % boundary);
        Extent::new(rest.offset, rest.length.min(most).min(room))
    }

    fn blocks(&self, extent: Extent) -> (u64, u32) {
        // At most BLOCKS_MAX, which every limit is below.
        (extent.offset >> self.block_shift, (extent.length >> self.block_shift) as u32)
    }
}

/// One command for the wire, or a fused pair.
pub(super) struct Part {
    pub(super) entries: Vec<(SubmissionEntry, Data)>,
    /// Bytes of the owner's command that it does.
    pub(super) length: u64,
}

/// The part of `command` that begins after `done` bytes; none when there is no more. The command
/// was checked.
pub(super) fn next_part(
    command: &Command,
    limits: &CommandLimits,
    done: u64,
    pool: &BufferPool,
) -> Option<Part> {
    let entry = |command: NvmCommand| command.encode(0, limits.namespace_id, Descriptor::NONE);
    let one = |length, command, data| Some(Part { entries: vec![(entry(command), data)], length });
    let rest = |extent: &Extent, most| {
        let rest = Extent::new(extent.offset + done, extent.length - done);
        (!rest.is_empty()).then(|| limits.part(rest, most))
    };
    match command {
        Command::Compare { extent, data } => {
            let part = rest(extent, limits.data_max)?;
            let (start, blocks) = limits.blocks(part);
            let data = data.slice(done as usize, part.length as usize);
            let compare = NvmCommand::Compare { start, blocks, force_unit_access: false };
            one(part.length, compare, Data::ToController(data))
        }
        Command::Verify { extent } => {
            let part = rest(extent, limits.verify_max)?;
            let (start, blocks) = limits.blocks(part);
            let verify = NvmCommand::Verify { start, blocks, force_unit_access: false };
            one(part.length, verify, Data::None)
        }
        Command::WriteUncorrectable { extent } => {
            let part = rest(extent, limits.write_uncorrectable_max)?;
            let (start, blocks) = limits.blocks(part);
            one(part.length, NvmCommand::WriteUncorrectable { start, blocks }, Data::None)
        }
        Command::Copy { sources, destination, force_unit_access } => {
            copy_part(limits, sources, *destination, *force_unit_access, done, pool)
        }
        _ if done > 0 => None,
        Command::CompareAndWrite { extent, compare, write, force_unit_access } => {
            let (start, blocks) = limits.blocks(*extent);
            let mut first = entry(NvmCommand::Compare { start, blocks, force_unit_access: false });
            set_fuse(&mut first, FUSE_FIRST);
            let force_unit_access = *force_unit_access;
            let mut second = entry(NvmCommand::Write { start, blocks, force_unit_access });
            set_fuse(&mut second, FUSE_SECOND);
            let entries = vec![
                (first, Data::ToController(compare.clone())),
                (second, Data::ToController(write.clone())),
            ];
            Some(Part { entries, length: extent.length })
        }
        other => reservation_part(other, pool)
            .and_then(|(command, data)| one(1, NvmCommand::Reservation(command), data)),
    }
}

fn copy_part(
    limits: &CommandLimits,
    sources: &[Extent],
    destination: u64,
    force_unit_access: bool,
    done: u64,
    pool: &BufferPool,
) -> Option<Part> {
    let format = limits.copy_format?;
    let mut ranges = Vec::new();
    let (mut count, mut length, mut skip) = (0, 0, done);
    'sources: for source in sources {
        let from = skip.min(source.length);
        skip -= from;
        let mut rest = Extent::new(source.offset + from, source.length - from);
        while !rest.is_empty() {
            let room = limits.copy_max - length;
            if count == limits.copy_ranges_max || room == 0 {
                break 'sources;
            }
            let part = limits.part(rest, limits.copy_range_max.min(room));
            let (start, blocks) = limits.blocks(part);
            CopySource { start, blocks }.encode_to(format, &mut ranges);
            count += 1;
            length += part.length;
            rest = Extent::new(part.end(), rest.length - part.length);
        }
    }
    if count == 0 {
        return None;
    }
    let copy = NvmCommand::Copy {
        destination: (destination + done) >> limits.block_shift,
        // At most 256: MSRC is 8 bits, 0's based.
        ranges: count as u16,
        format: format as u8,
        force_unit_access,
    };
    let entry = copy.encode(0, limits.namespace_id, Descriptor::NONE);
    Some(Part { entries: vec![(entry, Data::ToController(buffer(pool, &ranges)))], length })
}

fn reservation_part(command: &Command, pool: &BufferPool) -> Option<(ReservationCommand, Data)> {
    let register = |action, ignore_existing_key, persistence, current, new| {
        let keys = RegisterKeys { current, new }.encode();
        let command = ReservationCommand::Register { action, ignore_existing_key, persistence };
        (command, Data::ToController(buffer(pool, &keys)))
    };
    let acquire = |action, kind, current, preempt| {
        let keys = AcquireKeys { current, preempt }.encode();
        let command = ReservationCommand::Acquire { action, ignore_existing_key: false, kind };
        (command, Data::ToController(buffer(pool, &keys)))
    };
    let release = |action, kind, key: u64| {
        let command = ReservationCommand::Release { action, ignore_existing_key: false, kind };
        (command, Data::ToController(buffer(pool, &key.to_le_bytes())))
    };
    Some(match *command {
        Command::Register { key, persistence } => {
            register(register_action::REGISTER, false, persistence.number(), 0, key)
        }
        Command::Unregister { key } => {
            register(register_action::UNREGISTER, key.is_none(), 0, key.unwrap_or(0), 0)
        }
        Command::ReplaceKey { current, new } => {
            register(register_action::REPLACE, current.is_none(), 0, current.unwrap_or(0), new)
        }
        Command::Acquire { key, kind } => acquire(acquire_action::ACQUIRE, kind as u8, key, 0),
        Command::Preempt { key, preempted, kind, abort } => {
            let action =
                if abort { acquire_action::PREEMPT_AND_ABORT } else { acquire_action::PREEMPT };
            acquire(action, kind as u8, key, preempted)
        }
        Command::Release { key, kind } => release(release_action::RELEASE, kind as u8, key),
        Command::Clear { key } => release(release_action::CLEAR, 0, key),
        Command::Report { ref buffer } => {
            let command =
                ReservationCommand::Report { length: buffer.len() as u64, extended: true };
            (command, Data::ToHost(buffer.clone()))
        }
        _ => return None,
    })
}

fn buffer(pool: &BufferPool, bytes: &[u8]) -> Buffer {
    let buffer = pool.allocate(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}
