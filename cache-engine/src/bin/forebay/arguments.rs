//! The grammar of the command line. Only parsing: what a combination means is each verb's own.

use std::path::PathBuf;
use std::time::Duration;

use block_io::reactor::ReactorConfig;
use cache_engine::backend::address::{CacheAddress, Endpoint, OriginAddress, Size};
use cache_engine::cache::LineSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nvme_fabric::auth::HashFunction;
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
    /// Serve volumes, cached or not, until SIGINT or SIGTERM
    Run(crate::run::RunArguments),
    /// Serve block devices as an NVMe/TCP subsystem until SIGINT or SIGTERM
    Target(TargetArguments),
    /// Look at NVMe/TCP subsystems, and at a service's connections to them
    Nvme {
        /// What to look at.
        #[command(subcommand)]
        verb: crate::nvme::NvmeVerb,
    },
    /// Say what caches of some sizes would have done for recorded requests
    Replay(crate::replay::ReplayArguments),
    /// Make, look at and check the cache on a device that no cache is running on; replace the
    /// device of one that is running
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

/// `forebay target`.
#[derive(Debug, Args)]
#[command(long_about = "\
Serve block devices as an NVMe/TCP subsystem until SIGINT or SIGTERM.

Prints `ready NQN HOST:PORT` when it serves. The namespaces are numbered from 1, in the order \
given. With --discovery a second line tells where the discovery service is. With --config there \
may be several, and the verbs below change a target that runs.")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "\
Examples:
  forebay target --config /etc/forebay/target.toml
  forebay target create pg --size 100GiB
  forebay target --listen 127.0.0.1:4420 --subsystem nqn.2014-08.org.example:v1 \\
      --namespace file:/dev/sdb --namespace memory:1GiB --discovery 127.0.0.1:8009
  nvme connect -t tcp -a 127.0.0.1 -s 4420 -n nqn.2014-08.org.example:v1")]
pub(crate) struct TargetArguments {
    /// What to do with a target that runs.
    #[command(subcommand)]
    pub(crate) verb: Option<crate::control_verbs::TargetVerb>,

    /// File with listeners, subsystems and namespaces; docs/forebay-target.toml has every key
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["listen", "subsystem", "namespaces", "discovery", "tls_keys"])]
    #[arg(conflicts_with_all = ["hosts", "controllers", "require_authentication", "reservations"])]
    pub(crate) config: Option<PathBuf>,

    /// Address to serve on; port 0 takes a free one, 4420 where none is given
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    pub(crate) listen: Option<Endpoint>,

    /// NVMe qualified name of the subsystem
    #[arg(long, value_name = "NQN", required_unless_present = "config")]
    pub(crate) subsystem: Option<Nqn>,

    /// What a namespace is made of: file:PATH, memory:SIZE, null:SIZE or nvme+tcp://…; may be
    /// repeated
    #[arg(long = "namespace", value_name = "URI", required_unless_present = "config")]
    pub(crate) namespaces: Vec<OriginAddress>,

    #[command(flatten)]
    pub(crate) reactor: ReactorArguments,

    /// Folder where reservations are kept that hosts ask to persist (PTPL), a file a namespace
    ///
    /// Without it none persist, and hosts are told so. A namespace in memory has none that do.
    #[arg(long, value_name = "DIR")]
    pub(crate) reservations: Option<PathBuf>,

    /// Address to serve discovery on; port 8009 where none is given
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) discovery: Option<Endpoint>,

    /// File with the TLS keys of the hosts that may connect, `HOSTNQN NVMeTLSkey-1:…` a line; only
    /// its owner may read it
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_keys: Option<PathBuf>,

    /// Whether hosts must use TLS, or may do without; discovery may always be asked without
    #[arg(long, value_name = "HOW", default_value = "required", requires = "tls_keys")]
    pub(crate) tls: TlsUse,

    /// Who must prove himself.
    #[command(flatten)]
    pub(crate) secrets: SecretArguments,
}

/// Whether hosts must use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsUse {
    /// A host without TLS is refused.
    Required,
    /// A host with a key may use it, others connect without.
    Offered,
}

/// Secrets of hosts that a target serves.
#[derive(Debug, Default, Args)]
pub(crate) struct SecretArguments {
    /// A host that must prove itself, and the file with its secret (`forebay nvme key`); may be
    /// repeated
    #[arg(long = "host-secret", value_name = "HOSTNQN=PATH", value_parser = host_file)]
    pub(crate) hosts: Vec<(Nqn, PathBuf)>,

