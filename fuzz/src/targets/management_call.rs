//! The control socket of a target: lines from whoever may open it, read as calls and carried out at
//! a target.
//!
//! What must hold: a line that is refused is refused with a reason of bounded length, one that is
//! read is written to a line that reads the same, every answer is one line that reads the same; and
//! whatever calls a target gets, its subsystems stay sound and within their bounds.
//!
//! Absent: what the command adds to this, its files and the names of volumes; here a call's strings
//! are names of subsystems and hosts, as they come.

use block_io::Geometry;
use cache_engine::control::model::{
    Answer, REQUEST_BYTES_MAX, Request, line_of, parse_answer, parse_request,
};
use cache_engine::control::target_model::{TargetCall, TargetServed, TargetVolume};
use nvme_fabric::spec::log_page::AccessState;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Hosts, Namespace, NamespaceKey, Settings, Subsystem, Target as Served};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The input is lines, as they come at the socket.
pub const TARGET: Target =
    Target { name: "management_call", length_max: 4096, run, cost: 2, seeds };

/// Lines of a run.
const LINES_MAX: usize = 32;
const SUBSYSTEM: &str = "nqn.2026-01.io.forebay:a";
const STATES: [AccessState; 5] = [
    AccessState::Optimized,
    AccessState::NonOptimized,
    AccessState::Inaccessible,
    AccessState::PersistentLoss,
    AccessState::Change,
];

struct Desk {
    target: Served,
    /// Namespaces made, for their UUIDs.
    made: u32,
}

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let mut desk = Desk::new();
    for line in input.split(|byte| *byte == b'\n').take(LINES_MAX) {
        if line.len() >= REQUEST_BYTES_MAX {
            continue;
        }
        let answer = match parse_request(line) {
            Ok(request) => {
                check_request(&request);
                observer.note(std::mem::discriminant(&request));
                desk.ask(request, &mut observer)
            }
            Err(message) => {
                assert!(message.starts_with("request: "), "{message}");
                assert!(message.len() <= 8 * line.len() + 1000, "{} bytes", message.len());
                observer.note_message(&message, &String::from_utf8_lossy(line));
                Answer::error(message)
            }
        };
        check_answer(&answer);
        desk.check();
    }
    observer.behaviour()
}

fn check_request(request: &Request) {
    let line = line_of(request);
    assert_eq!(parse_request(&line[..line.len() - 1]).as_ref(), Ok(request), "{request:?}");
}

fn check_answer(answer: &Answer) {
    let line = line_of(answer);
    let feeds = line.iter().filter(|byte| **byte == b'\n').count();
    assert!(feeds == 1 && line.ends_with(b"\n"), "an answer of {feeds} lines");
    let again = parse_answer(&line[..line.len() - 1]);
    assert_eq!(again.as_ref(), Ok(answer), "an answer reads differently");
}

impl Desk {
    fn new() -> Self {
        let mut target = Served::new(Settings::default()).expect("sound settings");
        let listed = Subsystem::new(name(SUBSYSTEM), "1").expect("a serial number");
        let listed = listed.with_hosts(Hosts::Listed(Vec::new())).expect("no hosts");
        let groups = [(1, AccessState::Optimized), (7, AccessState::Inaccessible)];
        let listed = listed.with_access_groups(&groups).expect("groups");
        target.add_subsystem(listed).expect("the name is free");
        let open = Subsystem::new(name("nqn.2026-01.io.forebay:b"), "2").expect("a serial number");
        target.add_subsystem(open).expect("the name is free");
        Self { target, made: 0 }
    }

    fn ask(&mut self, request: Request, observer: &mut Observer) -> Answer {
        let Request::Target { call } = request else {
            return Answer::error("this is a target");
        };
        observer.note(std::mem::discriminant(&call));
        match self.call(call) {
            Ok(answer) => {
                observer.note("done");
                answer
            }
            Err(message) => {
                assert!(!message.is_empty(), "refused without a word");
                observer.note_message(&message, "");
                Answer::error(message)
            }
        }
    }

