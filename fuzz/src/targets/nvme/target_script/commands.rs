//! The commands of a script: whole ones of every kind, mostly with values that make sense.

use nvme_fabric::spec::command::nvm::CopyFormat;
use nvme_fabric::spec::command::{
    AdminCommand, CopySource, FabricsCommand, NSID_BROADCAST, NvmCommand, Range,
    ReservationCommand, SecurityProtocol, SubmissionEntry,
};
use nvme_fabric::spec::sgl::Descriptor;

use super::BLOCKS;
use super::choices::Choices;

/// The most data of a capsule, see [`nvme_fabric::target::IN_CAPSULE_DATA_MAX`].
const CAPSULE_MAX: usize = 8192;

/// A command, and the data that go with it to the target.
pub(super) struct Planned {
    pub(super) entry: SubmissionEntry,
    /// Data in the capsule.
    pub(super) capsule: Option<Vec<u8>>,
}

impl Planned {
    fn bare(entry: SubmissionEntry) -> Self {
        Self { entry, capsule: None }
    }
}

fn namespace(choices: &mut Choices<'_>) -> u32 {
    [1, 1, 1, 1, 1, 2, 0, NSID_BROADCAST, 3][choices.below(9)]
}

/// A start and a count of blocks, which mostly overlap others'.
pub(super) fn blocks(choices: &mut Choices<'_>) -> (u64, u32) {
    let start = match choices.below(8) {
        0..=3 => 0,
        4..=5 => choices.below(16) as u64,
        6 => u64::from(choices.byte()),
        _ => [BLOCKS - 1, BLOCKS, u64::from(u32::MAX), u64::MAX][choices.below(4)],
    };
    let count = match choices.below(8) {
        0..=5 => 1 + choices.below(17) as u32,
        6 => 1 + u32::from(choices.byte()),
        _ => [128, 0x1_0000, 64][choices.below(3)],
    };
    (start, count)
}

/// A command with `length` bytes for the target, in the capsule or to be asked for.
pub(super) fn with_data(
    choices: &mut Choices<'_>,
    nsid: u32,
    id: u16,
    command: NvmCommand,
    length: usize,
) -> Planned {
    let value = if choices.one_in(4) { 1 } else { 0 };
    with_bytes(choices, nsid, id, command, vec![value; length])
}

fn with_bytes(
    choices: &mut Choices<'_>,
    nsid: u32,
    id: u16,
    command: NvmCommand,
    mut bytes: Vec<u8>,
) -> Planned {
    let length = match choices.below(32) {
        // What the command says and what it brings need not agree.
        31 => bytes.len() / 2,
        30 => bytes.len() + 512,
        _ => bytes.len(),
    };
    bytes.resize(length, 0);
    if length > 0 && length <= CAPSULE_MAX && !choices.one_in(3) {
        let entry = command.encode(id, nsid, Descriptor::in_capsule(length as u32));
        return Planned { entry, capsule: Some(bytes) };
    }
    Planned::bare(command.encode(id, nsid, Descriptor::transport(length as u32)))
}

/// A command for an I/O queue.
pub(super) fn io(choices: &mut Choices<'_>, id: u16) -> Planned {
    let nsid = namespace(choices);
    let (start, blocks) = blocks(choices);
    let force_unit_access = choices.one_in(4);
    let size = if nsid == 2 { 4096 } else { 512 };
    let length = blocks as usize * size;
    match choices.below(16) {
        0 => Planned::bare(NvmCommand::Flush.encode(id, nsid, Descriptor::NONE)),
        1..=3 => {
            let command = NvmCommand::Write { start, blocks, force_unit_access };
            with_data(choices, nsid, id, command, length.min(1 << 20))
        }
        4..=5 => {
            let command = NvmCommand::Read { start, blocks, force_unit_access };
            let data = Descriptor::transport(length.min(1 << 20) as u32);
            Planned::bare(command.encode(id, nsid, data))
        }
        6 => {
            let deallocate = choices.one_in(2);
            let command = NvmCommand::WriteZeroes { start, blocks, force_unit_access, deallocate };
            Planned::bare(command.encode(id, nsid, Descriptor::NONE))
        }
        7 => ranges(choices, id, nsid),
        8 => {
            let command = NvmCommand::Compare { start, blocks, force_unit_access };
            with_data(choices, nsid, id, command, length.min(1 << 20))
        }
        9 => {
            let command = NvmCommand::Verify { start, blocks, force_unit_access };
            Planned::bare(command.encode(id, nsid, Descriptor::NONE))
        }
        10..=11 => copy(choices, id, nsid),
        12..=14 => reservation(choices, id, nsid),
        _ => match choices.below(4) {
            0 => {
                let command = NvmCommand::WriteUncorrectable { start, blocks };
                Planned::bare(command.encode(id, nsid, Descriptor::NONE))
            }
            1 => fabrics(choices, id),
            _ => {
                let command = NvmCommand::Other(choices.byte());
                Planned::bare(command.encode(id, nsid, Descriptor::transport(512)))
            }
        },
    }
}

fn ranges(choices: &mut Choices<'_>, id: u16, nsid: u32) -> Planned {
    let ranges = [1, 2, 3, 256][choices.below(4)];
    let mut bytes = Vec::new();
    for _ in 0..ranges {
        let (start, blocks) = blocks(choices);
        bytes.extend(Range { start, blocks }.encode());
    }
    let command = NvmCommand::DatasetManagement { ranges, deallocate: !choices.one_in(4) };
    with_bytes(choices, nsid, id, command, bytes)
}

