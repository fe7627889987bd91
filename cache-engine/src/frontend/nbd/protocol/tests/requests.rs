//! Requests and their replies.

use block_io::{Extent, Geometry};

use super::super::PeerFault;
use super::{Bench, chunk, go, option, queries, request, simple};

const SIZE: u64 = 1 << 20;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;
const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST_ZERO: u16 = 16;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index / 7) as u8 ^ index as u8 ^ seed).collect()
}

#[test]
fn bytes_written_are_read_back_in_both_reply_styles() {
    for structured in [false, true] {
        let mut bench = Bench::transmitting(Geometry::new(SIZE), structured);
        let data = pattern(8192, 3);
        let write = [request(0, WRITE, 11, 512, 8192), data.clone()].concat();
        assert_eq!(bench.exchange(&write), simple(0, 11));
        assert_eq!(bench.device.content(Extent::new(512, 8192)), data);
        let answer = bench.exchange(&request(if structured { DF } else { 0 }, READ, 12, 1024, 512));
        let read = &data[512..1024];
        let expected = match structured {
            true => chunk(1, 12, &[&1024_u64.to_be_bytes(), read].concat()),
            false => [&simple(0, 12), read].concat(),
        };
        assert_eq!(answer, expected);
    }
}

#[test]
fn commands_without_data_do_what_they_say() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), true);
    bench.exchange(&[request(FUA, WRITE, 1, 0, 4096), pattern(4096, 1)].concat());
    assert_eq!(bench.exchange(&request(0, FLUSH, 2, 0, 0)), simple(0, 2));
    assert_eq!(bench.exchange(&request(FUA, TRIM, 3, 0, 512)), simple(0, 3));
    let flags = FUA | NO_HOLE | FAST_ZERO;
    assert_eq!(bench.exchange(&request(flags, WRITE_ZEROES, 4, 1024, 512)), simple(0, 4));
    let content = bench.device.content(Extent::new(0, 4096));
    assert_eq!(
        (&content[1024..1536], &content[512..514]),
        (&[0; 512][..], &pattern(514, 1)[512..])
    );
    let status = |length: u32| {
        let length = length.to_be_bytes();
        chunk(5, 5, &[&[0, 0, 0, 1][..], &length, &[0; 4]].concat())
    };
    assert_eq!(bench.exchange(&request(REQ_ONE, BLOCK_STATUS, 5, 512, 1024)), status(1024));
    assert_eq!(bench.exchange(&request(0, BLOCK_STATUS, 5, 0, SIZE as u32)), status(SIZE as u32));
}

/// One row a request: flags, command, offset, length, error of a writable, of a read-only export.
#[test]
fn refused_requests_name_the_error_and_the_connection_lives() {
    let size = SIZE;
    for (flags, command, offset, length, writable, read_only) in [
        (0, READ, size, 512, 22, 22),
        (0, READ, size - 512, 1024, 22, 22),
        (0, READ, u64::MAX - 511, 512, 22, 22),
        (0, READ, 0, 0, 22, 22),
        (0, READ, 1, 512, 22, 22),
        (0, READ, 0, 511, 22, 22),
        (0, READ, 0, (32 << 20) + 512, 22, 22),
        (NO_HOLE, READ, 0, 512, 22, 22),
        (0x8000, READ, 0, 512, 22, 22),
        (0, WRITE, size, 512, 28, 1),
        (0, WRITE, u64::MAX - 511, 512, 28, 1),
        (0, WRITE, 0, 0, 22, 1),
        (0, WRITE, 7, 512, 22, 1),
        (DF, WRITE, 0, 512, 22, 22),
        (0, WRITE, 0, (32 << 20) + 512, 22, 1),
        (0, FLUSH, 512, 0, 22, 22),
        (0, FLUSH, 0, 512, 22, 22),
        (0, TRIM, size, 512, 22, 1),
        (0, TRIM, 0, 100, 22, 1),
        (0, WRITE_ZEROES, size - 512, 1024, 28, 1),
        (REQ_ONE, WRITE_ZEROES, 0, 512, 22, 22),
        (0, CACHE, 0, 512, 22, 22),
        (0, 8, 0, 512, 22, 22),
        (0, u16::MAX, 0, 512, 22, 22),
        (0, BLOCK_STATUS, 0, 512, 22, 22),
        (FAST_ZERO, BLOCK_STATUS, 0, 512, 22, 22),
    ] {
        for (read_only, error) in [(false, writable), (true, read_only)] {
            let geometry = Geometry { read_only, ..Geometry::new(SIZE) };
            let mut bench = Bench::transmitting(geometry, false);
            let mut bytes = request(flags, command, 9, offset, length);
            if command == WRITE {
                bytes.resize(bytes.len() + length as usize, 0x25);
            }
            let row = format!("{flags} {command} {offset} {length} read-only {read_only}");
            assert_eq!(bench.exchange(&bytes), simple(error, 9), "{row}");
            let after = [simple(0, 10), vec![0; 512]].concat();
            assert_eq!(bench.exchange(&request(0, READ, 10, 0, 512)), after, "{row}");
        }
    }
}

