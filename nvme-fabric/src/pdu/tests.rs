//! Steps of the stream: what an encoder queues, a decoder finds, whatever the cuts; what breaks the
//! rules is refused with the right status.

use block_io::{Buffer, BufferPool};

use super::*;

/// A small generator of test numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

const LIMITS: Limits = Limits { capsule_data_max: 8192, data_max: 256 << 10 };

fn decoder(receiver: Side) -> Decoder {
    Decoder::new(receiver, BufferPool::heap().allocate(4096), LIMITS)
}

/// A decoder past the initialization PDUs.
fn ready(receiver: Side, digests: Digests) -> Decoder {
    let mut decoder = decoder(receiver);
    let mut encoder = Encoder::new(&BufferPool::heap());
    match receiver {
        Side::Host => encoder.push_initialize_response(&InitializeResponse {
            controller_data_alignment: 0,
            digests,
            host_data_max: 65536,
        }),
        Side::Controller => encoder.push_initialize_request(&InitializeRequest {
            host_data_alignment: 0,
            digests,
            ready_to_transfer_max: 0,
        }),
    }
    feed(&mut decoder, &bytes_of(&mut encoder));
    assert!(matches!(decoder.next_event(), Ok(Some(Decoded::Pdu(_)))));
    decoder.set_digests(digests);
    decoder
}

fn bytes_of(encoder: &mut Encoder) -> Vec<u8> {
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, usize::MAX);
    let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
    assert_eq!(bytes.len(), encoder.queued_bytes());
    encoder.transmitted(bytes.len());
    bytes
}

/// One receive of as much of `bytes` as fits; returns how many it took.
fn receive(decoder: &mut Decoder, bytes: &[u8]) -> usize {
    let mut pieces = Vec::new();
    decoder.receive_into(&mut pieces);
    let mut rest = bytes;
    for piece in pieces {
        let length = piece.len().min(rest.len());
        piece.slice(0, length).copy_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    let taken = bytes.len() - rest.len();
    decoder.received(taken);
    taken
}

fn feed(decoder: &mut Decoder, bytes: &[u8]) {
    assert_eq!(receive(decoder, bytes), bytes.len(), "fits in staging");
}

/// What went over the wire: the PDU and its data.
type Sent = (Pdu, Vec<u8>);

fn push_random(encoder: &mut Encoder, random: &mut Random, pool: &BufferPool, to: Side) -> Sent {
    let lengths = [4, 512, 2044, 2048, 4096, 8192, 17 << 10, 130 << 10];
    let data = |random: &mut Random, count: usize| {
        let buffer = pool.allocate(lengths[random.next(count)]);
        let bytes: Vec<u8> = (0..buffer.len()).map(|_| random.next(256) as u8).collect();
        buffer.copy_from_slice(&bytes);
        (buffer, bytes)
    };
    let number = random.next(1 << 16) as u16;
    match (to, random.next(3)) {
        (Side::Controller, 0) => {
            let command = [number as u8; COMMAND_LENGTH];
            encoder.push_command(&command, None);
            (Pdu::Command(CommandCapsule { command, data_length: 0 }), Vec::new())
        }
        (Side::Controller, 1) => {
            let command = [number as u8; COMMAND_LENGTH];
            let (buffer, bytes) = data(random, 6);
            encoder.push_command(&command, Some(&buffer));
            (Pdu::Command(CommandCapsule { command, data_length: bytes.len() as u32 }), bytes)
        }
        (_, 2) => {
            let (buffer, bytes) = data(random, 8);
            let last = random.next(2) == 0;
            let fields = DataHeader {
                command: number,
                transfer_tag: if to == Side::Controller { 77 } else { 0 },
                offset: u32::from(number) * 4,
                length: bytes.len() as u32,
                last,
                success: last && to == Side::Host,
            };
            match to {
                Side::Host => encoder.push_controller_data(&fields, &buffer),
                Side::Controller => encoder.push_host_data(&fields, &buffer),
            }
            let pdu = match to {
                Side::Host => Pdu::ControllerData(fields),
                Side::Controller => Pdu::HostData(fields),
            };
            (pdu, bytes)
        }
        (Side::Host, 0) => {
            let completion = [number as u8; COMPLETION_LENGTH];
            encoder.push_response(&completion);
            (Pdu::Response(completion), Vec::new())
        }
        _ => {
            let fields =
                ReadyToTransfer { command: number, transfer_tag: 3, offset: 8, length: 4096 };
            encoder.push_ready_to_transfer(&fields);
            (Pdu::ReadyToTransfer(fields), Vec::new())
        }
    }
}

/// Moves up to `limit` bytes in one go, by short sends, short receives and any cuts.
fn transfer(encoder: &mut Encoder, decoder: &mut Decoder, limit: usize) {
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, 7);
    let mut bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
    bytes.truncate(limit);
    let taken = receive(decoder, &bytes);
    if taken > 0 {
        encoder.transmitted(taken);
    }
}

