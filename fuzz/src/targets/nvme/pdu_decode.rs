//! The decoder by itself: whatever arrives, it finds the same PDUs however the bytes are cut, and
//! what it finds is encoded to bytes in which it finds the same again.

use block_io::{Buffer, BufferPool};
use nvme_fabric::pdu::{Decoded, Decoder, Digests, Encoder, Limits, Pdu, PduError, Side};

use super::record::{pdus, recording};
use super::{CONTROL_DIGESTS, bytes_of, fill};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The first byte is control bits; a stream of PDUs follows.
pub const TARGET: Target = Target { name: "pdu_decode", length_max: 4096, run, cost: 8, seeds };

/// The most data of one PDU: what an input has room for.
const DATA_MAX: u32 = 8 << 10;
/// Bit of the control byte: the host is the receiver.
const CONTROL_HOST: u8 = 0x02;

/// What was found: PDUs with their data, and how it ended.
#[derive(Debug, PartialEq)]
struct Found {
    pdus: Vec<(Pdu, Vec<u8>)>,
    digest_mismatches: usize,
    error: Option<PduError>,
}

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, stream)) = input.split_first() else { return observer.behaviour() };
    let side = if control & CONTROL_HOST != 0 { Side::Host } else { Side::Controller };
    let digests =
        Digests { header: control & CONTROL_DIGESTS != 0, data: control & CONTROL_DIGESTS != 0 };
    let found = decode(side, digests, stream, |_| usize::MAX);
    let mut random = Random::new(u64::from(*control));
    let cut = decode(side, digests, stream, |_| 1 + random.below(90));
    assert_eq!(found, cut, "the same bytes, cut differently");
    if found.digest_mismatches == 0 {
        check_round_trip(side, digests, &found);
    }
    for (pdu, data) in &found.pdus {
        observer.note(std::mem::discriminant(pdu));
        observer.note_magnitude(data.len() as u64);
    }
    if let Some(error) = &found.error {
        let message = error.to_string();
        assert!(!message.is_empty(), "refused without a word");
        observer.note_message(&message, "");
    }
    observer.behaviour()
}

/// Decodes `stream`, received in portions of at most `portion` bytes.
fn decode(
    side: Side,
    digests: Digests,
    stream: &[u8],
    mut portion: impl FnMut(usize) -> usize,
) -> Found {
    let pool = BufferPool::heap();
    let limits = Limits { capsule_data_max: 8192, data_max: DATA_MAX };
    let mut decoder = Decoder::new(side, pool.allocate(1024), limits);
    let mut found = Found { pdus: Vec::new(), digest_mismatches: 0, error: None };
    let mut place: Option<Buffer> = None;
    let mut rest = stream;
    while !rest.is_empty() && found.error.is_none() {
        let mut pieces = Vec::new();
        decoder.receive_into(&mut pieces);
        assert!(!pieces.is_empty(), "nothing to receive into, and no data awaits a place");
        let taken = fill(&pieces, &rest[..rest.len().min(portion(rest.len()))]);
        decoder.received(taken);
        rest = &rest[taken..];
        loop {
            match decoder.next_event() {
                Ok(None) => break,
                Ok(Some(decoded)) => {
                    take(decoded, &mut decoder, digests, &pool, &mut place, &mut found)
                }
                Err(error) => {
                    found.error = Some(error);
                    break;
                }
            }
        }
    }
    // Data that have not all come are no one's yet.
    if place.is_some() {
        found.pdus.pop();
    }
    found
}

fn take(
    decoded: Decoded,
    decoder: &mut Decoder,
    digests: Digests,
    pool: &BufferPool,
    place: &mut Option<Buffer>,
    found: &mut Found,
) {
    match decoded {
        Decoded::Pdu(pdu) => {
            let length = pdu.data_length();
            assert!(length <= DATA_MAX, "{length} bytes of data");
            if length > 0 {
                let buffer = pool.allocate(length as usize);
                decoder.place_payload(buffer.clone());
                *place = Some(buffer);
            }
            if matches!(pdu, Pdu::InitializeRequest(_) | Pdu::InitializeResponse(_)) {
                decoder.set_digests(digests);
            }
            found.pdus.push((pdu, Vec::new()));
        }
        Decoded::PayloadDone { digest_matches } => {
            found.digest_mismatches += usize::from(!digest_matches);
            let data = place.take().expect("data had a place").to_vec();
            found.pdus.last_mut().expect("data follow a PDU").1 = data;
        }
    }
}

/// Encodes what was found, and finds it again.
fn check_round_trip(side: Side, digests: Digests, found: &Found) {
    let pool = BufferPool::heap();
    let mut encoder = Encoder::new(&pool);
    let mut expected = Vec::new();
    for (pdu, data) in &found.pdus {
        let buffer = pool.allocate(data.len().max(1)).slice(0, data.len());
        buffer.copy_from_slice(data);
        match pdu {
            Pdu::InitializeRequest(request) => encoder.push_initialize_request(request),
            Pdu::InitializeResponse(response) => encoder.push_initialize_response(response),
            // Its encoding is made from an error, not from what was received.
            Pdu::Termination(_) => continue,
            Pdu::Command(capsule) => {
                encoder.push_command(&capsule.command, (!data.is_empty()).then_some(&buffer));
            }
            Pdu::Response(entry) => encoder.push_response(entry),
            Pdu::HostData(fields) => encoder.push_host_data(fields, &buffer),
            Pdu::ControllerData(fields) => encoder.push_controller_data(fields, &buffer),
            Pdu::ReadyToTransfer(fields) => encoder.push_ready_to_transfer(fields),
        }
        if matches!(pdu, Pdu::InitializeRequest(_) | Pdu::InitializeResponse(_)) {
            encoder.set_parameters(digests, 0);
        }
        expected.push((pdu.clone(), data.clone()));
    }
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, usize::MAX);
    let bytes = bytes_of(&pieces);
    assert_eq!(bytes.len(), encoder.queued_bytes());
    let again = decode(side, digests, &bytes, |_| usize::MAX);
    assert_eq!(again.error, None, "what was encoded is refused");
    assert_eq!(again.pdus, expected, "what was encoded reads differently");
}

/// The recorded streams, and each of their PDUs by itself behind ICReq or ICResp.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for digests in [0, CONTROL_DIGESTS] {
        let recording = recording(digests);
        for queue in 0..2 {
            let said: Vec<u8> =
                recording.to_host[queue].iter().flat_map(|said| said.bytes.clone()).collect();
            let streams = [(0, &recording.to_target[queue]), (CONTROL_HOST, &said)];
            for (receiver, stream) in streams {
                let control = digests | receiver;
                seeds.push([&[control], &stream[..]].concat());
                let pdus = pdus(stream);
                for pdu in &pdus[1..] {
                    seeds.push([&[control], pdus[0], *pdu].concat());
                }
            }
        }
    }
    seeds
}
