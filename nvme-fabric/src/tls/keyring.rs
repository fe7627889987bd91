//! Who has which keys: what a host offers, and what a target knows.

use std::collections::BTreeMap;
use std::fmt;

use s2n_tls::config::{Builder, Config};
use s2n_tls::enums::PskHmac;
use s2n_tls::psk::Psk;
use s2n_tls::security::Policy;

use super::{ConfiguredPsk, Hash, IdentityVersion, KeyError, TlsPsk};
use crate::auth::GeneratedPsk;
use crate::spec::nqn::Nqn;

/// TLS 1.3 and nothing older, AES-GCM first. The policy has a third cipher suite, which a session
/// that agreed to it is ended for.
const POLICY: &str = "AWS-CRT-SDK-TLSv1.3-2023";

/// Which forms of identity a host offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identities {
    /// Version 1 and, where the names are short enough, version 0, in one ClientHello: the target
    /// takes the first that it knows. To one that refuses them all, version 0 alone is offered, as
    /// some give up at the first that they do not know (tlshd 1.4); and then the one that nvme-cli
    /// until 2.14 made.
    #[default]
    Both,
    /// One version only.
    Only(IdentityVersion),
}

/// How a host uses TLS.
#[derive(Clone, Debug)]
pub struct HostTls {
    /// The key that the target has for this host.
    pub psk: ConfiguredPsk,
    /// The identities to offer.
    pub identities: Identities,
}

/// The keys that a host offers for one subsystem.
#[derive(Clone)]
pub struct Offer {
    psks: Vec<TlsPsk>,
    config: Config,
}

impl Offer {
    /// What `host` offers to `subsystem`.
    ///
    /// # Errors
    /// When the names are too long for the identity that is wanted.
    pub fn new(tls: &HostTls, host: &Nqn, subsystem: &Nqn) -> Result<Self, KeyError> {
        let make = |version| TlsPsk::retained(version, &tls.psk, host, subsystem);
        let psks = match tls.identities {
            Identities::Only(version) => vec![make(version)?],
            Identities::Both => {
                let mut psks = vec![make(IdentityVersion::One)?];
                psks.extend(make(IdentityVersion::Zero).ok());
                psks
            }
        };
        Self::of(psks)
    }

    /// What is offered to a target one after the other, until it takes one: what
    /// [`new`](Self::new) makes of it, first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ways(tls: &HostTls, host: &Nqn, subsystem: &Nqn) -> Result<Vec<Self>, KeyError> {
        let mut ways = vec![Self::new(tls, host, subsystem)?];
        if tls.identities == Identities::Both {
            let zero = TlsPsk::retained(IdentityVersion::Zero, &tls.psk, host, subsystem).ok();
            let old = TlsPsk::retained_by_old_libnvme(&tls.psk, host, subsystem)?;
            for psk in zero.into_iter().chain([old]) {
                ways.push(Self::of(vec![psk])?);
            }
        }
        Ok(ways)
    }

    /// The key that an authentication has generated.
    ///
    /// # Errors
    /// When it has a length that none has, or the TLS library fails.
    pub fn generated(psk: &GeneratedPsk, host: &Nqn, subsystem: &Nqn) -> Result<Self, KeyError> {
        Self::of(vec![TlsPsk::generated(psk.bytes(), host, subsystem)?])
    }

    /// Exactly these, in order.
    ///
    /// # Errors
    /// When the TLS library fails.
    pub fn of(psks: Vec<TlsPsk>) -> Result<Self, KeyError> {
        Ok(Self { psks, config: config()? })
    }

    pub(super) fn psks(&self) -> &[TlsPsk] {
        &self.psks
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.psks.iter().map(TlsPsk::identity)).finish()
    }
}

/// Whom a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The host that has it; it must connect by this name.
    pub host: Nqn,
    /// The subsystem that it opens.
    pub subsystem: Nqn,
    /// An authentication has generated it.
    pub is_generated: bool,
}

/// The keys that a target knows, by identity.
pub struct Keyring {
    entries: BTreeMap<String, (TlsPsk, Peer)>,
    config: Config,
}

impl Keyring {
    /// A keyring without keys.
    ///
    /// # Errors
    /// When the TLS library fails.
    pub fn new() -> Result<Self, KeyError> {
        Ok(Self { entries: BTreeMap::new(), config: config()? })
    }

    /// Lets `host` connect to `subsystem` with this key, by identities of both versions, and by the
    /// one of version 1 that nvme-cli made of it until 2.14.
    ///
    /// # Errors
    /// When no key can be derived.
    pub fn allow(
        &mut self,
        host: &Nqn,
        subsystem: &Nqn,
        psk: &ConfiguredPsk,
    ) -> Result<(), KeyError> {
        let old = TlsPsk::retained_by_old_libnvme(psk, host, subsystem)?;
        for psk in [TlsPsk::retained(IdentityVersion::One, psk, host, subsystem)?, old] {
            self.insert(psk, host, subsystem);
        }
        // Names too long for it have no identity of version 0.
        if let Ok(psk) = TlsPsk::retained(IdentityVersion::Zero, psk, host, subsystem) {
            self.insert(psk, host, subsystem);
        }
        Ok(())
    }

    /// Adds a key that was made already. Generated ones belong in
    /// [`GeneratedKeys`](super::GeneratedKeys).
    pub fn insert(&mut self, psk: TlsPsk, host: &Nqn, subsystem: &Nqn) {
        let (host, subsystem) = (host.clone(), subsystem.clone());
        let peer = Peer { host, subsystem, is_generated: false };
        self.entries.insert(psk.identity().to_owned(), (psk, peer));
    }

    /// Takes away every key of `host` for `subsystem`. Sessions that are open stay so.
    pub fn revoke(&mut self, host: &Nqn, subsystem: &Nqn) {
        self.entries.retain(|_, (_, peer)| peer.host != *host || peer.subsystem != *subsystem);
    }

    pub(super) fn find(&self, identity: &[u8]) -> Option<&(TlsPsk, Peer)> {
        self.entries.get(std::str::from_utf8(identity).ok()?)
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring of {} identities", self.entries.len())
    }
}

fn config() -> Result<Config, KeyError> {
    let make = || {
        let mut builder = Builder::new();
        builder.with_system_certs(false)?;
        builder.set_security_policy(&Policy::from_version(POLICY)?)?;
        builder.build()
    };
    make().map_err(|error: s2n_tls::error::Error| refused(&error))
}

/// The library's form of a key.
pub(super) fn library_psk(psk: &TlsPsk) -> Result<Psk, s2n_tls::error::Error> {
    let mut builder = Psk::builder()?;
    builder.set_identity(psk.identity().as_bytes())?;
    builder.set_hmac(match psk.hash() {
        Hash::Sha256 => PskHmac::SHA256,
        Hash::Sha384 => PskHmac::SHA384,
    })?;
    builder.set_secret(psk.secret())?;
    builder.build()
}

fn refused(error: &s2n_tls::error::Error) -> KeyError {
    KeyError::new(format!("the TLS library fails: {}", error.message()))
}
