//! Commands in flight: names that are not used again too soon, deadlines, and how they ended.
//!
//! A command identifier is a slot's index below and the slot's generation above, so a late or
//! invented answer to an earlier command on the slot is recognised.

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{Buffer, Timestamp};

use super::Connection;
use crate::spec::command::{SubmissionEntry, set_command_id};
use crate::spec::completion::Completion;
use crate::spec::sgl::Descriptor;

/// What a command moves.
#[derive(Clone, Debug)]
pub enum Data {
    /// Nothing.
    None,
    /// These bytes go to the controller.
    ToController(Buffer),
    /// Bytes from the controller fill this.
    ToHost(Buffer),
}

impl Data {
    fn length(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::ToController(buffer) | Self::ToHost(buffer) => buffer.len() as u32,
        }
    }
}

/// A command that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The submitter's name for it.
    pub token: u64,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The controller answered, with whatever status.
    Completed(Completion),
    /// The controller answered success, but data on the way to the host did not match their
    /// digest.
    DataDigest,
    /// The controller answered success, but sent only so many bytes of the data asked for.
    Short(u32),
    /// The connection ended first. What became of the command is unknown.
    Lost,
}

/// A command in flight.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) token: u64,
    pub(super) data: Data,
    /// Bytes of data received, or asked for by R2Ts so far.
    pub(super) transferred: u32,
    /// The data went in the capsule: no R2T may ask for them.
    pub(super) in_capsule: bool,
    /// A C2HData was the last one.
    pub(super) last_seen: bool,
    pub(super) digest_failed: bool,
    pub(super) submitted: Timestamp,
    deadline: Option<Timestamp>,
    /// The deadline has passed, and the controller is asked to abort it.
    is_expired: bool,
}

impl Command {
    pub(super) fn length(&self) -> u32 {
        self.data.length()
    }
}

#[derive(Debug)]
struct Slot {
    generation: u16,
    command: Option<Command>,
}

/// A fixed number of slots.
#[derive(Debug)]
pub(super) struct CommandTable {
    slots: Vec<Slot>,
    free: Vec<u16>,
    index_bits: u32,
    /// No deadline is before this; absent when none is known to be pending.
    next_check: Option<Timestamp>,
}

impl CommandTable {
    pub(super) fn new(commands_max: u16) -> Self {
        let count = commands_max.clamp(1, 1 << 12);
        Self {
            slots: (0..count).map(|_| Slot { generation: 0, command: None }).collect(),
            free: (0..count).rev().collect(),
            index_bits: u16::BITS - (count - 1).leading_zeros(),
            next_check: None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn next_check(&self) -> Option<Timestamp> {
        self.next_check
    }

    /// Puts a command into a free slot and names it.
    fn insert(&mut self, command: Command) -> Option<u16> {
        let index = self.free.pop()?;
        if let Some(deadline) = command.deadline {
            self.next_check = Some(self.next_check.map_or(deadline, |check| check.min(deadline)));
        }
        let slot = &mut self.slots[usize::from(index)];
        slot.command = Some(command);
        Some(slot.generation << self.index_bits | index)
    }

    fn index(&self, id: u16) -> Option<usize> {
        let index = usize::from(id & ((1 << self.index_bits) - 1));
        let slot = self.slots.get(index)?;
        (slot.command.is_some() && slot.generation << self.index_bits | index as u16 == id)
            .then_some(index)
    }

    /// The command in flight under this name.
    pub(super) fn get(&mut self, id: u16) -> Option<&mut Command> {
        let index = self.index(id)?;
        self.slots[index].command.as_mut()
    }

    /// Ends the command in flight under this name; the name is not used again until the slot's
    /// generations have gone round.
    pub(super) fn remove(&mut self, id: u16) -> Option<Command> {
        let index = self.index(id)?;
        Some(self.release(index))
    }

    fn release(&mut self, index: usize) -> Command {
        let slot = &mut self.slots[index];
        // FFFFh is no command's name (Base 2.1 §3.3.3.1), so the all-ones generation is left out.
        let generations = u16::MAX.checked_shr(self.index_bits).unwrap_or(1);
        slot.generation = (slot.generation + 1) % generations.max(1);
        self.free.push(index as u16);
        slot.command.take().expect("only slots in use are released")
    }

    /// Ends any command, in no particular order.
    pub(super) fn remove_any(&mut self) -> Option<Command> {
        let index = self.slots.iter().position(|slot| slot.command.is_some())?;
        Some(self.release(index))
    }

    /// How long a command that is past its deadline has been in flight. With `grace` a command gets
    /// that much more time when its deadline passes first, and its name goes to `expired`.
    pub(super) fn overdue(
        &mut self,
        now: Timestamp,
        grace: Option<Duration>,
        expired: &mut VecDeque<u16>,
    ) -> Option<Duration> {
        if self.next_check.is_none_or(|check| now < check) {
            return None;
        }
        let mut after = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(command) = &mut slot.command else { continue };
            match (command.deadline, grace) {
                (Some(deadline), Some(grace)) if deadline <= now && !command.is_expired => {
                    command.is_expired = true;
                    command.deadline = Some(now + grace);
                    expired.push_back(slot.generation << self.index_bits | index as u16);
                }
                (Some(deadline), _) if deadline <= now => {
                    after = Some(now.since(command.submitted));
                }
                _ => {}
            }
        }
        let commands = self.slots.iter().filter_map(|slot| slot.command.as_ref());
        self.next_check = commands.filter_map(|command| command.deadline).min();
        after
    }
}

impl Connection {
    /// Whether [`submit`](Self::submit) would take a command.
    pub fn has_room(&self) -> bool {
        self.is_open() && self.commands.has_room()
    }