    fn call(&mut self, call: TargetCall) -> Result<Answer, String> {
        match call {
            TargetCall::Status {} => Ok(Answer::Done {}),
            TargetCall::Create { name, size_bytes, subsystem, access_group, from: _ } => {
                self.create(name, size_bytes, subsystem, access_group)
            }
            TargetCall::Resize { name, size_bytes } => {
                let key = self.first_namespace(&name)?;
                let geometry = Geometry::new(size_bytes);
                self.target.resize(key, geometry).map_err(|error| error.to_string())?;
                Ok(Answer::Done {})
            }
            TargetCall::Delete { name } => {
                let key = self.first_namespace(&name)?;
                self.target.remove_namespace(key).map_err(|error| error.to_string())?;
                Ok(Answer::Done {})
            }
            TargetCall::Snapshot { volume, name: _ } => {
                self.first_namespace(&volume).map(|_| Answer::Done {})
            }
            TargetCall::Allow { subject, host } => {
                let (place, host) = (self.place(&subject)?, read_name(&host)?);
                self.target.allow_host(place, &host).map_err(|error| error.to_string())?;
                Ok(Answer::Done {})
            }
            TargetCall::Forbid { subject, host } => {
                let (place, host) = (self.place(&subject)?, read_name(&host)?);
                self.target.forbid_host(place, &host).map_err(|error| error.to_string())?;
                Ok(Answer::Done {})
            }
            TargetCall::SetAccess { subject, group, state } => {
                let place = self.place(&subject)?;
                let state = STATES.into_iter().find(|known| known.name() == state);
                let state = state.ok_or("access state: must be one of five")?;
                let changed = self.target.set_access_state(place, group, state);
                changed.map_err(|error| error.to_string())?;
                let now = self.target.subsystems()[place].access_groups();
                assert!(now.into_iter().any(|found| found == (group, state)), "{group} {state:?}");
                Ok(Answer::Done {})
            }
        }
    }

    fn create(
        &mut self,
        name: String,
        size: Option<u64>,
        subsystem: Option<String>,
        access_group: Option<u32>,
    ) -> Result<Answer, String> {
        let nqn = read_name(&subsystem.unwrap_or_else(|| SUBSYSTEM.to_owned()))?;
        let place = match self.target.find_subsystem(&nqn) {
            Some(place) => place,
            None => {
                let made = Subsystem::new(nqn.clone(), "3").map_err(|error| error.to_string())?;
                self.target.add_subsystem(made).map_err(|error| error.to_string())?
            }
        };
        self.made += 1;
        let mut uuid = [1; 16];
        uuid[..4].copy_from_slice(&self.made.to_le_bytes());
        let size_bytes = size.ok_or("size: must be given")?;
        let namespace = Namespace::new(Geometry::new(size_bytes), HostId(uuid))
            .map_err(|error| error.to_string())?
            .with_access_group(access_group.unwrap_or(0));
        let key =
            self.target.add_namespace(place, None, namespace).map_err(|error| error.to_string())?;
        let namespace_id = key.namespace as u32 + 1;
        let (subsystem, uuid) = (nqn.to_string(), HostId(uuid).to_string());
        let served = Some(TargetServed { subsystem, namespace_id, uuid });
        Ok(Answer::TargetVolume(TargetVolume { name, size_bytes, served }))
    }

    fn place(&self, subject: &str) -> Result<usize, String> {
        let nqn = read_name(subject)?;
        self.target.find_subsystem(&nqn).ok_or_else(|| format!("subject {nqn}: is not there"))
    }

    fn first_namespace(&self, subject: &str) -> Result<NamespaceKey, String> {
        let subsystem = self.place(subject)?;
        let mut places = self.target.subsystems()[subsystem].namespaces().iter();
        let first = places.next().map(|(namespace, _)| NamespaceKey { subsystem, namespace });
        first.ok_or_else(|| format!("subject {subject}: has no namespace"))
    }

