//! NVMe/TCP: the decoder by itself, and either end of an association with a peer that says
//! anything. What a sound peer says is recorded from the two ends talking to each other.

pub mod association;
pub mod auth_messages;
pub mod discovery_log;
pub mod host_connection;
pub mod pdu_decode;
mod record;
pub mod reservation_image;
pub mod target_connection;
pub mod target_script;
mod target_side;
pub mod tls_hello;
pub mod tls_records;

use block_io::{BufferPool, Timestamp};
use nvme_fabric::host::HostOptions;
use nvme_fabric::pdu::{Decoded, Decoder, Digests, Endpoint, Limits, Pdu, Side};
use nvme_fabric::spec::nqn::{HostId, Nqn};

use crate::mutation::Random;

/// When everything begins.
const START: Timestamp = Timestamp(1_000_000_000);
/// The most data of one command that either end takes.
const DATA_MAX: u32 = 1 << 20;

/// Bit of a control byte: both digests are in use.
const CONTROL_DIGESTS: u8 = 0x04;
/// Bit of a control byte: the I/O queue's connection is fuzzed instead of the admin queue's.
const CONTROL_IO_QUEUE: u8 = 0x01;

fn digests(control: u8) -> Digests {
    let used = control & CONTROL_DIGESTS != 0;
    Digests { header: used, data: used }
}

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("a well-formed name")
}

fn subsystem() -> Nqn {
    nqn("nqn.2026-01.io.forebay:fuzzed")
}

fn host_options(digests: Digests) -> HostOptions {
    let host = nqn("nqn.2026-01.io.forebay:fuzzer");
    let mut options = HostOptions::new("target:4420", subsystem(), host, HostId([7; 16]));
    options.digests = digests;
    options.queue_depth = 16;
    options
}

/// Gives an endpoint up to `bytes.len()` bytes in one receive; returns how many it took.
fn deliver(endpoint: &mut impl Endpoint, bytes: &[u8]) -> usize {
    let mut pieces = Vec::new();
    endpoint.receive_into(&mut pieces);
    let mut rest = bytes;
    for piece in &pieces {
        assert!(!piece.is_empty(), "an empty piece to receive into");
        let (now, later) = rest.split_at(rest.len().min(piece.len()));
        piece.slice(0, now.len()).copy_from_slice(now);
        rest = later;
    }
    let taken = bytes.len() - rest.len();
    if taken > 0 {
        endpoint.received(taken);
    }
    taken
}

/// Takes what an endpoint has to send, or a part of it; nothing only when there is nothing.
fn collect(endpoint: &mut impl Endpoint, random: &mut Random) -> Vec<u8> {
    let mut pieces = Vec::new();
    endpoint.transmit_from(&mut pieces, 64);
    assert!(pieces.len() <= 64, "{} pieces of 64", pieces.len());
    let mut bytes = bytes_of(&pieces);
    if random.below(4) == 0 && !bytes.is_empty() {
        bytes.truncate(1 + random.below(bytes.len()));
    }
    if !bytes.is_empty() {
        endpoint.transmitted(bytes.len());
    }
    bytes
}

/// Decodes all that one end has sent, as its peer would.
///
/// # Panics
/// When it is not a sound stream of PDUs.
fn check_sent(receiver: Side, sent: &[u8], agreed: Digests) -> Vec<Pdu> {
    let pool = BufferPool::heap();
    let limits = Limits { capsule_data_max: 8192, data_max: DATA_MAX };
    let mut decoder = Decoder::new(receiver, pool.allocate(16 << 10), limits);
    let mut pdus = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        let mut pieces = Vec::new();
        decoder.receive_into(&mut pieces);
        let taken = fill(&pieces, rest);
        decoder.received(taken);
        rest = &rest[taken..];
        while let Some(decoded) = decoder.next_event().expect("a sound stream of PDUs") {
            match decoded {
                Decoded::Pdu(pdu) => {
                    match &pdu {
                        Pdu::InitializeRequest(_) | Pdu::InitializeResponse(_) => {
                            decoder.set_digests(agreed);
                        }
                        pdu if pdu.data_length() > 0 => {
                            decoder.place_payload(pool.allocate(pdu.data_length() as usize));
                        }
                        _ => {}
                    }
                    pdus.push(pdu);
                }
                Decoded::PayloadDone { digest_matches } => assert!(digest_matches, "data digest"),
            }
        }
    }
    pdus
}

/// The bytes of pieces, one behind the other.
fn bytes_of(pieces: &[block_io::Buffer]) -> Vec<u8> {
    let mut bytes = vec![0; pieces.iter().map(block_io::Buffer::len).sum()];
    let mut rest = &mut bytes[..];
    for piece in pieces {
        let (now, later) = rest.split_at_mut(piece.len());
        piece.copy_to_slice(now);
        rest = later;
    }
    bytes
}

/// Copies bytes into pieces; returns how many fitted.
fn fill(pieces: &[block_io::Buffer], bytes: &[u8]) -> usize {
    let mut rest = bytes;
    for piece in pieces {
        let (now, later) = rest.split_at(rest.len().min(piece.len()));
        piece.slice(0, now.len()).copy_from_slice(now);
        rest = later;
    }
    bytes.len() - rest.len()
}
