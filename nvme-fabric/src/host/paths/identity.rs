//! Whether what is at the end of a path is the namespace that was there before.
//!
//! Compared are the identifiers that both sides give (UUID, NGUID, EUI64) and the block size; where
//! they give none in common, the subsystem's name and serial number. The size may differ: then the
//! device is resized.

use std::fmt::Display;

use crate::host::Identity;
use crate::spec::nqn::HostId;

/// What the first association found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    uuid: Option<HostId>,
    nguid: Option<[u8; 16]>,
    eui64: Option<[u8; 8]>,
    block_size_log2: u8,
    subsystem: String,
    serial_number: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn differs(what: &str, is: &dyn Display, was: &dyn Display) -> String {
    format!("another namespace: its {what} is {is}, that of the one in use is {was}")
}

impl Known {
    pub(super) fn of(identity: &Identity) -> Self {
        let Identity { namespace, descriptors, controller, .. } = identity;
        // All zero means that there is none. NVM 1.1 §4.1.5.1
        let nguid = descriptors.nguid.unwrap_or(namespace.nguid);
        let eui64 = descriptors.eui64.unwrap_or(namespace.eui64);
        Self {
            uuid: descriptors.uuid,
            nguid: Some(nguid).filter(|nguid| *nguid != [0; 16]),
            eui64: Some(eui64).filter(|eui64| *eui64 != [0; 8]),
            block_size_log2: namespace.format.data_size_log2,
            subsystem: controller.subsystem.clone(),
            serial_number: controller.serial_number.clone(),
        }
    }

    /// What is wrong with `other` at the end of a path to this.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let mut in_common = false;
        if let (Some(is), Some(was)) = (other.uuid, self.uuid) {
            in_common = true;
            if is != was {
                return Some(differs("UUID", &is, &was));
            }
        }
        if let (Some(is), Some(was)) = (other.nguid, self.nguid) {
            in_common = true;
            if is != was {
                return Some(differs("NGUID", &hex(&is), &hex(&was)));
            }
        }
        if let (Some(is), Some(was)) = (other.eui64, self.eui64) {
            in_common = true;
            if is != was {
                return Some(differs("EUI64", &hex(&is), &hex(&was)));
            }
        }
        if !in_common && other.serial_number != self.serial_number {
            return Some(differs(
                "subsystem's serial number",
                &other.serial_number,
                &self.serial_number,
            ));
        }
        if !in_common && other.subsystem != self.subsystem {
            return Some(differs("subsystem", &other.subsystem, &self.subsystem));
        }
        (other.block_size_log2 != self.block_size_log2).then(|| {
            let (is, was) = (other.block_size_log2, self.block_size_log2);
            format!("the namespace has another format: LBADS is {is}, but {was} where it is in use")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            uuid: Some(HostId([1; 16])),
            nguid: None,
            eui64: Some([3; 8]),
            block_size_log2: 9,
            subsystem: "nqn.a".into(),
            serial_number: "1".into(),
        }
    }

    #[test]
    fn any_identifier_in_common_must_be_the_same() {
        assert_eq!(known().difference(&known()), None);
        let more = Known { nguid: Some([2; 16]), serial_number: "2".into(), ..known() };
        assert_eq!(known().difference(&more), None, "identifiers decide");
        for (other, word) in [
            (Known { uuid: Some(HostId([9; 16])), ..known() }, "UUID"),
            (Known { eui64: Some([9; 8]), ..known() }, "0909090909090909"),
            (Known { block_size_log2: 12, ..known() }, "LBADS is 12"),
        ] {
            let text = known().difference(&other).expect("differs");
            assert!(text.contains(word), "{text}");
        }
        let nameless = Known { uuid: None, eui64: None, ..known() };
        assert_eq!(known().difference(&nameless), None);
        let other = Known { serial_number: "2".into(), ..nameless.clone() };
        assert!(nameless.difference(&other).is_some_and(|text| text.contains("serial number")));
        let other = Known { subsystem: "nqn.b".into(), ..nameless.clone() };
        assert!(nameless.difference(&other).is_some_and(|text| text.contains("nqn.b")));
    }
}