#[test]
fn what_is_encoded_is_decoded_whatever_the_cuts() {
    for seed in 1..200_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let digests = Digests { header: seed & 1 != 0, data: seed & 2 != 0 };
        let to = if seed & 4 != 0 { Side::Host } else { Side::Controller };
        let pool = BufferPool::heap();
        let mut encoder = Encoder::new(&pool);
        encoder.set_parameters(digests, random.next(32) as u8);
        let mut decoder = ready(to, digests);
        let mut sent: std::collections::VecDeque<Sent> = std::collections::VecDeque::new();
        let (mut pushed, mut found, mut place) = (0, 0, None);
        while found < 60 {
            if pushed < 60 && random.next(3) == 0 {
                sent.push_back(push_random(&mut encoder, &mut random, &pool, to));
                pushed += 1;
            }
            let limit = [1, 24, 100, 5000, 1 << 20][random.next(5)];
            transfer(&mut encoder, &mut decoder, limit);
            while let Some(event) = decoder.next_event().expect("valid PDUs") {
                match event {
                    Decoded::Pdu(pdu) => {
                        let (expected, data) = sent.front().expect("it was sent");
                        assert_eq!(&pdu, expected, "seed {seed}");
                        if data.is_empty() {
                            sent.pop_front();
                            found += 1;
                        } else {
                            let buffer = pool.allocate(data.len());
                            decoder.place_payload(buffer.clone());
                            place = Some(buffer);
                        }
                    }
                    Decoded::PayloadDone { digest_matches } => {
                        assert!(digest_matches, "seed {seed}");
                        let (_, data) = sent.pop_front().expect("it was sent");
                        let place = place.take().expect("a place was given");
                        assert!(place.to_vec() == data, "seed {seed}: payload differs");
                        found += 1;
                    }
                }
            }
        }
        assert!(encoder.is_empty());
    }
}

#[test]
fn many_small_pdus_are_one_piece() {
    let pool = BufferPool::heap();
    let mut encoder = Encoder::new(&pool);
    let data = pool.allocate(512);
    for _ in 0..20 {
        encoder.push_command(&[1; COMMAND_LENGTH], Some(&data));
    }
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, 64);
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].len(), 20 * (72 + 512));
}

#[test]
fn large_payloads_are_not_copied() {
    let pool = BufferPool::heap();
    let mut encoder = Encoder::new(&pool);
    let data = pool.allocate(4096);
    encoder.push_command(&[1; COMMAND_LENGTH], Some(&data));
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, 64);
    assert_eq!(pieces.iter().map(Buffer::len).collect::<Vec<_>>(), [72, 4096]);
    assert_eq!(pieces[1].as_ptr(), data.as_ptr());

    let mut decoder = ready(Side::Controller, Digests::default());
    let header: Vec<u8> = pieces[0].to_vec();
    feed(&mut decoder, &header);
    decoder.next_event().expect("valid");
    let place = pool.allocate(4096);
    decoder.place_payload(place.clone());
    let mut targets = Vec::new();
    decoder.receive_into(&mut targets);
    assert_eq!(targets[0].as_ptr(), place.as_ptr(), "the socket writes to the payload's place");
    assert_eq!(targets[0].len(), 4096);
    assert_eq!(targets.len(), 2, "and what follows goes to staging");
}

#[test]
fn a_wrong_data_digest_is_told_and_the_stream_goes_on() {
    let digests = Digests { header: true, data: true };
    let pool = BufferPool::heap();
    let mut encoder = Encoder::new(&pool);
    encoder.set_parameters(digests, 0);
    let data = pool.allocate(512);
    data.fill(5);
    for _ in 0..2 {
        encoder.push_command(&[1; COMMAND_LENGTH], Some(&data));
    }
    let mut bytes = bytes_of(&mut encoder);
    bytes[100] ^= 1;
    let mut decoder = ready(Side::Controller, digests);
    feed(&mut decoder, &bytes);
    for expected in [false, true] {
        assert!(matches!(decoder.next_event(), Ok(Some(Decoded::Pdu(Pdu::Command(_))))));
        decoder.place_payload(pool.allocate(512));
        let done = Decoded::PayloadDone { digest_matches: expected };
        assert_eq!(decoder.next_event(), Ok(Some(done)));
    }
}

