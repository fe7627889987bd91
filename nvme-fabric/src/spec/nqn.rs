//! Names: of a subsystem or host ([`Nqn`]), and of a host in 128 bits ([`HostId`]).

use std::fmt;
use std::str::FromStr;

/// The longest name in bytes; on the wire a NUL follows. Base §4.5 (NVMe Qualified Names).
pub const NQN_LENGTH_MAX: usize = 223;

/// The well-known name of every discovery service. Base §3.1.2.3 (Discovery Controller).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Prefix of a name made from a UUID. Base §4.5.
const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// An NVMe qualified name that is well formed: `nqn.YYYY-MM.REVERSE.DOMAIN:STRING` or
/// `nqn.2014-08.org.nvmexpress:uuid:UUID`, at most 223 bytes. Base §4.5.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nqn(Box<str>);

/// Why a text is no NVMe qualified name or host identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    name: String,
    reason: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": {}", self.name.escape_debug(), self.reason)
    }
}

impl std::error::Error for NameError {}

impl NameError {
    fn new(name: &str, reason: &'static str) -> Self {
        // A stranger's name may be long; the message need not be.
        Self { name: name.chars().take(NQN_LENGTH_MAX + 1).collect(), reason }
    }
}

impl Nqn {
    /// Checks a name.
    ///
    /// # Errors
    /// What about it is wrong, and what would be right.
    pub fn new(name: &str) -> Result<Self, NameError> {
        match Self::fault(name) {
            None => Ok(Self(name.into())),
            Some(reason) => Err(NameError::new(name, reason)),
        }
    }

    /// The name of a host or subsystem that has nothing but a UUID.
    pub fn from_uuid(uuid: HostId) -> Self {
        Self(format!("{UUID_PREFIX}{uuid}").into())
    }

    /// The well-known discovery name.
    pub fn discovery() -> Self {
        Self(DISCOVERY_NQN.into())
    }

    /// Whether this is the well-known discovery name.
    pub fn is_discovery(&self) -> bool {
        &*self.0 == DISCOVERY_NQN
    }

    /// The name in a NUL-padded field of 256 bytes, as Connect and log pages carry it.
    ///
    /// # Errors
    /// As [`new`](Self::new); also when it is not UTF-8 or has no NUL at its end.
    pub fn parse_field(field: &[u8]) -> Result<Self, NameError> {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        match std::str::from_utf8(&field[..end]) {
            Ok(name) => Self::new(name),
            Err(_) => {
                Err(NameError::new(&String::from_utf8_lossy(&field[..end]), "it must be UTF-8"))
            }
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn fault(name: &str) -> Option<&'static str> {
        if name.len() > NQN_LENGTH_MAX {
            return Some("an NQN has at most 223 bytes");
        }
        if name.chars().any(|character| character.is_control() || character == ' ') {
            return Some("an NQN has no spaces or control characters");
        }
        let Some(rest) = name.strip_prefix("nqn.") else {
            return Some("an NQN starts with \"nqn.\", as in nqn.2014-08.com.example:volume");
        };
        if let Some(uuid) = name.strip_prefix(UUID_PREFIX) {
            return HostId::from_str(uuid)
                .is_err()
                .then_some("after \"uuid:\" an NQN has a UUID of 32 hexadecimal digits");
        }
        let date_is_right = rest.len() > 8
            && rest.bytes().take(8).enumerate().all(|(index, byte)| match index {
                4 => byte == b'-',
                7 => byte == b'.',
                _ => byte.is_ascii_digit(),
            });
        if !date_is_right {
            return Some("after \"nqn.\" comes a date, year and month, as in nqn.2014-08.");
        }
        // All eight bytes before are ASCII, so this is a character boundary.
        let (domain, _) = rest[8..].split_once(':').unwrap_or((&rest[8..], ""));
        domain.is_empty().then_some("after the date an NQN has a reversed domain name")
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nqn({self})")
    }
}

impl FromStr for Nqn {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

/// A 128-bit identifier: of a host (HOSTID), and of a namespace (its UUID). The bytes are in the
/// order of the text. Base §6.3; RFC 4122 §4.1.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HostId(pub [u8; 16]);

impl HostId {
    /// Whether every byte is zero, which identifies nobody.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl FromStr for HostId {
    type Err = NameError;

    /// A UUID with or without dashes.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new(text, "a UUID has 32 hexadecimal digits and 4 dashes");
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (index, byte) in text.bytes().enumerate() {
            if byte == b'-' && matches!(index, 8 | 13 | 18 | 23) {
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or_else(wrong)?;
            let place = bytes.get_mut(digits / 2).ok_or_else(wrong)?;
            *place = *place << 4 | digit as u8;
            digits += 1;
        }
        if digits != 32 || !matches!(text.len(), 32 | 36) {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

    #[test]
    fn names_of_both_forms_are_accepted() {
        for name in [
            "nqn.2014-08.com.example:nvme:nvm-subsystem-sn-d78432",
            "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            DISCOVERY_NQN,
            "nqn.2024-01.io.forebay:volume-ä",
        ] {
            assert_eq!(Nqn::new(name).expect(name).as_str(), name);
        }
        let longest = format!("nqn.2014-08.a:{}", "x".repeat(NQN_LENGTH_MAX - 14));
        assert!(Nqn::new(&longest).is_ok());
        assert!(Nqn::new(&format!("{longest}x")).is_err());
    }

    #[test]
    fn other_names_are_refused_with_a_reason() {
        for (name, reason) in [
            ("", "starts with"),
            ("iqn.2014-08.com.example", "starts with"),
            ("nqn.", "a date"),
            ("nqn.2014-8.com.example", "a date"),
            ("nqn.2014-08.", "a date"),
            ("nqn.2014-08.:x", "domain"),
            ("nqn.201ä-08.com", "a date"),
            ("nqn.2014-08.org.nvmexpress:uuid:f81d4fae", "a UUID"),
            ("nqn.2014-08.com example", "no spaces"),
            ("nqn.2014-08.com.example\n", "no spaces"),
        ] {
            let error = Nqn::new(name).expect_err(name).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_field_ends_at_its_nul() {
        let mut field = [0; 256];
        field[..DISCOVERY_NQN.len()].copy_from_slice(DISCOVERY_NQN.as_bytes());
        assert!(Nqn::parse_field(&field).expect("well formed").is_discovery());
        assert!(Nqn::parse_field(&[b'n'; 256]).is_err());
        assert!(Nqn::parse_field(&[0xff; 256]).is_err());
        assert!(Nqn::parse_field(&[]).is_err());
    }

    #[test]
    fn a_host_id_has_the_bytes_of_its_text() {
        let id: HostId = UUID.parse().expect("a UUID");
        assert_eq!(id.0[..6], [0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec]);
        assert_eq!(id.to_string(), UUID);
        assert_eq!(UUID.replace('-', "").parse::<HostId>().expect("without dashes"), id);
        assert_eq!(Nqn::from_uuid(id).as_str(), format!("nqn.2014-08.org.nvmexpress:uuid:{UUID}"));
        for wrong in ["", "f81d4fae", "g81d4fae-7dec-11d0-a765-00a0c91e6bf6", &UUID.repeat(2)] {
            assert!(wrong.parse::<HostId>().is_err(), "{wrong}");
        }
        assert!("f81d4fae7dec-11d0-a765-00a0c91e6bf6".parse::<HostId>().is_err());
    }
}