    /// How many commands [`submit`](Self::submit) would take now.
    pub fn room(&self) -> usize {
        if self.is_open() { self.commands.free.len() } else { 0 }
    }

    /// Sends a command. Its name and data descriptor are filled in here. `timeout` runs from now;
    /// without one the command may wait for ever, as an Asynchronous Event Request does.
    ///
    /// # Errors
    /// The data, when the connection is not open or has no room.
    pub fn submit(
        &mut self,
        mut entry: SubmissionEntry,
        data: Data,
        token: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Data> {
        if !self.has_room() {
            return Err(data);
        }
        let length = data.length();
        let (descriptor, capsule_data) = match &data {
            Data::None => (Descriptor::NONE, None),
            Data::ToHost(_) => (Descriptor::transport(length), None),
            Data::ToController(buffer) if length <= self.capsule_data_max => {
                (Descriptor::in_capsule(length), Some(buffer.clone()))
            }
            Data::ToController(_) => (Descriptor::transport(length), None),
        };
        let command = Command {
            token,
            data,
            transferred: 0,
            in_capsule: capsule_data.is_some(),
            last_seen: false,
            digest_failed: false,
            submitted: self.now,
            deadline: timeout.map(|timeout| self.now + timeout),
            is_expired: false,
        };
        let id = self.commands.insert(command).expect("there is room, as was just asked");
        set_command_id(&mut entry, id);
        entry[24..40].copy_from_slice(&descriptor.encode());
        self.encoder.push_command(&entry, capsule_data.as_ref());
        Ok(())
    }

    /// A CapsuleResp, or a C2HData that stands for one, has ended a command.
    pub(super) fn finish(&mut self, id: u16, completion: Completion) {
        let Some(command) = self.commands.remove(id) else {
            return;
        };
        let length = command.length();
        let outcome = if !completion.status.is_success() {
            Outcome::Completed(completion)
        } else if command.digest_failed {
            Outcome::DataDigest
        } else if matches!(command.data, Data::ToHost(_)) && command.transferred < length {
            Outcome::Short(command.transferred)
        } else {
            Outcome::Completed(completion)
        };
        // Only what was sent later shows that the controller has heard something later.
        self.newest_answered = self.newest_answered.max(command.submitted);
        let Command { token, submitted, .. } = command;
        self.finished.push_back(Finished { token, submitted, outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(token: u64, deadline: Option<u64>) -> Command {
        Command {
            token,
            data: Data::None,
            transferred: 0,
            in_capsule: false,
            last_seen: false,
            digest_failed: false,
            submitted: Timestamp(0),
            deadline: deadline.map(Timestamp),
            is_expired: false,
        }
    }

    #[test]
    fn a_name_is_not_used_again_soon_and_never_all_ones() {
        for count in [1, 2, 3, 127, 128, 4096] {
            let mut table = CommandTable::new(count);
            let mut before = None;
            for _ in 0..70_000 {
                let id = table.insert(command(1, None)).expect("room");
                assert_ne!(id, u16::MAX);
                if let Some(before) = before {
                    assert_ne!(id, before, "of {count}");
                    assert!(table.get(before).is_none(), "the old name is dead");
                }
                assert!(table.remove(id).is_some());
                assert!(table.remove(id).is_none());
                before = Some(id);
            }
        }
    }

    #[test]
    fn every_slot_has_its_own_name_and_there_are_no_more() {
        let mut table = CommandTable::new(127);
        let ids: std::collections::HashSet<_> =
            (0..127).map(|token| table.insert(command(token, None)).expect("room")).collect();
        assert_eq!(ids.len(), 127);
        assert!(!table.has_room());
        assert!(table.insert(command(0, None)).is_none());
        for id in ids {
            assert!(table.remove(id).is_some());
        }
        assert_eq!(table.in_flight(), 0);
    }

    #[test]
    fn the_first_deadline_is_noticed_and_no_other() {
        let overdue = |table: &mut CommandTable, now| {
            table.overdue(Timestamp(now), None, &mut VecDeque::new())
        };
        let mut table = CommandTable::new(4);
        table.insert(command(0, None)).expect("room");
        assert_eq!(table.next_check(), None);
        let early = table.insert(command(1, Some(10))).expect("room");
        table.insert(command(2, Some(20))).expect("room");
        assert_eq!(overdue(&mut table, 9), None);
        table.remove(early);
        assert_eq!(overdue(&mut table, 15), None, "it has ended");
        assert_eq!(table.next_check(), Some(Timestamp(20)));
        assert_eq!(overdue(&mut table, 20), Some(Duration::from_nanos(20)));
    }
    #[test]
    fn a_late_command_is_named_once_and_has_its_grace() {
        let mut table = CommandTable::new(4);
        let id = table.insert(command(0, Some(10))).expect("room");
        let (mut expired, grace) = (VecDeque::new(), Some(Duration::from_nanos(5)));
        assert_eq!(table.overdue(Timestamp(10), grace, &mut expired), None);
        assert_eq!((expired.pop_front(), expired.pop_front()), (Some(id), None));
        assert_eq!(table.next_check(), Some(Timestamp(15)));
        let late = table.overdue(Timestamp(15), grace, &mut expired);
        assert_eq!((late, expired.pop_front()), (Some(Duration::from_nanos(15)), None));
    }
}
