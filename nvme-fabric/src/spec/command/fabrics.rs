//! Fabrics commands: Connect, Property Get and Set, Authentication Send and Receive, Disconnect.

use super::{OPCODE_FABRICS, SubmissionEntry, entry};
use crate::spec::auth::{PROTOCOL_SPECIFIC, SECURITY_PROTOCOL};
use crate::spec::field::{put, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use crate::spec::sgl::Descriptor;

/// FCTYPE, byte 4. Base §6.
pub const TYPE_PROPERTY_SET: u8 = 0x00;
/// Base §6.
pub const TYPE_CONNECT: u8 = 0x01;
/// Base §6.
pub const TYPE_PROPERTY_GET: u8 = 0x04;
/// Base §6.
pub const TYPE_AUTHENTICATION_SEND: u8 = 0x05;
/// Base §6.
pub const TYPE_AUTHENTICATION_RECEIVE: u8 = 0x06;
/// Base §6.
pub const TYPE_DISCONNECT: u8 = 0x08;

/// CATTR bit 2: the host does without SQ flow control. Base §6.3.
const CONNECT_DISABLE_FLOW_CONTROL: u8 = 1 << 2;

/// Bytes 41-43 of Authentication Send and Receive. Base §6.1, §6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityProtocol {
    /// SPSP0, byte 41, and SPSP1, byte 42.
    pub specific: [u8; 2],
    /// SECP, byte 43.
    pub id: u8,
}

impl SecurityProtocol {
    /// NVMe's own authentication protocols.
    pub const NVME: Self = Self { specific: [PROTOCOL_SPECIFIC; 2], id: SECURITY_PROTOCOL };

    fn parse(bytes: &SubmissionEntry) -> Self {
        Self { specific: [bytes[41], bytes[42]], id: bytes[43] }
    }

    fn put(self, bytes: &mut SubmissionEntry, kind: u8, length: u32) {
        bytes[4] = kind;
        put(bytes, 41, &[self.specific[0], self.specific[1], self.id]);
        put_u32(bytes, 44, length);
    }
}

/// A Fabrics command with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricsCommand {
    /// Make this connection a queue of a controller. Its data is [`crate::spec::connect`]. Base
    /// §6.3.
    Connect {
        /// RECFMT, bytes 40-41: 0.
        record_format: u16,
        /// QID, bytes 42-43: 0 is the admin queue.
        queue_id: u16,
        /// SQSIZE, bytes 44-45: entries, 0's based.
        queue_size: u16,
        /// CATTR bit 2, byte 46.
        flow_control_disabled: bool,
        /// KATO, bytes 48-51: milliseconds, 0 for none.
        keep_alive_ms: u32,
    },
    /// Write a register. Base §6.6.
    PropertySet {
        /// ATTRIB bits 2:0, byte 40: 0 for 4 bytes, 1 for 8 bytes.
        size: u8,
        /// OFST, bytes 44-47.
        offset: u32,
        /// VALUE, bytes 48-55.
        value: u64,
    },
    /// Read a register. Base §6.5.
    PropertyGet {
        /// ATTRIB bits 2:0, byte 40: 0 for 4 bytes, 1 for 8 bytes.
        size: u8,
        /// OFST, bytes 44-47.
        offset: u32,
    },
    /// A message of the host's, as data. Its contents are [`crate::spec::auth`]. Base §6.2.
    AuthenticationSend {
        /// What protocol the message is of.
        protocol: SecurityProtocol,
        /// TL, bytes 44-47: bytes of data.
        length: u32,
    },
    /// Asks for a message of the controller's, as data. Base §6.1.
    AuthenticationReceive {
        /// What protocol the message is of.
        protocol: SecurityProtocol,
        /// AL, bytes 44-47: bytes of data, zeros after the message.
        length: u32,
    },
    /// Give up this I/O queue. Base §6.4.
    Disconnect,
    /// A type that is none of these.
    Other(u8),
}

