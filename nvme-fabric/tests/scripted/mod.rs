//! A controller that answers what a test makes it answer, right or wrong: bytes in, bytes out.
//!
//! ```text
//!   feed(bytes) ─▶ command ─▶ script ─┬─ an answer of its own
//!                                     └─ none ─▶ what a decent controller would answer
//! ```
//! It uses the layouts of `spec` and nothing of `target`. Absent: digests, R2T, I/O.
#![allow(dead_code, reason = "each test crate uses its own part")]

use nvme_fabric::spec::command::{AdminCommand, FabricsCommand, OPCODE_FABRICS};
use nvme_fabric::spec::completion::Completion;
use nvme_fabric::spec::feature::{self, Event};
use nvme_fabric::spec::identify::{self, ControllerKind, IdentifyController, SglSupport, optional};
use nvme_fabric::spec::log_page::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, SubsystemKind, TRANSPORT_TCP,
};
use nvme_fabric::spec::nqn::DISCOVERY_NQN;
use nvme_fabric::spec::property;
use nvme_fabric::spec::status::Status;

/// A command, as the script hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Fabrics(FabricsCommand),
    Admin(AdminCommand),
}

/// An answer.
pub(crate) enum Say {
    Done(u64),
    Fail(Status, u32),
    Data(Vec<u8>),
}

type Script = Box<dyn FnMut(&Heard) -> Option<Say> + Send>;

/// See the module. One connection; its admin queue.
pub(crate) struct Peer {
    script: Script,
    inbox: Vec<u8>,
    pub(crate) outbox: Vec<u8>,
    /// Command identifiers of Asynchronous Event Requests.
    parked: Vec<u16>,
    pub(crate) heard: Vec<Heard>,
    status: u32,
    /// SUBNQN of Identify Controller.
    pub(crate) name: String,
    pub(crate) kind: ControllerKind,
    pub(crate) events: u32,
}

impl Peer {
    pub(crate) fn new(script: impl FnMut(&Heard) -> Option<Say> + Send + 'static) -> Self {
        Self {
            script: Box::new(script),
            inbox: Vec::new(),
            outbox: Vec::new(),
            parked: Vec::new(),
            heard: Vec::new(),
            status: 0,
            name: DISCOVERY_NQN.to_owned(),
            kind: ControllerKind::Discovery,
            events: optional::EVENT_DISCOVERY_LOG | optional::EVENT_NAMESPACE_ATTRIBUTE,
        }
    }

