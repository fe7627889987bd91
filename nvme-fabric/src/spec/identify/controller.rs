//! The Identify Controller structure (CNS 01h). Base §5.17.2.1, and NVM §4.1.5.2.

use super::{LENGTH, Structure};
use crate::spec::field::{
    put, put_text, put_u16, put_u32, put_u64, text_at, u16_at, u32_at, u64_at,
};

/// Bits of ONCS, OAES, CTRATT and their like.
pub mod optional {
    /// ONCS bit 0: compare.
    pub const COMMAND_COMPARE: u16 = 1 << 0;
    /// ONCS bit 1: write uncorrectable.
    pub const COMMAND_WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// ONCS bit 2: dataset management.
    pub const COMMAND_DATASET_MANAGEMENT: u16 = 1 << 2;
    /// ONCS bit 3: write zeroes.
    pub const COMMAND_WRITE_ZEROES: u16 = 1 << 3;
    /// ONCS bit 5: reservations.
    pub const COMMAND_RESERVATIONS: u16 = 1 << 5;
    /// ONCS bit 7: verify.
    pub const COMMAND_VERIFY: u16 = 1 << 7;
    /// ONCS bit 8: copy.
    pub const COMMAND_COPY: u16 = 1 << 8;
    /// FUSES bit 0: compare and write.
    pub const FUSED_COMPARE_AND_WRITE: u16 = 1 << 0;
    /// OCFS bit 0: copy format 0h.
    pub const COPY_FORMAT_SHORT: u16 = 1 << 0;
    /// OCFS bit 1: copy format 1h.
    pub const COPY_FORMAT_LONG: u16 = 1 << 1;
    /// OAES bit 8: namespace attribute notices.
    pub const EVENT_NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// OAES bit 31: discovery log change notices.
    pub const EVENT_DISCOVERY_LOG: u32 = 1 << 31;
    /// CTRATT bit 0: 128-bit host identifier.
    pub const ATTRIBUTE_HOST_ID_128: u32 = 1 << 0;
    /// CTRATT bit 6: traffic based keep alive.
    pub const ATTRIBUTE_TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;
    /// VWC bit 0: there is a volatile write cache.
    pub const CACHE_PRESENT: u8 = 1 << 0;
    /// VWC bits 2:1 = 11b: flush takes the broadcast NSID.
    pub const CACHE_FLUSH_BROADCAST: u8 = 0b11 << 1;
    /// VWC bits 2:1 = 10b: flush does not take the broadcast NSID.
    pub const CACHE_FLUSH_SINGLE: u8 = 0b10 << 1;
    /// LPA bit 1: there is the log page of commands supported and their effects.
    pub const LOG_EFFECTS: u8 = 1 << 1;
    /// LPA bit 2: log pages are read with 32-bit lengths and an offset.
    pub const LOG_EXTENDED: u8 = 1 << 2;
    /// CMIC bit 0: the subsystem may have more than one port.
    pub const MULTIPLE_PORTS: u8 = 1 << 0;
    /// CMIC bit 3: asymmetric namespace access is reported.
    pub const ASYMMETRIC_ACCESS: u8 = 1 << 3;
    /// OAES bit 11: asymmetric namespace access notices.
    pub const EVENT_ASYMMETRIC_ACCESS: u32 = 1 << 11;
    /// ANACAP bits 4:0: every state may be reported.
    pub const ACCESS_STATES: u8 = 0b1_1111;
    /// ANACAP bit 6: a namespace's group does not change while it is attached.
    pub const ACCESS_GROUP_STAYS: u8 = 1 << 6;
    /// CMIC bit 1: the subsystem may have more than one controller.
    pub const MULTIPLE_CONTROLLERS: u8 = 1 << 1;
}

/// CNTRLTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ControllerKind {
    /// 00h: controllers before version 1.4 do not say.
    #[default]
    NotReported,
    /// 01h: serves I/O.
    InputOutput,
    /// 02h: a discovery controller.
    Discovery,
    /// 03h: admin commands only.
    Administrative,
    /// Reserved.
    Other(u8),
}

