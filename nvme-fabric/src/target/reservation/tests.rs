//! The rules of reservations, and the table of conflicts as the specification writes it.

use super::access::{Access, Standing, is_allowed};
use super::state::{Change, State};
use crate::spec::command::NvmCommand;
use crate::spec::command::reservation::{acquire_action, register_action, release_action};
use crate::spec::nqn::HostId;
use crate::spec::reservation::{AcquireKeys, NotificationKind, RegisterKeys, ReservationKind};
use crate::spec::status::Status;

const A: HostId = HostId([1; 16]);
const B: HostId = HostId([2; 16]);
const C: HostId = HostId([3; 16]);

/// Base 2.0, "Command Behavior in the Presence of a Reservation", row by row: for each command, in
/// each kind of reservation, what happens to a registrant that is not the holder and to a host that
/// is not registered. `A` is allowed, `C` is Reservation Conflict.
///
/// ```text
///     WE            EA            WE-RO         EA-RO         WE-AR         EA-AR
///     reg  non      reg  non      reg  non      reg  non      reg  non      reg  non
/// ```
/// With the last two kinds every registrant is a holder.
const TABLE: [(&str, NvmCommand, &str); 9] = [
    ("Read", NvmCommand::Read { start: 0, blocks: 1, force_unit_access: false }, READ),
    ("Compare", NvmCommand::Compare { start: 0, blocks: 1, force_unit_access: false }, READ),
    ("Verify", NvmCommand::Verify { start: 0, blocks: 1, force_unit_access: false }, READ),
    ("Write", NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false }, WRITE),
    (
        "Write Zeroes",
        NvmCommand::WriteZeroes {
            start: 0,
            blocks: 1,
            force_unit_access: false,
            deallocate: false,
        },
        WRITE,
    ),
    ("Write Uncorrectable", NvmCommand::WriteUncorrectable { start: 0, blocks: 1 }, WRITE),
    ("Dataset Management", NvmCommand::DatasetManagement { ranges: 1, deallocate: true }, WRITE),
    (
        "Copy",
        NvmCommand::Copy { destination: 0, ranges: 1, format: 0, force_unit_access: false },
        WRITE,
    ),
    ("Flush", NvmCommand::Flush, WRITE),
];
const READ: &str = "AA CC AA AC AA AC";
const WRITE: &str = "CC CC AC AC AC AC";

/// A reservation of `kind` held by A, with B registered too and C not.
fn held(kind: ReservationKind) -> State {
    let mut state = State::default();
    register(&mut state, A, 0xa).expect("registers");
    register(&mut state, B, 0xb).expect("registers");
    acquire(&mut state, A, 0xa, kind).expect("acquires");
    state
}

fn register(state: &mut State, host: HostId, key: u64) -> Result<Change, Status> {
    let keys = RegisterKeys { current: 0, new: key };
    state.register(host, register_action::REGISTER, false, None, keys)
}

fn unregister(state: &mut State, host: HostId, key: u64) -> Result<Change, Status> {
    let keys = RegisterKeys { current: key, new: 0 };
    state.register(host, register_action::UNREGISTER, false, None, keys)
}

fn acquire(
    state: &mut State,
    host: HostId,
    key: u64,
    kind: ReservationKind,
) -> Result<Change, Status> {
    let keys = AcquireKeys { current: key, preempt: 0 };
    state.acquire(host, acquire_action::ACQUIRE, kind, keys)
}

fn preempt(
    state: &mut State,
    (host, key): (HostId, u64),
    preempt: u64,
    kind: ReservationKind,
) -> Result<Change, Status> {
    let keys = AcquireKeys { current: key, preempt };
    state.acquire(host, acquire_action::PREEMPT_AND_ABORT, kind, keys)
}

fn release(
    state: &mut State,
    host: HostId,
    key: u64,
    kind: ReservationKind,
) -> Result<Change, Status> {
    state.release(host, release_action::RELEASE, kind as u8, key)
}

fn conflicts<Value: std::fmt::Debug>(result: Result<Value, Status>) {
    assert!(result.expect_err("a conflict").is(Status::RESERVATION_CONFLICT));
}

fn is_invalid<Value: std::fmt::Debug>(result: Result<Value, Status>) {
    assert!(result.expect_err("an invalid field").is(Status::INVALID_FIELD));
}

