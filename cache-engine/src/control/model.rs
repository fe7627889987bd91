//! What is asked of a running cache, and what it answers: the language of the control socket.
//!
//! ```text
//!   server ──{"forebay":"0.1.0","protocol":1}──────────────────────────▶ client
//!          ◀─{"verb":"mode","volume":"pg","mode":"write-around"}────────
//!          ──{"done":{}}────────────────────────────────────────────────▶
//!          ◀─{"verb":"status"}──────────────────────────────────────────
//!          ──{"status":{"cache":{…},"volumes":[…]}}─────────────────────▶
//! ```
//! One JSON value a line, an answer to each request, in their order. A request with a verb or a
//! field that is not known is refused by name, because what it was to change would be left as it
//! is; a client takes answers with fields that it does not know, so that there can be more of them.
//! [`PROTOCOL`] grows when neither is enough. Sizes are bytes, ratios are from 0 to 1.
//!
//! Absent: sockets; who may ask is the socket file's permissions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::target_model::{TargetCall, TargetStatus, TargetVolume};

/// Version of this language.
pub const PROTOCOL: u32 = 1;

/// Bytes of a request with its line feed, at the most.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Bytes of an answer with its line feed, at the most: 256 volumes with all their counters.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The first line of a connection, from the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Version of the program.
    pub forebay: String,
    /// Version of the language, [`PROTOCOL`].
    pub protocol: u32,
}

impl Greeting {
    /// This program's.
    pub fn ours() -> Self {
        Self { forebay: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL }
    }
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the cache and its volumes are. Answer: [`Answer::Status`].
    Status {},
    /// Changes policy settings, all or none. Answer: [`Answer::Settings`].
    Set {
        /// Values by name, as `PolicySettings` reads them; those not named stay as they are.
        settings: BTreeMap<String, String>,
    },
    /// Changes a volume's mode for requests from now on. Answer: [`Answer::Done`].
    Mode {
        /// Name of the volume.
        volume: String,
        /// `write-through`, `write-around` or `pass-through`.
        mode: String,
    },
    /// Makes what was written to a volume durable on its origin. Answer: [`Answer::Done`].
    Flush {
        /// Name of the volume.
        volume: String,
    },
    /// Drops what is cached of a volume, because the origin was changed past the cache. Answer:
    /// [`Answer::Done`], when nothing of it will be served any more.
    Invalidate {
        /// Name of the volume.
        volume: String,
        /// Which part; all of it when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
    },
    /// Takes the size that a volume's origin has now. Answer: [`Answer::Resized`].
    Resize {
        /// Name of the volume.
        volume: String,
    },
    /// Changes times and policy of the paths to a volume's origin, all or none, until the service
    /// ends. Answer: [`Answer::Paths`].
    SetPaths {
        /// Name of the volume.
        volume: String,
        /// Values by name, as an origin's address has them: `iopolicy`, `ctrl-loss-tmo`,
        /// `fast-io-fail-tmo`, `reconnect-delay`, `keep-alive-tmo`. Those not named stay.
        settings: BTreeMap<String, String>,
    },
    /// Serves another volume from now on, until the service ends. Answer: [`Answer::Added`].
    AddVolume {
        /// What it is.
        volume: NewVolume,
    },
    /// Serves a volume no more: its clients are ended, what was written is made durable on its
    /// origin. Answer: [`Answer::Done`].
    RemoveVolume {
        /// Name of the volume.
        volume: String,
        /// Give up what is cached of it, which otherwise stays for when it is added again.
        #[serde(default)]
        forget: bool,
    },
    /// Uses another cache device from now on, empty, until the service ends. Answer:
    /// [`Answer::Done`].
    ReplaceCache {
        /// Path of a block device or a regular file, of the service.
        device: String,
        /// Bytes: makes a file that is absent or empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Format the device whatever it holds.
        #[serde(default)]
        force_format: bool,
    },
    /// What caches of other sizes would have missed so far. Answer: [`Answer::MissRatio`].
    MissRatio {},
    /// Says until when a volume's origin is this host's alone: a lease that the caller holds, or
    /// has renewed. Answer: [`Answer::Lease`]; where it is given back, when nothing that was cached
    /// can be served any more.
    Lease {
        /// Name of the volume.
        volume: String,
        /// Nanoseconds on the clock of `/proc/uptime` (`CLOCK_BOOTTIME`): counted from before the
        /// lease was asked for, less what clocks may differ by. 0 gives the lease back.
        until_ns: u64,
    },
    /// Something of an NVMe/TCP target. Answer: as the call says.
    Target {
        /// What.
        call: TargetCall,
    },
}