impl ControllerKind {
    const fn parse(value: u8) -> Self {
        match value {
            0 => Self::NotReported,
            1 => Self::InputOutput,
            2 => Self::Discovery,
            3 => Self::Administrative,
            other => Self::Other(other),
        }
    }

    const fn encode(self) -> u8 {
        match self {
            Self::NotReported => 0,
            Self::InputOutput => 1,
            Self::Discovery => 2,
            Self::Administrative => 3,
            Self::Other(other) => other,
        }
    }
}

/// SGLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SglSupport(pub u32);

impl SglSupport {
    /// Bits 1:0 = 01b: SGLs without an alignment requirement.
    pub const SUPPORTED: u32 = 0b01;
    /// Bit 20: the address of a descriptor may be an offset (in-capsule data).
    pub const OFFSET: u32 = 1 << 20;
    /// Bit 21: transport data block descriptors.
    pub const TRANSPORT: u32 = 1 << 21;

    /// Whether SGLs are supported at all.
    pub const fn is_supported(self) -> bool {
        self.0 & 0b11 != 0
    }
}

/// What a controller says about itself. Fields that neither end uses stay zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IdentifyController {
    /// SN, bytes 4-23.
    pub serial_number: String,
    /// MN, bytes 24-63.
    pub model_number: String,
    /// FR, bytes 64-71.
    pub firmware_revision: String,
    /// RAB, byte 72: recommended arbitration burst, as a power of two.
    pub arbitration_burst: u8,
    /// CMIC, byte 76.
    pub multi_path: u8,
    /// MDTS, byte 77: the most data of one command is 2^this smallest pages; 0 for no limit.
    pub data_transfer_size_max: u8,
    /// CNTLID, bytes 78-79.
    pub controller_id: u16,
    /// VER, bytes 80-83.
    pub version: u32,
    /// OAES, bytes 92-95.
    pub events: u32,
    /// CTRATT, bytes 96-99.
    pub attributes: u32,
    /// CNTRLTYPE, byte 111.
    pub kind: ControllerKind,
    /// OACS, bytes 256-257.
    pub admin_commands: u16,
    /// ACL, byte 258: Abort commands at a time, 0's based.
    pub abort_limit: u8,
    /// AERL, byte 259: Asynchronous Event Requests at a time, 0's based.
    pub event_request_limit: u8,
    /// FRMW, byte 260.
    pub firmware_updates: u8,
    /// LPA, byte 261.
    pub log_page_attributes: u8,
    /// ELPE, byte 262: entries of the error log, 0's based.
    pub error_log_entries: u8,
    /// KAS, bytes 320-321: keep alive granularity in 100 ms; 0 for no keep alive.
    pub keep_alive_granularity: u16,
    /// ANATT, byte 342: seconds that an access group is in the state Change at the most.
    pub access_transition_time: u8,
    /// ANACAP, byte 343: which access states may be reported, and more.
    pub access_capabilities: u8,
    /// ANAGRPMAX, bytes 344-347: the largest access group id.
    pub access_group_max: u32,
    /// NANAGRPID, bytes 348-351: how many access groups there may be.
    pub access_groups: u32,
    /// CQT, bytes 386-387: milliseconds that the controller needs at the most, once it has noticed
    /// that the host is lost, until no command of it does anything any more; 0 when not reported.
    pub command_quiesce_time: u16,
    /// SQES, byte 512: submission entry size, required (3:0) and largest (7:4), powers of two.
    pub submission_entry_size: u8,
    /// CQES, byte 513: completion entry size likewise.
    pub completion_entry_size: u8,
    /// MAXCMD, bytes 514-515: commands a queue processes at once.
    pub commands_max: u16,
    /// NN, bytes 516-519: the largest namespace id.
    pub namespaces: u32,
    /// ONCS, bytes 520-521.
    pub nvm_commands: u16,
    /// FUSES, bytes 522-523: fused operations.
    pub fused_operations: u16,
    /// VWC, byte 525.
    pub volatile_write_cache: u8,
    /// AWUN, bytes 526-527: atomic write unit, blocks, 0's based.
    pub atomic_write_unit: u16,
    /// AWUPF, bytes 528-529: atomic write unit in a power failure, blocks, 0's based.
    pub atomic_write_unit_power_fail: u16,
    /// ACWU, bytes 532-533: the most blocks of a compare and write that is atomic, 0's based.
    pub atomic_compare_write_unit: u16,
    /// OCFS, bytes 534-535: formats of copy, a bit each.
    pub copy_formats: u16,
    /// SGLS, bytes 536-539.
    pub sgl_support: SglSupport,
    /// MNAN, bytes 540-543: the most namespaces that may be allowed.
    pub namespaces_allowed_max: u32,
    /// SUBNQN, bytes 768-1023.
    pub subsystem: String,
    /// IOCCSZ, bytes 1792-1795: an I/O command capsule in 16 bytes, its 64-byte entry included.
    pub command_capsule_size: u32,
    /// IORCSZ, bytes 1796-1799: an I/O response capsule in 16 bytes.
    pub response_capsule_size: u32,
    /// ICDOFF, bytes 1800-1801: where in-capsule data starts, in 16 bytes after the entry; 0 over
    /// TCP.
    pub in_capsule_data_offset: u16,
    /// MSDBD, byte 1803: the most data block descriptors of one command.
    pub data_descriptors_max: u8,
}

