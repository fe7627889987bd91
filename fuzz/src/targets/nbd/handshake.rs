//! The negotiation, from the client's first byte on: whatever is sent, the answers can be parsed,
//! and what waits is bounded.

use super::{Session, go, option, queries, replies};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// The target. The first byte is [`Session::new`]'s.
pub const TARGET: Target =
    Target { name: "nbd_handshake", length_max: INPUT_LENGTH_MAX, run, cost: 1, seeds };

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, stream)) = input.split_first() else { return observer.behaviour() };
    let mut session = Session::new(*control);
    let outcome = session.feed(stream);
    let entered = session.connection.export();
    observer.note(entered);
    match outcome {
        Ok(()) => session.finish(),
        Err(fault) => {
            let message = fault.to_string();
            assert!(!message.is_empty(), "refused without a word");
            observer.note_message(&message, "");
            session.work(true);
        }
    }
    for (option, kind) in replies::negotiation(&session.sent, entered.is_some()) {
        observer.note((option.min(32), kind));
    }
    observer.behaviour()
}

/// Client flags: fixed newstyle, no zeroes. //= NBD proto.md "Client flags"
const FLAGS: [u8; 4] = [0, 0, 0, 3];

fn seeds() -> Vec<Vec<u8>> {
    let conversations: [&[&[u8]]; 8] = [
        &[&option(3, b""), &option(2, b"")],
        &[&option(7, &go("disk", &[0, 1, 2, 3]))],
        &[&option(6, &go("other", &[3])), &option(7, &go("", &[]))],
        &[&option(8, b""), &option(10, &queries("disk", &["base:allocation"]))],
        &[&option(8, b""), &option(9, &queries("disk", &["base:", "x:y"])), &option(2, b"")],
        &[&option(1, b"disk"), &[0; 28]],
        &[&option(5, b""), &option(99, &[7; 20_000]), &option(7, &go("missing", &[]))],
        &[&option(10, &queries("", &[])), &option(7, &[0xff; 9]), &option(8, b"extra")],
    ];
    let mut seeds: Vec<Vec<u8>> =
        conversations.iter().map(|parts| [&[1][..], &FLAGS, &parts.concat()].concat()).collect();
    // A client that speaks neither fixed newstyle nor no zeroes.
    seeds.push([&[2][..], &[0; 4], &option(1, b"")].concat());
    seeds
}
