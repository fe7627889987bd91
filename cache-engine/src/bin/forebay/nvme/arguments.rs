//! The grammar of `forebay nvme`.

use std::path::PathBuf;

use cache_engine::backend::address::{Endpoint, NvmeTcpAddress, OriginAddress};
use clap::{Args, Subcommand};
use nvme_fabric::spec::nqn::{HostId, Nqn};

use crate::arguments::{Format, SecretHash};
use crate::control_verbs::SocketArgument;

/// The verbs of `forebay nvme`.
#[derive(Debug, Subcommand)]
pub(crate) enum NvmeVerb {
    /// List the subsystems that a discovery service and those that it refers to know
    #[command(after_long_help = "\
Examples:
  forebay nvme discover 192.0.2.7
  forebay nvme discover [2001:db8::7]:8009 --json | jq -r '.records[].subnqn'
  forebay nvme discover 192.0.2.7 --persistent
  forebay nvme discover --mdns --mdns-time 10
  forebay nvme discover 192.0.2.7 --nqn nqn.2014-08.org.example:discovery --no-referrals")]
    Discover(DiscoverArguments),
    /// Show a controller and a namespace of a subsystem
    ///
    /// Connects as a volume would, asks, and takes leave; so it tells whether one can connect.
    #[command(visible_aliases = ["id-ctrl", "id-ns"])]
    #[command(after_long_help = "\
Examples:
  forebay nvme identify 'nvme+tcp://192.0.2.7/nqn.2014-08.org.example:v1?nsid=1'
  forebay nvme identify 'nvme+tcp://[2001:db8::7]:4420/nqn.2014-08.org.example:v1' --json")]
    Identify {
        /// The namespace: nvme+tcp://HOST[:4420]/SUBNQN?nsid=1
        #[arg(value_name = "URI", value_parser = nvme_tcp)]
        address: NvmeTcpAddress,

        #[command(flatten)]
        form: FormArguments,
    },
    /// List the controllers that a running service is connected to
    #[command(visible_alias = "list-subsys")]
    #[command(after_long_help = "\
Examples:
  forebay nvme list
  forebay nvme list --json | jq '.[].paths[] | select(.state != \"live\")'")]
    List {
        #[command(flatten)]
        socket: SocketArgument,

        /// Answer for programs: one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a secret for authentication (DH-HMAC-CHAP), in a new file that only its owner may read
    #[command(visible_alias = "gen-dhchap-key")]
    #[command(after_long_help = "\
The secret is in the form DHHC-1:hh:BASE64: that nvme-cli, Linux and SPDK read too.

Examples:
  forebay nvme key --output /etc/forebay/host.secret
  forebay nvme key --output /etc/forebay/controller.secret --hash sha384")]
    Key {
        /// The file; there must be none yet
        #[arg(long, value_name = "PATH")]
        output: PathBuf,

        /// What the secret goes through with its owner's name before it is used; decides its length
        #[arg(long, default_value = "sha256")]
        hash: SecretHash,
    },
    /// Show who this machine is among NVMe hosts, and where that is kept
    #[command(visible_alias = "show-hostnqn")]
    #[command(after_long_help = "\
The name and the identifier are those of /etc/nvme/hostnqn and /etc/nvme/hostid. Where they are
absent they are made: there for root, in the state directory for others.

Examples:
  forebay nvme host
  forebay nvme host --json | jq -r .hostnqn")]
    Host {
        #[command(flatten)]
        host: HostArguments,

        /// Answer for programs: one line of JSON
        #[arg(long)]
        json: bool,
    },
}

/// `forebay nvme discover`.
#[derive(Debug, Args)]
pub(crate) struct DiscoverArguments {
    /// Address of the discovery service; port 8009 where none is given
    #[arg(value_name = "HOST[:PORT]", required_unless_present = "mdns")]
    pub(super) endpoint: Option<Endpoint>,

    /// Ask every discovery controller that announces itself on the local network
    ///
    /// Listens for `_nvme-disc._tcp.local` over multicast DNS (TP8009), and asks who is heard.
    #[arg(long, conflicts_with_all = ["endpoint", "nqn", "persistent"])]
    pub(super) mdns: bool,

    /// Seconds to listen for announcements
    #[arg(long, value_name = "SECONDS", requires = "mdns", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(super) mdns_time: u16,

    /// The service's name, where it should not be the well-known one
    #[arg(long, value_name = "NQN")]
    pub(super) nqn: Option<Nqn>,

    /// Stay connected and tell each change, until SIGINT or SIGTERM
    ///
    /// At first everything appears. A service that is lost is asked again, after longer and longer
    /// times. Referrals are told and not followed.
    #[arg(long)]
    pub(super) persistent: bool,

    /// Ask this service only
    #[arg(long)]
    pub(super) no_referrals: bool,

    /// File with this host's TLS key, which only its owner may read: ask over TLS only, referrals
    /// too
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<std::path::PathBuf>,

    #[command(flatten)]
    pub(super) host: HostArguments,

    #[command(flatten)]
    pub(super) form: FormArguments,
}

/// Who this host is, for once.
#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    /// This host's name, instead of the machine's
    #[arg(long, value_name = "NQN")]
    pub(super) hostnqn: Option<Nqn>,

    /// This host's identifier, instead of the one that goes with its name
    #[arg(long, value_name = "UUID")]
    pub(super) hostid: Option<HostId>,
}

/// For people or for programs.
#[derive(Debug, Args)]
pub(crate) struct FormArguments {
    /// Form of the answer
    #[arg(long, default_value = "table")]
    format: Format,

    /// Answer for programs, a line of JSON each: --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormArguments {
    /// What was asked for.
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

fn nvme_tcp(text: &str) -> Result<NvmeTcpAddress, String> {
    match text.parse() {
        Ok(OriginAddress::NvmeTcp(address)) => Ok(address),
        Ok(_) => Err(format!("`{text}`: must be nvme+tcp://HOST[:4420]/SUBNQN?nsid=1")),
        Err(error) => Err(error.to_string()),
    }
}