#[test]
fn skipped_data_are_gone() {
    let pool = BufferPool::heap();
    let mut encoder = Encoder::new(&pool);
    encoder.push_command(&[1; COMMAND_LENGTH], Some(&pool.allocate(3000)));
    encoder.push_command(&[2; COMMAND_LENGTH], None);
    let bytes = bytes_of(&mut encoder);
    let mut decoder = ready(Side::Controller, Digests::default());
    let mut fed = receive(&mut decoder, &bytes[..1000]);
    decoder.next_event().expect("valid");
    decoder.skip_payload();
    assert_eq!(decoder.next_event(), Ok(None));
    while fed < bytes.len() {
        fed += receive(&mut decoder, &bytes[fed..]);
    }
    let done = Decoded::PayloadDone { digest_matches: true };
    assert_eq!(decoder.next_event(), Ok(Some(done)));
    let command = CommandCapsule { command: [2; 64], data_length: 0 };
    assert_eq!(decoder.next_event(), Ok(Some(Decoded::Pdu(Pdu::Command(command)))));
}

#[test]
fn a_termination_travels_both_ways() {
    let error = PduError::HeaderDigest { received: 0xABCD, computed: 1 };
    for (sender, receiver) in [(Side::Host, Side::Controller), (Side::Controller, Side::Host)] {
        let mut encoder = Encoder::new(&BufferPool::heap());
        encoder.push_termination(sender, &error, &[9; 128]);
        let bytes = bytes_of(&mut encoder);
        assert_eq!(bytes.len(), 152);
        for mut decoder in
            [decoder(receiver), ready(receiver, Digests { header: true, data: true })]
        {
            feed(&mut decoder, &bytes[..30]);
            assert_eq!(decoder.next_event(), Ok(None), "the whole PDU is awaited");
            feed(&mut decoder, &bytes[30..]);
            let termination =
                Termination { status: FatalErrorStatus::HeaderDigestError, information: 0xABCD };
            let expected = Decoded::Pdu(Pdu::Termination(termination));
            assert_eq!(decoder.next_event(), Ok(Some(expected)));
        }
    }
}

/// Bytes of a header with these eight first.
fn header(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32) -> Vec<u8> {
    let mut bytes = vec![kind, flags, hlen, pdo];
    bytes.extend(plen.to_le_bytes());
    bytes.resize(usize::from(hlen).max(152), 0);
    bytes
}