impl FabricsCommand {
    /// The typed form of an entry whose opcode is [`OPCODE_FABRICS`].
    pub fn parse(bytes: &SubmissionEntry) -> Self {
        match bytes[4] {
            TYPE_CONNECT => Self::Connect {
                record_format: u16_at(bytes, 40),
                queue_id: u16_at(bytes, 42),
                queue_size: u16_at(bytes, 44),
                flow_control_disabled: bytes[46] & CONNECT_DISABLE_FLOW_CONTROL != 0,
                keep_alive_ms: u32_at(bytes, 48),
            },
            TYPE_PROPERTY_SET => Self::PropertySet {
                size: bytes[40] & 0b111,
                offset: u32_at(bytes, 44),
                value: u64_at(bytes, 48),
            },
            TYPE_PROPERTY_GET => {
                Self::PropertyGet { size: bytes[40] & 0b111, offset: u32_at(bytes, 44) }
            }
            TYPE_AUTHENTICATION_SEND => Self::AuthenticationSend {
                protocol: SecurityProtocol::parse(bytes),
                length: u32_at(bytes, 44),
            },
            TYPE_AUTHENTICATION_RECEIVE => Self::AuthenticationReceive {
                protocol: SecurityProtocol::parse(bytes),
                length: u32_at(bytes, 44),
            },
            TYPE_DISCONNECT => Self::Disconnect,
            other => Self::Other(other),
        }
    }

    /// The entry of this command under the name `id`, its data described by `data`.
    pub fn encode(&self, id: u16, data: Descriptor) -> SubmissionEntry {
        let mut bytes = entry(OPCODE_FABRICS, id, 0, data);
        match *self {
            Self::Connect {
                record_format,
                queue_id,
                queue_size,
                flow_control_disabled,
                keep_alive_ms,
            } => {
                bytes[4] = TYPE_CONNECT;
                put_u16(&mut bytes, 40, record_format);
                put_u16(&mut bytes, 42, queue_id);
                put_u16(&mut bytes, 44, queue_size);
                bytes[46] = if flow_control_disabled { CONNECT_DISABLE_FLOW_CONTROL } else { 0 };
                put_u32(&mut bytes, 48, keep_alive_ms);
            }
            Self::PropertySet { size, offset, value } => {
                bytes[4] = TYPE_PROPERTY_SET;
                bytes[40] = size;
                put_u32(&mut bytes, 44, offset);
                put_u64(&mut bytes, 48, value);
            }
            Self::PropertyGet { size, offset } => {
                bytes[4] = TYPE_PROPERTY_GET;
                bytes[40] = size;
                put_u32(&mut bytes, 44, offset);
            }
            Self::AuthenticationSend { protocol, length } => {
                protocol.put(&mut bytes, TYPE_AUTHENTICATION_SEND, length);
            }
            Self::AuthenticationReceive { protocol, length } => {
                protocol.put(&mut bytes, TYPE_AUTHENTICATION_RECEIVE, length);
            }
            Self::Disconnect => bytes[4] = TYPE_DISCONNECT,
            Self::Other(kind) => bytes[4] = kind,
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_survives_encoding() {
        for command in [
            FabricsCommand::Connect {
                record_format: 0,
                queue_id: 3,
                queue_size: 127,
                flow_control_disabled: true,
                keep_alive_ms: 5000,
            },
            FabricsCommand::PropertySet { size: 0, offset: 0x14, value: 0x0046_0001 },
            FabricsCommand::PropertyGet { size: 1, offset: 0 },
            FabricsCommand::Disconnect,
            FabricsCommand::AuthenticationSend { protocol: SecurityProtocol::NVME, length: 72 },
            FabricsCommand::AuthenticationReceive {
                protocol: SecurityProtocol { specific: [1, 2], id: 3 },
                length: 4096,
            },
            FabricsCommand::Other(0x0c),
        ] {
            assert_eq!(FabricsCommand::parse(&command.encode(1, Descriptor::NONE)), command);
        }
    }

    #[test]
    fn authentication_as_it_lies_on_the_wire() {
        let protocol = SecurityProtocol::NVME;
        let send = FabricsCommand::AuthenticationSend { protocol, length: 0x0102 };
        let bytes = send.encode(1, Descriptor::in_capsule(0x0102));
        assert_eq!(bytes[..5], [0x7f, 0x40, 0x01, 0x00, 0x05]);
        assert_eq!(bytes[40..48], [0, 1, 1, 0xe9, 2, 1, 0, 0]);
    }

    #[test]
    fn connect_as_it_lies_on_the_wire() {
        let connect = FabricsCommand::Connect {
            record_format: 0,
            queue_id: 0x0102,
            queue_size: 31,
            flow_control_disabled: false,
            keep_alive_ms: 15000,
        };
        let bytes = connect.encode(0x0201, Descriptor::in_capsule(1024));
        assert_eq!(bytes[..5], [0x7f, 0x40, 0x01, 0x02, 0x01]);
        assert_eq!(bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[40..52], [0, 0, 2, 1, 31, 0, 0, 0, 0x98, 0x3a, 0, 0]);
    }
}
