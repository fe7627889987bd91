//! Admin commands, as far as a host or target over fabrics uses them.

use super::{SubmissionEntry, dword, entry, namespace_id, opcode, set_dword};
use crate::spec::sgl::Descriptor;

/// Base §5 (Opcodes for Admin Commands).
pub const OPCODE_GET_LOG_PAGE: u8 = 0x02;
/// Base §5.
pub const OPCODE_IDENTIFY: u8 = 0x06;
/// Base §5.
pub const OPCODE_ABORT: u8 = 0x08;
/// Base §5.
pub const OPCODE_SET_FEATURES: u8 = 0x09;
/// Base §5.
pub const OPCODE_GET_FEATURES: u8 = 0x0a;
/// Base §5.
pub const OPCODE_ASYNCHRONOUS_EVENT_REQUEST: u8 = 0x0c;
/// Base §5.
pub const OPCODE_KEEP_ALIVE: u8 = 0x18;

/// An admin command with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Read an identify structure. Base §5.17.
    Identify {
        /// The namespace asked about, or the one to list from.
        namespace_id: u32,
        /// Which structure: dword 10 bits 7:0, see [`crate::spec::identify`].
        structure: u8,
        /// CNTID, dword 10 bits 31:16.
        controller_id: u16,
        /// CSI, dword 11 bits 31:24: which command set; 0 is NVM.
        command_set: u8,
    },
    /// Read part of a log page. Base §5.16.
    GetLogPage {
        /// The namespace, 0 or broadcast for the controller's.
        namespace_id: u32,
        /// LID, dword 10 bits 7:0, see [`crate::spec::log_page`].
        page: u8,
        /// LSP, dword 10 bits 14:8.
        specific: u8,
        /// RAE, dword 10 bit 15: do not re-arm the event that announced this page.
        retain_event: bool,
        /// Bytes to read; a multiple of 4 from 4 to 16 GiB (NUMD is 0's based dwords).
        length: u64,
        /// LPO, dwords 12-13: first byte to read (an index when `index_offset`).
        offset: u64,
        /// OT, dword 14 bit 23: the offset counts entries.
        index_offset: bool,
    },
    /// Change a feature. Base §5.27.
    SetFeatures {
        /// Namespace for features that are a namespace's.
        namespace_id: u32,
        /// FID, dword 10 bits 7:0, see [`crate::spec::feature`].
        feature: u8,
        /// SV, dword 10 bit 31: keep it across resets.
        save: bool,
        /// Dword 11.
        value: u32,
    },
    /// Read a feature. Base §5.15.
    GetFeatures {
        /// Namespace for features that are a namespace's.
        namespace_id: u32,
        /// FID, dword 10 bits 7:0.
        feature: u8,
        /// SEL, dword 10 bits 10:8: 0 current, 1 default, 2 saved, 3 capabilities.
        select: u8,
        /// Dword 11.
        value: u32,
    },
    /// Ask for the next event; answered when there is one. Base §5.2.
    AsynchronousEventRequest,
    /// The host lives. Base §5.18.
    KeepAlive,
    /// Try to end another command. Base §5.1.
    Abort {
        /// SQID, dword 10 bits 15:0.
        queue_id: u16,
        /// CID, dword 10 bits 31:16.
        command_id: u16,
    },
    /// An opcode that is none of these.
    Other(u8),
}

impl AdminCommand {
    /// The typed form of an entry.
    pub fn parse(bytes: &SubmissionEntry) -> Self {
        let namespace_id = namespace_id(bytes);
        let dword_10 = dword(bytes, 10);
        let dword_11 = dword(bytes, 11);
        match opcode(bytes) {
            OPCODE_IDENTIFY => Self::Identify {
                namespace_id,
                structure: dword_10 as u8,
                controller_id: (dword_10 >> 16) as u16,
                command_set: (dword_11 >> 24) as u8,
            },
            OPCODE_GET_LOG_PAGE => Self::GetLogPage {
                namespace_id,
                page: dword_10 as u8,
                specific: (dword_10 >> 8) as u8 & 0x7f,
                retain_event: dword_10 & 1 << 15 != 0,
                length: (u64::from(dword_10 >> 16) | u64::from(dword_11 as u16) << 16) * 4 + 4,
                offset: u64::from(dword(bytes, 12)) | u64::from(dword(bytes, 13)) << 32,
                index_offset: dword(bytes, 14) & 1 << 23 != 0,
            },
            OPCODE_SET_FEATURES => Self::SetFeatures {
                namespace_id,
                feature: dword_10 as u8,
                save: dword_10 & 1 << 31 != 0,
                value: dword_11,
            },
            OPCODE_GET_FEATURES => Self::GetFeatures {
                namespace_id,
                feature: dword_10 as u8,
                select: (dword_10 >> 8) as u8 & 0b111,
                value: dword_11,
            },
            OPCODE_ASYNCHRONOUS_EVENT_REQUEST => Self::AsynchronousEventRequest,
            OPCODE_KEEP_ALIVE => Self::KeepAlive,
            OPCODE_ABORT => {
                Self::Abort { queue_id: dword_10 as u16, command_id: (dword_10 >> 16) as u16 }
            }
            other => Self::Other(other),
        }
    }

