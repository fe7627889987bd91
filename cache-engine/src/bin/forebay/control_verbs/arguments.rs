//! The grammar of the verbs that talk to a running service.

use std::path::PathBuf;
use std::str::FromStr;

use cache_engine::backend::address::Size;
use cache_engine::cache::CacheMode;
use cache_engine::control::model::Range;
use clap::{Args, Subcommand};

use super::change_arguments::{AddArguments, RemoveArguments};
use super::lease::LeaseArguments;
use crate::replay::CurveFile;

/// Which service is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct SocketArgument {
    /// Control socket of the service, as `forebay run --control` has it
    ///
    /// $FOREBAY_SOCKET where it is not given, else $XDG_RUNTIME_DIR/forebay.sock, or
    /// /run/forebay/forebay.sock for root.
    #[arg(long, value_name = "SOCKET")]
    pub(super) socket: Option<PathBuf>,
}

/// `forebay status`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  forebay status
  forebay status --watch=5
  forebay status --json | jq '.volumes[].hit_ratio'")]
pub(crate) struct StatusArguments {
    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Ask again and again, after as many seconds each time
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(super) watch: Option<u32>,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

/// `forebay set`.
#[derive(Debug, Args)]
#[command(long_about = "\
Change what enters a running cache and what leaves it: all of the settings given, or none.

The names are admission, endurance, sequential-cutoff, fill-width, purge, pin-max, class, \
volume and pin; a wrong value is answered with what would be right. Settings last until the \
service ends.")]
#[command(after_long_help = "\
Examples:
  forebay set admission=second-miss sequential-cutoff=4MiB
  forebay set endurance=200GiB/day
  forebay set 'volume=volume=pg,min=10%,max=50%' 'purge=high=90%,low=80%'")]
pub(crate) struct SetArguments {
    /// Settings
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = setting)]
    pub(super) settings: Vec<(String, String)>,

    /// Answer for programs: the settings in force, one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

/// The verbs of `forebay volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// List the volumes of a service
    #[command(after_long_help = "\
Examples:
  forebay volume list
  forebay volume list --json")]
    List {
        /// Answer for programs: one line of JSON
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        socket: SocketArgument,
    },
    /// Serve another volume, until the service ends
    Add(AddArguments),
    /// Serve a volume no more
    Remove(RemoveArguments),
    /// Change what is cached of a volume, for requests from now on
    #[command(after_long_help = "\
Examples:
  forebay volume mode pg write-around
  forebay volume mode pg pass-through")]
    Mode {
        /// Name of the volume
        volume: String,

        /// write-through, write-around (reads only) or pass-through (nothing)
        mode: CacheMode,

        #[command(flatten)]
        socket: SocketArgument,
    },
    /// Make what was written to a volume durable on its origin
    #[command(after_long_help = "\
Examples:
  forebay volume flush pg && snapshot-the-origin")]
    Flush {
        /// Name of the volume
        volume: String,

        #[command(flatten)]
        socket: SocketArgument,
    },
    /// Drop what is cached of a volume, because its origin was changed past the cache
    #[command(after_long_help = "\
Examples:
  forebay volume invalidate pg
  forebay volume invalidate pg 1GiB-2GiB")]
    Invalidate {
        /// Name of the volume
        volume: String,

        /// First byte and the one after the last, such as 0-10GiB; all of it where not given
        #[arg(value_name = "FROM-TO")]
        range: Option<RangeArgument>,

        #[command(flatten)]
        socket: SocketArgument,
    },
    /// Say until when a volume's origin is this host's alone, renew that, or end it
    ///
    /// From the end of a lease on nothing that is cached is served: requests go to the origin. A
    /// renewal before the end moves it; one that comes later is another lease, on a cold cache.
    Lease(LeaseArguments),
    /// Change times and policy of the paths to a volume's origin, until the service ends
    ///
    /// The names are those of an origin's address: iopolicy (round-robin, queue-depth or latency),
    /// and in seconds ctrl-loss-tmo, fast-io-fail-tmo (-1 for never), reconnect-delay and
    /// keep-alive-tmo, which holds for associations made from now on. forebay nvme list shows what
    /// is in force.
    #[command(after_long_help = "\
Examples:
  forebay volume set pg ctrl-loss-tmo=30 iopolicy=latency
  forebay volume set pg fast-io-fail-tmo=-1 --json")]
    Set {
        /// Name of the volume
        volume: String,

        /// Settings; all of them change, or none
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = path_setting)]
        settings: Vec<(String, String)>,

        /// Answer for programs: the settings in force, one line of JSON
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        socket: SocketArgument,
    },
    /// Take the size that a volume's origin has now
    ///
    /// Clients that are connected keep the size that they were told, for NBD has no way to tell
    /// them another; those that connect from now on are told the new one. A volume that outgrows
    /// its room in the cache starts cold.
    #[command(after_long_help = "\
Examples:
  forebay volume resize pg")]
    Resize {
        /// Name of the volume
        volume: String,

        #[command(flatten)]
        socket: SocketArgument,
    },
}

/// `forebay miss-ratio`.
#[derive(Debug, Args)]
#[command(long_about = "\
Show what caches of other sizes would have missed of what a running cache was asked so far.

An estimate from a sample of the lines read, for a cache that gives up the least recently used \
line; this one does a little better.")]
#[command(after_long_help = "\
Examples:
  forebay miss-ratio
  forebay miss-ratio --plot curve.svg
  forebay miss-ratio --json | jq '.points[] | select(.miss_ratio < 0.1).size_bytes' | head -1")]
pub(crate) struct MissRatioArguments {
    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Also draw the share of hits over size into this file, .svg or .png
    #[arg(long, value_name = "FILE", value_parser = CurveFile::parse)]
    pub(super) plot: Option<CurveFile>,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("must be NAME=VALUE, such as admission=second-miss")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn path_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("must be NAME=VALUE, such as ctrl-loss-tmo=30")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A part of a volume: `1GiB-2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangeArgument {
    from: u64,
    to: u64,
}

impl RangeArgument {
    pub(super) fn range(self) -> Range {
        Range { offset: self.from, length: self.to - self.from }
    }
}

impl FromStr for RangeArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: String| {
            format!("range `{text}`: must be FROM-TO with FROM below TO, such as 0-10GiB{why}")
        };
        let (from, to) = text.split_once('-').ok_or_else(|| wrong(String::new()))?;
        let bytes = |size: &str| size.parse::<Size>().map_err(|error| wrong(format!(": {error}")));
        let (from, to) = (bytes(from)?.bytes(), bytes(to)?.bytes());
        if from < to { Ok(Self { from, to }) } else { Err(wrong(String::new())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_from_the_first_byte_to_the_one_after_the_last() {
        let range: RangeArgument = "4k-1MiB".parse().expect("a range");
        assert_eq!(range.range(), Range { offset: 4096, length: (1 << 20) - 4096 });
        for text in ["", "4k", "4k-", "-4k", "8k-4k", "4k-4k", "0-1MB", "1-2-3"] {
            assert!(text.parse::<RangeArgument>().expect_err(text).contains("FROM-TO"), "{text}");
        }
    }

    #[test]
    fn settings_have_a_name_and_a_value_which_may_hold_equals_signs() {
        assert_eq!(setting("pin=volume=pg"), Ok(("pin".into(), "volume=pg".into())));
        assert!(setting("admission").expect_err("no value").contains("NAME=VALUE"));
    }
}
