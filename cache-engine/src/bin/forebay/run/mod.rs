//! `forebay run`: volumes, until a signal.
//!
//! ```text
//!   arguments ─┬─▶ plan ─▶ cache, volumes ─▶ VolumeService ─▶ summary
//!   file ──────┘
//! ```
//! Absent: serving ([`crate::serve`]).

mod arguments;
mod configuration;
pub(crate) mod export;
pub(crate) mod plan;
mod summary;

use std::num::NonZero;

use block_io::reactor::{self, Reactor};
use cache_engine::backend::address::OriginAddress;
use cache_engine::backend::host_identity::{HostChoice, HostIdentity};

pub(crate) use arguments::RunArguments;
pub(crate) use summary::VolumeSummary;

use crate::arguments::Format;
use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output;
use crate::serve::VolumeService;
use crate::signals::Signals;
use crate::volume::ServiceCache;
use plan::Plan;
use summary::Summary;

/// Serves volumes until a signal and prints their statistics.
///
/// # Errors
/// When a volume cannot be opened or served.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let begin = reactor::clock();
    let mut plan = match &arguments.config {
        Some(path) => configuration::read(path, arguments.force_format, begin)?,
        None => Plan::of_arguments(arguments, begin)?,
    };
    check_reactors(arguments)?;
    if let Some(cache) = &mut plan.cache {
        cache.has_curve = arguments.reactors == 1;
    }
    let reactor = Reactor::new(arguments.reactor.config())?;
    let cache = plan.cache.as_ref().map(|cache| ServiceCache::open(cache, &reactor)).transpose()?;
    let mut service = VolumeService::new(&reactor, cache);
    let started = service.start_reactors(arguments.reactors - 1);
    if let Err(failure) = started.and_then(|()| start(&mut service, &plan, &reactor)) {
        service.give_up(&reactor);
        return Err(failure);
    }
    service.run(&reactor)?;
    let summary = Summary { volumes: service.summaries(), cache: service.cache_report() };
    match arguments.stats {
        Format::Table => output::print(summary.table()),
        Format::Json => output::print(summary.json()),
    }?;
    service.failure().map_or(Ok(()), Err)
}

/// More reactors than cores would take turns on them.
fn check_reactors(arguments: &RunArguments) -> Result<(), Failure> {
    let count = arguments.reactors;
    // Where nobody can say how many there are, there is one.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if count > cores && !arguments.oversubscribe {
        return Err(Failure::Usage(format!(
            "--reactors {count}: must be at most {cores}, the cores that this process may use; \
             give --oversubscribe to have more all the same"
        )));
    }
    Ok(())
}

/// Tells what people should know of who this host is to the origins' targets.
fn tell_host(plan: &Plan) -> Result<(), Failure> {
    let remote = plan.volumes.iter().find_map(|volume| match &volume.origin {
        OriginAddress::NvmeTcp(address) => Some(address),
        _ => None,
    });
    if let Some(address) = remote {
        let choice = HostChoice { nqn: address.host.as_ref(), id: address.host_id };
        HostIdentity::of_this_machine(choice)?.notices.iter().for_each(output::notice);
    }
    Ok(())
}

fn start(service: &mut VolumeService, plan: &Plan, reactor: &Reactor) -> Result<(), Failure> {
    tell_host(plan)?;
    for volume in &plan.volumes {
        service.add_volume(volume)?;
    }
    // From here on a signal ends the command in order; before, it just ends it.
    service.obey(Control::Signals(Signals::new()?.watch(reactor)));
    let mut ready = Vec::new();
    for volume in &plan.volumes {
        let places = service.export(&volume.name)?;
        ready.extend(places.into_iter().map(|place| (volume.name.as_str(), place)));
    }
    service.open_desk(plan.control.as_deref())?;
    if let (Some(socket), true) = (&plan.control, ready.is_empty()) {
        ready.push(("control", socket.display().to_string()));
    }
    ready.into_iter().try_for_each(|(name, place)| output::ready(name, place))
}
