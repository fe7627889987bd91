//! From nothing to an association that takes requests, one step after the other.
//!
//! ```text
//!   Open(0) ▶ Connect(0) ▶ Capabilities ▶ Version ▶ Enable ▶ Ready ⟲ pause ▶ IdentifyController
//!     ▶ Events ▶ NumberOfQueues ▶ (Open(n) ▶ Connect(n))… ▶ ActiveNamespaces ▶ Namespace
//!     ▶ CommandSet ▶ Descriptors ▶ Access ▶ Up
//!                                              Connect ▶ Authenticate, where it is asked for
//! ```
//! The order is the specification's (NVMe Base 2.1 §3.5.2, and Connect before all). A discovery
//! controller is up after it has been identified. Whatever is refused ends the association with
//! an error that names what was offered.

use std::time::Duration;

use block_io::Timestamp;

use super::queue::{Queue, Stream};
use super::{ADMIN_QUEUE_DEPTH, Controller, Purpose, QueueIndex, token};
use crate::error::ConnectionError;
use crate::host::connection::{Connection, Data, Outcome};
use crate::spec::command::{AdminCommand, FabricsCommand, SubmissionEntry};
use crate::spec::completion::Completion;
use crate::spec::connect::{CONTROLLER_ID_DYNAMIC, ConnectData, ConnectResult, DATA_LENGTH};
use crate::spec::feature::{self, NumberOfQueues};
use crate::spec::identify;
use crate::spec::property::{
    Capabilities, Configuration, ControllerStatus, OFFSET_CAPABILITIES, OFFSET_CONFIGURATION,
    OFFSET_STATUS, OFFSET_VERSION, SIZE_4, SIZE_8,
};
use crate::spec::sgl::Descriptor;

/// Where an association is. Each variant but the pauses awaits one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The queue's stream and its ICResp.
    Open(QueueIndex),
    /// The queue's Connect.
    Connect(QueueIndex),
    /// The end of a transaction on the queue, see `authentication`.
    Authenticate(QueueIndex),
    /// The end of the admin queue's stream, to begin again with TLS, see `authentication`.
    Reopen,
    Capabilities,
    Version,
    Enable,
    Ready,
    /// Not ready yet: look again then.
    ReadyPause(Timestamp),
    IdentifyController,
    Events,
    NumberOfQueues,
    ActiveNamespaces,
    Namespace,
    CommandSet,
    Descriptors,
    Access,
    Up,
    Shutdown,
    ShutdownPause(Timestamp),
    Over,
}

/// How long to wait before asking again whether the controller is ready.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// The unit of CAP.TO. NVMe Base 2.1 §3.1.4.1
const READY_UNIT: Duration = Duration::from_millis(500);

impl Step {
    /// What is awaited, for messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Open(_) => "ICReq",
            Self::Connect(_) => "Connect",
            Self::Authenticate(_) => "authentication",
            Self::Reopen => "closing the stream in clear",
            Self::Capabilities => "Property Get (CAP)",
            Self::Version => "Property Get (VS)",
            Self::Enable => "Property Set (CC)",
            Self::Ready | Self::ReadyPause(_) => "enabling the controller (CSTS.RDY)",
            Self::IdentifyController => "Identify (controller)",
            Self::Events => "Set Features (asynchronous events)",
            Self::NumberOfQueues => "Set Features (number of queues)",
            Self::ActiveNamespaces => "Identify (active namespaces)",
            Self::Namespace => "Identify (namespace)",
            Self::CommandSet => "Identify (controller, NVM command set)",
            Self::Descriptors => "Identify (namespace descriptors)",
            Self::Access => "Get Log Page (asymmetric access)",
            Self::Up => "a request",
            Self::Shutdown | Self::ShutdownPause(_) => "shutting down",
            Self::Over => "nothing",
        }
    }
}

