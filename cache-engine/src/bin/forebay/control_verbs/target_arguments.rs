//! The grammar of the verbs that talk to a running target.

use cache_engine::backend::address::Size;
use clap::{Args, Subcommand};
use nvme_fabric::spec::nqn::Nqn;

use super::arguments::SocketArgument;

/// Which target is meant, and how it is answered.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetSocket {
    /// Answer for programs: one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) socket: SocketArgument,
}

/// The verbs of `forebay target`.
#[derive(Debug, Subcommand)]
pub(crate) enum TargetVerb {
    /// Show subsystems, namespaces, hosts and volumes
    Status {
        #[command(flatten)]
        to: TargetSocket,
    },
    /// Make a volume (a thin file) and serve it; asked again for the same, answer the same
    #[command(after_long_help = "\
Examples:
  forebay target create pg --size 100GiB
  forebay target create pg-copy --from pg-monday
  forebay target create log --size 10GiB --subsystem nqn.2014-08.org.example:pg --group 1")]
    Create {
        /// Its name
        name: String,

        /// Its size, a multiple of 4k; that of --from where it is not given
        #[arg(long, value_name = "SIZE", required_unless_present = "from")]
        size: Option<Size>,

        /// Volume or snapshot to begin with, by reflink
        #[arg(long, value_name = "NAME")]
        from: Option<String>,

        /// Subsystem to put it in; one of its own where not given. No host may connect to one that
        /// is made, until it is allowed
        #[arg(long, value_name = "NQN")]
        subsystem: Option<Nqn>,

        /// Access group (ANA) of the subsystem; its first where not given
        #[arg(long, value_name = "NUMBER")]
        group: Option<u32>,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Make a volume larger; hosts are told
    Resize {
        /// The volume
        name: String,

        /// Its size, a multiple of 4k
        size: Size,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Serve a volume no more and remove its file, or remove a snapshot
    Delete {
        /// The volume or snapshot
        name: String,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Keep a volume's content as it is now, by reflink, where the file system has that
    Snapshot {
        /// The volume
        volume: String,

        /// Name of the snapshot
        name: String,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Let a host connect
    Allow {
        /// NQN of a subsystem, or a volume
        subject: String,

        /// NQN of the host
        host: Nqn,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Let a host connect no more, and end its connections
    Forbid {
        /// NQN of a subsystem, or a volume
        subject: String,

        /// NQN of the host
        host: Nqn,

        #[command(flatten)]
        to: TargetSocket,
    },
    /// Switch an access group (ANA) of a subsystem as this target reaches it
    #[command(after_long_help = "\
Examples:
  forebay target ana nqn.2014-08.org.example:pg 1 inaccessible")]
    Ana {
        /// NQN of a subsystem, or a volume
        subject: String,

        /// The group
        group: u32,

        /// optimized, non-optimized, inaccessible, persistent-loss or change
        #[arg(value_parser = state)]
        state: String,

        #[command(flatten)]
        to: TargetSocket,
    },
}

fn state(text: &str) -> Result<String, String> {
    crate::target::access_of_word(text).map(|_| text.to_owned())
}
