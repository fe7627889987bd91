//! What a host proves itself with. How it does is the controller's `authentication`.

use std::time::Duration;

use block_io::DeviceError;

use super::Paths;
use crate::auth::{Keys, Random};

/// Secrets for DH-HMAC-CHAP. `Debug` does not show them.
#[derive(Clone, Debug)]
pub struct HostAuthentication {
    /// The host's secret, and the controller's where it must prove itself too: then a controller
    /// that does not ask for authentication, or leaves its own proof out, is refused.
    pub keys: Keys,
    /// How often every queue is authenticated again while requests go on; absent for never.
    pub repeat_every: Option<Duration>,
}

impl HostAuthentication {
    /// Authentication with these keys, not repeated.
    pub fn new(keys: Keys) -> Self {
        Self { keys, repeat_every: None }
    }

    pub(super) fn check(&self) -> Result<(), DeviceError> {
        if self.repeat_every.is_some_and(|every| every < Duration::from_secs(1)) {
            return Err(DeviceError::new("authentication again: must be 1 s apart at least"));
        }
        if self.keys.concatenate && !cfg!(feature = "tls") {
            return Err(DeviceError::new(
                "authentication: a secure channel needs TLS, which this was built without",
            ));
        }
        self.keys.check()
    }
}

impl Paths {
    /// Hands in random numbers, which authentication needs.
    pub fn set_random(&mut self, random: Random) {
        self.chance.seeds.0 = Some(random);
    }
}
