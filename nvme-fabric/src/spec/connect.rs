//! The data of the Connect command, and what its response says.

use super::field::{bytes16_at, put, put_text, put_u16, u16_at};
use super::nqn::{HostId, NameError, Nqn};

/// Bytes of Connect's data. Base §6.3.
pub const DATA_LENGTH: usize = 1024;

/// CNTLID of an admin Connect: any controller will do. Base §6.3 (dynamic model).
pub const CONTROLLER_ID_DYNAMIC: u16 = 0xffff;

/// Byte 16 of the data.
pub const OFFSET_CONTROLLER_ID: u16 = 16;
/// Byte 256 of the data.
pub const OFFSET_SUBSYSTEM_NQN: u16 = 256;
/// Byte 512 of the data.
pub const OFFSET_HOST_NQN: u16 = 512;

/// Offset of RECFMT in the submission entry.
pub const OFFSET_RECORD_FORMAT: u16 = 40;
/// Offset of QID in the submission entry.
pub const OFFSET_QUEUE_ID: u16 = 42;
/// Offset of SQSIZE in the submission entry.
pub const OFFSET_QUEUE_SIZE: u16 = 44;

/// Who connects to what. Base §6.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectData {
    /// HOSTID, bytes 0-15.
    pub host_id: HostId,
    /// CNTLID, bytes 16-17.
    pub controller_id: u16,
    /// SUBNQN, bytes 256-511.
    pub subsystem: Nqn,
    /// HOSTNQN, bytes 512-767. A host that leaves it empty, as SPDK's `spdk_nvme_perf` does, is
    /// known by the name that is made of its HOSTID: that is all it says of itself.
    pub host: Nqn,
}

/// Which field of Connect's data is wrong, by its offset, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectDataError {
    /// First byte of the field.
    pub offset: u16,
    /// What is wrong with it.
    pub reason: NameError,
}

impl ConnectData {
    /// The typed form.
    ///
    /// # Errors
    /// The first name that is not well formed.
    pub fn parse(bytes: &[u8; DATA_LENGTH]) -> Result<Self, ConnectDataError> {
        let name = |offset: u16| {
            let start = usize::from(offset);
            Nqn::parse_field(&bytes[start..start + 256])
                .map_err(|reason| ConnectDataError { offset, reason })
        };
        let host_id = HostId(bytes16_at(bytes, 0));
        let subsystem = name(OFFSET_SUBSYSTEM_NQN)?;
        let host = match bytes[usize::from(OFFSET_HOST_NQN)] {
            0 => Nqn::from_uuid(host_id),
            _ => name(OFFSET_HOST_NQN)?,
        };
        let controller_id = u16_at(bytes, usize::from(OFFSET_CONTROLLER_ID));
        Ok(Self { host_id, controller_id, subsystem, host })
    }

    /// The 1024 bytes of it.
    pub fn encode(&self) -> [u8; DATA_LENGTH] {
        let mut bytes = [0; DATA_LENGTH];
        put(&mut bytes, 0, &self.host_id.0);
        put_u16(&mut bytes, 16, self.controller_id);
        put_text(&mut bytes, 256, 256, self.subsystem.as_str(), 0);
        put_text(&mut bytes, 512, 256, self.host.as_str(), 0);
        bytes
    }
}

/// Dword 0 of a successful Connect: the controller, and whether it wants authentication. Base §6.3
///.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResult {
    /// Bits 15:0.
    pub controller_id: u16,
    /// ATR, bit 17: authenticate before anything else.
    pub authentication_required: bool,
    /// ASCR, bit 18: authenticate and set up a secure channel.
    pub secure_channel_required: bool,
}

impl ConnectResult {
    /// The typed form.
    pub const fn parse(dword_0: u32) -> Self {
        Self {
            controller_id: dword_0 as u16,
            authentication_required: dword_0 & 1 << 17 != 0,
            secure_channel_required: dword_0 & 1 << 18 != 0,
        }
    }

    /// The dword of it.
    pub fn encode(self) -> u32 {
        u32::from(self.controller_id)
            | u32::from(self.authentication_required) << 17
            | u32::from(self.secure_channel_required) << 18
    }
}

/// Where the parameter lies that a Connect Invalid Parameters status complains about: dword 0 of
/// that completion, IPO in bits 15:0 and IATTR in bit 16. Base §6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidParameter {
    /// Byte offset.
    pub offset: u16,
    /// In Connect's data rather than in its submission entry.
    pub in_data: bool,
}

impl InvalidParameter {
    /// The typed form.
    pub const fn parse(dword_0: u32) -> Self {
        Self { offset: dword_0 as u16, in_data: dword_0 & 1 << 16 != 0 }
    }

    /// The dword of it.
    pub fn encode(self) -> u32 {
        u32::from(self.offset) | u32::from(self.in_data) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> ConnectData {
        ConnectData {
            host_id: HostId([7; 16]),
            controller_id: CONTROLLER_ID_DYNAMIC,
            subsystem: Nqn::discovery(),
            host: Nqn::new("nqn.2014-08.com.example:host").expect("well formed"),
        }
    }

    #[test]
    fn as_it_lies_on_the_wire() {
        let bytes = data().encode();
        assert_eq!(bytes[..18], [[7u8; 18][..16].to_vec(), vec![0xff, 0xff]].concat());
        assert_eq!(&bytes[256..260], b"nqn.");
        assert_eq!(&bytes[512..541], b"nqn.2014-08.com.example:host\0");
        assert_eq!(ConnectData::parse(&bytes), Ok(data()));
    }

    #[test]
    fn the_wrong_field_is_named() {
        let mut bytes = data().encode();
        bytes[512] = b'x';
        assert_eq!(ConnectData::parse(&bytes).expect_err("a bad host name").offset, 512);
        bytes[256..512].fill(b'n');
        assert_eq!(ConnectData::parse(&bytes).expect_err("no NUL").offset, 256);
    }

    #[test]
    fn a_host_without_a_name_is_known_by_its_identifier() {
        let mut bytes = data().encode();
        bytes[512..768].fill(0);
        let host = ConnectData::parse(&bytes).expect("the identifier is enough").host;
        assert_eq!(
            host.as_str(),
            "nqn.2014-08.org.nvmexpress:uuid:07070707-0707-0707-0707-070707070707"
        );
        bytes[256..512].fill(0);
        assert_eq!(ConnectData::parse(&bytes).expect_err("no subsystem").offset, 256);
    }

    #[test]
    fn results() {
        let result = ConnectResult::parse(0x0004_0005);
        assert_eq!((result.controller_id, result.secure_channel_required), (5, true));
        assert!(!result.authentication_required);
        assert_eq!(result.encode(), 0x0004_0005);
        let invalid = InvalidParameter { offset: 256, in_data: true };
        assert_eq!(invalid.encode(), 0x0001_0100);
        assert_eq!(InvalidParameter::parse(0x0001_0100), invalid);
    }
}