impl IdentifyController {
    /// The typed form.
    pub fn parse(bytes: &Structure) -> Self {
        Self {
            serial_number: text_at(bytes, 4, 20),
            model_number: text_at(bytes, 24, 40),
            firmware_revision: text_at(bytes, 64, 8),
            arbitration_burst: bytes[72],
            multi_path: bytes[76],
            data_transfer_size_max: bytes[77],
            controller_id: u16_at(bytes, 78),
            version: u32_at(bytes, 80),
            events: u32_at(bytes, 92),
            attributes: u32_at(bytes, 96),
            kind: ControllerKind::parse(bytes[111]),
            admin_commands: u16_at(bytes, 256),
            abort_limit: bytes[258],
            event_request_limit: bytes[259],
            firmware_updates: bytes[260],
            log_page_attributes: bytes[261],
            error_log_entries: bytes[262],
            keep_alive_granularity: u16_at(bytes, 320),
            access_transition_time: bytes[342],
            access_capabilities: bytes[343],
            access_group_max: u32_at(bytes, 344),
            access_groups: u32_at(bytes, 348),
            command_quiesce_time: u16_at(bytes, 386),
            submission_entry_size: bytes[512],
            completion_entry_size: bytes[513],
            commands_max: u16_at(bytes, 514),
            namespaces: u32_at(bytes, 516),
            nvm_commands: u16_at(bytes, 520),
            fused_operations: u16_at(bytes, 522),
            volatile_write_cache: bytes[525],
            atomic_write_unit: u16_at(bytes, 526),
            atomic_write_unit_power_fail: u16_at(bytes, 528),
            atomic_compare_write_unit: u16_at(bytes, 532),
            copy_formats: u16_at(bytes, 534),
            sgl_support: SglSupport(u32_at(bytes, 536)),
            namespaces_allowed_max: u32_at(bytes, 540),
            subsystem: text_at(bytes, 768, 256),
            command_capsule_size: u32_at(bytes, 1792),
            response_capsule_size: u32_at(bytes, 1796),
            in_capsule_data_offset: u16_at(bytes, 1800),
            data_descriptors_max: bytes[1803],
        }
    }

