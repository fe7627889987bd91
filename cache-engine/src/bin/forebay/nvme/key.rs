//! `forebay nvme key`: a new secret for authentication, in a file that only its owner may read.

use std::path::Path;

use cache_engine::backend::nvme_secret;
use nvme_fabric::auth::Secret;
use nvme_fabric::driver;

use crate::arguments::SecretHash;
use crate::failure::Failure;

/// Makes the secret.
///
/// # Errors
/// When there is such a file, or it cannot be made.
pub(super) fn run(path: &Path, hash: SecretHash) -> Result<(), Failure> {
    let secret = Secret::generate(hash.function(), &mut driver::random()?);
    Ok(nvme_secret::write_new(path, &secret)?)
}
