//! Commands that a block device has no requests for: compare, compare and write, verify, copy,
//! write uncorrectable and reservations. Their owner gives them a token and gets it back with the
//! answer.
//!
//! ```text
//!   submit ──check──▶ next_part ──▶ connection ──▶ finish ──▶ next_part ──▶ … ──▶ take
//! ```
//! A command above the controller's limits becomes several, one after the other; the first that
//! fails ends it. A compare and write is never split, for then it would not be atomic.
//!
//! At most [`COMMANDS_MAX`] at a time. Absent: any retry. What was lost with its association fails
//! as [`CommandError::Lost`], its outcome unknown; a compare and write may have happened.

mod split;

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{Buffer, BufferPool, Extent};

pub use self::split::CommandLimits;
use super::connection::{Connection, Finished, Outcome};
use crate::spec::command::reservation::persistence_change;
use crate::spec::reservation::{ReservationKind, ReservationStatus};
use crate::spec::status::Status;

/// Commands of one queue at a time.
pub const COMMANDS_MAX: usize = 32;

/// Names on the connection that are these commands', not requests'.
pub(super) const TOKEN: u64 = 1 << 63;

/// A command. Extents are in bytes, of whole blocks.
#[derive(Clone, Debug)]
pub enum Command {
    /// Whether the extent holds these data.
    Compare {
        /// Where.
        extent: Extent,
        /// Of the extent's length.
        data: Buffer,
    },
    /// Writes if the extent holds what is expected, with no other command in between.
    CompareAndWrite {
        /// Where; at most [`CommandLimits::compare_and_write_max`] bytes.
        extent: Extent,
        /// What is expected, of the extent's length.
        compare: Buffer,
        /// What to write, of the extent's length.
        write: Buffer,
        /// Durable when complete.
        force_unit_access: bool,
    },
    /// Whether the extent can be read.
    Verify {
        /// Where.
        extent: Extent,
    },
    /// Copies the sources, one behind the other. Neither may overlap the destination.
    Copy {
        /// What to copy.
        sources: Vec<Extent>,
        /// The first byte of the copy.
        destination: u64,
        /// Durable when complete.
        force_unit_access: bool,
    },
    /// Reads of the extent fail until it is written.
    WriteUncorrectable {
        /// Where.
        extent: Extent,
    },
    /// Becomes a registrant.
    Register {
        /// Not 0.
        key: u64,
        /// Whether all registrations and the reservation persist through power loss.
        persistence: Persistence,
    },
    /// Ceases to be a registrant.
    Unregister {
        /// The current key; without it, whatever it is.
        key: Option<u64>,
    },
    /// Changes the key.
    ReplaceKey {
        /// The current key; without it, whatever it is, and registers if there is none.
        current: Option<u64>,
        /// Not 0.
        new: u64,
    },
    /// Takes the reservation that nobody has.
    Acquire {
        /// This host's.
        key: u64,
        /// Which.
        kind: ReservationKind,
    },
    /// Unregisters the hosts with a key, and takes the reservation from its holder when it is that
    /// one's.
    Preempt {
        /// This host's.
        key: u64,
        /// Theirs; 0 for everybody else's under a reservation of all registrants.
        preempted: u64,
        /// Which to take.
        kind: ReservationKind,
        /// Complete when their commands have ended.
        abort: bool,
    },
    /// Gives the reservation up.
    Release {
        /// This host's.
        key: u64,
        /// Which it is.
        kind: ReservationKind,
    },
    /// Removes reservation and registrants.
    Clear {
        /// This host's.
        key: u64,
    },
    /// Reads who is registered, and who holds what.
    Report {
        /// 64 bytes, and 64 for each registered controller; a multiple of 4.
        buffer: Buffer,
    },
}

/// CPTPL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Persistence {
    /// As it is.
    #[default]
    Unchanged,
    /// All is gone after a power loss.
    Off,
    /// All persists, where the namespace can ([`crate::spec::reservation::capability`]).
    On,
}

impl Persistence {
    const fn number(self) -> u8 {
        match self {
            Self::Unchanged => persistence_change::NONE,
            Self::Off => persistence_change::CLEAR,
            Self::On => persistence_change::SET,
        }
    }
}

impl Command {
    fn extents(&self) -> Vec<Extent> {
        match self {
            Self::Compare { extent, .. }
            | Self::CompareAndWrite { extent, .. }
            | Self::Verify { extent }
            | Self::WriteUncorrectable { extent } => vec![*extent],
            Self::Copy { sources, destination, .. } => {
                let length =
                    sources.iter().fold(0, |sum: u64, part| sum.saturating_add(part.length));
                let mut extents = sources.clone();
                extents.push(Extent::new(*destination, length));
                extents
            }
            _ => Vec::new(),
        }
    }
}

/// How a command ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done; a compare was equal.
    Done,
    /// The extent holds something else; nothing was written.
    Different,
    /// The answer to a report.
    Reservation(ReservationStatus),
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The controller does not offer it.
    Unsupported(&'static str),
    /// It makes no sense here: what, and what would be right.
    Invalid(String),
    /// There are as many commands as there may be.
    Full,
    /// The controller's status.
    Status(Status),
    /// Data on the way did not match their digest, or were cut short.
    Data,
    /// The association ended first. What became of the command is unknown.
    Lost,
}