    /// Writes the structure into `bytes`, all of it.
    pub fn encode(&self, bytes: &mut Structure) {
        *bytes = [0; LENGTH];
        // Strings are padded with spaces, the NQN with NULs. Base §1.4.2 (ASCII strings).
        put_text(bytes, 4, 20, &self.serial_number, b' ');
        put_text(bytes, 24, 40, &self.model_number, b' ');
        put_text(bytes, 64, 8, &self.firmware_revision, b' ');
        bytes[72] = self.arbitration_burst;
        bytes[76] = self.multi_path;
        bytes[77] = self.data_transfer_size_max;
        put_u16(bytes, 78, self.controller_id);
        put_u32(bytes, 80, self.version);
        put_u32(bytes, 92, self.events);
        put_u32(bytes, 96, self.attributes);
        bytes[111] = self.kind.encode();
        put_u16(bytes, 256, self.admin_commands);
        bytes[258] = self.abort_limit;
        bytes[259] = self.event_request_limit;
        bytes[260] = self.firmware_updates;
        bytes[261] = self.log_page_attributes;
        bytes[262] = self.error_log_entries;
        put_u16(bytes, 320, self.keep_alive_granularity);
        bytes[342] = self.access_transition_time;
        bytes[343] = self.access_capabilities;
        put_u32(bytes, 344, self.access_group_max);
        put_u32(bytes, 348, self.access_groups);
        put_u16(bytes, 386, self.command_quiesce_time);
        self.encode_nvm(bytes);
        put_text(bytes, 768, 256, &self.subsystem, 0);
        put_u32(bytes, 1792, self.command_capsule_size);
        put_u32(bytes, 1796, self.response_capsule_size);
        put_u16(bytes, 1800, self.in_capsule_data_offset);
        put(bytes, 1803, &[self.data_descriptors_max]);
    }

    fn encode_nvm(&self, bytes: &mut Structure) {
        bytes[512] = self.submission_entry_size;
        bytes[513] = self.completion_entry_size;
        put_u16(bytes, 514, self.commands_max);
        put_u32(bytes, 516, self.namespaces);
        put_u16(bytes, 520, self.nvm_commands);
        put_u16(bytes, 522, self.fused_operations);
        bytes[525] = self.volatile_write_cache;
        put_u16(bytes, 526, self.atomic_write_unit);
        put_u16(bytes, 528, self.atomic_write_unit_power_fail);
        put_u16(bytes, 532, self.atomic_compare_write_unit);
        put_u16(bytes, 534, self.copy_formats);
        put_u32(bytes, 536, self.sgl_support.0);
        put_u32(bytes, 540, self.namespaces_allowed_max);
    }

    /// Bytes of data that an I/O command capsule carries, absent when the numbers make no sense.
    /// NVMe/TCP Transport, "Capsules": the capsule is its 64-byte entry and the data.
    pub fn in_capsule_data_max(&self) -> Option<u32> {
        self.command_capsule_size.checked_mul(16)?.checked_sub(64)
    }
}

/// What a controller says of the NVM command set: CNS 06h with CSI 00h. NVM §4.1.5.4. Zero is no
/// limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IdentifyControllerNvm {
    /// VSL, byte 0: the most that one verify covers is 2^this smallest pages.
    pub verify_size_max: u8,
    /// WZSL, byte 1: the most that one write zeroes covers is 2^this smallest pages; 0 for no limit
    /// (which Linux takes to be MDTS).
    pub write_zeroes_size_max: u8,
    /// WUSL, byte 2: the most that one write uncorrectable covers is 2^this smallest pages.
    pub write_uncorrectable_size_max: u8,
    /// DMRL, byte 3: ranges of one dataset management command.
    pub discard_ranges_max: u8,
    /// DMRSL, bytes 4-7: blocks of one range of it.
    pub discard_range_blocks_max: u32,
    /// DMSL, bytes 8-15: blocks of all ranges of it.
    pub discard_blocks_max: u64,
}

impl IdentifyControllerNvm {
    /// The typed form.
    pub const fn parse(bytes: &Structure) -> Self {
        Self {
            verify_size_max: bytes[0],
            write_zeroes_size_max: bytes[1],
            write_uncorrectable_size_max: bytes[2],
            discard_ranges_max: bytes[3],
            discard_range_blocks_max: u32_at(bytes, 4),
            discard_blocks_max: u64_at(bytes, 8),
        }
    }

