//! Identifiers that this machine gives what it serves: the same after every restart.
//!
//! They are derived from the machine's own identifier. A machine without one gets such as last as
//! long as the process. Absent: what it calls itself as a host ([`super::host_identity`]).

use std::path::Path;

use nvme_fabric::spec::nqn::HostId;
use uuid::Uuid;

/// The machine, as a source of identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Never shown as it is: what is shown is derived from it, as machine-id(5) asks for.
    secret: Uuid,
    /// Whether that is the machine's own, and not only this process's.
    is_lasting: bool,
}

impl Machine {
    /// This one: looks into `/etc/machine-id`.
    pub fn this() -> Self {
        Self::in_folder(Path::new("/etc"))
    }

    pub(super) fn in_folder(etc: &Path) -> Self {
        let text = std::fs::read_to_string(etc.join("machine-id")).ok();
        let id = text.and_then(|text| text.trim().parse::<HostId>().ok());
        let secret = id.filter(|id| !id.is_zero()).map(|id| Uuid::from_bytes(id.0));
        Self { secret: secret.unwrap_or_else(Uuid::new_v4), is_lasting: secret.is_some() }
    }

    /// Whether identifiers are the same after a restart: the machine has one of its own.
    pub const fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// An identifier that is always the same for `what` on this machine, and no other's.
    pub fn identifier(&self, what: &str) -> HostId {
        HostId(Uuid::new_v5(&self.secret, what.as_bytes()).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn machine(files: &[(&str, &str)]) -> Machine {
        let etc = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(etc.path().join(name), text).expect("written");
        }
        Machine::in_folder(etc.path())
    }

    #[test]
    fn a_machine_is_always_called_the_same_and_no_other_is() {
        let (one, other) =
            (machine(&[("machine-id", ID)]), machine(&[("machine-id", &ID.replace('0', "9"))]));
        assert_eq!(one, machine(&[("machine-id", &format!("{ID}\n"))]));
        assert_ne!(one.identifier("a"), other.identifier("a"));
        assert_ne!(one.identifier("a"), one.identifier("b"));
        assert!(one.is_lasting());
        let shown = one.identifier("a").to_string();
        assert!(!shown.replace('-', "").contains(ID), "derived, not shown");
    }

    #[test]
    fn what_is_broken_is_passed_over() {
        for text in ["", "uninitialized", "00000000000000000000000000000000"] {
            let machine = machine(&[("machine-id", text)]);
            assert!(!machine.identifier("a").is_zero() && !machine.is_lasting(), "{text}");
        }
    }
}