/// A volume to be added, in the words of the command line. Nothing secret: a key is named by the
/// file that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// Unlike any other of the service.
    pub name: String,
    /// URI of the device with its bytes.
    pub origin: String,
    /// URIs to serve it at, one at least.
    pub exports: Vec<String>,
    /// `write-through`, `write-around` or `pass-through`; the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// A promise that nobody else has written to the origin since it was cached under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Where the service reads the key: `file:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<String>,
    /// Until when its origin is this host's alone, as in [`Request::Lease`]; without an end when
    /// absent. 0 waits for the first lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until_ns: Option<u64>,
}

/// A part of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes, at least one.
    pub length: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How things are.
    Status(Box<Status>),
    /// The settings in force.
    Settings(Settings),
    /// What was asked for has happened.
    Done {},
    /// A volume has this size now.
    Resized {
        /// Bytes before.
        before_bytes: u64,
        /// Bytes now.
        size_bytes: u64,
    },
    /// A volume is served.
    Added(Added),
    /// A miss-ratio curve.
    MissRatio(Curve),
    /// Times and policy of a volume's paths that are in force now.
    Paths(PathTimes),
    /// How it stands with a volume's lease now.
    Lease(LeaseStatus),
    /// How a target is.
    TargetStatus(Box<TargetStatus>),
    /// How a target's volume is now.
    TargetVolume(TargetVolume),
    /// Nothing was done.
    Error {
        /// Why, and what would be right, for a person.
        message: String,
    },
}

impl Answer {
    /// A refusal.
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error { message: message.into() }
    }
}

/// How a volume that was added is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Where clients find it, with the port that the system chose.
    pub exports: Vec<String>,
    /// `warm` or `cold`; absent where its origin is served alone.
    pub start: Option<String>,
    /// Why it is cold; absent if it is not.
    pub cold_reason: Option<String>,
}

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// How a service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cache; absent where origins are served alone.
    pub cache: Option<CacheStatus>,
    /// In the order of their adding.
    pub volumes: Vec<VolumeStatus>,
}

/// How a cache is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes in a line.
    pub line_size: u64,
    /// Bytes of data that it can hold.
    pub capacity_bytes: u64,
    /// Bytes of lines that hold something.
    pub occupied_bytes: u64,
    /// Whether it was given up because of its device: everything passes through.
    pub degraded: bool,
    /// Whether it outlives the process.
    pub persistent: bool,
    /// Why all of it started cold; absent if it did not.
    pub cold_reason: Option<String>,
    /// How far the sweep over an earlier run's lines is.
    pub loading: Loading,
    /// Client requests in flight.
    pub in_flight: u64,
    /// Stores into the cache device in flight.
    pub fills_in_flight: u64,
    /// Policy settings, as `set` takes them.
    pub settings: BTreeMap<String, String>,
    /// Volumes that the settings name and that are not there.
    pub unknown_volumes: Vec<String>,
    /// What is left of the endurance budget: unlimited, plenty, scarce or spent.
    pub endurance_budget: String,
    /// What the policies counted.
    pub policy_statistics: Counters,
    /// What keeping the cache across restarts counted; absent for a cache in memory.
    pub persistence_statistics: Option<Counters>,
    /// Memory in use.
    pub memory: Memory,
    /// What classes of requests hold; the default class first.
    pub classes: Vec<ClassStatus>,
}

