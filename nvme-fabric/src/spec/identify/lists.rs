//! Lists in 4096 bytes: active namespaces (CNS 02h) and a namespace's identifiers (CNS 03h).

use super::{COMMAND_SET_NVM, LENGTH, Structure};
use crate::spec::field::{bytes16_at, put, put_u32, u32_at};
use crate::spec::nqn::HostId;

/// Namespace ids in one list. Base §5.17.2.2.
pub const NAMESPACE_LIST_MAX: usize = 1024;

/// The ids of a list: ascending, ended by a zero. Base §5.17.2.2.
pub fn parse_namespace_list(bytes: &Structure) -> impl Iterator<Item = u32> {
    (0..NAMESPACE_LIST_MAX).map(|index| u32_at(bytes, index * 4)).take_while(|id| *id != 0)
}

/// Writes the list of the first ids of `ids`, which are ascending, into `bytes`, all of it.
pub fn encode_namespace_list(ids: impl IntoIterator<Item = u32>, bytes: &mut Structure) {
    *bytes = [0; LENGTH];
    for (index, id) in ids.into_iter().take(NAMESPACE_LIST_MAX).enumerate() {
        put_u32(bytes, index * 4, id);
    }
}

/// NIDT: what a descriptor holds. Base §5.17.2.3.
const TYPE_EUI64: u8 = 1;
const TYPE_NGUID: u8 = 2;
const TYPE_UUID: u8 = 3;
const TYPE_COMMAND_SET: u8 = 4;

/// A namespace's identifiers. Base §5.17.2.3: each is type, length, two reserved bytes
/// and the value; a length of zero ends the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NamespaceDescriptors {
    /// Type 1.
    pub eui64: Option<[u8; 8]>,
    /// Type 2.
    pub nguid: Option<[u8; 16]>,
    /// Type 3.
    pub uuid: Option<HostId>,
    /// Type 4; 0 is the NVM command set.
    pub command_set: Option<u8>,
}

impl NamespaceDescriptors {
    /// The typed form. Descriptors of unknown type are passed over; what runs past the end or has
    /// the wrong length for its type ends the list.
    pub fn parse(bytes: &Structure) -> Self {
        let mut found = Self::default();
        let mut rest = &bytes[..];
        while let [kind, length, _, _, values @ ..] = rest {
            let length = usize::from(*length);
            if length == 0 || values.len() < length {
                break;
            }
            let (value, after) = values.split_at(length);
            match (*kind, length) {
                (TYPE_EUI64, 8) => {
                    let mut eui64 = [0; 8];
                    eui64.copy_from_slice(value);
                    found.eui64 = Some(eui64);
                }
                (TYPE_NGUID, 16) => found.nguid = Some(bytes16_at(value, 0)),
                (TYPE_UUID, 16) => found.uuid = Some(HostId(bytes16_at(value, 0))),
                (TYPE_COMMAND_SET, 1) => found.command_set = Some(value[0]),
                (TYPE_EUI64 | TYPE_NGUID | TYPE_UUID | TYPE_COMMAND_SET, _) => break,
                _ => {}
            }
            rest = after;
        }
        found
    }

    /// Writes the list into `bytes`, all of it.
    pub fn encode(&self, bytes: &mut Structure) {
        *bytes = [0; LENGTH];
        let mut offset = 0;
        let mut add = |kind: u8, value: &[u8]| {
            put(bytes, offset, &[kind, value.len() as u8, 0, 0]);
            put(bytes, offset + 4, value);
            offset += 4 + value.len();
        };
        if let Some(eui64) = &self.eui64 {
            add(TYPE_EUI64, eui64);
        }
        if let Some(nguid) = &self.nguid {
            add(TYPE_NGUID, nguid);
        }
        if let Some(uuid) = &self.uuid {
            add(TYPE_UUID, &uuid.0);
        }
        if let Some(command_set) = self.command_set {
            add(TYPE_COMMAND_SET, &[command_set]);
        }
    }

    /// Whether the namespace is of the NVM command set, said or not.
    pub fn is_nvm(&self) -> bool {
        self.command_set.unwrap_or(COMMAND_SET_NVM) == COMMAND_SET_NVM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_at_zero_or_at_its_end() {
        let mut bytes = [0; LENGTH];
        encode_namespace_list([1, 2, 70000], &mut bytes);
        assert_eq!(bytes[..16], [1, 0, 0, 0, 2, 0, 0, 0, 0x70, 0x11, 1, 0, 0, 0, 0, 0]);
        assert_eq!(parse_namespace_list(&bytes).collect::<Vec<_>>(), [1, 2, 70000]);
        encode_namespace_list(1..=5000, &mut bytes);
        assert_eq!(parse_namespace_list(&bytes).last(), Some(1024));
    }

    #[test]
    fn descriptors_as_they_lie_on_the_wire() {
        let descriptors = NamespaceDescriptors {
            eui64: None,
            nguid: Some([1; 16]),
            uuid: Some(HostId([2; 16])),
            command_set: Some(0),
        };
        let mut bytes = [0xff; LENGTH];
        descriptors.encode(&mut bytes);
        assert_eq!(bytes[..5], [2, 16, 0, 0, 1]);
        assert_eq!(bytes[20..25], [3, 16, 0, 0, 2]);
        assert_eq!(bytes[40..46], [4, 1, 0, 0, 0, 0]);
        assert_eq!(NamespaceDescriptors::parse(&bytes), descriptors);
        assert!(descriptors.is_nvm());
    }

    #[test]
    fn a_strangers_descriptors_do_no_harm() {
        assert_eq!(NamespaceDescriptors::parse(&[0xff; LENGTH]), NamespaceDescriptors::default());
        assert_eq!(NamespaceDescriptors::parse(&[1; LENGTH]), NamespaceDescriptors::default());
        let mut bytes = [0; LENGTH];
        bytes[..2].copy_from_slice(&[3, 15]);
        assert_eq!(NamespaceDescriptors::parse(&bytes).uuid, None);
        bytes[..2].copy_from_slice(&[9, 16]);
        bytes[20..25].copy_from_slice(&[4, 1, 0, 0, 2]);
        assert_eq!(NamespaceDescriptors::parse(&bytes).command_set, Some(2));
    }
}
