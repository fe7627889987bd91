//! The discovery log page: a header and one entry per way to a subsystem. Base
//! §5.16.1.24.

use crate::spec::field::{put_text, put_u16, put_u64, text_at, u16_at, u64_at};

/// Bytes of the header.
pub const HEADER_LENGTH: usize = 1024;
/// Bytes of an entry.
pub const ENTRY_LENGTH: usize = 1024;
/// TRTYPE 3: TCP.
pub const TRANSPORT_TCP: u8 = 3;
/// SECTYPE 0: no transport security. NVMe/TCP Transport 1.1 §3.2.1 (TSAS)
pub const SECURITY_NONE: u8 = 0;
/// SECTYPE 2: TLS 1.3 or later.
pub const SECURITY_TLS_1_3: u8 = 2;

/// Bits of EFLAGS.
pub mod entry_flag {
    /// DUPRETINFO, bit 0: the other entries here return the same information.
    pub const DUPLICATE: u16 = 1 << 0;
    /// EPCSD, bit 1: explicit persistent connections are supported.
    pub const PERSISTENT_CONNECTION: u16 = 1 << 1;
    /// NCC, bit 2: no connectivity to the central discovery controller (CDC); of those that the
    /// entry describes none is connected to it now. Only a CDC sets it.
    pub const NOT_CONNECTED: u16 = 1 << 2;
}

/// The page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryHeader {
    /// GENCTR, bytes 0-7: changes with the page; a host that sees another one starts over.
    pub generation: u64,
    /// NUMREC, bytes 8-15: entries.
    pub records: u64,
    /// RECFMT, bytes 16-17: 0.
    pub format: u16,
}

impl DiscoveryHeader {
    /// The typed form.
    pub const fn parse(bytes: &[u8; HEADER_LENGTH]) -> Self {
        Self { generation: u64_at(bytes, 0), records: u64_at(bytes, 8), format: u16_at(bytes, 16) }
    }

    /// The 1024 bytes of it.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        put_u64(&mut bytes, 0, self.generation);
        put_u64(&mut bytes, 8, self.records);
        put_u16(&mut bytes, 16, self.format);
        bytes
    }
}

/// ADRFAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// 1.
    Ipv4,
    /// 2.
    Ipv6,
    /// Any other.
    Other(u8),
}

impl AddressFamily {
    const fn parse(number: u8) -> Self {
        match number {
            1 => Self::Ipv4,
            2 => Self::Ipv6,
            other => Self::Other(other),
        }
    }

    /// As it lies on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
            Self::Other(other) => other,
        }
    }
}

/// SUBTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsystemKind {
    /// 1: a referral to another discovery service.
    Referral,
    /// 2: a subsystem with I/O controllers.
    Nvm,
    /// 3: the discovery subsystem that is being asked; not a referral.
    CurrentDiscovery,
    /// Reserved.
    Other(u8),
}

impl SubsystemKind {
    const fn parse(number: u8) -> Self {
        match number {
            1 => Self::Referral,
            2 => Self::Nvm,
            3 => Self::CurrentDiscovery,
            other => Self::Other(other),
        }
    }

    /// As it lies on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Referral => 1,
            Self::Nvm => 2,
            Self::CurrentDiscovery => 3,
            Self::Other(other) => other,
        }
    }
}

/// One way to a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryEntry {
    /// TRTYPE, byte 0.
    pub transport: u8,
    /// ADRFAM, byte 1.
    pub family: AddressFamily,
    /// SUBTYPE, byte 2.
    pub kind: SubsystemKind,
    /// TREQ, byte 3: bits 1:0 secure channel (0 not said, 1 required, 2 not required), bit 2 the
    /// host may disable SQ flow control.
    pub requirements: u8,
    /// PORTID, bytes 4-5.
    pub port_id: u16,
    /// CNTLID, bytes 6-7: FFFFh dynamic, FFFEh static.
    pub controller_id: u16,
    /// ASQSZ, bytes 8-9: entries of the admin queue; not 0's based.
    pub admin_queue_size: u16,
    /// EFLAGS, bytes 10-11.
    pub flags: u16,
    /// TRSVCID, bytes 32-63: the port, as text.
    pub service: String,
    /// SUBNQN, bytes 256-511.
    pub subsystem: String,
    /// TRADDR, bytes 512-767: the address, as text.
    pub address: String,
    /// TSAS byte 0 (768): SECTYPE; 0 none, 1 TLS 1.2, 2 TLS 1.3. NVMe/TCP Transport.
    pub security: u8,
}

