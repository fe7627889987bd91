//! What commands are doing to which blocks of a namespace, over all connections, so that some can
//! be alone with theirs.
//!
//! ```text
//!   enter ──▶ in the table ──may_run──▶ at the device ──▶ leave
//!                  └─ waits for earlier ones that overlap, where either must be alone
//! ```
//! Commands run in any order, as ever, but one that must be alone (compare and write) begins when
//! every earlier one that overlaps has left, and later ones that overlap wait for it. Order of
//! entry decides, so none waits for ever. A command enters with all its extents at once and only
//! when it has all its data, so none waits for a host, and no two for each other.
//!
//! As long as nobody must be alone, which is nearly always, entering and leaving is a slot of a
//! list; nothing is searched. Bound: a slot for each command of each connection.

use block_io::Extent;

use crate::spec::nqn::HostId;

/// The blocks that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::target) enum Claim {
    One(Extent),
    /// For copies and discards, which are rare enough to allocate.
    Many(Box<[Extent]>),
}

impl Claim {
    fn parts(&self) -> &[Extent] {
        match self {
            Self::One(extent) => std::slice::from_ref(extent),
            Self::Many(extents) => extents,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meets = |part: &Extent| other.parts().iter().any(|theirs| theirs.overlaps(*part));
        self.parts().iter().any(meets)
    }
}

/// A command's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) struct Ticket {
    slot: u32,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    host: HostId,
    is_alone: bool,
    claim: Claim,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in crate::target) struct Extents {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// The next entry's number.
    sequence: u64,
    /// Entries that must be alone, running or waiting.
    alone: usize,
}

impl Extents {
    /// A command of `host` is about to go to the device, when [`may_run`](Self::may_run) says so.
    pub(in crate::target) fn enter(
        &mut self,
        host: HostId,
        claim: Claim,
        is_alone: bool,
    ) -> Ticket {
        let sequence = self.sequence;
        self.sequence += 1;
        self.alone += usize::from(is_alone);
        let entry = Some(Entry { sequence, host, is_alone, claim });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() as u32 - 1
            }
        };
        Ticket { slot, sequence }
    }

    /// Whether nothing stands in the way of this one.
    pub(in crate::target) fn may_run(&self, ticket: Ticket) -> bool {
        if self.alone == 0 {
            return true;
        }
        let Some(entry) = self.entry(ticket) else { return true };
        !self.slots.iter().flatten().any(|other| {
            other.sequence < entry.sequence
                && (other.is_alone || entry.is_alone)
                && other.claim.overlaps(&entry.claim)
        })
    }

    /// The command has ended, or will not go to the device.
    pub(in crate::target) fn leave(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entry(ticket) {
            self.alone -= usize::from(entry.is_alone);
            self.slots[ticket.slot as usize] = None;
            self.free.push(ticket.slot);
        }
    }

    /// Commands in the table.
    pub(in crate::target) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The number of the next entry.
    pub(in crate::target) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether commands of one of these hosts that entered before `sequence` are still there.
    pub(in crate::target) fn has_any_of(&self, hosts: &[HostId], sequence: u64) -> bool {
        !hosts.is_empty()
            && self
                .slots
                .iter()
                .flatten()
                .any(|entry| entry.sequence < sequence && hosts.contains(&entry.host))
    }

    fn entry(&self, ticket: Ticket) -> Option<&Entry> {
        let entry = self.slots.get(ticket.slot as usize)?.as_ref()?;
        (entry.sequence == ticket.sequence).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId([1; 16]);
    const OTHER: HostId = HostId([2; 16]);

    fn one(offset: u64, length: u64) -> Claim {
        Claim::One(Extent::new(offset, length))
    }

    #[test]
    fn who_must_be_alone_waits_for_earlier_ones_and_later_ones_for_it() {
        let mut extents = Extents::default();
        let write = extents.enter(HOST, one(0, 4096), false);
        let elsewhere = extents.enter(HOST, one(8192, 512), false);
        let alone = extents.enter(HOST, one(512, 512), true);
        let later = extents.enter(OTHER, one(0, 1024), false);
        let beside = extents.enter(OTHER, one(1024, 512), false);
        assert!(extents.may_run(write) && extents.may_run(elsewhere) && extents.may_run(beside));
        assert!(!extents.may_run(alone) && !extents.may_run(later));
        extents.leave(write);
        assert!(extents.may_run(alone) && !extents.may_run(later));
        extents.leave(alone);
        assert!(extents.may_run(later));
        extents.leave(alone);
        assert!(extents.may_run(later), "a ticket is given back once");
    }

    #[test]
    fn two_that_must_be_alone_take_turns_in_order() {
        let mut extents = Extents::default();
        let tickets: Vec<_> = (0..5).map(|_| extents.enter(HOST, one(0, 512), true)).collect();
        for (turn, ticket) in tickets.iter().enumerate() {
            for (place, other) in tickets.iter().enumerate().skip(turn) {
                assert_eq!(extents.may_run(*other), place == turn);
            }
            extents.leave(*ticket);
        }
        assert_eq!((extents.alone, extents.free.len()), (0, 5));
    }

    #[test]
    fn a_command_of_several_extents_waits_for_each() {
        let mut extents = Extents::default();
        let alone = extents.enter(HOST, one(4096, 512), true);
        let parts = [Extent::new(0, 512), Extent::new(4096, 512)];
        let copy = extents.enter(HOST, Claim::Many(parts.into()), false);
        assert!(!extents.may_run(copy));
        extents.leave(alone);
        assert!(extents.may_run(copy));
    }

    #[test]
    fn the_commands_of_a_host_are_found_until_they_leave() {
        let mut extents = Extents::default();
        let first = extents.enter(HOST, one(0, 512), false);
        let sequence = extents.sequence();
        let second = extents.enter(HOST, one(0, 512), false);
        assert!(extents.has_any_of(&[OTHER, HOST], sequence));
        assert!(!extents.has_any_of(&[OTHER], sequence) && !extents.has_any_of(&[], sequence));
        extents.leave(first);
        assert!(!extents.has_any_of(&[HOST], sequence), "later ones do not count");
        extents.leave(second);
    }
}
