//! `forebay target`: block devices as the namespaces of NVMe/TCP subsystems, on one reactor, until
//! a signal.
//!
//! ```text
//!   arguments ─▶ service                one subsystem, as it is given
//!   --config  ─▶ configuration ─▶ managed ◀─ calls ◀─ control socket
//!                      state ────────┘         └─▶ files, state
//! ```
//! The verbs that call a running one are [`crate::control_verbs`]'.

mod calls;
mod configuration;
mod files;
mod managed;
mod restore;
mod security;
mod service;
mod state;
mod status;

use std::path::Path;

use block_io::reactor::{Reactor, ReactorConfig};

pub(crate) use configuration::access_of_word;
pub(crate) use service::{TargetService, notice_of_machine, serial_number};

use crate::arguments::TargetArguments;
use crate::control_verbs;
use crate::failure::Failure;
use managed::ManagedTarget;

/// Serves until a signal, or calls a target that does.
///
/// # Errors
/// When something cannot be opened or an address cannot be listened at; what a call answers.
pub(crate) fn run(arguments: &TargetArguments) -> Result<(), Failure> {
    match (&arguments.verb, &arguments.config) {
        (Some(verb), _) => control_verbs::target(verb),
        (None, Some(config)) => run_configured(config, arguments.reactor.config()),
        (None, None) => service::run(arguments),
    }
}

fn run_configured(config: &Path, reactor: ReactorConfig) -> Result<(), Failure> {
    let plan = configuration::read(config)?;
    let reactor = Reactor::new(reactor)?;
    service::notice_of_machine();
    let mut target = ManagedTarget::start(plan, &reactor)?;
    target.tell_ready()?;
    reactor.run(&mut target)?;
    target.close()
}
