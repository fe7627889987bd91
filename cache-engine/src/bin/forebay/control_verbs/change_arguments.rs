//! The grammar of the verbs that change what a running service is made of: volumes and its cache
//! device. Origins, exports and generations are parsed by the service, whose they are.

use std::path::PathBuf;
use std::time::Duration;

use cache_engine::backend::address::Size;
use cache_engine::cache::CacheMode;
use clap::Args;

use super::arguments::SocketArgument;
use super::lease::lease_time;

/// `forebay volume add`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve another volume, until the service ends.

It starts warm if the cache holds lines of it that are proved to be right, as with `forebay run`. \
Other volumes are served while its origin is opened. To have it again with the next start, put it \
into the service's configuration file.")]
#[command(after_long_help = "\
Examples:
  forebay volume add pg --origin file:/dev/sdb --export nbd://127.0.0.1:10809/pg
  forebay volume add vm --origin 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1' \\
      --export 'nbd+unix:///vm?socket=/run/forebay/nbd.sock' --mode write-around --generation 1 \\
      --encryption-key file:/etc/forebay/vm.key")]
pub(crate) struct AddArguments {
    /// Name of the volume, unlike any other of the service
    pub(super) volume: String,

    /// Where its bytes live: file:PATH, memory:SIZE, null:SIZE or
    /// nvme+tcp://HOST[:4420]/SUBNQN?nsid=1; paths are the service's
    #[arg(long, value_name = "URI")]
    pub(super) origin: String,

    /// Where to serve it: nbd+unix:///NAME?socket=PATH, nbd://HOST[:10809]/NAME or
    /// nvme+tcp://HOST[:4420]/SUBNQN?nsid=1; may be repeated
    #[arg(long = "export", value_name = "URI", required = true)]
    pub(super) exports: Vec<String>,

    /// What is cached: write-through, write-around (reads only) or pass-through (nothing)
    #[arg(long)]
    pub(super) mode: Option<CacheMode>,

    /// A promise that nobody else has written to the origin since it was last cached under the same
    /// text; see forebay run
    #[arg(long, value_name = "TEXT")]
    pub(super) generation: Option<String>,

    /// Encrypt what is on the cache device with the key at file:PATH, which the service reads
    #[arg(long, value_name = "ADDRESS")]
    pub(super) encryption_key: Option<String>,

    /// Use the cache only while a lease on the origin is held: for this long from the start of this
    /// command, such as 30s, and for as long as forebay volume lease renews it; see forebay run
    #[arg(long, value_name = "TIME", value_parser = lease_time)]
    pub(super) lease: Option<Duration>,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

/// `forebay volume remove`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve a volume no more, until the service ends.

Its exports are withdrawn, requests in flight are answered and its clients are disconnected; what \
was written is flushed to the origin. What is cached of it stays, so that it is warm when it is \
added again, unless --forget.")]
#[command(after_long_help = "\
Examples:
  forebay volume remove pg
  forebay volume remove pg --forget")]
pub(crate) struct RemoveArguments {
    /// Name of the volume
    pub(super) volume: String,

    /// Give up what is cached of it, and its record on the cache device
    #[arg(long)]
    pub(super) forget: bool,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

/// `forebay cache replace`.
#[derive(Debug, Args)]
#[command(long_about = "\
Give a running service another cache device, until it ends.

Unlike the other verbs of `forebay cache` this one talks to a service. The new device starts empty;
\
requests go to the origins until it is in use, and none fails. The old device is closed and never \
served again. An unused device is formatted, and so is a cache of ours, whose lines are given up; \
anything else is refused unless --force-format. The new device must be in the service's \
configuration when it starts the next time.")]
#[command(after_long_help = "\
Examples:
  forebay cache replace /dev/nvme1n1
  forebay cache replace /srv/cache.img --size 10GiB --json")]
pub(crate) struct ReplaceArguments {
    /// The block device or regular file
    #[arg(value_name = "DEVICE")]
    pub(super) device: PathBuf,

    /// Size of the cache, such as 512M or 1GiB: makes a file that is absent or empty
    #[arg(long, value_name = "SIZE")]
    pub(super) size: Option<Size>,

    /// Format the device whatever it holds
    #[arg(long)]
    pub(super) force_format: bool,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}