/// Sets of the index that are loaded, of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// Loaded so far.
    pub sets_loaded: u64,
    /// In all.
    pub sets: u64,
}

/// Bytes of memory by what takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The index of lines, and checksums.
    pub index_bytes: u64,
    /// The policies.
    pub policy_bytes: u64,
    /// The miss-ratio curve.
    pub miss_ratio_bytes: u64,
}

/// What a class of requests holds of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStatus {
    /// Its name in the rules.
    pub name: String,
    /// Bytes of lines that it holds.
    pub occupied_bytes: u64,
    /// Bytes that are spared for it.
    pub minimum_bytes: u64,
    /// Bytes that it may hold.
    pub maximum_bytes: u64,
}

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Its mode; absent where its origin is served alone.
    pub mode: Option<String>,
    /// Bytes of lines that it holds.
    pub occupied_bytes: u64,
    /// Whether its cache is used for a time only, and for how long; absent where its origin is
    /// served alone, and from servers that know of none.
    #[serde(default)]
    pub lease: Option<LeaseStatus>,
    /// Whether ranges of it are not cached, because failed writes to them may still land.
    pub in_doubt: bool,
    /// Why its origin answers no more; absent while it does.
    pub fault: Option<String>,
    /// How its origin is reached; absent where it is on the service's machine, and from servers
    /// that do not tell.
    #[serde(default)]
    pub association: Option<AssociationStatus>,
    /// Client requests in flight.
    pub in_flight: u64,
    /// Share of reads served from the cache alone, of those that asked it; none before the first.
    pub hit_ratio: Option<f64>,
    /// Counters since it was added.
    pub statistics: Counters,
}

/// How an origin's association with its NVMe controller is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssociationStatus {
    /// `tcp`.
    pub transport: String,
    /// Where the controller is, as it was asked for.
    pub address: String,
    /// The subsystem's NQN.
    pub subsystem: String,
    /// This host's NQN.
    pub host: String,
    /// This host's identifier.
    pub host_id: String,
    /// The namespace in use.
    pub namespace_id: u32,
    /// The controller's identifier.
    pub controller_id: u16,
    /// `connecting`, `live`, `leaving` or `lost`.
    pub state: String,
    /// Why it is lost, or why its namespace cannot be used; absent while all is well.
    pub fault: Option<String>,
    /// I/O queues.
    pub io_queues: u16,
    /// Entries of each.
    pub queue_entries: u16,
    /// How long the controller waits for a sign of this host; 0 for ever.
    pub keep_alive_ms: u64,
    /// What holds for its paths; of the time above, from the next association on.
    pub settings: PathTimes,
    /// Seconds since it came up; absent before.
    pub live_seconds: Option<f64>,
    /// Events heard of the controller.
    pub events_heard: u64,
    /// How often something about the namespace has changed.
    pub namespace_changes: u64,
    /// For how many seconds there has been no path that requests can take; absent while there is
    /// one.
    #[serde(default)]
    pub without_path_seconds: Option<f64>,
    /// The paths to the namespace, as they were given; none from servers that do not tell.
    #[serde(default)]
    pub paths: Vec<PathReport>,
}

/// Times and policy of the paths to a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTimes {
    /// How commands are spread over equally good paths.
    pub iopolicy: String,
    /// After how long a lost path is given up; absent for never.
    pub ctrl_loss_ms: Option<u64>,
    /// How long requests wait while there is no path; absent for until all are given up.
    pub fast_io_fail_ms: Option<u64>,
    /// The pause before the first attempt to reconnect; each further one is twice as long.
    pub reconnect_delay_min_ms: u64,
    /// The longest pause.
    pub reconnect_delay_max_ms: u64,
    /// How long a silent peer is borne, by associations made from now on; 0 for ever.
    pub keep_alive_ms: u64,
}