fn copy(choices: &mut Choices<'_>, id: u16, nsid: u32) -> Planned {
    let ranges = [1, 2, 3, 128, 129, 256][choices.below(6)];
    let format = choices.below(3) as u8;
    let layout = CopyFormat::parse(format).unwrap_or(CopyFormat::Short);
    let mut bytes = Vec::new();
    for _ in 0..ranges {
        let (start, blocks) = blocks(choices);
        CopySource { start, blocks }.encode_to(layout, &mut bytes);
    }
    let (destination, _) = blocks(choices);
    let force_unit_access = choices.one_in(4);
    let command = NvmCommand::Copy { destination, ranges, format, force_unit_access };
    with_bytes(choices, nsid, id, command, bytes)
}

fn reservation(choices: &mut Choices<'_>, id: u16, nsid: u32) -> Planned {
    let ignore_existing_key = choices.one_in(4);
    let kind = choices.below(8) as u8;
    let command = match choices.below(8) {
        0 => {
            let length = [64, 4096, 4, 24][choices.below(4)];
            let command = ReservationCommand::Report { length, extended: !choices.one_in(4) };
            let data = Descriptor::transport(length as u32);
            return Planned::bare(command.encode(id, nsid, data));
        }
        1..=2 => ReservationCommand::Register {
            action: choices.below(4) as u8,
            ignore_existing_key,
            persistence: choices.below(4) as u8,
        },
        3..=5 => ReservationCommand::Acquire {
            action: choices.below(4) as u8,
            ignore_existing_key: false,
            kind,
        },
        _ => ReservationCommand::Release {
            action: choices.below(3) as u8,
            ignore_existing_key: false,
            kind,
        },
    };
    let length = if matches!(command, ReservationCommand::Release { .. }) { 8 } else { 16 };
    // Few keys, so that many fit.
    let mut bytes = vec![0; length];
    bytes[0] = choices.below(3) as u8;
    if let Some(second) = bytes.get_mut(8) {
        *second = choices.below(3) as u8;
    }
    with_bytes(choices, nsid, id, NvmCommand::Reservation(command), bytes)
}

/// A command for the admin queue. `abort` is a command of an I/O queue, to be aborted.
pub(super) fn admin(choices: &mut Choices<'_>, id: u16, abort: (u16, u16)) -> Planned {
    let namespace_id = namespace(choices);
    let (command, length) = match choices.below(12) {
        0..=3 => {
            let (queue_id, command_id) = abort;
            (AdminCommand::Abort { queue_id, command_id }, 0)
        }
        4 => (AdminCommand::AsynchronousEventRequest, 0),
        5 => (AdminCommand::KeepAlive, 0),
        6 => {
            let structure = [0, 1, 2, 3, 5, 6, 8, 0x10, 0x1c][choices.below(9)];
            let controller_id = choices.number();
            let command_set = choices.below(3) as u8;
            (AdminCommand::Identify { namespace_id, structure, controller_id, command_set }, 4096)
        }
        7..=8 => {
            let length = [4, 16, 512, 4096, 1024, 65536][choices.below(6)];
            let command = AdminCommand::GetLogPage {
                namespace_id,
                page: [1, 2, 3, 4, 5, 0x0c, 0x70, 0x80][choices.below(8)],
                specific: choices.byte() & 0x7f,
                retain_event: choices.one_in(2),
                length,
                offset: [0, 4, 512, 1024, u64::MAX - 3][choices.below(5)],
                index_offset: choices.one_in(8),
            };
            (command, length as u32)
        }
        9 => {
            let feature = [1, 4, 5, 7, 0x0b, 0x0f, 0x82, 0x83, 0x81][choices.below(9)];
            let (save, value) = (choices.one_in(8), u32::from(choices.number()));
            (AdminCommand::SetFeatures { namespace_id, feature, save, value }, 0)
        }
        10 => {
            let feature = [1, 4, 5, 7, 0x0b, 0x0f, 0x82, 0x83, 0x81][choices.below(9)];
            let select = choices.below(4) as u8;
            (AdminCommand::GetFeatures { namespace_id, feature, select, value: 0 }, 0)
        }
        _ => return fabrics(choices, id),
    };
    let data = if length == 0 { Descriptor::NONE } else { Descriptor::transport(length) };
    Planned::bare(command.encode(id, data))
}

fn fabrics(choices: &mut Choices<'_>, id: u16) -> Planned {
    let protocol = SecurityProtocol::NVME;
    let command = match choices.below(8) {
        0..=2 => FabricsCommand::PropertyGet {
            size: choices.below(2) as u8,
            offset: [0, 8, 0x14, 0x1c, 4][choices.below(5)],
        },
        3 => FabricsCommand::PropertySet {
            size: 0,
            offset: [0x14, 0x20][choices.below(2)],
            // Enabled, disabled, a normal shutdown and an abrupt one.
            value: [0x0046_0001, 0x0046_0000, 0x0046_4001, 0x0046_8001][choices.below(4)],
        },
        4 => FabricsCommand::AuthenticationReceive { protocol, length: 4096 },
        5 => {
            let bytes: Vec<u8> = (0..8 + choices.below(64)).map(|_| choices.byte()).collect();
            let length = bytes.len() as u32;
            let command = FabricsCommand::AuthenticationSend { protocol, length };
            let entry = command.encode(id, Descriptor::in_capsule(length));
            return Planned { entry, capsule: Some(bytes) };
        }
        6 => FabricsCommand::Disconnect,
        _ => FabricsCommand::Other(choices.byte()),
    };
    let data = match command {
        FabricsCommand::AuthenticationReceive { length, .. } => Descriptor::transport(length),
        _ => Descriptor::NONE,
    };
    Planned::bare(command.encode(id, data))
}