#[test]
fn every_command_conflicts_as_the_specifications_table_says() {
    for (name, command, row) in TABLE {
        let access = Access::of(&command);
        for (kind, cell) in ReservationKind::ALL.into_iter().zip(row.split(' ')) {
            let state = held(kind);
            let expected: Vec<bool> = cell.chars().map(|letter| letter == 'A').collect();
            assert!(state.allows(A, access), "{name} of the holder, {kind:?}");
            assert_eq!(state.allows(B, access), expected[0], "{name} of a registrant, {kind:?}");
            assert_eq!(state.allows(C, access), expected[1], "{name} of a stranger, {kind:?}");
            let standing = [Standing::Registrant, Standing::Stranger];
            for (standing, expected) in standing.into_iter().zip(expected) {
                assert_eq!(is_allowed(kind, standing, access), expected, "{name} {kind:?}");
            }
        }
        assert!(State::default().allows(C, access), "{name} without a reservation");
    }
}

#[test]
fn reservation_commands_have_rules_of_their_own() {
    for kind in ReservationKind::ALL {
        // Acquire: only who holds it, and the same kind.
        for other in ReservationKind::ALL {
            let mut state = held(kind);
            assert_eq!(acquire(&mut state, A, 0xa, other).is_ok(), kind == other);
            let result = acquire(&mut state, B, 0xb, other);
            assert_eq!(result.is_ok(), kind == other && kind.is_all_registrants());
        }
        let mut state = held(kind);
        conflicts(acquire(&mut state, C, 0xc, kind));
        conflicts(release(&mut state, C, 0xc, kind));
        conflicts(release(&mut state, B, 0xbad, kind));
        conflicts(preempt(&mut state, (C, 0xc), 0xa, kind));
        assert_eq!(state, held(kind), "nothing has changed");
        // A registrant releases what it does not hold: success, without effect.
        if !kind.is_all_registrants() {
            assert_eq!(release(&mut state, B, 0xb, kind), Ok(Change::default()));
            assert_eq!(state, held(kind));
        }
        register(&mut state, C, 0xc).expect("who is no registrant may become one");
        unregister(&mut state, C, 0xc).expect("and cease to be one");
    }
}

#[test]
fn keys_are_compared_unless_they_are_to_be_ignored() {
    let mut state = State::default();
    is_invalid(register(&mut state, A, 0));
    register(&mut state, A, 1).expect("registers");
    register(&mut state, A, 1).expect("the same again");
    conflicts(register(&mut state, A, 2));
    let replace = |state: &mut State, host, ignore, current, new| {
        let keys = RegisterKeys { current, new };
        state.register(host, register_action::REPLACE, ignore, None, keys)
    };
    conflicts(replace(&mut state, A, false, 7, 3));
    replace(&mut state, A, false, 1, 3).expect("the key is right");
    replace(&mut state, A, true, 99, 4).expect("the key does not matter");
    conflicts(replace(&mut state, B, false, 0, 5));
    replace(&mut state, B, true, 0, 5).expect("registers, for the existing key does not matter");
    conflicts(unregister(&mut state, A, 3));
    unregister(&mut state, A, 4).expect("the key is right");
    conflicts(unregister(&mut state, A, 4));
    let keys = RegisterKeys { current: 99, new: 0 };
    state.register(B, register_action::UNREGISTER, true, None, keys).expect("ignored");
    assert!(state.registrants.is_empty());
    is_invalid(state.register(B, 3, true, None, keys));
    assert_eq!(state.generation, 7, "each success counts");
}

#[test]
fn the_reservation_goes_with_its_last_holder() {
    for kind in ReservationKind::ALL {
        let mut state = held(kind);
        let change = unregister(&mut state, A, 0xa).expect("unregisters");
        let tells = kind.is_registrants_only();
        assert_eq!(change.notices.is_empty(), !tells, "{kind:?}");
        if tells {
            assert_eq!(change.notices, [(B, NotificationKind::ReservationReleased)]);
        }
        assert_eq!(state.held.is_some(), kind.is_all_registrants(), "{kind:?}");
        unregister(&mut state, B, 0xb).expect("unregisters");
        assert_eq!(state.held, None);
    }
}

