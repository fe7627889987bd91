//! Who may connect to a configured target, and how he proves it: secrets (DH-HMAC-CHAP) and TLS
//! keys of hosts, for every subsystem, those that calls make included.
//!
//! Secrets and keys are in files, which the configuration names and only their owner may read.
//! Absent: which hosts a subsystem lists; changing secrets while the target runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use block_io::DeviceError;
use cache_engine::backend::{BackendQueue, nvme_secret, tls_keys};
use nvme_fabric::auth::Keys;
use nvme_fabric::driver::TargetTask;
use nvme_fabric::driver::target::Service;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{SecureChannel, Subsystem};
use nvme_fabric::tls::{ConfiguredPsk, KeyError, Keyring};
use serde::Deserialize;

use crate::failure::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SecurityTable {
    #[serde(default)]
    require_authentication: bool,
    tls_keys: Option<PathBuf>,
    tls: Option<String>,
    #[serde(default)]
    host: Vec<HostTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HostTable {
    nqn: String,
    secret_file: PathBuf,
    controller_secret_file: Option<PathBuf>,
}

/// What is asked of hosts; nothing is read yet.
#[derive(Debug)]
pub(super) struct SecurityPlan {
    pub(super) require_authentication: bool,
    pub(super) tls: Option<(PathBuf, SecureChannel)>,
    pub(super) hosts: Vec<HostPlan>,
}

/// A host and the files with its secret and the controller's.
#[derive(Debug)]
pub(super) struct HostPlan {
    nqn: Nqn,
    secret: PathBuf,
    controller: Option<PathBuf>,
}

impl SecurityTable {
    /// What it asks for.
    ///
    /// # Errors
    /// Key, value and what would be right.
    pub(super) fn plan(self) -> Result<SecurityPlan, String> {
        let channel = match self.tls.as_deref() {
            None | Some("required") => SecureChannel::Required,
            Some("offered") => SecureChannel::Offered,
            Some(other) => {
                let shown = other.escape_debug();
                return Err(format!("[security] tls '{shown}': must be required or offered"));
            }
        };
        if self.tls.is_some() && self.tls_keys.is_none() {
            return Err("[security] tls: needs tls-keys, the file with the hosts' keys".to_owned());
        }
        if self.require_authentication && self.host.is_empty() {
            return Err("[security] require-authentication: needs a [[security.host]], or nobody \
                        could connect"
                .to_owned());
        }
        let mut hosts: Vec<HostPlan> = Vec::with_capacity(self.host.len());
        for HostTable { nqn, secret_file, controller_secret_file } in self.host {
            let name = nqn
                .parse::<Nqn>()
                .map_err(|why| format!("[[security.host]] nqn '{}': {why}", nqn.escape_debug()))?;
            if hosts.iter().any(|other| other.nqn == name) {
                return Err(format!("[[security.host]] nqn '{name}': is there twice"));
            }
            let (secret, controller) = (secret_file, controller_secret_file);
            hosts.push(HostPlan { nqn: name, secret, controller });
        }
        let tls = self.tls_keys.map(|file| (file, channel));
        Ok(SecurityPlan { require_authentication: self.require_authentication, tls, hosts })
    }
}

/// What the files say.
pub(super) struct Security {
    require_authentication: bool,
    hosts: Vec<(Nqn, Keys)>,
    tls: Option<(Vec<(Nqn, ConfiguredPsk)>, SecureChannel)>,
}

impl Security {
    /// Reads the files.
    ///
    /// # Errors
    /// Which one cannot be used, and why.
    pub(super) fn read(plan: SecurityPlan) -> Result<Self, Failure> {
        let mut hosts = Vec::with_capacity(plan.hosts.len());
        for HostPlan { nqn, secret, controller } in plan.hosts {
            let keys = nvme_secret::keys_of(&secret, controller.as_deref())
                .map_err(|error| Failure::because(format!("[[security.host]] {nqn}"), error))?;
            hosts.push((nqn, keys));
        }
        let tls = match plan.tls {
            Some((file, channel)) => Some((tls_keys::hosts_keys(&file)?, channel)),
            None => None,
        };
        Ok(Self { require_authentication: plan.require_authentication, hosts, tls })
    }

    /// Tells a subsystem who must prove himself, and by what.
    ///
    /// # Errors
    /// As [`Subsystem::set_host_keys`].
    pub(super) fn admit(&self, subsystem: &mut Subsystem) -> Result<(), DeviceError> {
        for (host, keys) in &self.hosts {
            subsystem.set_host_keys(host.clone(), keys.clone())?;
        }
        subsystem.require_authentication(self.require_authentication);
        Ok(())
    }

    /// How hosts come to subsystems, and the keys for these and for discovery; absent without TLS.
    ///
    /// # Errors
    /// When the library refuses a key.
    pub(super) fn keyring<'a>(
        &self,
        subsystems: impl Iterator<Item = &'a Nqn>,
    ) -> Result<Option<(Rc<Keyring>, SecureChannel)>, DeviceError> {
        let Some((keys, channel)) = &self.tls else { return Ok(None) };
        let keyring = keyring_of(keys, subsystems)
            .map_err(|error| DeviceError::with_source("[security] tls-keys", error))?;
        Ok(Some((keyring, *channel)))
    }
}

/// Keys by which each host opens every one of `subsystems`, and the discovery service.
///
/// # Errors
/// When the library refuses a key.
pub(super) fn keyring_of<'a>(
    keys: &[(Nqn, ConfiguredPsk)],
    subsystems: impl Iterator<Item = &'a Nqn>,
) -> Result<Rc<Keyring>, KeyError> {
    let mut keyring = Keyring::new()?;
    for subsystem in subsystems.cloned().chain([Nqn::discovery()]) {
        for (host, psk) in keys {
            keyring.allow(host, &subsystem, psk)?;
        }
    }
    Ok(Rc::new(keyring))
}

/// Listens at an address, with TLS where there are keys, and returns the one that it got. Who is
/// to use TLS finds out from discovery that he is, so discovery is open without.
///
/// # Errors
/// When it cannot be listened at.
pub(super) fn listen(
    task: &mut TargetTask<BackendQueue>,
    address: SocketAddr,
    service: Service,
    tls: Option<&(Rc<Keyring>, SecureChannel)>,
) -> Result<SocketAddr, DeviceError> {
    let Some((keyring, channel)) = tls else { return task.listen(address, service) };
    let channel = match service {
        Service::Subsystems => *channel,
        Service::Discovery => SecureChannel::Offered,
    };
    task.listen_with_tls(address, service, channel, keyring)
}
