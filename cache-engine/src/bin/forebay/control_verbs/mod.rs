//! The verbs that change and look at a service that runs: `status`, `set`, `volume`, `miss-ratio`,
//! `cache replace`, and those of `target`.
//!
//! ```text
//!   arguments ──▶ socket ──▶ ControlClient ──one request──▶ answer ──▶ table or JSON
//! ```
//! Absent: what the requests mean, which is [`cache_engine::control`].

mod arguments;
mod change_arguments;
mod lease;
mod miss_ratio;
pub(crate) mod paths;
mod status;
mod target;
mod target_arguments;

use std::path::PathBuf;

use block_io::reactor::clock;
use cache_engine::backend::address::Size;
use cache_engine::control::client::{ControlClient, default_socket};
use cache_engine::control::model::{Added, Answer, NewVolume, Request, Settings};
use serde::Serialize;
use serde_json::Value;

use arguments::RangeArgument;
pub(crate) use arguments::{
    MissRatioArguments, SetArguments, SocketArgument, StatusArguments, VolumeVerb,
};
pub(crate) use change_arguments::ReplaceArguments;
use change_arguments::{AddArguments, RemoveArguments};
pub(crate) use lease::lease_time;

use crate::failure::Failure;
use crate::output::{self, table};

pub(crate) use miss_ratio::run as miss_ratio;
pub(crate) use status::run as status;
pub(crate) use target::run as target;
pub(crate) use target_arguments::TargetVerb;

/// Changes policy settings.
///
/// # Errors
/// When nobody answers, or the settings are refused; nothing has changed then.
pub(crate) fn set(arguments: &SetArguments) -> Result<(), Failure> {
    let settings = arguments.settings.iter().cloned().collect();
    match ask(&arguments.socket, &Request::Set { settings })? {
        Answer::Settings(settings) if arguments.json => output::print(json(&settings)?),
        Answer::Settings(settings) => output::print(settings_table(&settings)),
        answer => Err(unexpected(&answer)),
    }
}

/// Changes or looks at one volume.
///
/// # Errors
/// When nobody answers, or the service refuses.
pub(crate) fn volume(verb: &VolumeVerb) -> Result<(), Failure> {
    let (socket, request, name, done) = match verb {
        VolumeVerb::List { socket, json } => return status::list(socket, *json),
        VolumeVerb::Add(arguments) => return add(arguments),
        VolumeVerb::Remove(arguments) => return remove(arguments),
        VolumeVerb::Lease(arguments) => return lease::run(arguments),
        VolumeVerb::Set { volume, settings, json, socket } => {
            return paths::set(socket, volume, settings, *json);
        }
        VolumeVerb::Mode { volume, mode, socket } => {
            let request = Request::Mode { volume: volume.clone(), mode: mode.to_string() };
            (socket, request, volume, format!("is {mode} from now on"))
        }
        VolumeVerb::Flush { volume, socket } => {
            let request = Request::Flush { volume: volume.clone() };
            (socket, request, volume, "what was written is durable on the origin".to_owned())
        }
        VolumeVerb::Invalidate { volume, range, socket } => {
            let range = range.map(RangeArgument::range);
            let request = Request::Invalidate { volume: volume.clone(), range };
            (socket, request, volume, "nothing cached of it before is served any more".to_owned())
        }
        VolumeVerb::Resize { volume, socket } => {
            let request = Request::Resize { volume: volume.clone() };
            (socket, request, volume, String::new())
        }
    };
    let done = match ask(socket, &request)? {
        Answer::Done {} => done,
        Answer::Resized { before_bytes, size_bytes } if before_bytes == size_bytes => {
            format!("has {} as before", table::bytes(size_bytes))
        }
        Answer::Resized { before_bytes, size_bytes } => {
            format!("has {} now, {} before", table::bytes(size_bytes), table::bytes(before_bytes))
        }
        answer => return Err(unexpected(&answer)),
    };
    output::print(format_args!("{}: {done}", table::printable(name)))
}

fn add(arguments: &AddArguments) -> Result<(), Failure> {
    let begin = clock();
    let volume = NewVolume {
        name: arguments.volume.clone(),
        origin: arguments.origin.clone(),
        exports: arguments.exports.clone(),
        mode: arguments.mode.map(|mode| mode.to_string()),
        generation: arguments.generation.clone(),
        encryption_key: arguments.encryption_key.clone(),
        lease_until_ns: arguments.lease.map(|time| (begin + time).0),
    };
    match ask(&arguments.socket, &Request::AddVolume { volume })? {
        Answer::Added(added) if arguments.json => output::print(json(&added)?),
        Answer::Added(added) => output::print(added_text(&arguments.volume, &added)),
        answer => Err(unexpected(&answer)),
    }
}

