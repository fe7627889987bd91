//! Every cut, every truncation and many corruptions of a whole valid exchange.

use block_io::Geometry;

use super::{Bench, go, option, queries, request};

const SIZE: u64 = 1 << 20;

/// A client's side of a session that uses everything.
fn session() -> Vec<u8> {
    [
        3_u32.to_be_bytes().to_vec(),
        option(5, b""),
        option(3, b""),
        option(8, b""),
        option(9, &queries("disk", &["base:"])),
        option(10, &queries("disk", &["base:allocation"])),
        option(6, &go("second", &[1, 2])),
        option(7, &go("disk", &[3])),
        request(0, 1, 1, 512, 1024),
        vec![0x5a; 1024],
        request(4, 0, 2, 512, 2048),
        request(0, 1, 3, 1, 512),
        vec![0x25; 512],
        request(0, 4, 4, 0, 4096),
        request(8, 7, 5, 0, 4096),
        request(1, 6, 6, 4096, 4096),
        request(0, 3, 7, 0, 0),
        request(0, 2, 8, 0, 0),
    ]
    .concat()
}

fn run(pieces: &[&[u8]]) -> (Bench, Vec<u8>) {
    let mut bench = Bench::new(Geometry::new(SIZE));
    let mut sent = bench.sent();
    for piece in pieces {
        let fault = bench.take(piece).is_err();
        sent.extend(bench.sent());
        if fault {
            break;
        }
    }
    (bench, sent)
}

/// The replies one by one and sorted: a device may answer in any order, and how the bytes come
/// decides what it has at once.
fn replies(sent: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_be_bytes(sent[at..at + 4].try_into().unwrap()) as usize;
    let mut replies = Vec::new();
    let mut at = 0;
    while at < sent.len() {
        let length = match word(at) {
            0x4e42_444d => 18,
            0x0003_e889 => 20 + word(at + 16),
            0x6744_6698 => 16,
            0x668e_33ef => 20 + word(at + 16),
            other => panic!("no reply begins with {other:#x}"),
        };
        replies.push(&sent[at..at + length]);
        at += length;
    }
    replies.sort_unstable();
    replies
}

#[test]
fn wherever_the_stream_is_cut_the_answers_are_the_same() {
    let session = session();
    let (bench, whole) = run(&[&session]);
    assert!(bench.connection.is_finished(), "the session ends with a disconnect");
    assert_eq!(replies(&whole).len(), 24);
    for cut in 0..=session.len() {
        let (one, two) = session.split_at(cut);
        let (bench, sent) = run(&[one, two]);
        assert!(replies(&sent) == replies(&whole), "cut at {cut}");
        assert!(bench.connection.is_finished(), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = session.chunks(1).collect();
    assert!(replies(&run(&bytes).1) == replies(&whole), "byte by byte");
}

#[test]
fn a_truncated_session_is_answered_as_far_as_it_goes() {
    let session = session();
    let bytes: Vec<&[u8]> = session.chunks(1).collect();
    let (_, whole) = run(&bytes);
    for length in 0..session.len() {
        let (bench, sent) = run(&bytes[..length]);
        assert!(whole.starts_with(&sent), "length {length}");
        assert!(!bench.connection.is_finished(), "length {length}");
    }
}

#[test]
fn no_corrupted_byte_panics() {
    let session = session();
    for index in 0..session.len() {
        // All of a byte's bits one by one, and the extremes.
        let original = session[index];
        let values = (0..8).map(|bit| original ^ 1 << bit).chain([0, 0xff, 0x7f, 0x80]);
        for value in values {
            let mut bytes = session.clone();
            bytes[index] = value;
            let (mut bench, _) = run(&[&bytes]);
            bench.connection.close();
            bench.work();
            bench.sent();
            assert!(bench.connection.is_finished(), "byte {index} = {value:#x}");
        }
    }
}

#[test]
fn no_noise_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000 {
        let mut bytes = session();
        for _ in 0..1 + round % 16 {
            // xorshift64: the same noise in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let index = state as usize % bytes.len();
            bytes[index] = (state >> 32) as u8;
        }
        let (mut bench, _) = run(&[&bytes]);
        bench.connection.close();
        bench.work();
        bench.sent();
        assert!(bench.connection.is_finished(), "round {round}");
    }
}
