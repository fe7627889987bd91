//! The target's end of a connection with a host that says anything: every request to the device is
//! within its geometry, what is said to the host is a sound stream of PDUs, and the connection ends
//! when its stream or its time does.

use nvme_fabric::error::ConnectionError;
use nvme_fabric::pdu::{Pdu, Side};

use super::record::{pdus, recording};
use super::target_side::TargetSide;
use super::{CONTROL_DIGESTS, CONTROL_IO_QUEUE, START, check_sent, deliver, digests};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The first byte is control bits, see [`super`]; what the host says follows.
pub const TARGET: Target =
    Target { name: "target_connection", length_max: 4096, run, cost: 4, seeds };

/// Bit of the control byte: the device fails some requests.
const CONTROL_FAILURES: u8 = 0x08;
/// Bit of the control byte: the recorded host says ICReq and Connect; the input is commands.
const CONTROL_CONNECTED: u8 = 0x10;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, said)) = input.split_first() else { return observer.behaviour() };
    let mut side = TargetSide::new();
    let mut random = Random::new(u64::from(*control));
    let mut admin = side.accept(START);
    if control & CONTROL_IO_QUEUE != 0 {
        // A sound host has brought the controller up; somebody else says the rest.
        let recording = recording(*control);
        let mut rest = &recording.to_target[0][..recording.admin_until_up];
        while !rest.is_empty() {
            rest = &rest[deliver(&mut admin.connection, rest)..];
            admin.turn(&mut side.target, START, &mut random, false);
        }
        assert_eq!(side.target.controllers_in_use(), 1, "the recorded host is connected");
    }
    let mut served = side.accept(START);
    let prefix = if control & CONTROL_CONNECTED != 0 { connect(*control).concat() } else { vec![] };
    let said = &[&prefix, said].concat()[..];
    let mut rest = said;
    while !rest.is_empty() && !served.connection.is_finished() {
        let longest = [1, 8, 72, 4096, usize::MAX][random.below(5)];
        let taken = deliver(&mut served.connection, &rest[..rest.len().min(longest)]);
        rest = &rest[taken..];
        served.turn(&mut side.target, START, &mut random, control & CONTROL_FAILURES != 0);
        assert!(
            taken > 0 || served.connection.is_finished(),
            "idle, but nothing is to be received"
        );
    }
    observer.note(served.connection.queue_id());
    observer.note_magnitude(served.connection.commands_in_flight() as u64);
    if let Some(error) = served.connection.error() {
        observer.note_message(&error.to_string(), "");
    }
    for pdu in check_sent(Side::Host, &served.sent, digests_agreed(*control, said)) {
        observe(&pdu, &mut observer);
    }
    // Time ends what the host does not.
    while let Some(deadline) = served.connection.deadline()
        && !served.connection.is_finished()
    {
        served.turn(&mut side.target, deadline, &mut random, false);
        let later = served.connection.deadline();
        assert!(
            served.connection.is_finished() || later.is_none_or(|later| later > deadline),
            "a deadline that does nothing: {deadline:?}, then {later:?}"
        );
    }
    served.connection.disconnect(&mut side.target, ConnectionError::Closed);
    assert!(served.connection.is_finished(), "disconnected, but not finished");
    assert!(served.connection.next_submission().is_none(), "a request of a finished connection");
    admin.connection.disconnect(&mut side.target, ConnectionError::Closed);
    assert_eq!(side.target.controllers_in_use(), 0, "controllers without a connection");
    observer.behaviour()
}

/// The digests that an ICReq asks for, as the target grants them.
/// NVMe/TCP Transport 1.1 §3.6.2.2: DGST, byte 11, bit 0 headers, bit 1 data
fn digests_agreed(control: u8, said: &[u8]) -> nvme_fabric::pdu::Digests {
    match said.get(11) {
        Some(byte) => nvme_fabric::pdu::Digests { header: byte & 1 != 0, data: byte & 2 != 0 },
        None => digests(control),
    }
}

fn observe(pdu: &Pdu, observer: &mut Observer) {
    match pdu {
        // The status field of a completion. NVMe Base 2.1 §4.2.1: DW3 bits 31:17
        Pdu::Response(entry) => observer.note(("response", entry[14] & 0xfe, entry[15])),
        Pdu::Termination(_) => observer.note("termination"),
        Pdu::ControllerData(_) => observer.note("data"),
        Pdu::ReadyToTransfer(_) => observer.note("ready to transfer"),
        Pdu::InitializeResponse(_) => observer.note("initialized"),
        Pdu::InitializeRequest(_) | Pdu::Command(_) | Pdu::HostData(_) => {
            panic!("a controller sent {pdu:?}")
        }
    }
}

/// The PDUs of the recorded stream that `control` is about.
fn recorded(control: u8) -> Vec<&'static [u8]> {
    pdus(&recording(control).to_target[usize::from(control & CONTROL_IO_QUEUE)])
}

/// ICReq and Connect among them.
fn connect(control: u8) -> [&'static [u8]; 2] {
    let pdus = recorded(control);
    [pdus[0], pdus[1]]
}

/// The recorded streams, their commands without ICReq and Connect, and each command by itself.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for digests in [0, CONTROL_DIGESTS] {
        for io_queue in [0, CONTROL_IO_QUEUE] {
            let control = digests | io_queue;
            let pdus = recorded(control);
            let connected = control | CONTROL_CONNECTED;
            seeds.push([&[control], &pdus.concat()[..]].concat());
            seeds.push([&[connected | CONTROL_FAILURES], &pdus[2..].concat()[..]].concat());
            seeds.extend(pdus[2..].iter().map(|command| [&[connected], *command].concat()));
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_answered_without_a_fault() {
        let streams = [0, 1, CONTROL_DIGESTS, CONTROL_DIGESTS | 1].map(|control| {
            let queue = usize::from(control & CONTROL_IO_QUEUE);
            [&[control], &recording(control).to_target[queue][..]].concat()
        });
        for seed in streams {
            let mut side = TargetSide::new();
            let mut random = Random::new(1);
            let mut admin = side.accept(START);
            let recording = recording(seed[0]);
            let mut rest = &recording.to_target[0][..recording.admin_until_up];
            while !rest.is_empty() {
                rest = &rest[deliver(&mut admin.connection, rest)..];
                admin.turn(&mut side.target, START, &mut random, false);
            }
            let mut served = side.accept(START);
            let said = &seed[1..];
            deliver(&mut served.connection, said);
            served.turn(&mut side.target, START, &mut random, false);
            assert_eq!(served.connection.queue_id(), Some(u16::from(seed[0] & CONTROL_IO_QUEUE)));
            assert!(served.connection.error().is_none(), "{:?}", served.connection.error());
            let pdus = check_sent(Side::Host, &served.sent, digests(seed[0]));
            let statuses: Vec<_> = pdus
                .iter()
                .filter_map(|pdu| match pdu {
                    Pdu::Response(entry) => Some((entry[14] & 0xfe, entry[15])),
                    _ => None,
                })
                .collect();
            assert!(statuses.iter().all(|status| *status == (0, 0)), "{statuses:?}");
            assert!(statuses.len() >= 7, "{statuses:?}");
        }
    }
}