/// How one of the paths to an origin is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// Where the controller is, as it was asked for.
    pub address: String,
    /// `connecting`, `live`, `resetting`, `waiting` (for the next attempt), `failed` (what is there
    /// is another namespace) or `gone` (given up).
    pub state: String,
    /// Seconds that it has been in that state.
    pub state_seconds: f64,
    /// Why it was lost, or did not come up, the last time; absent if it never was.
    pub reason: Option<String>,
    /// How its controller reaches the namespace: `optimized`, `non-optimized`, `inaccessible`,
    /// `persistent-loss` or `change`; absent while it is not live.
    pub access: Option<String>,
    /// Whether requests go there now.
    pub is_used: bool,
    /// How often it was up and was lost.
    pub losses: u64,
    /// Attempts to connect that have failed since it was up.
    pub failures: u32,
    /// Seconds until the next attempt; absent while nothing waits for one.
    pub next_attempt_seconds: Option<f64>,
    /// The controller's identifier, while live.
    pub controller_id: Option<u16>,
    /// I/O queues, while live.
    pub io_queues: u16,
    /// Commands in flight.
    pub in_flight: u32,
    /// Nanoseconds that commands took lately; absent before the first.
    pub latency_ns: Option<u64>,
}

/// How it stands with a volume's lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// `unlimited`: the cache is used without one; `held`; `waiting`: held, and not used before the
    /// cache device knows of it; `over`: requests go to the origin.
    pub state: String,
    /// Seconds until it ends; absent where it has no end, or there is none.
    pub seconds_left: Option<f64>,
}

/// Settings in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Values by name.
    pub settings: BTreeMap<String, String>,
    /// Volumes that they name and that are not there.
    pub unknown_volumes: Vec<String>,
}

/// A miss-ratio curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Bytes in a line.
    pub line_size: u64,
    /// Bytes of data that the cache can hold.
    pub capacity_bytes: u64,
    /// Sizes ascending; none before there were reads.
    pub points: Vec<CurvePoint>,
}

/// A point of a miss-ratio curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Bytes of an LRU cache.
    pub size_bytes: u64,
    /// Share of the lines read that it would have missed.
    pub miss_ratio: f64,
}

/// A request from a line without its line feed.
///
/// # Errors
/// What is wrong with it, in words for a person.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("request: {error}"))
}