    /// The entry of this command under the name `id`, its data described by `data`.
    pub fn encode(&self, id: u16, data: Descriptor) -> SubmissionEntry {
        let (opcode, nsid, dword_10, dword_11) = match *self {
            Self::Identify { namespace_id, structure, controller_id, command_set } => (
                OPCODE_IDENTIFY,
                namespace_id,
                u32::from(structure) | u32::from(controller_id) << 16,
                u32::from(command_set) << 24,
            ),
            Self::GetLogPage { .. } => return self.encode_get_log_page(id, data),
            Self::SetFeatures { namespace_id, feature, save, value } => (
                OPCODE_SET_FEATURES,
                namespace_id,
                u32::from(feature) | u32::from(save) << 31,
                value,
            ),
            Self::GetFeatures { namespace_id, feature, select, value } => (
                OPCODE_GET_FEATURES,
                namespace_id,
                u32::from(feature) | u32::from(select & 0b111) << 8,
                value,
            ),
            Self::AsynchronousEventRequest => (OPCODE_ASYNCHRONOUS_EVENT_REQUEST, 0, 0, 0),
            Self::KeepAlive => (OPCODE_KEEP_ALIVE, 0, 0, 0),
            Self::Abort { queue_id, command_id } => {
                (OPCODE_ABORT, 0, u32::from(queue_id) | u32::from(command_id) << 16, 0)
            }
            Self::Other(opcode) => (opcode, 0, 0, 0),
        };
        let mut bytes = entry(opcode, id, nsid, data);
        set_dword(&mut bytes, 10, dword_10);
        set_dword(&mut bytes, 11, dword_11);
        bytes
    }

    fn encode_get_log_page(&self, id: u16, data: Descriptor) -> SubmissionEntry {
        let Self::GetLogPage {
            namespace_id,
            page,
            specific,
            retain_event,
            length,
            offset,
            index_offset,
        } = *self
        else {
            return self.encode(id, data);
        };
        // NUMD counts dwords from zero. Base §5.16.
        let dwords = (length / 4).saturating_sub(1) as u32;
        let mut bytes = entry(OPCODE_GET_LOG_PAGE, id, namespace_id, data);
        let dword_10 = u32::from(page)
            | u32::from(specific & 0x7f) << 8
            | u32::from(retain_event) << 15
            | dwords << 16;
        set_dword(&mut bytes, 10, dword_10);
        set_dword(&mut bytes, 11, dwords >> 16);
        set_dword(&mut bytes, 12, offset as u32);
        set_dword(&mut bytes, 13, (offset >> 32) as u32);
        set_dword(&mut bytes, 14, u32::from(index_offset) << 23);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::field::u32_at;

    #[test]
    fn every_command_survives_encoding() {
        for command in [
            AdminCommand::Identify {
                namespace_id: 3,
                structure: 6,
                controller_id: 0x1234,
                command_set: 2,
            },
            AdminCommand::GetLogPage {
                namespace_id: 0xffff_ffff,
                page: 0x70,
                specific: 0x55,
                retain_event: true,
                length: 0x2_3456_0004,
                offset: 0x1_0000_0400,
                index_offset: false,
            },
            AdminCommand::SetFeatures { namespace_id: 0, feature: 7, save: true, value: 99 },
            AdminCommand::GetFeatures { namespace_id: 1, feature: 6, select: 3, value: 1 },
            AdminCommand::AsynchronousEventRequest,
            AdminCommand::KeepAlive,
            AdminCommand::Abort { queue_id: 2, command_id: 0xfffe },
            AdminCommand::Other(0xc0),
        ] {
            assert_eq!(AdminCommand::parse(&command.encode(9, Descriptor::NONE)), command);
        }
    }

    #[test]
    fn the_discovery_log_header_as_it_lies_on_the_wire() {
        let command = AdminCommand::GetLogPage {
            namespace_id: 0,
            page: 0x70,
            specific: 0,
            retain_event: true,
            length: 1024,
            offset: 0x400,
            index_offset: false,
        };
        let bytes = command.encode(5, Descriptor::transport(1024));
        assert_eq!(bytes[..4], [0x02, 0x40, 0x05, 0x00]);
        assert_eq!(u32_at(&bytes, 40), 0x00ff_8070, "255 dwords, retain, page 70h");
        assert_eq!(bytes[44..56], [0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
    }
}