    /// Writes the structure into `bytes`, all of it.
    pub fn encode(&self, bytes: &mut Structure) {
        *bytes = [0; LENGTH];
        bytes[0] = self.verify_size_max;
        bytes[1] = self.write_zeroes_size_max;
        bytes[2] = self.write_uncorrectable_size_max;
        bytes[3] = self.discard_ranges_max;
        put_u32(bytes, 4, self.discard_range_blocks_max);
        put_u64(bytes, 8, self.discard_blocks_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_structure_says() {
        let mut bytes = [0; LENGTH];
        bytes[4..8].copy_from_slice(b"SN  ");
        bytes[24..28].copy_from_slice(b"MN  ");
        bytes[77] = 8;
        bytes[78..80].copy_from_slice(&[2, 1]);
        bytes[80..84].copy_from_slice(&[0, 4, 1, 0]);
        bytes[95] = 0x80;
        bytes[111] = 2;
        bytes[258..260].copy_from_slice(&[3, 4]);
        bytes[320] = 10;
        bytes[342..352].copy_from_slice(&[10, 0x5f, 128, 0, 0, 0, 127, 0, 0, 0]);
        bytes[386..388].copy_from_slice(&[0xe8, 3]);
        bytes[512..514].copy_from_slice(&[0x66, 0x44]);
        bytes[516] = 9;
        bytes[520] = 0x0c;
        bytes[522] = 1;
        bytes[525] = 7;
        bytes[532..536].copy_from_slice(&[15, 0, 3, 0]);
        bytes[538] = 0x30;
        bytes[768..772].copy_from_slice(b"nqn.");
        bytes[1793] = 2;
        bytes[1796] = 1;
        bytes[1803] = 1;
        let controller = IdentifyController::parse(&bytes);
        assert_eq!(controller.serial_number, "SN");
        assert_eq!(controller.model_number, "MN");
        assert_eq!(controller.controller_id, 0x0102);
        assert_eq!(controller.version, 0x0001_0400);
        assert_eq!(controller.events, optional::EVENT_DISCOVERY_LOG);
        assert_eq!(controller.kind, ControllerKind::Discovery);
        assert_eq!((controller.abort_limit, controller.event_request_limit), (3, 4));
        assert_eq!((controller.access_transition_time, controller.access_capabilities), (10, 0x5f));
        assert_eq!(controller.command_quiesce_time, 1000);
        assert_eq!((controller.access_group_max, controller.access_groups), (128, 127));
        assert_eq!(controller.sgl_support.0, SglSupport::OFFSET | SglSupport::TRANSPORT);
        assert_eq!((controller.fused_operations, controller.volatile_write_cache), (1, 7));
        assert_eq!((controller.atomic_compare_write_unit, controller.copy_formats), (15, 3));
        assert_eq!(controller.command_capsule_size, 512);
        assert_eq!(controller.in_capsule_data_max(), Some(8192 - 64));
        let mut again = [0xff; LENGTH];
        controller.encode(&mut again);
        assert_eq!(IdentifyController::parse(&again), controller);
        assert_eq!(again[64..72], *b"        ");
        assert_eq!(again[320..388], bytes[320..388]);
        assert_eq!(again[512..], bytes[512..]);
    }

    #[test]
    fn nonsense_capsule_sizes_are_no_size() {
        for command_capsule_size in [0, 3, u32::MAX] {
            let controller =
                IdentifyController { command_capsule_size, ..IdentifyController::default() };
            assert_eq!(controller.in_capsule_data_max(), None);
        }
    }

    #[test]
    fn limits_of_the_command_set() {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&[5, 6, 7, 8]);
        bytes[5] = 1;
        bytes[15] = 2;
        let limits = IdentifyControllerNvm::parse(&bytes);
        assert_eq!((limits.verify_size_max, limits.write_zeroes_size_max), (5, 6));
        assert_eq!((limits.write_uncorrectable_size_max, limits.discard_ranges_max), (7, 8));
        assert_eq!((limits.discard_range_blocks_max, limits.discard_blocks_max), (256, 2 << 56));
        let mut again = [0xff; LENGTH];
        limits.encode(&mut again);
        assert_eq!(again, bytes);
    }
}