#[test]
fn structured_errors_come_as_chunks_where_they_must() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), true);
    let error = [0, 0, 0, 22, 0, 0];
    assert_eq!(bench.exchange(&request(0, READ, 1, SIZE, 512)), chunk(32769, 1, &error));
    assert_eq!(bench.exchange(&request(0, BLOCK_STATUS, 2, SIZE, 512)), chunk(32769, 2, &error));
    assert_eq!(bench.exchange(&request(0, TRIM, 3, SIZE, 512)), simple(22, 3));
}

#[test]
fn block_status_is_for_the_context_that_was_set_last_and_for_its_export() {
    for (name, asked, then, error) in [
        ("", &["base:allocation"][..], None, false),
        ("disk", &["base:allocation"], None, false),
        ("second", &["base:allocation"], None, true),
        ("", &["base:"], None, true),
        ("", &["base:allocation"], Some(queries("", &[])), true),
        ("", &["base:allocation"], Some(queries("nowhere", &["base:allocation"])), true),
    ] {
        let mut bench = Bench::greeted(Geometry::new(SIZE));
        bench.take(&option(8, b"")).unwrap();
        bench.take(&option(10, &queries(name, asked))).unwrap();
        if let Some(then) = then {
            bench.take(&option(10, &then)).unwrap();
        }
        bench.take(&option(7, &go("disk", &[]))).unwrap();
        bench.sent();
        let answer = bench.exchange(&request(0, BLOCK_STATUS, 5, 0, 512));
        let refused = chunk(32769, 5, &[0, 0, 0, 22, 0, 0]);
        assert_eq!(answer == refused, error, "{name} {asked:?}");
    }
}

#[test]
fn a_device_without_zeroing_gets_zero_bytes_and_no_fast_zero() {
    let geometry = Geometry { write_zeroes: false, discard: false, ..Geometry::new(SIZE) };
    let mut bench = Bench::transmitting(geometry, false);
    bench.exchange(&[request(0, WRITE, 1, 0, 400 << 10), pattern(400 << 10, 1)].concat());
    bench.take(&request(FUA, WRITE_ZEROES, 2, 512, 300 << 10)).unwrap();
    assert_eq!(bench.sent(), simple(0, 2));
    let content = bench.device.content(Extent::new(0, 400 << 10));
    let zeroed = 512..512 + (300 << 10);
    assert!(content[zeroed.clone()].iter().all(|byte| *byte == 0));
    assert_eq!(content[..512], pattern(512, 1));
    assert_eq!(content[zeroed.end..], pattern(400 << 10, 1)[zeroed.end..]);
    assert_eq!(bench.exchange(&request(FAST_ZERO, WRITE_ZEROES, 3, 0, 512)), simple(95, 3));
    assert_eq!(bench.exchange(&request(0, TRIM, 4, 0, 512)), simple(95, 4));
}

#[test]
fn disconnect_and_garbage_end_the_connection() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    bench.take(&[request(0, FLUSH, 1, 0, 0), request(0, DISC, 2, 0, 0)].concat()).unwrap();
    assert!(!bench.connection.is_finished(), "the flush is to be answered");
    assert_eq!(bench.sent(), simple(0, 1));
    assert!(bench.connection.is_finished());
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    let fault = bench.take(&[0; 28]);
    assert_eq!(fault, Err(PeerFault::RequestMagic(0)));
}
