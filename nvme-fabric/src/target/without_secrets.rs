//! Stands in for `secrets` in a build without the feature `auth`: no host can be given a secret, so
//! none has to prove anything.

use super::Target;
use super::admin::Refusal;
use super::admin::connect::{Demand, Stream};
use super::controller::Service;
use crate::spec::nqn::Nqn;

/// Nothing.
#[derive(Debug, Default)]
pub(super) struct Secrets {}

/// Nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSecrets {}

impl Secrets {
    const fn demand(&self, _: &HostSecrets) -> Demand {
        Demand::None
    }
}

/// What a host by this name must prove.
pub(super) fn demand(
    target: &Target,
    service: Service,
    _: &Nqn,
    _: Stream,
) -> Result<Demand, Refusal> {
    Ok(match service {
        Service::Subsystem(place) => target.secrets.demand(&target.subsystems[place].secrets),
        Service::Discovery => Demand::None,
    })
}
