//! The grammar of the command line. Only parsing: what a combination means is each verb's own.

use std::path::PathBuf;
use std::time::Duration;

use crate::control_verbs::lease_time;
use crate::run::ExportUri;
use cache_engine::backend::address::{CacheAddress, Endpoint, NvmeTcpAddress, OriginAddress, Size};
use cache_engine::cache::metadata::Generation;
use cache_engine::cache::metadata::volume_record::NAME_MAX;
use cache_engine::cache::{CacheMode, LineSize, Verification};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nvme_fabric::spec::nqn::Nqn;

/// A cached block volume in user space: local SSD speed for storage behind a network.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Try it: forebay demo")]
#[command(after_long_help = "\
Exit codes: 0 success, 1 failure, 2 wrong usage.

Examples:
  forebay demo
  forebay run --origin file:/dev/sdb --cache file:/dev/nvme0n1 --export nbd://127.0.0.1/volume
  forebay run --help")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs of the command.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve a volume, cached or not, until SIGINT or SIGTERM
    Run(RunArguments),
    /// Serve block devices as an NVMe/TCP subsystem until SIGINT or SIGTERM
    Target(TargetArguments),
    /// Look at NVMe/TCP subsystems
    Nvme {
        /// What to look at.
        #[command(subcommand)]
        verb: NvmeVerb,
    },
    /// Say what caches of some sizes would have done for recorded requests
    Replay(crate::replay::ReplayArguments),
    /// Make, look at and check the cache on a device that no cache is running on
    Cache {
        /// What to do with it.
        #[command(subcommand)]
        verb: CacheVerb,
    },
    /// Show how a running service, its cache and its volumes are
    Status(crate::control_verbs::StatusArguments),
    /// Change what enters a running cache and what leaves it
    Set(crate::control_verbs::SetArguments),
    /// Change or look at a volume of a running service
    Volume {
        /// What to do with it.
        #[command(subcommand)]
        verb: crate::control_verbs::VolumeVerb,
    },
    /// Show what caches of other sizes would have missed of what a running one was asked
    MissRatio(crate::control_verbs::MissRatioArguments),
    /// Show what a cache does, on this machine, in under a minute
    Demo(DemoArguments),
}

/// `forebay run`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve a volume, cached or not, until SIGINT or SIGTERM.

Prints `ready NAME EXPORT-URI` for each export when it serves, and statistics at the end. Without \
--cache the origin itself is served. Another signal after half a \
second does not wait for the end.")]
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

  The same, cached on a device such that it is warm again even after a crash, and encrypted:
    forebay run --origin 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1' \\
        --cache file:/dev/nvme0n1p4 --generation 1 --encryption-key file:/etc/forebay/key \\
        --export nbd://127.0.0.1:10809/v1")]
pub(crate) struct RunArguments {
    /// Where the volume's bytes live: file:PATH, memory:SIZE, null:SIZE or
    /// nvme+tcp://HOST[:4420]/SUBNQN?nsid=1
    #[arg(long, value_name = "URI")]
    pub(crate) origin: OriginAddress,

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

    /// Format the cache device whatever it holds
    #[arg(long, requires = "cache")]
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
    #[arg(long, value_name = "TIME", requires_all = ["cache", "control"])]
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

    /// Where to serve it: nbd+unix:///NAME?socket=PATH or nbd://HOST[:10809]/NAME; may be repeated
    #[arg(long = "export", value_name = "URI", required = true)]
    pub(crate) exports: Vec<ExportUri>,

    /// Unix socket for forebay status, set, volume and miss-ratio, for the user who runs this alone
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,

    /// Form of the statistics at the end; json is the last line on stdout
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) stats: Format,
}

/// `forebay target`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve block devices as an NVMe/TCP subsystem until SIGINT or SIGTERM.

Prints `ready NQN HOST:PORT` when it serves. The namespaces are numbered from 1, in the order \
given. With --discovery a second line tells where the discovery service is.")]
#[command(after_long_help = "\
Examples:
  forebay target --listen 127.0.0.1:4420 --subsystem nqn.2014-08.org.example:v1 \\
      --namespace file:/dev/sdb --namespace memory:1GiB --discovery 127.0.0.1:8009
  nvme connect -t tcp -a 127.0.0.1 -s 4420 -n nqn.2014-08.org.example:v1")]