#[derive(Debug)]
struct Live {
    token: u64,
    command: Command,
    /// Bytes done, and those of the part in flight.
    done: u64,
    part: u64,
    outstanding: u32,
    result: Result<Answer, CommandError>,
}

/// The commands of one queue.
#[derive(Debug)]
pub(super) struct Commands {
    limits: CommandLimits,
    timeout: Duration,
    slots: Vec<Option<Live>>,
    /// Slots with a part to send, in order.
    to_send: VecDeque<usize>,
    finished: VecDeque<(u64, Result<Answer, CommandError>)>,
}

impl Commands {
    pub(super) fn new(limits: CommandLimits, timeout: Duration) -> Self {
        let (slots, to_send, finished) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Self { limits, timeout, slots, to_send, finished }
    }

    /// The namespace has changed; parts from now on follow the new numbers.
    pub(super) fn set_limits(&mut self, limits: CommandLimits) {
        self.limits = limits;
    }

    /// Takes a command that its owner calls `token`.
    pub(super) fn submit(
        &mut self,
        token: u64,
        command: Command,
        capacity: u64,
    ) -> Result<(), CommandError> {
        self.limits.check(&command, capacity)?;
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.len());
        if index == COMMANDS_MAX {
            return Err(CommandError::Full);
        }
        let result = Ok(Answer::Done);
        let live = Some(Live { token, command, done: 0, part: 0, outstanding: 0, result });
        match self.slots.get_mut(index) {
            Some(slot) => *slot = live,
            None => self.slots.push(live),
        }
        self.to_send.push_back(index);
        Ok(())
    }

    /// Sends what the queue has room for.
    pub(super) fn send(&mut self, connection: &mut Connection, pool: &BufferPool) -> bool {
        let mut progress = false;
        while let Some(&index) = self.to_send.front() {
            let Some(live) = &mut self.slots[index] else {
                self.to_send.pop_front();
                continue;
            };
            let part = split::next_part(&live.command, &self.limits, live.done, pool);
            let Some(part) = part else {
                self.to_send.pop_front();
                self.end(index);
                progress = true;
                continue;
            };
            // Both halves of a pair or none, for nothing may come between them.
            if connection.room() < part.entries.len() {
                break;
            }
            self.to_send.pop_front();
            progress = true;
            live.part = part.length;
            for (half, (entry, data)) in (0..).zip(part.entries) {
                let token = TOKEN | (index as u64) << 1 | half;
                match connection.submit(entry, data, token, Some(self.timeout)) {
                    Ok(()) => live.outstanding += 1,
                    Err(_) => live.result = Err(CommandError::Lost),
                }
            }
        }
        progress
    }

    /// A command of one of these has ended.
    pub(super) fn finish(&mut self, finished: Finished) {
        let index = ((finished.token & !TOKEN) >> 1) as usize;
        let Some(Some(live)) = self.slots.get_mut(index) else { return };
        live.outstanding = live.outstanding.saturating_sub(1);
        let outcome = match finished.outcome {
            Outcome::Completed(completion) if completion.status.is_success() => None,
            Outcome::Completed(completion) => Some(match completion.status {
                status if status.is(Status::COMPARE_FAILURE) => Ok(Answer::Different),
                status => Err(CommandError::Status(status)),
            }),
            Outcome::DataDigest | Outcome::Short(_) => Some(Err(CommandError::Data)),
            Outcome::Lost => Some(Err(CommandError::Lost)),
        };
        if let Some(outcome) = outcome {
            // Of a pair, the half that was aborted for the other's sake says nothing.
            let says_nothing = |result: &Result<Answer, CommandError>| {
                matches!(result, Ok(Answer::Done))
                    || matches!(result, Err(CommandError::Status(status))
                        if status.is(Status::ABORTED_FAILED_FUSED))
            };
            if says_nothing(&live.result) {
                live.result = outcome;
            }
        }
        if live.outstanding > 0 {
            return;
        }
        live.done += live.part;
        if live.result == Ok(Answer::Done) {
            self.to_send.push_back(index);
        } else {
            self.end(index);
        }
    }

    fn end(&mut self, index: usize) {
        let Some(live) = self.slots[index].take() else { return };
        let mut result = live.result;
        if let (Ok(Answer::Done), Command::Report { buffer }) = (&result, &live.command) {
            let status = ReservationStatus::parse(&buffer.to_vec());
            result = status.map(Answer::Reservation).ok_or(CommandError::Data);
        }
        self.finished.push_back((live.token, result));
    }

    /// The association is lost: what was not sent fails now, the rest as its connection closes.
    pub(super) fn lose(&mut self) {
        while let Some(index) = self.to_send.pop_front() {
            if let Some(Some(live)) = self.slots.get_mut(index) {
                live.result = Err(CommandError::Lost);
                self.end(index);
            }
        }
    }

    /// The next command that has ended: its owner's token, and how.
    pub(super) fn take(&mut self) -> Option<(u64, Result<Answer, CommandError>)> {
        self.finished.pop_front()
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported(name) => write!(f, "the controller does not offer {name}"),
            Self::Invalid(what) => f.write_str(what),
            Self::Full => write!(f, "there are {COMMANDS_MAX} commands: must be no more"),
            Self::Status(status) => write!(f, "the controller answered {status}"),
            Self::Data => f.write_str("data were damaged or cut short on the way"),
            Self::Lost => f.write_str("the association ended first, the outcome is unknown"),
        }
    }
}

impl std::error::Error for CommandError {}