impl Controller {
    pub(super) fn step_deadline(&self) -> Option<Timestamp> {
        match self.step {
            Step::Up | Step::Over => None,
            Step::ReadyPause(until) | Step::ShutdownPause(until) => Some(until.min(self.deadline)),
            _ => Some(self.deadline),
        }
    }

    /// Entries of a queue, within what the controller allows.
    pub(super) fn depth(&self, queue: QueueIndex) -> u16 {
        let asked = if queue == 0 { ADMIN_QUEUE_DEPTH } else { self.options.queue_depth };
        // MQES is 0's based. MAXCMD is 0 when not reported.
        let entries = self
            .identity
            .capabilities
            .map_or(u16::MAX, |capabilities| capabilities.queue_entries_max.saturating_add(1));
        let commands = match self.identity.controller.commands_max {
            0 => u16::MAX,
            commands => commands,
        };
        if queue == 0 { asked } else { asked.min(entries).min(commands).max(2) }
    }

    /// What time and streams allow next.
    pub(super) fn advance(&mut self) -> bool {
        let before = self.step;
        match self.step {
            Step::Up | Step::Over => return false,
            Step::Shutdown | Step::ShutdownPause(_) if self.now >= self.deadline => {
                self.lose(ConnectionError::ShutDown);
            }
            _ if self.now >= self.deadline => self.give_up(),
            Step::Open(queue) if self.is_open(queue) => self.send_connect(queue),
            Step::ReadyPause(until) if self.now >= until => {
                self.get_property(Step::Ready, SIZE_4, OFFSET_STATUS);
            }
            Step::ShutdownPause(until) if self.now >= until => self.look_at_shutdown(),
            _ => {}
        }
        self.step != before
    }

    fn is_open(&self, queue: QueueIndex) -> bool {
        let place = self.queues.get(usize::from(queue));
        place.and_then(|place| place.connection.as_ref()).is_some_and(Connection::is_open)
    }

    fn give_up(&mut self) {
        let (address, what) = (&self.options.address, self.step.name());
        let reached = self.queues[0].stream == Stream::Open;
        let what = if reached { what } else { "the TCP connection request" };
        let what = format!("{address}: {what}");
        self.lose(ConnectionError::TimedOut(what, self.options.connect_timeout));
    }

    /// Sends a bring-up command on a queue and awaits its answer at `step`.
    pub(super) fn ask(
        &mut self,
        queue: QueueIndex,
        step: Step,
        entry: SubmissionEntry,
        data: Data,
    ) {
        self.step = step;
        let timeout = Some(self.options.command_timeout);
        let sent = self.connection(queue).is_some_and(|connection| {
            connection.submit(entry, data, token::BRING_UP, timeout).is_ok()
        });
        if !sent {
            self.lose(ConnectionError::Closed);
        }
    }

    fn send_connect(&mut self, queue: QueueIndex) {
        let data = ConnectData {
            host_id: self.options.host_id,
            controller_id: match queue {
                0 => CONTROLLER_ID_DYNAMIC,
                _ => self.identity.controller_id,
            },
            subsystem: self.options.subsystem.clone(),
            host: self.options.host.clone(),
        };
        let command = FabricsCommand::Connect {
            record_format: 0,
            queue_id: queue,
            queue_size: self.depth(queue) - 1,
            flow_control_disabled: true,
            keep_alive_ms: if queue == 0 { self.keep_alive.milliseconds() } else { 0 },
        };
        let buffer = self.pool.allocate(DATA_LENGTH);
        buffer.copy_from_slice(&data.encode());
        let entry = command.encode(0, Descriptor::NONE);
        self.ask(queue, Step::Connect(queue), entry, Data::ToController(buffer));
    }

    fn get_property(&mut self, step: Step, size: u8, offset: u32) {
        let command = FabricsCommand::PropertyGet { size, offset };
        self.ask(0, step, command.encode(0, Descriptor::NONE), Data::None);
    }