#[test]
fn a_release_names_the_kind_and_tells_those_who_could_write() {
    for kind in ReservationKind::ALL {
        let mut state = held(kind);
        let other = ReservationKind::ALL.into_iter().find(|other| *other != kind);
        is_invalid(release(&mut state, A, 0xa, other.expect("there are six")));
        let change = release(&mut state, A, 0xa, kind).expect("releases");
        assert_eq!(state.held, None);
        assert_eq!(state.registrants.len(), 2, "registrants stay");
        let exclusive =
            matches!(kind, ReservationKind::WriteExclusive | ReservationKind::ExclusiveAccess);
        assert_eq!(change.notices.is_empty(), exclusive, "{kind:?}");
        let mut state = held(kind);
        let generation = state.generation;
        let change = state.release(B, release_action::CLEAR, 0, 0xb).expect("clears");
        assert_eq!(change.notices, [(A, NotificationKind::ReservationPreempted)]);
        assert_eq!((state.held, state.registrants.len()), (None, 0));
        assert_eq!(state.generation, generation + 1);
    }
}

#[test]
fn a_preempt_of_the_holders_key_takes_the_reservation() {
    use ReservationKind::{ExclusiveAccess, WriteExclusive};
    let mut state = held(WriteExclusive);
    register(&mut state, C, 0xa).expect("registers with the same key as A");
    let change = preempt(&mut state, (B, 0xb), 0xa, WriteExclusive).expect("preempts");
    let preempted = NotificationKind::RegistrationPreempted;
    assert_eq!(change.notices, [(A, preempted), (C, preempted)], "of the same kind: no release");
    assert_eq!(change.aborted, [A, C]);
    assert_eq!(state.standing(B), Standing::Holder);
    assert_eq!(state.registrants.len(), 1);

    let mut state = held(WriteExclusive);
    register(&mut state, C, 0xc).expect("registers");
    let change = preempt(&mut state, (B, 0xb), 0xa, ExclusiveAccess).expect("preempts");
    let released = (C, NotificationKind::ReservationReleased);
    assert_eq!(change.notices, [(A, preempted), released], "another kind: those who stay hear");
    assert_eq!(change.aborted, [A], "who stays is not aborted");

    let change = preempt(&mut state, (B, 0xb), 0xb, ExclusiveAccess).expect("its own");
    assert_eq!(change.notices, [], "of the same kind: those who stay have nothing to hear");
    let change = preempt(&mut state, (B, 0xb), 0xb, WriteExclusive).expect("its own");
    assert_eq!(change.notices, [released]);
    assert_eq!(state.held.map(|held| held.kind), Some(WriteExclusive));
    assert_eq!(state.standing(B), Standing::Holder);
}

#[test]
fn a_preempt_of_another_key_unregisters_and_one_of_no_key_fails() {
    for kind in ReservationKind::ALL {
        let mut state = held(kind);
        register(&mut state, C, 0xc).expect("registers");
        conflicts(preempt(&mut state, (A, 0xa), 0xdead, kind));
        let change = preempt(&mut state, (A, 0xa), 0xc, kind).expect("preempts");
        assert_eq!(change.notices, [(C, NotificationKind::RegistrationPreempted)]);
        assert_eq!(state.held, held(kind).held, "the reservation stays");
        let result = preempt(&mut state, (A, 0xa), 0, kind);
        if kind.is_all_registrants() {
            assert_eq!(result.expect("all others").aborted, [B]);
            assert_eq!(state.registrants.len(), 1);
        } else {
            is_invalid(result);
        }
    }
    let mut state = State::default();
    register(&mut state, A, 1).expect("registers");
    register(&mut state, B, 2).expect("registers");
    preempt(&mut state, (A, 1), 2, ReservationKind::WriteExclusive).expect("preempts");
    assert_eq!(state.held, None, "there was none, and there is none");
    conflicts(preempt(&mut state, (A, 1), 2, ReservationKind::WriteExclusive));
}

#[test]
fn there_are_only_so_many_registrants() {
    let mut state = State::default();
    for number in 0..super::state::REGISTRANTS_MAX {
        let mut host = [0; 16];
        host[..2].copy_from_slice(&(number as u16 + 1).to_le_bytes());
        register(&mut state, HostId(host), 1).expect("room");
    }
    assert!(register(&mut state, HostId([0xff; 16]), 1).is_err());
}
