//! `forebay status` and `forebay volume list`.

use std::io::IsTerminal;
use std::time::Duration;

use cache_engine::control::client::ControlClient;
use cache_engine::control::model::{Answer, CacheStatus, Request, Status, VolumeStatus};

use super::arguments::{SocketArgument, StatusArguments};
use super::{connect, json, lease, unexpected, unknown_volumes};
use crate::failure::Failure;
use crate::output::{self, table};

/// Moves a terminal's cursor to its first place and empties the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows how a service is, once or again and again.
///
/// # Errors
/// When nobody answers, or no longer.
pub(crate) fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let mut client = connect(&arguments.socket)?;
    loop {
        let status = ask(&mut client)?;
        if arguments.json {
            output::print(json(&status)?)?;
        } else {
            let is_live = arguments.watch.is_some() && std::io::stdout().is_terminal();
            let clear = if is_live { CLEAR } else { "" };
            output::print(format_args!("{clear}{}", shown(&status)))?;
        }
        let Some(seconds) = arguments.watch else { return Ok(()) };
        std::thread::sleep(Duration::from_secs(seconds.into()));
        if seconds > WATCH_CONNECTED_MAX {
            client = connect(&arguments.socket)?;
        }
    }
}

/// A service lets go of clients that are silent for longer than about that.
const WATCH_CONNECTED_MAX: u32 = 30;

/// Shows the volumes of a service.
///
/// # Errors
/// When nobody answers.
pub(super) fn list(socket: &SocketArgument, as_json: bool) -> Result<(), Failure> {
    let status = ask(&mut connect(socket)?)?;
    match as_json {
        true => output::print(json(&status.volumes)?),
        false => output::print(volumes_table(&status.volumes)),
    }
}

fn ask(client: &mut ControlClient) -> Result<Status, Failure> {
    match client.ask(&Request::Status {})? {
        Answer::Status(status) => Ok(*status),
        answer => Err(unexpected(&answer)),
    }
}

fn shown(status: &Status) -> String {
    let volumes = volumes_table(&status.volumes);
    match &status.cache {
        None => format!("No cache: origins are served alone.\n{volumes}"),
        Some(cache) => {
            let unknown = unknown_volumes(&cache.unknown_volumes);
            format!("{}\n{volumes}\n{}{unknown}", headline(cache), cache_table(cache))
        }
    }
}

/// The cache in a line, and what is wrong with it in another.
fn headline(cache: &CacheStatus) -> String {
    let share = cache.occupied_bytes as f64 / cache.capacity_bytes.max(1) as f64;
    let mut text = format!(
        "Cache of {}, lines of {}, {} full, {}",
        table::bytes(cache.capacity_bytes),
        table::bytes(cache.line_size),
        table::percent(share),
        if cache.persistent { "kept on its device" } else { "in memory" },
    );
    let loading = cache.loading;
    if loading.sets_loaded < loading.sets {
        let share = loading.sets_loaded as f64 / loading.sets as f64;
        text += &format!(", {} loaded", table::percent(share));
    }
    if let Some(reason) = &cache.cold_reason {
        text += &format!("\nStarted cold: {}", table::printable(reason));
    }
    if cache.degraded {
        text += "\nDEGRADED: the cache device failed, and all requests go to the origins";
    }
    text
}

fn volumes_table(volumes: &[VolumeStatus]) -> String {
    let header = ["volume", "mode", "state", "size", "cached", "reads", "hits", "writes"];
    let mut shown = table::new(&header, 3);
    for volume in volumes {
        let counted = |name: &str| volume.statistics.get(name).copied().unwrap_or_default();
        let state = match (&volume.fault, volume.in_doubt) {
            (Some(fault), _) => format!("origin lost: {}", table::printable(fault)),
            (None, true) => "in doubt".to_owned(),
            (None, false) => match &volume.lease {
                Some(lease) if lease.state != "unlimited" => lease::shown(lease),
                _ => "fine".to_owned(),
            },
        };
        let mode = volume.mode.as_deref().unwrap_or("no cache");
        shown.add_row([
            table::printable(&volume.name),
            table::printable(mode),
            state,
            table::bytes(volume.size_bytes),
            table::bytes(volume.occupied_bytes),
            table::grouped(counted("reads")),
            volume.hit_ratio.map_or_else(|| "–".to_owned(), table::percent),
            table::grouped(counted("writes")),
        ]);
    }
    shown.to_string()
}

fn cache_table(cache: &CacheStatus) -> String {
    let mut shown = table::new(&["of the cache", "value"], 1);
    let memory = &cache.memory;
    let in_all = memory.index_bytes + memory.policy_bytes + memory.miss_ratio_bytes;
    shown.add_row(["memory".to_owned(), table::bytes(in_all)]);
    shown.add_row(["requests in flight".to_owned(), table::grouped(cache.in_flight)]);
    shown.add_row(["stores in flight".to_owned(), table::grouped(cache.fills_in_flight)]);
    shown.add_row(["endurance budget".to_owned(), table::printable(&cache.endurance_budget)]);
    for (name, value) in &cache.settings {
        shown.add_row([table::printable(name), table::printable(value)]);
    }
    let kept = cache.persistence_statistics.iter().flatten();
    for (name, value) in cache.policy_statistics.iter().chain(kept).filter(|(_, value)| **value > 0)
    {
        let text = match name.ends_with("_bytes") {
            true => table::bytes(*value),
            false => table::grouped(*value),
        };
        shown.add_row([table::printable(&name.replace('_', " ")), text]);
    }
    shown.to_string()
}
