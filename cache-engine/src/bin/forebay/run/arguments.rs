//! The grammar of `forebay run`. Only parsing: what a combination means is [`super::plan`]'s.

use std::path::PathBuf;
use std::time::Duration;

use cache_engine::backend::address::{CacheAddress, OriginAddress, Size};
use cache_engine::cache::metadata::Generation;
use cache_engine::cache::{CacheMode, LineSize, Verification};
use clap::Args;

use super::export::ExportUri;
use super::plan::{generation, volume_name};
use crate::arguments::{Format, ReactorArguments};
use crate::control_verbs::lease_time;

/// `forebay run`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve volumes, cached or not, until SIGINT or SIGTERM.

One volume is described by options, any number of them on one cache by a file (--config). Prints \
`ready NAME EXPORT-URI` for each export when it serves, and statistics at the end. Without a cache \
the origin itself is served. With --control volumes can be added and removed while it runs, and it \
may start without one; then it prints `ready control SOCKET`. What was added lives until the \
service ends. Another signal after half a second does not wait for the end.")]
#[command(after_long_help = "\
Examples:
  A cached file, for NBD clients of this machine:
    forebay run --origin file:disk.img --cache file:cache.img --cache-size 1GiB \\
        --export 'nbd+unix:///disk?socket=/tmp/disk.sock'
    nbdinfo 'nbd+unix:///disk?socket=/tmp/disk.sock'

  A remote namespace, cached in memory, over TCP, with statistics for a script:
    forebay run --origin 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1' \\
        --cache memory: --cache-size 512M --mode write-around --stats json \\
        --export nbd://127.0.0.1:10809/v1

  One that is reached over two addresses, and whose loss is not waited for:
    forebay run --export nbd://127.0.0.1:10809/v1 --origin \\
        'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?path=192.0.2.8&fast-io-fail-tmo=5'

  One cached on a device such that it is warm again even after a crash, and encrypted:
    forebay run --origin 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1' \\
        --cache file:/dev/nvme0n1p4 --generation 1 --encryption-key file:/etc/forebay/key \\
        --export nbd://127.0.0.1:10809/v1

  A cached volume for hosts of NVMe/TCP, and how a Linux host connects to it:
    forebay run --origin file:disk.img --cache file:cache.img --cache-size 1GiB \\
        --export 'nvme+tcp://192.0.2.9/nqn.2014-08.org.example:disk?nsid=1'
    nvme connect --transport tcp --traddr 192.0.2.9 --nqn nqn.2014-08.org.example:disk

  Many volumes on one cache (docs/forebay.toml is an example), or volumes as they come:
    forebay run --config /etc/forebay.toml
    forebay run --cache file:/dev/nvme0n1p4 --control /run/forebay/forebay.sock
    forebay volume add pg --origin file:/dev/sdb --export nbd://127.0.0.1:10809/pg")]