    pub(super) fn identify(&mut self, step: Step, structure: u8, namespace_id: u32) {
        let command = AdminCommand::Identify {
            namespace_id,
            structure,
            controller_id: 0,
            command_set: identify::COMMAND_SET_NVM,
        };
        let data = Data::ToHost(self.page.clone());
        self.ask(0, step, command.encode(0, Descriptor::NONE), data);
    }

    pub(super) fn set_feature(&mut self, step: Step, feature: u8, value: u32) {
        let command = AdminCommand::SetFeatures { namespace_id: 0, feature, save: false, value };
        self.ask(0, step, command.encode(0, Descriptor::NONE), Data::None);
    }

    /// An answer to a bring-up command: on to the next step, or the end.
    pub(super) fn take_bring_up(&mut self, outcome: Outcome) {
        if self.step == Step::Over {
            // It came in the same breath as what ended the association.
            return;
        }
        let result = match outcome {
            Outcome::Completed(completion) => self.proceed(completion),
            // The connection's own error comes with its end.
            Outcome::Lost => return,
            Outcome::DataDigest => Err(self.refusal("the data do not match their digest")),
            Outcome::Short(bytes) => Err(self.refusal(&format!("only {bytes} bytes of data"))),
        };
        if let Err(error) = result {
            self.lose(error);
        }
    }

    pub(super) fn refusal(&self, what: &str) -> ConnectionError {
        let (address, step) = (&self.options.address, self.step.name());
        ConnectionError::Refused(format!("{address}: {step}: {what}"))
    }

    pub(super) fn incompatible(&self, what: String) -> ConnectionError {
        ConnectionError::Incompatible(format!("{}: {what}", self.options.address))
    }

    fn proceed(&mut self, completion: Completion) -> Result<(), ConnectionError> {
        let status = completion.status;
        match self.step {
            Step::Connect(queue) if !status.is_success() => {
                return Err(self.connect_refusal(queue, completion));
            }
            // Events are a convenience, except where they are all that is wanted; and old
            // controllers have no descriptors.
            Step::Events if !self.purpose.is_discovery() => {}
            Step::Descriptors | Step::CommandSet => {}
            _ if !status.is_success() => return Err(self.refusal(&status.to_string())),
            _ => {}
        }
        match self.step {
            Step::Connect(queue) => self.take_connect(queue, completion.dword_0())?,
            Step::Capabilities => self.take_capabilities(completion.result)?,
            Step::Version => {
                self.identity.version = completion.dword_0();
                let value = u64::from(self.configuration().encode());
                let command = FabricsCommand::PropertySet {
                    size: SIZE_4,
                    offset: OFFSET_CONFIGURATION,
                    value,
                };
                self.ask(0, Step::Enable, command.encode(0, Descriptor::NONE), Data::None);
            }
            Step::Enable => self.get_property(Step::Ready, SIZE_4, OFFSET_STATUS),
            Step::Ready => self.take_ready(ControllerStatus::parse(completion.dword_0()))?,
            Step::IdentifyController => self.take_controller()?,
            // The request for the first event follows the first reading of the log.
            Step::Events if self.purpose.is_discovery() => self.step = Step::Up,
            Step::Events => {
                self.park_event_request();
                let count = u32::from(self.options.io_queues);
                let counts = NumberOfQueues { submission: count, completion: count };
                self.set_feature(Step::NumberOfQueues, feature::NUMBER_OF_QUEUES, counts.encode());
            }
            Step::NumberOfQueues => {
                let granted = NumberOfQueues::parse(completion.dword_0());
                let asked = u32::from(self.options.io_queues);
                let count = asked.min(granted.submission).min(granted.completion);
                self.identity.io_queues = count as u16;
                self.open_io_queue(1);
            }
            Step::ActiveNamespaces => self.take_active_namespaces()?,
            Step::Namespace => self.take_namespace()?,
            Step::CommandSet => self.take_command_set(status.is_success()),
            Step::Descriptors => {
                if status.is_success() {
                    self.take_descriptors()?;
                }
                self.ask_for_access();
            }
            Step::Access => {
                self.note_access()?;
                self.step = Step::Up;
            }
            step => debug_assert!(false, "{step:?} awaits no answer of bringing up"),
        }
        Ok(())
    }

