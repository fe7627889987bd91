//! Submission queue entries: the fields common to all commands, and how a typed command becomes an
//! entry and back.
//!
//! An entry is `[u8; 64]`. Parsing never fails: what is unknown or reserved is for the target to
//! judge, with a status.

pub mod admin;
pub mod fabrics;
pub mod nvm;
pub mod reservation;

pub use admin::AdminCommand;
pub use fabrics::{FabricsCommand, SecurityProtocol};
pub use nvm::{CopyFormat, CopySource, NvmCommand, Range};
pub use reservation::ReservationCommand;

use super::field::{put_u16, put_u32, u16_at, u32_at};
use super::sgl::Descriptor;

/// A submission queue entry. Base §3.3.3.1 (Common Command Format).
pub type SubmissionEntry = [u8; 64];

/// Opcode shared by all Fabrics commands. Base §6.
pub const OPCODE_FABRICS: u8 = 0x7f;

/// PSDT 01b: SGLs are used. Base §3.3.3.1, byte 1 bits 7:6; mandatory over fabrics.
pub const PSDT_SGL: u8 = 0x40;

/// NSID that names all namespaces. Base §3.2.1.2.
pub const NSID_BROADCAST: u32 = 0xffff_ffff;

/// Byte 0.
pub const fn opcode(entry: &SubmissionEntry) -> u8 {
    entry[0]
}

/// Byte 1 bits 1:0: nonzero when the command is half of a fused pair.
pub const fn fuse(entry: &SubmissionEntry) -> u8 {
    entry[1] & 0b11
}

/// Byte 1 bits 7:6: how the data is described; over fabrics only 01b is allowed.
pub const fn data_transfer(entry: &SubmissionEntry) -> u8 {
    entry[1] >> 6
}

/// FUSE 01b: the first command of a fused pair. Base §3.4.2.
pub const FUSE_FIRST: u8 = 0b01;

/// FUSE 10b: the second command of a fused pair, which follows the first at once on its queue.
pub const FUSE_SECOND: u8 = 0b10;

/// Makes a finished entry a half of a fused pair.
pub const fn set_fuse(entry: &mut SubmissionEntry, fuse: u8) {
    entry[1] = entry[1] & !0b11 | fuse & 0b11;
}

/// Bytes 2-3: the host's name for the command.
pub const fn command_id(entry: &SubmissionEntry) -> u16 {
    u16_at(entry, 2)
}

/// Bytes 4-7: the namespace (of a Fabrics command: its type and reserved bytes).
pub const fn namespace_id(entry: &SubmissionEntry) -> u32 {
    u32_at(entry, 4)
}

/// Command dword `index`, 10 to 15, at bytes 40-63.
pub const fn dword(entry: &SubmissionEntry, index: usize) -> u32 {
    u32_at(entry, index * 4)
}

/// Sets command dword `index`.
pub fn set_dword(entry: &mut SubmissionEntry, index: usize, value: u32) {
    put_u32(entry, index * 4, value);
}

/// Bytes 24-39: where the data is.
pub const fn data(entry: &SubmissionEntry) -> Descriptor {
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < 16 {
        bytes[index] = entry[24 + index];
        index += 1;
    }
    Descriptor::parse(&bytes)
}

/// Puts another command id into a finished entry.
pub fn set_command_id(entry: &mut SubmissionEntry, command_id: u16) {
    put_u16(entry, 2, command_id);
}

/// An entry with the common fields set and the command dwords zero.
pub fn entry(opcode: u8, command_id: u16, namespace_id: u32, data: Descriptor) -> SubmissionEntry {
    let mut entry = [0; 64];
    entry[0] = opcode;
    entry[1] = PSDT_SGL;
    put_u16(&mut entry, 2, command_id);
    put_u32(&mut entry, 4, namespace_id);
    entry[24..40].copy_from_slice(&data.encode());
    entry
}

/// Which way a command's data goes, by the opcode's bits 1:0. Base §3.3.3.1 ("Data
/// Transfer direction"); for Fabrics commands the same bits of FCTYPE (Base §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// 00b: no data.
    None,
    /// 01b: host to controller.
    HostToController,
    /// 10b: controller to host.
    ControllerToHost,
    /// 11b: both; no command here.
    Both,
}

/// The data direction of an entry.
pub const fn direction(entry: &SubmissionEntry) -> Direction {
    let code = if entry[0] == OPCODE_FABRICS { entry[4] } else { entry[0] };
    match code & 0b11 {
        0b00 => Direction::None,
        0b01 => Direction::HostToController,
        0b10 => Direction::ControllerToHost,
        _ => Direction::Both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_fields_lie_where_the_format_says() {
        let mut bytes = entry(0x02, 0x1234, 7, Descriptor::transport(4096));
        assert_eq!(&bytes[..8], &[0x02, 0x40, 0x34, 0x12, 7, 0, 0, 0]);
        assert_eq!(&bytes[24..40], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x5a]);
        assert_eq!(data(&bytes), Descriptor::transport(4096));
        set_dword(&mut bytes, 12, 0xdead_beef);
        assert_eq!(&bytes[48..52], &[0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(dword(&bytes, 12), 0xdead_beef);
        assert_eq!((opcode(&bytes), command_id(&bytes), namespace_id(&bytes)), (2, 0x1234, 7));
        assert_eq!((fuse(&bytes), data_transfer(&bytes)), (0, 1));
    }

    #[test]
    fn direction_is_in_the_low_bits() {
        let direction_of = |opcode| direction(&entry(opcode, 0, 0, Descriptor::NONE));
        assert_eq!(direction_of(nvm::OPCODE_WRITE), Direction::HostToController);
        assert_eq!(direction_of(nvm::OPCODE_READ), Direction::ControllerToHost);
        assert_eq!(direction_of(nvm::OPCODE_FLUSH), Direction::None);
        assert_eq!(direction_of(nvm::OPCODE_WRITE_ZEROES), Direction::None);
        assert_eq!(direction_of(nvm::OPCODE_DATASET_MANAGEMENT), Direction::HostToController);
        let mut connect = entry(OPCODE_FABRICS, 0, 0, Descriptor::NONE);
        connect[4] = fabrics::TYPE_CONNECT;
        assert_eq!(direction(&connect), Direction::HostToController);
    }
}