pub(crate) struct TargetArguments {
    /// Address to serve on; port 0 takes a free one, 4420 where none is given
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Endpoint,

    /// NVMe qualified name of the subsystem
    #[arg(long, value_name = "NQN")]
    pub(crate) subsystem: Nqn,

    /// What a namespace is made of: file:PATH, memory:SIZE, null:SIZE or nvme+tcp://…; may be
    /// repeated
    #[arg(long = "namespace", value_name = "URI", required = true)]
    pub(crate) namespaces: Vec<OriginAddress>,

    /// Address to serve discovery on; port 8009 where none is given
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) discovery: Option<Endpoint>,
}

/// The verbs of `forebay nvme`.
#[derive(Debug, Subcommand)]
pub(crate) enum NvmeVerb {
    /// List the subsystems that a discovery controller knows
    #[command(after_long_help = "\
Examples:
  forebay nvme discover 192.0.2.7:8009
  forebay nvme discover 192.0.2.7 --format json")]
    Discover {
        /// Address of the discovery controller; port 8009 where none is given
        #[arg(value_name = "HOST:PORT")]
        endpoint: Endpoint,

        /// Form of the answer
        #[arg(long, default_value = "table")]
        format: Format,
    },
    /// Show a controller and a namespace of a subsystem
    #[command(after_long_help = "\
Examples:
  forebay nvme identify 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1'
  forebay nvme identify 'nvme+tcp://[2001:db8::7]:4420/nqn.2014-08.org.example:v1' --format json")]
    Identify {
        /// The namespace: nvme+tcp://HOST[:4420]/SUBNQN?nsid=1
        #[arg(value_name = "URI", value_parser = nvme_tcp)]
        address: NvmeTcpAddress,

        /// Form of the answer
        #[arg(long, default_value = "table")]
        format: Format,
    },
}

/// The verbs of `forebay cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    /// Make an empty cache of a device
    ///
    /// An empty or zeroed device is formatted, and so is a cache of ours, whose lines are given up;
    /// anything else is refused unless --force-format.
    #[command(after_long_help = "\
Examples:
  forebay cache format /dev/nvme0n1
  forebay cache format cache.img --size 10GiB --line-size 64k")]
    Format(FormatArguments),
    /// Show what a cache device says of itself
    #[command(after_long_help = "\
Examples:
  forebay cache inspect /dev/nvme0n1
  forebay cache inspect cache.img --json")]
    Inspect(InspectArguments),
    /// Read everything that a cache device records and say whether it is whole
    ///
    /// Exit code 1 when something is damaged. What a crash leaves and the next start takes care of
    /// is told, and is no damage. With --origin every valid block is compared with its checksum and
    /// with the origin, which nobody may write meanwhile.
    #[command(after_long_help = "\
Examples:
  forebay cache check /dev/nvme0n1
  forebay cache check cache.img --origin file:disk.img --volume disk --json")]
    Check(CheckArguments),
}

/// `forebay cache format`.
#[derive(Debug, Args)]
pub(crate) struct FormatArguments {
    /// The block device or regular file
    #[arg(value_name = "DEVICE", value_parser = cache_device)]
    pub(crate) device: CacheAddress,

    /// Bytes in a cache line: 4k, 8k, 16k, 32k or 64k
    #[arg(long, value_name = "SIZE", default_value_t)]
    pub(crate) line_size: LineSize,

    /// Size of the cache, such as 512M or 1GiB: makes a file that is absent or empty
    #[arg(long, visible_alias = "cache-size", value_name = "SIZE")]
    pub(crate) size: Option<Size>,

    /// Format the device whatever it holds
    #[arg(long)]
    pub(crate) force_format: bool,
}