fn with(mut bytes: Vec<u8>, offset: usize, value: u32) -> Vec<u8> {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn refused(mut decoder: Decoder, bytes: &[u8], status: u16, information: u32) {
    feed(&mut decoder, bytes);
    let error = match decoder.next_event() {
        Err(error) => error,
        other => panic!("{:02x?}: expected FES {status}, got {other:?}", &bytes[..24]),
    };
    let got = (error.status().number(), error.information());
    assert_eq!(got, (status, information), "{:02x?}: {error}", &bytes[..24]);
    assert_eq!(&decoder.last_header()[..8], &bytes[..8], "the TermReq can quote it");
    assert!(!error.to_string().is_empty());
}

#[test]
fn malformed_headers_are_refused_by_status_and_field() {
    let plain = Digests::default();
    let host = |bytes: Vec<u8>, status, information| {
        refused(ready(Side::Host, plain), &bytes, status, information);
    };
    let controller = |bytes: Vec<u8>, status, information| {
        refused(ready(Side::Controller, plain), &bytes, status, information);
    };
    // Types: unknown, reserved, or of the wrong direction.
    for kind in [8, 10, 255, 0, 2, 4, 6] {
        host(header(kind, 0, 24, 0, 24), 1, 0);
    }
    for kind in [8, 10, 255, 1, 3, 5, 7, 9] {
        controller(header(kind, 0, 24, 0, 24), 1, 0);
    }
    // HLEN.
    controller(header(4, 0, 71, 0, 72), 1, 2);
    controller(header(6, 0, 72, 24, 72), 1, 2);
    host(header(5, 0, 0, 0, 24), 1, 2);
    host(header(9, 0, 255, 0, 255), 1, 2);
    // PLEN: too short, too long for the type, past the limit.
    controller(header(4, 0, 72, 0, 71), 1, 4);
    controller(header(4, 0, 72, 0, 0), 1, 4);
    controller(header(4, 0, 72, 72, 72 + 8192 + 4), 1, 4);
    controller(header(4, 0, 72, 72, u32::MAX), 1, 4);
    host(header(5, 0, 24, 0, 25), 1, 4);
    host(header(9, 0, 24, 0, 4096), 1, 4);
    host(header(3, 0, 24, 0, 23), 1, 4);
    host(header(3, 0, 24, 0, 153), 1, 4);
    controller(with(header(6, 4, 24, 24, 24 + (256 << 10) + 4), 16, (256 << 10) + 4), 5, 0);
    // PDO: inside the header, behind the PDU.
    controller(header(4, 0, 72, 71, 584), 1, 3);
    controller(header(4, 0, 72, 0, 584), 1, 3);
    controller(header(4, 0, 72, 200, 200), 1, 4);
    // Flags that do not fit what was negotiated.
    controller(header(4, 1, 72, 0, 72), 1, 1);
    controller(header(4, 2, 72, 72, 584), 1, 1);
    host(with(header(7, 8, 24, 24, 536), 16, 512), 1, 1);
    // DATAL and DATAO.
    controller(header(6, 4, 24, 0, 24), 1, 16);
    controller(with(header(6, 4, 24, 24, 536), 16, 508), 1, 16);
    host(with(header(7, 4, 24, 24, 34), 16, 10), 1, 16);
    host(with(with(header(7, 4, 24, 24, 536), 16, 512), 12, 2), 1, 12);
    // R2TO and R2TL.
    host(with(header(9, 0, 24, 0, 24), 12, 3), 1, 12);
    host(header(9, 0, 24, 0, 24), 1, 16);
    host(with(header(9, 0, 24, 0, 24), 16, 5), 1, 16);
}

#[test]
fn initialization_comes_first_and_once() {
    let digests = Digests::default();
    refused(decoder(Side::Controller), &header(4, 0, 72, 0, 72), 2, 0);
    refused(decoder(Side::Host), &header(5, 0, 24, 0, 24), 2, 0);
    refused(ready(Side::Controller, digests), &header(0, 0, 128, 0, 128), 2, 0);
    refused(ready(Side::Host, digests), &header(1, 0, 128, 0, 128), 2, 0);
    // Its fields.
    let request = || header(0, 0, 128, 0, 128);
    refused(decoder(Side::Controller), &with(request(), 8, 1), 6, 8);
    refused(decoder(Side::Controller), &with(request(), 10, 32), 1, 10);
    refused(decoder(Side::Controller), &header(0, 0, 128, 0, 129), 1, 4);
    let response = || header(1, 0, 128, 0, 128);
    for value in [0, 4095, 4092, 4098] {
        refused(decoder(Side::Host), &with(response(), 12, value), 1, 12);
    }
    refused(decoder(Side::Host), &with(with(response(), 8, 7), 12, 4096), 6, 8);
}

#[test]
fn digests_negotiated_must_be_there_and_match() {
    let digests = Digests { header: true, data: true };
    refused(ready(Side::Controller, digests), &header(4, 0, 72, 0, 72), 1, 1);
    refused(ready(Side::Controller, digests), &header(4, 1, 72, 76, 592), 1, 1);
    let wrong = with(header(4, 1, 72, 0, 76), 72, 0x1234);
    refused(ready(Side::Controller, digests), &wrong, 3, 0x1234);
    refused(ready(Side::Controller, digests), &header(4, 3, 72, 72, 592), 1, 3);
    refused(ready(Side::Controller, digests), &header(4, 3, 72, 76, 80), 1, 4);
}

#[test]
fn random_bytes_never_panic() {
    for seed in 1..3000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let side = if seed & 1 == 0 { Side::Host } else { Side::Controller };
        let digests = Digests { header: seed & 2 != 0, data: seed & 4 != 0 };
        let mut decoder = ready(side, digests);
        let kinds = [4, 5, 6, 7, 9];
        'stream: for _ in 0..50 {
            let mut bytes: Vec<u8> = (0..300).map(|_| random.next(256) as u8).collect();
            if random.next(4) > 0 {
                let kind = kinds[random.next(5)];
                bytes[0] = kind;
                bytes[1] = random.next(16) as u8;
                bytes[2] = if kind == 4 { 72 } else { 24 };
                bytes[3] = [0, 24, 28, 72, 76][random.next(5)];
                bytes[6..8].fill(0);
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let taken = receive(&mut decoder, rest);
                rest = &rest[taken..];
                loop {
                    match decoder.next_event() {
                        Ok(Some(Decoded::Pdu(pdu))) if pdu.data_length() > 0 => {
                            decoder.skip_payload();
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }
}
