//! `forebay nvme`: what subsystems there are, what one says of itself, who this host is and its
//! secrets, and which associations a running service has.
//!
//! JSON uses the specification's field names in lower case, as nvme-cli does.

mod arguments;
mod discover;
mod host;
mod identify;
mod key;
mod list;
mod nearby;

use cache_engine::backend::host_identity::HostIdentity;

pub(crate) use arguments::NvmeVerb;

use crate::failure::Failure;
use crate::output;

/// Runs the verb.
///
/// # Errors
/// When a controller cannot be reached or does not answer as it should, and as each verb says.
pub(crate) fn run(verb: &NvmeVerb) -> Result<(), Failure> {
    match verb {
        NvmeVerb::Discover(arguments) => discover::run(arguments),
        NvmeVerb::Identify { address, form } => identify::run(address, form.format()),
        NvmeVerb::Key { output, hash } => key::run(output, *hash),
        NvmeVerb::List { socket, json } => list::run(socket, *json),
        NvmeVerb::Host { host, json } => host::run(host, *json),
    }
}

/// Tells people what they should know of who this host is.
fn tell(identity: &HostIdentity) {
    identity.notices.iter().for_each(output::notice);
}