impl DiscoveryEntry {
    /// The typed form. Text is taken as it is; a caller checks the NQN and the address.
    pub fn parse(bytes: &[u8; ENTRY_LENGTH]) -> Self {
        Self {
            transport: bytes[0],
            family: AddressFamily::parse(bytes[1]),
            kind: SubsystemKind::parse(bytes[2]),
            requirements: bytes[3],
            port_id: u16_at(bytes, 4),
            controller_id: u16_at(bytes, 6),
            admin_queue_size: u16_at(bytes, 8),
            flags: u16_at(bytes, 10),
            service: text_at(bytes, 32, 32),
            subsystem: text_at(bytes, 256, 256),
            address: text_at(bytes, 512, 256),
            security: bytes[768],
        }
    }

    /// The 1024 bytes of it.
    pub fn encode(&self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[0] = self.transport;
        bytes[1] = self.family.number();
        bytes[2] = self.kind.number();
        bytes[3] = self.requirements;
        put_u16(&mut bytes, 4, self.port_id);
        put_u16(&mut bytes, 6, self.controller_id);
        put_u16(&mut bytes, 8, self.admin_queue_size);
        put_u16(&mut bytes, 10, self.flags);
        // ASCII strings are padded with spaces, NQNs with NULs; Base §1.4.2.
        put_text(&mut bytes, 32, 32, &self.service, b' ');
        put_text(&mut bytes, 256, 256, &self.subsystem, 0);
        put_text(&mut bytes, 512, 256, &self.address, b' ');
        bytes[768] = self.security;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_as_it_lies_on_the_wire() {
        let header = DiscoveryHeader { generation: 0x0102, records: 3, format: 0 };
        let bytes = header.encode();
        assert_eq!(bytes[..18], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(DiscoveryHeader::parse(&bytes), header);
    }

    #[test]
    fn an_entry_as_it_lies_on_the_wire() {
        let entry = DiscoveryEntry {
            transport: TRANSPORT_TCP,
            family: AddressFamily::Ipv4,
            kind: SubsystemKind::Nvm,
            requirements: 0,
            port_id: 1,
            controller_id: 0xffff,
            admin_queue_size: 32,
            flags: entry_flag::DUPLICATE,
            service: "4420".into(),
            subsystem: "nqn.2014-08.com.example:a".into(),
            address: "127.0.0.1".into(),
            security: 0,
        };
        let bytes = entry.encode();
        assert_eq!(bytes[..12], [3, 1, 2, 0, 1, 0, 0xff, 0xff, 32, 0, 1, 0]);
        assert_eq!(&bytes[32..38], b"4420  ");
        assert_eq!(&bytes[512..523], b"127.0.0.1  ");
        assert_eq!(bytes[281], 0, "an NQN is padded with NULs");
        assert_eq!(DiscoveryEntry::parse(&bytes), entry);
    }

    #[test]
    fn fields_padded_with_nuls_read_the_same() {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[..3].copy_from_slice(&[3, 2, 3]);
        bytes[32..36].copy_from_slice(b"8009");
        bytes[512..515].copy_from_slice(b"::1");
        let entry = DiscoveryEntry::parse(&bytes);
        assert_eq!((entry.service.as_str(), entry.address.as_str()), ("8009", "::1"));
        assert_eq!(entry.kind, SubsystemKind::CurrentDiscovery);
    }
}