    /// Takes bytes of the host.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        while self.inbox.len() >= 8 {
            let length = u32::from_le_bytes(self.inbox[4..8].try_into().expect("four")) as usize;
            if self.inbox.len() < length {
                return;
            }
            let pdu: Vec<u8> = self.inbox.drain(..length).collect();
            match pdu[0] {
                0x00 => self.initialize(),
                0x04 => self.command(pdu[8..72].try_into().expect("64 bytes")),
                other => panic!("PDU type {other:#x} from the host"),
            }
        }
    }

    /// Answers a parked request with `event`; false when there is none.
    pub(crate) fn raise(&mut self, event: Event) -> bool {
        let Some(id) = self.parked.pop() else { return false };
        self.complete(id, u64::from(event.encode()), Status::SUCCESS);
        true
    }

    /// Requests for events that wait.
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    fn initialize(&mut self) {
        let mut pdu = vec![0; 128];
        (pdu[0], pdu[2], pdu[4]) = (0x01, 128, 128);
        pdu[12..16].copy_from_slice(&65536_u32.to_le_bytes());
        self.outbox.extend(pdu);
    }

    fn complete(&mut self, command_id: u16, result: u64, status: Status) {
        let mut pdu = vec![0; 8];
        (pdu[0], pdu[2], pdu[4]) = (0x05, 24, 24);
        pdu.extend(Completion { result, queue_head: 0, command_id, status }.encode());
        self.outbox.extend(pdu);
    }

    fn command(&mut self, entry: [u8; 64]) {
        let id = u16::from_le_bytes([entry[2], entry[3]]);
        let heard = match entry[0] {
            OPCODE_FABRICS => Heard::Fabrics(FabricsCommand::parse(&entry)),
            _ => Heard::Admin(AdminCommand::parse(&entry)),
        };
        self.heard.push(heard);
        if heard == Heard::Admin(AdminCommand::AsynchronousEventRequest) {
            self.parked.push(id);
            return;
        }
        match (self.script)(&heard).unwrap_or_else(|| self.usual(&heard)) {
            Say::Done(result) => self.complete(id, result, Status::SUCCESS),
            Say::Fail(status, result) => self.complete(id, result.into(), status),
            Say::Data(bytes) => {
                let mut pdu = vec![0; 24];
                (pdu[0], pdu[1], pdu[2], pdu[3]) = (0x07, 1 << 2, 24, 24);
                pdu[4..8].copy_from_slice(&(24 + bytes.len() as u32).to_le_bytes());
                pdu[8..10].copy_from_slice(&id.to_le_bytes());
                pdu[16..20].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
                self.outbox.extend(pdu);
                self.outbox.extend(bytes);
                self.complete(id, 0, Status::SUCCESS);
            }
        }
    }

    fn usual(&mut self, heard: &Heard) -> Say {
        match *heard {
            Heard::Fabrics(FabricsCommand::Connect { .. }) => Say::Done(1),
            Heard::Fabrics(FabricsCommand::PropertyGet { offset, .. }) => match offset {
                // MQES 127, CQR, TO 1, CSS NVM.
                property::OFFSET_CAPABILITIES => Say::Done(127 | 1 << 16 | 1 << 24 | 1 << 37),
                property::OFFSET_VERSION => Say::Done(0x0002_0000),
                property::OFFSET_STATUS => Say::Done(self.status.into()),
                other => panic!("property {other:#x}"),
            },
            Heard::Fabrics(FabricsCommand::PropertySet { value, .. }) => {
                // RDY follows EN; SHST says at once that it is done.
                self.status =
                    value as u32 & 1 | if value & 0b11 << 14 != 0 { 0b10 << 2 } else { 0 };
                Say::Done(0)
            }
            Heard::Admin(AdminCommand::Identify { structure: identify::CONTROLLER, .. }) => {
                let mut bytes = [0; identify::LENGTH];
                IdentifyController {
                    kind: self.kind,
                    events: self.events,
                    subsystem: self.name.clone(),
                    // 4096 bytes beside the entry's 64.
                    command_capsule_size: (4096 + 64) / 16,
                    response_capsule_size: 1,
                    sgl_support: SglSupport(SglSupport::SUPPORTED),
                    keep_alive_granularity: 10,
                    ..IdentifyController::default()
                }
                .encode(&mut bytes);
                Say::Data(bytes.to_vec())
            }
            Heard::Admin(AdminCommand::SetFeatures { feature, value, .. }) => {
                Say::Done(if feature == feature::NUMBER_OF_QUEUES { value.into() } else { 0 })
            }
            Heard::Admin(AdminCommand::KeepAlive) => Say::Done(0),
            // What a controller may do without.
            Heard::Admin(AdminCommand::Identify { .. }) => {
                Say::Fail(Status::INVALID_FIELD.do_not_retry(), 0)
            }
            ref other => panic!("no answer to {other:?}"),
        }
    }
}

/// A discovery log page of these entries.
pub(crate) fn page(generation: u64, entries: &[DiscoveryEntry]) -> Vec<u8> {
    let header = DiscoveryHeader { generation, records: entries.len() as u64, format: 0 };
    let mut page = header.encode().to_vec();
    entries.iter().for_each(|entry| page.extend(entry.encode()));
    page
}

/// The part of a page that a command reads; whether it re-arms the event.
pub(crate) fn piece(page: &[u8], heard: &Heard) -> Option<(Vec<u8>, bool)> {
    match *heard {
        Heard::Admin(AdminCommand::GetLogPage {
            length, offset, retain_event, page: 0x70, ..
        }) => {
            let mut bytes = page.get(offset as usize..).unwrap_or_default().to_vec();
            bytes.resize(length as usize, 0);
            Some((bytes, !retain_event))
        }
        _ => None,
    }
}

/// An entry of a subsystem `nqn.2014-08.com.example:NAME`.
pub(crate) fn entry(name: &str, service: u16) -> DiscoveryEntry {
    DiscoveryEntry {
        transport: TRANSPORT_TCP,
        family: AddressFamily::Ipv4,
        kind: SubsystemKind::Nvm,
        requirements: 0,
        port_id: 1,
        controller_id: 0xffff,
        admin_queue_size: 32,
        flags: 0,
        service: service.to_string(),
        subsystem: format!("nqn.2014-08.com.example:{name}"),
        address: "127.0.0.1".into(),
        security: 0,
    }
}
