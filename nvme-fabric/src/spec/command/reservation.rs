//! Reservation commands: Register, Report, Acquire and Release. Their data are in
//! [`crate::spec::reservation`].

use super::{SubmissionEntry, dword, entry, opcode, set_dword};
use crate::spec::sgl::Descriptor;

/// Base §7 (Opcodes for I/O Commands).
pub const OPCODE_REGISTER: u8 = 0x0d;
/// Base §7.
pub const OPCODE_REPORT: u8 = 0x0e;
/// Base §7.
pub const OPCODE_ACQUIRE: u8 = 0x11;
/// Base §7.
pub const OPCODE_RELEASE: u8 = 0x15;

/// Dword 10 bit 3 of register, acquire and release. Base §7.2.
const IGNORE_EXISTING_KEY: u32 = 1 << 3;
/// Dword 11 bit 0 of report: EDS. Base §7.5.
const EXTENDED: u32 = 1 << 0;

/// RREGA of Register. Base §7.3.
pub mod register_action {
    /// Become a registrant.
    pub const REGISTER: u8 = 0;
    /// Cease to be one.
    pub const UNREGISTER: u8 = 1;
    /// Change the key.
    pub const REPLACE: u8 = 2;
}

/// CPTPL of Register. Base §7.3.
pub mod persistence_change {
    /// As it is.
    pub const NONE: u8 = 0b00;
    /// Reservation and registrants are gone after a power loss.
    pub const CLEAR: u8 = 0b10;
    /// They persist.
    pub const SET: u8 = 0b11;
}

/// RACQA of Acquire. Base §7.2.
pub mod acquire_action {
    /// Take the reservation when there is none.
    pub const ACQUIRE: u8 = 0;
    /// Take it from its holder, or unregister others.
    pub const PREEMPT: u8 = 1;
    /// The same, and their commands end before this one does.
    pub const PREEMPT_AND_ABORT: u8 = 2;
}

/// RRELA of Release. Base §7.4.
pub mod release_action {
    /// Give the reservation up.
    pub const RELEASE: u8 = 0;
    /// Remove it and every registrant.
    pub const CLEAR: u8 = 1;
}

/// A reservation command with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationCommand {
    /// Register, unregister or replace a key. Data: [`crate::spec::reservation::RegisterKeys`].
    Register {
        /// RREGA, see [`register_action`].
        action: u8,
        /// IEKEY: the current key is not compared.
        ignore_existing_key: bool,
        /// CPTPL, see [`persistence_change`].
        persistence: u8,
    },
    /// Read [`crate::spec::reservation::ReservationStatus`].
    Report {
        /// Bytes to read, a multiple of 4 (NUMD is 0's based dwords).
        length: u64,
        /// EDS: with 128-bit host identifiers, which fabrics have.
        extended: bool,
    },
    /// Acquire or preempt. Data: [`crate::spec::reservation::AcquireKeys`].
    Acquire {
        /// RACQA, see [`acquire_action`].
        action: u8,
        /// IEKEY, which must not be set.
        ignore_existing_key: bool,
        /// RTYPE, see [`crate::spec::reservation::ReservationKind`].
        kind: u8,
    },
    /// Release or clear. Data: the current key, 8 bytes.
    Release {
        /// RRELA, see [`release_action`].
        action: u8,
        /// IEKEY, which must not be set.
        ignore_existing_key: bool,
        /// RTYPE.
        kind: u8,
    },
}

impl ReservationCommand {
    /// The typed form of an entry, when its opcode is one of these.
    pub fn parse(bytes: &SubmissionEntry) -> Option<Self> {
        let dword_10 = dword(bytes, 10);
        let action = dword_10 as u8 & 0b111;
        let ignore_existing_key = dword_10 & IGNORE_EXISTING_KEY != 0;
        let kind = (dword_10 >> 8) as u8;
        Some(match opcode(bytes) {
            OPCODE_REGISTER => {
                let persistence = (dword_10 >> 30) as u8;
                Self::Register { action, ignore_existing_key, persistence }
            }
            OPCODE_REPORT => Self::Report {
                length: (u64::from(dword_10) + 1) * 4,
                extended: dword(bytes, 11) & EXTENDED != 0,
            },
            OPCODE_ACQUIRE => Self::Acquire { action, ignore_existing_key, kind },
            OPCODE_RELEASE => Self::Release { action, ignore_existing_key, kind },
            _ => return None,
        })
    }

    /// The entry of this command on namespace `nsid` under the name `id`.
    pub fn encode(&self, id: u16, nsid: u32, data: Descriptor) -> SubmissionEntry {
        let with_action = |action: u8, ignore: bool| {
            u32::from(action & 0b111) | if ignore { IGNORE_EXISTING_KEY } else { 0 }
        };
        let (opcode, dword_10, dword_11) = match *self {
            Self::Register { action, ignore_existing_key, persistence } => (
                OPCODE_REGISTER,
                with_action(action, ignore_existing_key) | u32::from(persistence & 0b11) << 30,
                0,
            ),
            Self::Report { length, extended } => {
                (OPCODE_REPORT, (length / 4).saturating_sub(1) as u32, u32::from(extended))
            }
            Self::Acquire { action, ignore_existing_key, kind } => {
                (OPCODE_ACQUIRE, with_action(action, ignore_existing_key) | u32::from(kind) << 8, 0)
            }
            Self::Release { action, ignore_existing_key, kind } => {
                (OPCODE_RELEASE, with_action(action, ignore_existing_key) | u32::from(kind) << 8, 0)
            }
        };
        let mut bytes = entry(opcode, id, nsid, data);
        set_dword(&mut bytes, 10, dword_10);
        set_dword(&mut bytes, 11, dword_11);
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
            ReservationCommand::Register { action: 2, ignore_existing_key: true, persistence: 3 },
            ReservationCommand::Report { length: 4096, extended: true },
            ReservationCommand::Acquire { action: 2, ignore_existing_key: false, kind: 6 },
            ReservationCommand::Release { action: 1, ignore_existing_key: true, kind: 1 },
        ] {
            let entry = command.encode(1, 1, Descriptor::NONE);
            assert_eq!(ReservationCommand::parse(&entry), Some(command));
        }
        let read = super::super::entry(2, 0, 0, Descriptor::NONE);
        assert_eq!(ReservationCommand::parse(&read), None);
    }

    #[test]
    fn register_and_acquire_as_they_lie_on_the_wire() {
        let register =
            ReservationCommand::Register { action: 1, ignore_existing_key: true, persistence: 2 };
        let bytes = register.encode(1, 1, Descriptor::in_capsule(16));
        assert_eq!((bytes[0], u32_at(&bytes, 40)), (0x0d, 0x8000_0009));
        let acquire =
            ReservationCommand::Acquire { action: 2, ignore_existing_key: false, kind: 5 };
        let bytes = acquire.encode(1, 1, Descriptor::in_capsule(16));
        assert_eq!((bytes[0], u32_at(&bytes, 40)), (0x11, 0x0502));
        let report = ReservationCommand::Report { length: 64, extended: true };
        let bytes = report.encode(1, 1, Descriptor::transport(64));
        assert_eq!((bytes[0], u32_at(&bytes, 40), u32_at(&bytes, 44)), (0x0e, 15, 1));
    }
}
