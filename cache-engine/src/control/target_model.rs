//! What is asked of a running target, and what it answers: the part of the control socket's
//! language that is about NVMe/TCP.
//!
//! ```text
//!   ◀─{"verb":"target","call":{"create":{"name":"a","size_bytes":1073741824}}}──
//!   ──{"target-volume":{"name":"a","size_bytes":1073741824,"subsystem":"nqn.…:a",…}}─▶
//! ```
//! A *volume* is a thin file that the target made; a namespace is what hosts see of one, or of a
//! device that the configuration names.

use serde::{Deserialize, Serialize};

/// What may be asked of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TargetCall {
    /// How the target is. Answer: `target-status`.
    Status {},
    /// Makes a volume and serves it. Asked again for the same, it answers the same. Answer:
    /// `target-volume`.
    Create {
        /// Its name, unlike any other volume's: 1 to 64 of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`,
        /// beginning with a letter or a digit.
        name: String,
        /// Bytes, a multiple of 4096. May be left out with `from`, which has a size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
        /// A volume or snapshot whose content it begins with, by reflink.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// NQN of the subsystem that it becomes a namespace of. One that is not there is made, for
        /// no host yet; absent: one of its own, named by the configured prefix and its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subsystem: Option<String>,
        /// ANA group; the subsystem's first when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_group: Option<u32>,
    },
    /// Makes a volume larger. Answer: `target-volume`.
    Resize {
        /// The volume.
        name: String,
        /// Bytes, a multiple of 4096, not below what it has.
        size_bytes: u64,
    },
    /// Serves a volume no more and removes its file; a snapshot likewise. Asked for one that is not
    /// there it has nothing to do. Answer: `done`.
    Delete {
        /// The volume or snapshot.
        name: String,
    },
    /// Keeps a volume's content as it is now, by reflink, under another name and not served; what
    /// was acknowledged is in it, as after a power cut. Answer: `target-volume`.
    Snapshot {
        /// The volume.
        volume: String,
        /// The snapshot's name, of the same kind as volumes'.
        name: String,
    },
    /// Lets a host connect. Answer: `done`.
    Allow {
        /// NQN of a subsystem, or name of a volume, whose subsystem is meant.
        subject: String,
        /// The host's NQN.
        host: String,
    },
    /// Lets a host connect no more and ends its connections. Answer: `done`.
    Forbid {
        /// As of `allow`.
        subject: String,
        /// The host's NQN.
        host: String,
    },
    /// Switches an ANA group of a subsystem, as this process reaches it. Answer: `done`.
    SetAccess {
        /// As of `allow`.
        subject: String,
        /// The group.
        group: u32,
        /// `optimized`, `non-optimized`, `inaccessible`, `persistent-loss` or `change`.
        state: String,
    },
}

/// How a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Addresses where hosts connect to subsystems.
    pub listeners: Vec<String>,
    /// Addresses of the discovery service.
    pub discovery: Vec<String>,
    /// By their order of adding.
    pub subsystems: Vec<TargetSubsystem>,
    /// Volumes and snapshots.
    pub volumes: Vec<TargetVolume>,
    /// Connections that are queues.
    pub queues: u64,
    /// Connections that are not a queue yet, or no more.
    pub unconnected: u64,
    /// Bytes of payload in flight.
    pub memory_bytes: u64,
    /// The most bytes that buffers of all connections may take.
    pub memory_bound_bytes: u64,
    /// Whether what calls have changed is in the state file; if not, a restart loses the last.
    pub is_remembered: bool,
}

/// A subsystem of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSubsystem {
    /// Its name.
    pub nqn: String,
    /// NQNs of hosts that may connect; absent where any may.
    pub hosts: Option<Vec<String>>,
    /// Its ANA groups; none where asymmetric access is not reported.
    pub access_groups: Vec<TargetAccessGroup>,
    /// What hosts see, by NSID.
    pub namespaces: Vec<TargetNamespace>,
    /// Hosts that are connected.
    pub associations: Vec<TargetAssociation>,
}

/// An ANA group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetAccessGroup {
    /// Its number.
    pub group: u32,
    /// As of [`TargetCall::SetAccess`].
    pub state: String,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetNamespace {
    /// NSID.
    pub namespace_id: u32,
    /// What hosts know it by.
    pub uuid: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Where its bytes are.
    pub device: String,
    /// ANA group; 0 where there are none.
    pub access_group: u32,
}

/// A host that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetAssociation {
    /// Its NQN.
    pub host: String,
    /// CNTLID.
    pub controller_id: u16,
    /// I/O queues that it has.
    pub io_queues: u64,
}

/// A volume or snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetVolume {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Where hosts see it; absent for a snapshot.
    pub served: Option<TargetServed>,
}

/// Where hosts see a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetServed {
    /// NQN of its subsystem.
    pub subsystem: String,
    /// NSID in it.
    pub namespace_id: u32,
    /// What hosts know it by.
    pub uuid: String,
}