    /// What is always so.
    fn check(&self) {
        let subsystems = self.target.subsystems();
        assert!(subsystems.len() <= LINES_MAX + 2, "{} subsystems", subsystems.len());
        for (place, subsystem) in subsystems.iter() {
            assert_eq!(self.target.find_subsystem(subsystem.nqn()), Some(place), "found by name");
            if let Hosts::Listed(hosts) = subsystem.hosts() {
                assert!(hosts.len() <= LINES_MAX, "{} hosts", hosts.len());
                let twice = hosts.iter().enumerate().any(|(at, host)| hosts[..at].contains(host));
                assert!(!twice, "a host is listed twice");
            }
            for (number, namespace) in subsystem.namespaces().iter() {
                assert!(number < subsystem.next_namespace_id() as usize, "an NSID to come");
                let (size, group) = (namespace.geometry().capacity, namespace.access_group());
                assert!(size > 0 && size.is_multiple_of(512), "{size} bytes");
                let known = subsystem.access_groups().any(|(id, _)| id == group);
                assert!(known || group == 0, "in the access group {group}");
            }
        }
    }
}

fn name(text: &str) -> Nqn {
    Nqn::new(text).expect("a well-formed name")
}

fn read_name(text: &str) -> Result<Nqn, String> {
    let name: Nqn = text.parse().map_err(|why| format!("'{}': {why}", text.escape_debug()))?;
    assert_eq!(name.as_str(), text, "a name reads differently");
    Ok(name)
}

fn seeds() -> Vec<Vec<u8>> {
    let a = SUBSYSTEM;
    let calls = [
        r#"{"status":{}}"#.to_owned(),
        r#"{"create":{"name":"v","size_bytes":1048576}}"#.to_owned(),
        format!(
            r#"{{"create":{{"name":"v","size_bytes":4096,"subsystem":"{a}","access_group":7}}}}"#
        ),
        r#"{"create":{"name":"v","size_bytes":4096,"subsystem":"nqn.2026-01.io.forebay:c"}}"#
            .to_owned(),
        r#"{"create":{"name":"v","size_bytes":4096,"from":"w"}}"#.to_owned(),
        format!(r#"{{"resize":{{"name":"{a}","size_bytes":2097152}}}}"#),
        format!(r#"{{"snapshot":{{"volume":"{a}","name":"s"}}}}"#),
        format!(r#"{{"allow":{{"subject":"{a}","host":"nqn.2026-01.io.forebay:h"}}}}"#),
        format!(r#"{{"forbid":{{"subject":"{a}","host":"nqn.2026-01.io.forebay:h"}}}}"#),
        format!(r#"{{"set-access":{{"subject":"{a}","group":7,"state":"optimized"}}}}"#),
        format!(r#"{{"delete":{{"name":"{a}"}}}}"#),
    ];
    let lines: Vec<String> =
        calls.iter().map(|call| format!(r#"{{"verb":"target","call":{call}}}"#)).collect();
    let others = [
        r#"{"verb":"status"}"#,
        r#"{"verb":"set","settings":{"admission":"never"}}"#,
        r#"{"verb":"invalidate","volume":"v","range":{"offset":0,"length":1}}"#,
        r#"{"verb":"add-volume","volume":{"name":"v","origin":"memory:1M","exports":["nbd://h/x"]}}"#,
        r#"{"verb":"lease","volume":"\u00e9\n","until_ns":18446744073709551615}"#,
        r#"{"verb":"replace-cache","device":"/dev/x","size":null,"force_format":true}"#,
        "[[[[[[[[[[[[",
        r#"{"verb":"flush","volume":1e400}"#,
    ];
    let each = lines.iter().map(String::as_str).chain(others);
    let mut seeds: Vec<Vec<u8>> = each.map(|line| line.as_bytes().to_vec()).collect();
    seeds.push(lines.join("\n").into_bytes());
    seeds
}