fn added_text(name: &str, added: &Added) -> String {
    let start = match (&added.start, &added.cold_reason) {
        (None, _) => "without a cache".to_owned(),
        (Some(start), None) => table::printable(start),
        (Some(start), Some(why)) => {
            format!("{}: {}", table::printable(start), table::printable(why))
        }
    };
    let exports: Vec<_> = added.exports.iter().map(|export| table::printable(export)).collect();
    format!("{}: is served at {}, {start}", table::printable(name), exports.join(" and "))
}

fn remove(arguments: &RemoveArguments) -> Result<(), Failure> {
    let RemoveArguments { volume, forget, json, socket } = arguments;
    let request = Request::RemoveVolume { volume: volume.clone(), forget: *forget };
    let told = match forget {
        true => "is served no more, and what was cached of it is given up",
        false => "is served no more; what is cached of it stays for when it is added again",
    };
    done(socket, &request, *json, format_args!("{}: {told}", table::printable(volume)))
}

/// Gives a service another cache device.
///
/// # Errors
/// When nobody answers, or the service refuses.
pub(crate) fn replace(arguments: &ReplaceArguments) -> Result<(), Failure> {
    let ReplaceArguments { device, size, force_format, json, socket } = arguments;
    // The service may stand in another folder than whoever asks it.
    let path = std::path::absolute(device)
        .map_err(|error| Failure::because(device.display().to_string(), error))?;
    let device = path.to_str().ok_or_else(|| {
        Failure::Usage(format!("{}: the path of a device must be UTF-8", path.display()))
    })?;
    let request = Request::ReplaceCache {
        device: device.to_owned(),
        size: size.map(Size::bytes),
        force_format: *force_format,
    };
    let told = format_args!("{}: is the cache device from now on", table::printable(device));
    done(socket, &request, *json, told)
}

/// Asks for something that is done or refused, and tells that.
fn done(
    socket: &SocketArgument,
    request: &Request,
    as_json: bool,
    told: impl std::fmt::Display,
) -> Result<(), Failure> {
    match ask(socket, request)? {
        answer @ Answer::Done {} if as_json => output::print(json(&answer)?),
        Answer::Done {} => output::print(told),
        answer => Err(unexpected(&answer)),
    }
}

/// Asks the service at the socket that is meant.
pub(crate) fn ask(socket: &SocketArgument, request: &Request) -> Result<Answer, Failure> {
    Ok(connect(socket)?.ask(request)?)
}

fn connect(socket: &SocketArgument) -> Result<ControlClient, Failure> {
    Ok(ControlClient::connect(&place(socket)?)?)
}

/// The socket given, else that of the environment, else the usual one.
fn place(socket: &SocketArgument) -> Result<PathBuf, Failure> {
    if let Some(path) = &socket.socket {
        return Ok(path.clone());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = variable("FOREBAY_SOCKET") {
        return Ok(PathBuf::from(path));
    }
    let folder = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let is_root = rustix::process::geteuid().is_root();
    default_socket(is_root, folder.as_deref()).ok_or_else(|| {
        Failure::Usage(
            "--socket: must be given where neither FOREBAY_SOCKET nor XDG_RUNTIME_DIR is set; it \
             is what `forebay run --control SOCKET` was started with"
                .to_owned(),
        )
    })
}

pub(crate) fn unexpected(answer: &Answer) -> Failure {
    Failure::new(format!("the service answered something else: {answer:?}"))
}

/// For programs: one line, keys in alphabetical order.
pub(crate) fn json(value: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::because("writing JSON", error))
}

fn settings_table(settings: &Settings) -> String {
    let mut shown = table::new(&["setting", "value"], 2);
    for (name, value) in &settings.settings {
        shown.add_row([name, value]);
    }
    let unknown = unknown_volumes(&settings.unknown_volumes);
    format!("{shown}{unknown}")
}

/// What to know about names in the settings that no volume has.
fn unknown_volumes(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let names = table::printable(&names.join(", "));
    format!("\nNo volume has these names, which the settings use: {names}")
}
