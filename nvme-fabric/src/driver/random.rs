//! Random numbers of the system's, for secrets and what is proved with them.

use block_io::DeviceError;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::auth::{Random, SEED_LENGTH};

/// Random numbers of the system's, to make a secret with.
///
/// # Errors
/// When the system has none.
pub fn random() -> Result<Random, DeviceError> {
    Ok(Random::new(&*random_seed()?))
}

/// Random bytes of the system's, for what a state machine needs them for.
pub(super) fn random_seed() -> Result<Zeroizing<[u8; SEED_LENGTH]>, DeviceError> {
    let mut seed = Zeroizing::new([0; SEED_LENGTH]);
    let mut filled = 0;
    while filled < SEED_LENGTH {
        match getrandom(&mut seed[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(DeviceError::with_source("getting random bytes", error)),
        }
    }
    Ok(seed)
}