/// An answer from a line without its line feed.
///
/// # Errors
/// What is wrong with it, in words for a person.
pub fn parse_answer(line: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// A value as a line, with its line feed.
///
/// # Panics
/// Never: every type here has names for its keys.
pub fn line_of(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("keys are strings, and memory takes all");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again<Value: Serialize + for<'de> Deserialize<'de>>(value: &Value) -> Value {
        let line = line_of(value);
        let (feed, json) = line.split_last().expect("not empty");
        assert!(*feed == b'\n' && !json.contains(&b'\n'), "one line");
        serde_json::from_slice(json).expect("reads as it was written")
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let volume = || "pg\n\"é".to_owned();
        let settings = [("admission".to_owned(), "never".to_owned())].into();
        for request in [
            Request::Status {},
            Request::Set { settings },
            Request::Mode { volume: volume(), mode: "write-around".into() },
            Request::Flush { volume: volume() },
            Request::Invalidate { volume: volume(), range: None },
            Request::Invalidate {
                volume: volume(),
                range: Some(Range { offset: u64::MAX, length: 1 }),
            },
            Request::Resize { volume: volume() },
            Request::MissRatio {},
            Request::AddVolume {
                volume: NewVolume {
                    name: volume(),
                    origin: "memory:1M".into(),
                    exports: vec!["nbd://h/x".into()],
                    mode: None,
                    generation: Some("1".into()),
                    encryption_key: None,
                    lease_until_ns: Some(0),
                },
            },
            Request::RemoveVolume { volume: volume(), forget: true },
            Request::ReplaceCache { device: "/dev/x".into(), size: None, force_format: false },
            Request::Lease { volume: volume(), until_ns: u64::MAX },
            Request::SetPaths {
                volume: volume(),
                settings: [("iopolicy".to_owned(), "latency".to_owned())].into(),
            },
            Request::Target { call: TargetCall::Status {} },
            Request::Target {
                call: TargetCall::Create {
                    name: volume(),
                    size_bytes: Some(1),
                    from: None,
                    subsystem: None,
                    access_group: Some(2),
                },
            },
        ] {
            assert_eq!(again(&request), request);
            let line = line_of(&request);
            assert_eq!(parse_request(&line[..line.len() - 1]), Ok(request));
        }
        let plain = br#"{"verb":"invalidate","volume":"pg"}"#;
        assert!(matches!(parse_request(plain), Ok(Request::Invalidate { range: None, .. })));
    }

    #[test]
    fn answers_read_as_they_are_written_and_may_have_more_fields() {
        for answer in [
            Answer::Done {},
            Answer::Resized { before_bytes: 1, size_bytes: u64::MAX },
            Answer::Added(Added {
                exports: vec!["nbd://h:1/x".into()],
                start: Some("cold".into()),
                cold_reason: Some("because".into()),
            }),
            Answer::error("no"),
            Answer::Lease(LeaseStatus { state: "held".into(), seconds_left: Some(12.5) }),
            Answer::Paths(PathTimes { ctrl_loss_ms: Some(30_000), ..PathTimes::default() }),
            Answer::Settings(Settings {
                settings: [("pin".to_owned(), "none".to_owned())].into(),
                unknown_volumes: vec!["vm".into()],
            }),
            Answer::MissRatio(Curve {
                line_size: 4096,
                capacity_bytes: 1 << 30,
                points: vec![CurvePoint { size_bytes: 4096, miss_ratio: 0.25 }],
            }),
        ] {
            assert_eq!(again(&answer), answer);
        }
        let more = br#"{"resized":{"before_bytes":1,"size_bytes":2,"since":3}}"#;
        let answer: Answer = serde_json::from_slice(more).expect("from a newer server");
        assert_eq!(answer, Answer::Resized { before_bytes: 1, size_bytes: 2 });
        assert_eq!(again(&Greeting::ours()), Greeting::ours());
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (line, expected) in [
            (&br#"{"verb":"shutdown"}"#[..], "unknown variant `shutdown`"),
            (br#"{"verb":"status","all":true}"#, "unknown field `all`"),
            (br#"{"verb":"flush","volume":"pg","force":1}"#, "unknown field `force`"),
            (br#"{"verb":"flush"}"#, "missing field `volume`"),
            (br#"{"verb":"remove-volume","volume":"pg","force":1}"#, "unknown field `force`"),
            (br#"{"verb":"add-volume","volume":{"name":"pg","size":1}}"#, "unknown field `size`"),
            (br#"{"verb":"lease","volume":"pg","until_ns":-1}"#, "-1"),
            (br#"{"verb":"target","call":{"delete":{"name":"a","all":1}}}"#, "field `all`"),
            (br#"{"verb":"target","call":{"format":{}}}"#, "unknown variant `format`"),
            (br#"{"volume":"pg"}"#, "missing field `verb`"),
            (
                br#"{"verb":"invalidate","volume":"pg","range":{"offset":0,"length":1,"to":2}}"#,
                "unknown field `to`",
            ),
            (br#"{"verb":"invalidate","volume":"pg","range":{"offset":-1,"length":1}}"#, "-1"),
            (br#"{"verb":"set","settings":{"admission":1}}"#, "expected a string"),
            (br#"{"verb":"status"} {}"#, "trailing characters"),
            (b"", "EOF"),
            (b"status", "expected value"),
            (b"\xff\xfe", "request: "),
            (b"[[[[", "request: "),
        ] {
            let error = parse_request(line).expect_err("refused");
            assert!(error.contains(expected), "{error}: {}", String::from_utf8_lossy(line));
        }
    }
}