    /// A host to which this target proves itself when asked, and the file with the secret for
    /// that; may be repeated
    #[arg(long = "controller-secret", value_name = "HOSTNQN=PATH", value_parser = host_file)]
    pub(crate) controllers: Vec<(Nqn, PathBuf)>,

    /// Refuse hosts that no --host-secret names
    #[arg(long)]
    pub(crate) require_authentication: bool,

    /// Whether hosts with a secret must, or may, come back over TLS by the key that authentication
    /// generates; not with --tls required, for they come in clear first
    #[arg(long, value_name = "HOW", requires = "hosts")]
    pub(crate) secure_channel: Option<TlsUse>,
}

/// A host's name and a path.
fn host_file(text: &str) -> Result<(Nqn, PathBuf), String> {
    // What was given may be a secret, put there by mistake: it is not repeated.
    let wrong = || "must be HOSTNQN=PATH, the path of a file with the secret".to_owned();
    let (host, path) = text.split_once('=').ok_or_else(wrong)?;
    if path.is_empty() || path.starts_with("DHHC-1") {
        return Err(wrong());
    }
    let host = Nqn::new(host).map_err(|error| format!("the host's NQN {error}"))?;
    Ok((host, PathBuf::from(path)))
}

/// What a secret goes through.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SecretHash {
    /// Nothing: the secret is used as it is, 32 bytes
    None,
    /// HMAC with SHA-256, 32 bytes
    Sha256,
    /// HMAC with SHA-384, 48 bytes
    Sha384,
    /// HMAC with SHA-512, 64 bytes
    Sha512,
}

impl SecretHash {
    /// The hash function, absent for none.
    pub(crate) const fn function(self) -> Option<HashFunction> {
        match self {
            Self::None => None,
            Self::Sha256 => Some(HashFunction::Sha256),
            Self::Sha384 => Some(HashFunction::Sha384),
            Self::Sha512 => Some(HashFunction::Sha512),
        }
    }
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
    /// Give a running service another cache device
    Replace(crate::control_verbs::ReplaceArguments),
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

    /// Key of an encrypted volume, to compare its content too: file:PATH or fd:N
    #[arg(long, value_name = "ADDRESS", requires = "origin")]
    pub(crate) encryption_key: Option<String>,

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
an independent model. At last the cache is stopped, killed and started again each time, to show \
how warm it is. Needs no root, leaves nothing behind.")]
#[command(after_long_help = "\
Examples:
  forebay demo
  forebay demo --latency 2ms --seconds 10 --size 1GiB
  forebay demo --format json")]
pub(crate) struct DemoArguments {
    /// What the network to the origin costs each request
    #[arg(long, value_name = "TIME", default_value = "0.5ms", value_parser = latency)]
    pub(crate) latency: Duration,

    /// Seconds for each of the six phases
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
/// What the reactors of a service are to do otherwise than usual.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct ReactorArguments {
    /// Send so much or more at a time without the kernel copying it; usually it always does
    ///
    /// From 16k or 64k on it may save time on a network interface: measure. Where the way to a peer
    /// does not allow it, as on one machine, the kernel says so and that connection goes on with
    /// copies. Linux 6.0 or later.
    #[arg(long, value_name = "SIZE", value_parser = zero_copy_size)]
    pub(crate) zero_copy_from: Option<Size>,
}

impl ReactorArguments {
    pub(crate) fn config(&self) -> ReactorConfig {
        // At most 1 MiB, see the parser.
        let zero_copy_from = self.zero_copy_from.map(|size| size.bytes() as usize);
        ReactorConfig { zero_copy_from, ..ReactorConfig::default() }
    }
}

fn zero_copy_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    if !(4096..=1 << 20).contains(&size.bytes()) {
        return Err(format!("size `{text}`: must be from 4k to 1M"));
    }
    Ok(size)
}

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
    fn sizes_of_sends_without_a_copy() {
        let from = |text: &str| {
            let words = ["forebay", "target", "--config", "t.toml", "--zero-copy-from", text];
            Arguments::try_parse_from(words).map_err(|error| error.to_string())
        };
        let Verb::Target(target) = from("64k").expect("a size").verb else {
            panic!("not the verb")
        };
        assert_eq!(target.reactor.config().zero_copy_from, Some(65536));
        for text in ["4095", "2M", "x"] {
            assert!(from(text).expect_err(text).contains(text), "{text}");
        }
        let usual = ReactorArguments::default().config();
        assert_eq!(usual.zero_copy_from, None);
    }

    #[test]
    fn demo_sizes() {
        assert!(demo_size("32M").is_ok());
        for text in ["16M", "33000k", "2T", "x"] {
            assert!(demo_size(text).expect_err(text).contains(text), "{text}");
        }
    }
}