    fn take_connect(&mut self, queue: QueueIndex, dword_0: u32) -> Result<(), ConnectionError> {
        let result = ConnectResult::parse(dword_0);
        if queue == 0 {
            self.identity.controller_id = result.controller_id;
        }
        if self.begin_authentication(queue, result)? {
            self.step = Step::Authenticate(queue);
            return Ok(());
        }
        self.queue_connected(queue)
    }

    /// The queue takes commands.
    pub(super) fn queue_connected(&mut self, queue: QueueIndex) -> Result<(), ConnectionError> {
        if queue == 0 {
            self.keep_alive.start(self.now);
            self.get_property(Step::Capabilities, SIZE_8, OFFSET_CAPABILITIES);
            return Ok(());
        }
        let capsule_data = self.identity.controller.in_capsule_data_max().unwrap_or(0);
        if let Some(connection) = self.connection(queue) {
            connection.set_capsule_data_max(capsule_data);
        }
        if queue < self.identity.io_queues {
            self.open_io_queue(queue + 1);
        } else {
            // The list holds identifiers above the one given. NVMe Base 2.1 §5.1.13.2.2
            self.identify(Step::ActiveNamespaces, identify::ACTIVE_NAMESPACES, 0);
        }
        Ok(())
    }

    fn open_io_queue(&mut self, queue: QueueIndex) {
        let mut place = Queue::new();
        place.stream = Stream::Wanted;
        self.queues.push(place);
        self.step = Step::Open(queue);
    }

    fn take_capabilities(&mut self, value: u64) -> Result<(), ConnectionError> {
        let capabilities = Capabilities::parse(value);
        // CSS bit 0 NVM, bit 6 several, bit 7 none. NVMe Base 2.1 §3.1.4.1
        let usable = match self.purpose {
            Purpose::Namespace(_) => 0b0100_0001,
            Purpose::Discovery | Purpose::PersistentDiscovery => 0b1100_0001,
        };
        if capabilities.command_sets & usable == 0 {
            let sets = capabilities.command_sets;
            return Err(
                self.incompatible(format!("CAP.CSS is {sets:#04x}: the NVM command set is needed"))
            );
        }
        self.identity.capabilities = Some(capabilities);
        self.get_property(Step::Version, SIZE_4, OFFSET_VERSION);
        Ok(())
    }

    /// CC, enabled.
    pub(super) fn configuration(&self) -> Configuration {
        let (sets, page_size) = self
            .identity
            .capabilities
            .map_or((1, 0), |capabilities| (capabilities.command_sets, capabilities.page_size_min));
        let command_set = match sets {
            sets if sets & 1 << 6 != 0 => 0b110,
            sets if sets & 1 != 0 => 0b000,
            _ => 0b111,
        };
        Configuration { command_set, page_size, ..Configuration::ENABLED }
    }

    fn take_ready(&mut self, status: ControllerStatus) -> Result<(), ConnectionError> {
        if status.fatal {
            return Err(self.refusal("CSTS.CFS: the controller reports a fatal error"));
        }
        if status.ready {
            self.identify(Step::IdentifyController, identify::CONTROLLER, 0);
            return Ok(());
        }
        // The first look bounds the wait by what the controller says it needs.
        if let Some(capabilities) = self.identity.capabilities {
            let most = READY_UNIT * u32::from(capabilities.timeout.max(1));
            let started = *self.ready_since.get_or_insert(self.now);
            if self.now.since(started) >= most {
                return Err(self.refusal(&format!("not ready within {most:?} (CAP.TO)")));
            }
        }
        self.step = Step::ReadyPause(self.now + READY_PAUSE);
        Ok(())
    }
}
