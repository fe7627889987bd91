//! What this machine calls itself among NVMe hosts and targets: the same after every restart.
//!
//! Names come from `/etc/nvme`, where nvme-cli keeps them, or are derived from the machine's own
//! identifier. A machine without one gets a name that lasts as long as the process.

use std::path::Path;

use nvme_fabric::spec::nqn::{HostId, Nqn};
use uuid::Uuid;

/// What a name made from a UUID begins with. NVMe Base 2.0 §4.5.
const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The machine, as a source of identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Never shown as it is: what is shown is derived from it, as machine-id(5) asks for.
    secret: Uuid,
    /// Whether that is the machine's own, and not only this process's.
    is_lasting: bool,
    host: Option<(Nqn, Option<HostId>)>,
}

impl Machine {
    /// This one: looks into `/etc/machine-id`, `/etc/nvme/hostnqn` and `/etc/nvme/hostid`.
    pub fn this() -> Self {
        Self::in_folder(Path::new("/etc"))
    }

    fn in_folder(etc: &Path) -> Self {
        let read = |name: &str| {
            let text = std::fs::read_to_string(etc.join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let id = read("machine-id").and_then(|text| text.parse::<HostId>().ok());
        let secret = id.filter(|id| !id.is_zero()).map(|id| Uuid::from_bytes(id.0));
        let name = read("nvme/hostnqn").and_then(|text| Nqn::new(&text).ok());
        let host_id = read("nvme/hostid").and_then(|text| text.parse().ok());
        Self {
            secret: secret.unwrap_or_else(Uuid::new_v4),
            is_lasting: secret.is_some(),
            host: name.map(|name| (name, host_id.filter(|id: &HostId| !id.is_zero()))),
        }
    }

    /// Whether identifiers are the same after a restart: the machine has one of its own.
    pub const fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// An identifier that is always the same for `what` on this machine, and no other's.
    pub fn identifier(&self, what: &str) -> HostId {
        HostId(Uuid::new_v5(&self.secret, what.as_bytes()).into_bytes())
    }

    /// The name and the identifier of this host, or the identifier that goes with `name` where one
    /// is given.
    pub fn host(&self, name: Option<&Nqn>) -> (Nqn, HostId) {
        match (name, &self.host) {
            (Some(name), Some((own, Some(id)))) if name == own => (name.clone(), *id),
            (Some(name), _) => (name.clone(), self.identifier_of_host(name)),
            (None, Some((name, Some(id)))) => (name.clone(), *id),
            (None, Some((name, None))) => (name.clone(), self.identifier_of_host(name)),
            (None, None) => {
                let id = self.identifier("forebay host");
                (Nqn::from_uuid(id), id)
            }
        }
    }

    /// The UUID in the name, or one derived from it.
    fn identifier_of_host(&self, name: &Nqn) -> HostId {
        let uuid = name.as_str().strip_prefix(UUID_PREFIX);
        uuid.and_then(|uuid| uuid.parse().ok()).unwrap_or_else(|| self.identifier(name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const NAMED: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";

    fn machine(files: &[(&str, &str)]) -> Machine {
        let etc = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(etc.path().join("nvme")).expect("made");
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
        assert_ne!(one.host(None), other.host(None));
        assert_ne!(one.identifier("a"), one.identifier("b"));
        assert!(one.is_lasting());
        let (name, id) = one.host(None);
        assert_eq!(name, Nqn::from_uuid(id));
        assert!(!name.as_str().replace('-', "").contains(ID), "derived, not shown");
    }

    #[test]
    fn the_names_of_nvme_cli_are_used() {
        let id = "99999999-8888-7777-6666-555555555555";
        let both = machine(&[("nvme/hostnqn", NAMED), ("nvme/hostid", id)]);
        let (name, found) = both.host(None);
        assert_eq!((name.as_str(), found.to_string().as_str()), (NAMED, id));
        assert_eq!(both.host(Some(&name)), (name, found));
        let (_, found) = machine(&[("nvme/hostnqn", NAMED)]).host(None);
        assert_eq!(found.to_string(), "11111111-2222-3333-4444-555555555555");
    }

    #[test]
    fn what_is_broken_is_passed_over() {
        for text in ["", "uninitialized", "00000000000000000000000000000000"] {
            let machine = machine(&[("machine-id", text), ("nvme/hostnqn", "not a name")]);
            assert!(!machine.host(None).1.is_zero() && !machine.is_lasting(), "{text}");
        }
    }
}
