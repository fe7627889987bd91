//! `forebay volume set`: times and policy of the paths to a volume's origin.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_engine::control::model::{Answer, PathTimes, Request};

use super::{SocketArgument, ask, json, unexpected};
use crate::failure::Failure;
use crate::output::{self, table};

/// What is changed, and the times and the policy as they are shown.
pub(crate) const NAMES: [&str; 5] =
    ["iopolicy", "ctrl-loss-tmo", "fast-io-fail-tmo", "reconnect-delay", "keep-alive-tmo"];

/// Changes them.
///
/// # Errors
/// When nobody answers, or the service refuses; nothing has changed then.
pub(super) fn set(
    socket: &SocketArgument,
    volume: &str,
    settings: &[(String, String)],
    as_json: bool,
) -> Result<(), Failure> {
    let mut named = BTreeMap::new();
    for (name, value) in settings {
        if named.insert(name.clone(), value.clone()).is_some() {
            let name = name.escape_debug();
            return Err(Failure::Usage(format!("setting '{name}': is given twice")));
        }
    }
    let request = Request::SetPaths { volume: volume.to_owned(), settings: named };
    match ask(socket, &request)? {
        Answer::Paths(times) if as_json => output::print(json(&times)?),
        Answer::Paths(times) => {
            let mut shown = table::new(&["setting", "value"], 2);
            for (name, value) in NAMES.into_iter().zip(values(&times)) {
                shown.add_row([name.to_owned(), value]);
            }
            output::print(shown)
        }
        answer => Err(unexpected(&answer)),
    }
}

/// In the order of [`NAMES`].
pub(crate) fn values(times: &PathTimes) -> [String; 5] {
    let seconds = |ms: u64| format!("{} s", Duration::from_millis(ms).as_secs_f64());
    let limit = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), seconds);
    let (least, most) = (times.reconnect_delay_min_ms, times.reconnect_delay_max_ms);
    let delay = match least == most {
        true => seconds(least),
        false => format!("{} to {}", seconds(least), seconds(most)),
    };
    let keep_alive = Some(times.keep_alive_ms).filter(|ms| *ms > 0);
    [
        table::printable(&times.iopolicy),
        limit(times.ctrl_loss_ms),
        limit(times.fast_io_fail_ms),
        delay,
        limit(keep_alive),
    ]
}
