//! The transmission phase: any stream of requests gets replies that can be parsed, exactly one for
//! each request that came whole, and every device request is within the geometry.

use std::collections::BTreeMap;

use super::replies::{Reply, replies};
use super::{Session, go, option, queries};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// The target. The first byte is [`Session::new`]'s, and its lowest bit asks for structured
/// replies; requests follow.
pub const TARGET: Target =
    Target { name: "nbd_transmission", length_max: INPUT_LENGTH_MAX, run, cost: 4, seeds };

/// Bytes of a request without payload: magic, flags, type, cookie, offset, length.
//= NBD proto.md "Request message"
const REQUEST_LENGTH: usize = 28;
const REQUEST_MAGIC: [u8; 4] = [0x25, 0x60, 0x95, 0x13];
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, stream)) = input.split_first() else { return observer.behaviour() };
    let structured = control & 1 == 1;
    let mut session = Session::new(*control);
    negotiate(&mut session, structured);
    let outcome = session.feed(stream);
    let taken = &stream[..session.taken];
    match outcome {
        Ok(()) => {
            session.finish();
            check(&requests(taken), &session.sent, true, &mut observer);
        }
        Err(fault) => {
            observer.note_message(&fault.to_string(), "");
            session.work(true);
            // The stream is lost at this point, but what came before it is answered.
            check(&requests(stream), &session.sent, false, &mut observer);
        }
    }
    observer.behaviour()
}

fn negotiate(session: &mut Session, structured: bool) {
    let mut stream = vec![0, 0, 0, 3];
    if structured {
        stream.extend(option(8, b""));
        stream.extend(option(10, &queries("disk", &["base:allocation"])));
    }
    stream.extend(option(7, &go("disk", &[3])));
    session.feed(&stream).expect("a sound negotiation");
    session.work(true);
    assert_eq!(session.connection.export(), Some(0));
    session.sent.clear();
    session.taken = 0;
}

/// A request as the client meant it.
struct Sent {
    kind: u16,
    cookie: u64,
    length: u32,
}

/// The requests in a stream that are there whole, up to where it stops making sense or ends.
fn requests(mut stream: &[u8]) -> Vec<Sent> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut requests = Vec::new();
    while let Some((header, rest)) = stream.split_at_checked(REQUEST_LENGTH) {
        let kind = number(&header[6..8]) as u16;
        if header[..4] != REQUEST_MAGIC || kind == DISCONNECT {
            break;
        }
        let length = number(&header[24..28]) as u32;
        let payload = if kind == WRITE { length as usize } else { 0 };
        let Some(rest) = rest.get(payload..) else { break };
        requests.push(Sent { kind, cookie: number(&header[8..16]), length });
        stream = rest;
    }
    requests
}

fn check(requests: &[Sent], sent: &[u8], all_answered: bool, observer: &mut Observer) {
    let mut by_cookie = BTreeMap::new();
    for request in requests {
        if by_cookie.insert(request.cookie, request).is_some() {
            // Two of the same name: which of them a simple reply means cannot be told.
            observer.note("cookie used twice");
            return;
        }
    }
    let payload = |cookie| match by_cookie.get(&cookie) {
        Some(request) if request.kind == READ => request.length as usize,
        _ => 0,
    };
    let replies: Vec<Reply> = replies(sent, payload);
    for reply in &replies {
        let request = by_cookie.remove(&reply.cookie);
        let request = request.expect("a reply to a request that was not made, or a second one");
        observer.note((request.kind.min(9), reply.failed));
    }
    if all_answered {
        assert!(by_cookie.is_empty(), "requests {:?} got no reply", by_cookie.keys());
    }
}

fn request(kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let write = |cookie, offset, length: u32| {
        [request(WRITE, cookie as u16 & 1, cookie, offset, length), vec![7; length as usize]]
            .concat()
    };
    let session = [
        write(1, 0, 4096),
        request(READ, 0, 2, 0, 8192),
        request(3, 0, 3, 0, 0),
        request(4, 0, 4, 0, 65536),
        request(6, 2, 5, 4096, 131_072),
        request(7, 8, 6, 0, 262_144),
        request(READ, 4, 7, 131_072, 131_072),
        write(8, 261_632, 512),
        request(99, 0, 9, 0, 512),
        write(10, 262_144, 1024),
        write(11, 1, 512),
        request(DISCONNECT, 0, 12, 0, 0),
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for control in [0x00, 0x01, 0x09, 0x31, 0xc1] {
        seeds.push([&[control][..], &session.concat()].concat());
        for part in &session {
            seeds.push([&[control][..], part].concat());
        }
    }
    seeds
}
