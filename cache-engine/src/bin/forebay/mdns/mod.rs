//! Discovery controllers on the local network, found and announced without configuration: DNS-SD
//! services `_nvme-disc._tcp.local` over multicast DNS, as in TP8009.
//!
//! ```text
//!   nvme discover --mdns ─▶ find ─▶ Found {addresses, port, name} ─▶ asked as any other service
//!   target, mdns = true  ─▶ Announcement, for as long as it lives
//! ```
//! `service` is what an announcement says, `local_link` who says it: `mdns-sd`, which brings a
//! thread of its own. Without the cargo feature `mdns` both are refused by its name. Absent: the
//! subtypes of TP8009, DNS-SD over unicast, and pull registration with a CDC.

#[cfg(feature = "mdns")]
mod local_link;
#[cfg(feature = "mdns")]
mod service;

#[cfg(feature = "mdns")]
pub(crate) use local_link::{Announcement, find};
#[cfg(not(feature = "mdns"))]
pub(crate) use without::{Announcement, find};

use nvme_fabric::spec::nqn::Nqn;

/// A discovery controller that announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What the instance is called, for people. A stranger's text.
    pub(crate) instance: String,
    /// Where it may be reached, the likeliest first; one at least.
    pub(crate) addresses: Vec<String>,
    /// TCP port, not 0.
    pub(crate) port: u16,
    /// The service's name: its unique one where it told that, else the well-known one.
    pub(crate) subsystem: Nqn,
}

#[cfg(not(feature = "mdns"))]
mod without {
    //! What is said where nothing can be done.

    use std::net::SocketAddr;
    use std::time::Duration;

    use nvme_fabric::spec::nqn::Nqn;

    use super::Found;
    use crate::failure::Failure;

    /// # Errors
    /// Always: which feature is missing.
    pub(crate) fn find(_: Duration, _: impl FnMut(&Found)) -> Result<Vec<Found>, Failure> {
        Err(missing("--mdns"))
    }

    /// There is none.
    pub(crate) enum Announcement {}

    impl Announcement {
        /// # Errors
        /// Always: which feature is missing.
        pub(crate) fn new(_: &[SocketAddr], _: &Nqn) -> Result<Self, Failure> {
            Err(missing("mdns = true"))
        }
    }

    fn missing(what: &str) -> Failure {
        Failure::Usage(format!("{what}: this forebay is built without the cargo feature `mdns`"))
    }
}
