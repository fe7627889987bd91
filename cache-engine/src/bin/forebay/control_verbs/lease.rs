//! `forebay volume lease`: tells a service until when an origin is this host's alone.
//!
//! The end is worked out here, on the clock that this machine's processes share, so that a request
//! that is late does not make a lease longer.

use std::time::Duration;

use block_io::Timestamp;
use block_io::reactor::clock;
use cache_engine::control::model::{Answer, LeaseStatus, Request};
use clap::Args;

use super::arguments::SocketArgument;
use super::{ask, json, unexpected};
use crate::failure::Failure;
use crate::output::{self, table};

/// `forebay volume lease`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  forebay volume lease pg --for 25s
  since=$(cut -d' ' -f1 /proc/uptime) && renew-it-elsewhere && \\
      forebay volume lease pg --for 25s --since $since
  forebay volume lease pg --release && give-it-to-another-host")]
pub(crate) struct LeaseArguments {
    /// Name of the volume
    volume: String,

    /// How long it is held, such as 25s: the lease's time, less what clocks may differ by over it
    #[arg(long = "for", value_name = "TIME", value_parser = lease_time)]
    #[arg(required_unless_present = "release", conflicts_with = "release")]
    time: Option<Duration>,

    /// When the lease was asked for, as the first number in /proc/uptime said then; the start of
    /// this command where it is not given
    #[arg(long, value_name = "SECONDS", value_parser = uptime, requires = "time")]
    since: Option<Duration>,

    /// It is held no more: drop what is cached, and say so when another host may have the origin
    #[arg(long)]
    release: bool,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    socket: SocketArgument,
}

/// Gives, renews or takes back a lease.
///
/// # Errors
/// When nobody answers, or the service refuses.
pub(super) fn run(arguments: &LeaseArguments) -> Result<(), Failure> {
    let start = clock();
    let begin = match arguments.since {
        None => start,
        Some(since) => Timestamp::default() + since,
    };
    if begin > start {
        return Err(Failure::Usage(format!(
            "--since {}: is in the future; must be what /proc/uptime said when the lease was asked \
             for",
            since_text(begin)
        )));
    }
    let until = arguments.time.map_or(Timestamp::default(), |time| begin + time);
    let request = Request::Lease { volume: arguments.volume.clone(), until_ns: until.0 };
    let status = match ask(&arguments.socket, &request)? {
        Answer::Lease(status) => status,
        answer => return Err(unexpected(&answer)),
    };
    match arguments.json {
        true => output::print(json(&status)?),
        false => {
            let name = table::printable(&arguments.volume);
            output::print(format_args!("{name}: {}", shown(&status)))
        }
    }
}

fn since_text(begin: Timestamp) -> String {
    format!("{:.2}", begin.since(Timestamp::default()).as_secs_f64())
}

/// A lease in words.
pub(super) fn shown(status: &LeaseStatus) -> String {
    let left = status.seconds_left.map(|left| format!(" for {left:.1} s")).unwrap_or_default();
    match status.state.as_str() {
        "unlimited" => "used without a lease".to_owned(),
        "held" => format!("lease held{left}"),
        "waiting" => format!("lease held{left}, not used before what was cached is gone"),
        "over" => "no lease, all requests go to the origin".to_owned(),
        other => table::printable(other),
    }
}

/// The longest that a lease may be: a longer one is a mistake in the unit.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A lease's length.
pub(crate) fn lease_time(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}`: must be a time from 0s to 24h with its unit, such as 30s or 1500ms");
    let unit_start = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_start);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    if time > LEASE_MAX { Err(wrong()) } else { Ok(time) }
}

fn uptime(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}`: must be seconds, as the first number in /proc/uptime");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_units_and_an_end() {
        assert_eq!(lease_time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(lease_time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(lease_time("0s"), Ok(Duration::ZERO));
        for text in ["", "30", "s", "-1s", "25h", "1d", "NaNs", "infs", "1 s"] {
            assert!(lease_time(text).expect_err(text).contains("24h"), "{text}");
        }
        assert_eq!(uptime("12.5"), Ok(Duration::from_millis(12_500)));
        assert!(uptime("-1").is_err() && uptime("x").is_err());
    }
}