pub(crate) struct RunArguments {
    /// File (TOML) with the cache, any number of volumes and the control socket
    ///
    /// In place of the options that say the same.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = [
        "origin", "cache", "cache_size", "mode", "line_size", "generation", "verify",
        "encryption_key", "state_dir", "settings", "name", "exports", "control", "lease",
    ])]
    pub(crate) config: Option<PathBuf>,

    /// Where the volume's bytes live: file:PATH, memory:SIZE, null:SIZE or
    /// nvme+tcp://HOST[:4420]/SUBNQN?nsid=1
    #[arg(long, value_name = "URI", requires = "exports")]
    #[arg(required_unless_present_any = ["config", "control"])]
    pub(crate) origin: Option<OriginAddress>,

    /// Where the cache keeps its lines: file:PATH (a block device or a regular file) or memory:
    ///
    /// An empty or zeroed device is formatted, one of ours is opened and is warm where that is
    /// proved (see --generation), anything else is refused unless --force-format.
    #[arg(long, value_name = "URI")]
    pub(crate) cache: Option<CacheAddress>,

    /// Size of the cache, such as 512M or 1GiB: makes a file that is absent; needed for memory:
    ///
    /// A cache that is there already keeps its size.
    #[arg(long, value_name = "SIZE", requires = "cache")]
    pub(crate) cache_size: Option<Size>,

    /// Format the cache device whatever it holds; with --config too
    #[arg(long)]
    pub(crate) force_format: bool,

    /// What is cached: write-through, write-around (reads only) or pass-through (nothing)
    #[arg(long, default_value_t, requires = "cache")]
    pub(crate) mode: CacheMode,

    /// Bytes in a cache line: 4k, 8k, 16k, 32k or 64k; 16k where a device is formatted without it
    ///
    /// A cache that is there already keeps its line size, and is refused if it has another one.
    #[arg(long, value_name = "SIZE", requires = "cache")]
    pub(crate) line_size: Option<LineSize>,

    /// A promise that nobody else has written to the origin since it was last cached under the same
    /// text
    ///
    /// What a cache on a device holds is used again only if it is proved to be what the origin has.
    /// A regular file proves it by its time of change, after a clean stop. After a crash, and for
    /// block devices and NVMe namespaces, nobody but the caller knows: give the same text with each
    /// start, another one whenever somebody else may have written, such as a restored backup. At
    /// most 64 bytes.
    #[arg(long, value_name = "TEXT", requires = "cache", value_parser = generation)]
    pub(crate) generation: Option<Generation>,

    /// Use the cache only while a lease on the origin is held: for this long from the start, such
    /// as 30s, and for as long as forebay volume lease renews it
    ///
    /// For origins that other hosts can write to. Without the lease requests go to the origin, and
    /// what was cached is dropped. 0s waits for the first lease. Whoever asks for the lease takes
    /// from the time what has passed since it was asked for, and what clocks may differ by over its
    /// length. After a crash under a lease the cache starts cold.
    #[arg(long, value_name = "TIME", requires_all = ["origin", "cache", "control"])]
    #[arg(value_parser = lease_time)]
    pub(crate) lease: Option<Duration>,

    /// When what the cache device returns is compared with checksums: never, after-unclean-stop or
    /// always
    ///
    /// With never, a start after a crash is cold. Always costs memory, 1 MiB a GiB of cache.
    #[arg(long, value_name = "WHEN", default_value_t, requires = "cache")]
    pub(crate) verify: Verification,

    /// Encrypt what is on the cache device with the key at file:PATH or fd:N
    ///
    /// 64 random bytes or their 128 hexadecimal digits, in a file that only its owner may read. The
    /// origin is not encrypted. Another key, or none, makes the next start cold.
    #[arg(long, value_name = "ADDRESS", requires = "cache")]
    pub(crate) encryption_key: Option<String>,

    /// Where this host notes which cache an origin was last attached to
    ///
    /// It must outlive the process. $FOREBAY_STATE_DIR where it is not given, else /var/lib/forebay
    /// for root and ~/.local/state/forebay for others.
    #[arg(long, value_name = "DIR", requires = "cache")]
    pub(crate) state_dir: Option<PathBuf>,

    /// A setting of what enters the cache and what leaves it, such as admission=second-miss; may be
    /// repeated
    ///
    /// NAME is one of admission, endurance, sequential-cutoff, fill-width, purge, pin-max, class,
    /// volume and pin.
    #[arg(long = "set", value_name = "NAME=VALUE", requires = "cache")]
    pub(crate) settings: Vec<String>,

    /// Name of the volume, for the ready lines, statistics and the cache's record of it
    #[arg(long, default_value = "volume", value_parser = volume_name)]
    pub(crate) name: String,

    /// Where to serve it: nbd+unix:///NAME?socket=PATH, nbd://HOST[:10809]/NAME or
    /// nvme+tcp://HOST[:4420]/SUBNQN?nsid=1; may be repeated
    ///
    /// By nvme+tcp a volume is a namespace in a subsystem of its own, for any host that can reach
    /// the address, where discovery tells of it too. It can have one of these, and its reservations
    /// hold among hosts, not for NBD clients beside them. forebay target serves devices with lists
    /// of hosts, authentication and TLS.
    #[arg(long = "export", value_name = "URI", requires = "origin")]
    pub(crate) exports: Vec<ExportUri>,

    /// Reactors that serve clients, each on a thread of its own; at most the cores there are
    ///
    /// Each client is one reactor's, and a new one goes to the reactor with the fewest. The first
    /// reactor does everything else too: the others serve hits from the cache device by themselves
    /// and ask the first for the rest, so that they help where hits or many clients keep a core
    /// busy. Encrypted volumes, and those of --verify always, have all their hits served by the
    /// first, and so are hosts of NVMe/TCP. No reactor sees all reads, so there is no miss-ratio
    /// curve. With --config too.
    #[arg(long, value_name = "N", default_value = "1", value_parser = reactors)]
    pub(crate) reactors: usize,

    /// Allow more --reactors than this process has cores
    #[arg(long)]
    pub(crate) oversubscribe: bool,

    #[command(flatten)]
    pub(crate) reactor: ReactorArguments,

    /// Unix socket for forebay status, set, volume, cache replace and miss-ratio, for the user who
    /// runs this alone
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,

    /// Form of the statistics at the end; json is the last line on stdout
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) stats: Format,
}

/// Reactors of one service at the most.
const REACTORS_MAX: usize = 64;

fn reactors(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=REACTORS_MAX).contains(count));
    count.ok_or_else(|| format!("must be a number from 1 to {REACTORS_MAX}"))
}