/// `forebay cache inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The block device or regular file
    #[arg(value_name = "DEVICE", value_parser = cache_device)]
    pub(crate) device: CacheAddress,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `forebay cache check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The block device or regular file
    #[arg(value_name = "DEVICE", value_parser = cache_device)]
    pub(crate) device: CacheAddress,

    /// Origin to compare a volume with: file:PATH or nvme+tcp://HOST[:4420]/SUBNQN?nsid=1
    #[arg(long, value_name = "URI")]
    pub(crate) origin: Option<OriginAddress>,

    /// Name of the volume whose origin that is; may be left out where there is only one
    #[arg(long, value_name = "NAME", requires = "origin")]
    pub(crate) volume: Option<String>,

    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `forebay demo`.
#[derive(Debug, Args)]
#[command(long_about = "\
Show what a cache does, on this machine, in under a minute.

Starts a software NVMe/TCP target on loopback with a file behind it and the latency of a network, \
puts a cache in front, and drives both through a real NBD socket. Every byte read is compared with \
an independent model. Needs no root, leaves nothing behind.")]
#[command(after_long_help = "\
Examples:
  forebay demo
  forebay demo --latency 2ms --seconds 10 --size 1GiB
  forebay demo --format json")]
pub(crate) struct DemoArguments {
    /// What the network to the origin costs each request
    #[arg(long, value_name = "TIME", default_value = "0.5ms", value_parser = latency)]
    pub(crate) latency: Duration,

    /// Seconds for each of the four phases
    #[arg(long, value_name = "N", default_value = "4")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,

    /// Size of the volume; a quarter of it is the cache
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = demo_size)]
    pub(crate) size: Size,

    /// Requests in flight
    #[arg(long, value_name = "N", default_value = "8")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) queue_depth: u32,

    /// Seed of the workload
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,

    /// Form of the report
    #[arg(long, default_value = "table")]
    pub(crate) format: Format,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one line
    Json,
}

fn nvme_tcp(text: &str) -> Result<NvmeTcpAddress, String> {
    match text.parse() {
        Ok(OriginAddress::NvmeTcp(address)) => Ok(address),
        Ok(_) => Err(format!("`{text}`: must be nvme+tcp://HOST[:4420]/SUBNQN?nsid=1")),
        Err(error) => Err(error.to_string()),
    }
}

/// A path, or its URI.
fn cache_device(text: &str) -> Result<CacheAddress, String> {
    if !text.starts_with("file:") && !text.starts_with("memory:") {
        return match text.is_empty() {
            true => Err("must be the path of a block device or a regular file".to_owned()),
            false => Ok(CacheAddress::File(text.into())),
        };
    }
    match text.parse() {
        Ok(CacheAddress::Memory) => {
            Err(format!("`{text}`: must be a block device or a regular file"))
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn generation(text: &str) -> Result<Generation, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("must not be empty and hold no control characters".to_owned());
    }
    Generation::new(text).map_err(|error| error.to_string())
}

fn volume_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not be empty and hold no spaces or control characters".to_owned());
    }
    if text.len() > NAME_MAX {
        return Err(format!("has {} bytes; must be at most {NAME_MAX}", text.len()));
    }
    Ok(text.to_owned())
}

/// The most that `--latency` may be: above it a demo shows nothing.
const LATENCY_MAX: Duration = Duration::from_millis(100);

fn latency(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("`{text}`: must be a time from 0 to 100ms with its unit, such as 0.5ms or 200us")
    };
    let unit_start = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_start);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    if time > LATENCY_MAX { Err(wrong()) } else { Ok(time) }
}

/// The smallest volume of which a quarter is a cache worth the name.
const DEMO_SIZE_MIN: u64 = 32 << 20;

fn demo_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    let whole = size.bytes().is_multiple_of(1 << 20);
    if !whole || !(DEMO_SIZE_MIN..=1 << 40).contains(&size.bytes()) {
        return Err(format!("size `{text}`: must be whole MiB from 32MiB to 1TiB"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn latencies() {
        assert_eq!(latency("0.5ms"), Ok(Duration::from_micros(500)));
        assert_eq!(latency("200us"), Ok(Duration::from_micros(200)));
        assert_eq!(latency("0s"), Ok(Duration::ZERO));
        for text in ["", "5", "ms", "-1ms", "1m", "1e9s", "101ms", "NaNms", "infs", "0.5 ms"] {
            assert!(latency(text).is_err(), "{text}");
        }
    }

    #[test]
    fn demo_sizes() {
        assert!(demo_size("32M").is_ok());
        for text in ["16M", "33000k", "2T", "x"] {
            assert!(demo_size(text).expect_err(text).contains(text), "{text}");
        }
    }
}
