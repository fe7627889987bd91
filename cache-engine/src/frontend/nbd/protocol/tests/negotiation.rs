//! Options and their answers.

use block_io::{BufferPool, Geometry};

use super::super::{
    Connection, Export, Limits, OPTION_LENGTH_MAX, OPTION_SKIPPED_MAX, OPTIONS_MAX, PeerFault,
};
use super::{Bench, go, option, queries, reply, string};

const SIZE: u64 = 1 << 20;
const ERR_UNSUP: u32 = 0x8000_0001;
const ERR_INVALID: u32 = 0x8000_0003;
const ERR_UNKNOWN: u32 = 0x8000_0006;
const ERR_BLOCK_SIZE_REQD: u32 = 0x8000_0008;
const ERR_TOO_BIG: u32 = 0x8000_0009;

fn bench() -> Bench {
    Bench::greeted(Geometry::new(SIZE))
}

/// Kind of the one reply to `option`, whose message is not the matter here.
fn kind(bytes: &[u8], option: u32) -> u32 {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[..8], &0x0003_e889_0455_65a9_u64.to_be_bytes());
    assert_eq!(word(8), option);
    assert_eq!(word(16) as usize, bytes.len() - 20, "one reply");
    word(12)
}

#[test]
fn go_tells_size_flags_name_description_and_block_sizes() {
    let mut bench = bench();
    let answer = bench.exchange(&option(7, &go("", &[3, 1, 2, 999])));
    let mut export = vec![0, 0];
    export.extend(SIZE.to_be_bytes());
    export.extend(0b1001_0110_1101_u16.to_be_bytes());
    let mut sizes = vec![0, 3];
    [512_u32, 4096, 32 << 20].iter().for_each(|size| sizes.extend(size.to_be_bytes()));
    let expected = [
        reply(7, 3, &export),
        reply(7, 3, b"\x00\x01disk"),
        reply(7, 3, b"\x00\x02The disk"),
        reply(7, 3, &sizes),
        reply(7, 1, b""),
    ];
    assert_eq!(answer, expected.concat());
    assert_eq!(bench.connection.export(), Some(0));
}

#[test]
fn info_leaves_the_client_in_negotiation() {
    let mut bench = bench();
    assert!(bench.exchange(&option(6, &go("second", &[]))).ends_with(&reply(6, 1, b"")));
    assert_eq!(bench.connection.export(), None);
    bench.exchange(&option(7, &go("second", &[])));
    assert_eq!(bench.connection.export(), Some(1));
}

#[test]
fn large_blocks_have_to_be_asked_for() {
    let geometry = Geometry { block_size: 4096, ..Geometry::new(SIZE) };
    let mut bench = Bench::greeted(geometry);
    assert!(bench.exchange(&option(6, &go("", &[]))).ends_with(&reply(6, 1, b"")));
    assert_eq!(kind(&bench.exchange(&option(7, &go("", &[]))), 7), ERR_BLOCK_SIZE_REQD);
    assert_eq!(bench.connection.export(), None);
    bench.exchange(&option(7, &go("", &[3])));
    assert_eq!(bench.connection.export(), Some(0));
}

#[test]
fn list_names_every_export() {
    let expected = [
        reply(3, 2, b"\0\0\0\x04diskThe disk"),
        reply(3, 2, b"\0\0\0\x06second"),
        reply(3, 1, b""),
    ];
    assert_eq!(bench().exchange(&option(3, b"")), expected.concat());
    assert_eq!(kind(&bench().exchange(&option(3, b"x")), 3), ERR_INVALID);
}

#[test]
fn export_name_answers_in_the_old_form() {
    let mut bench = bench();
    let mut expected = SIZE.to_be_bytes().to_vec();
    expected.extend(0b1001_0110_1101_u16.to_be_bytes());
    assert_eq!(bench.exchange(&option(1, b"second")), expected);
    assert_eq!(bench.connection.export(), Some(1));

    let mut old = Bench::new(Geometry::new(SIZE));
    old.sent();
    old.take(&[0; 4]).unwrap();
    let answer = old.exchange(&option(1, b""));
    assert_eq!((&answer[..10], &answer[10..]), (&expected[..], &[0; 124][..]));

    let mut old = Bench::new(Geometry::new(SIZE));
    old.take(&[0; 4]).unwrap();
    assert_eq!(old.take(&option(3, b"")), Err(PeerFault::OptionWithoutFixedNewstyle(3)));
    assert_eq!(self::bench().take(&option(1, b"third")), Err(PeerFault::UnknownExport));
}

#[test]
fn abort_is_acknowledged_and_ends() {
    let mut bench = bench();
    bench.take(&option(2, b"")).unwrap();
    assert!(!bench.connection.is_finished(), "the acknowledgement has to go first");
    assert_eq!(bench.sent(), reply(2, 1, b""));
    assert!(bench.connection.is_finished());
    assert!(!bench.connection.wants_bytes());
}

#[test]
fn what_is_not_supported_is_refused_and_negotiation_goes_on() {
    let mut bench = bench();
    // PEEK_EXPORT, STARTTLS, EXTENDED_HEADERS, and two that do not exist.
    for number in [4, 5, 11, 0, u32::MAX] {
        assert_eq!(kind(&bench.exchange(&option(number, b"data")), number), ERR_UNSUP);
    }
    assert_eq!(bench.exchange(&option(8, b"")), reply(8, 1, b""));
}

#[test]
fn malformed_options_are_refused_by_kind() {
    let long = string(&"x".repeat(4097));
    for (number, data, expected) in [
        (7, Vec::new(), ERR_INVALID),
        (7, go("third", &[]), ERR_UNKNOWN),
        (7, go("disk", &[3])[..11].to_vec(), ERR_INVALID),
        (7, [go("disk", &[3]), vec![0]].concat(), ERR_INVALID),
        (7, b"\xff\xff\xff\xff\0\0".to_vec(), ERR_TOO_BIG),
        (6, b"\0\0\0\x05disk\0\0".to_vec(), ERR_INVALID),
        (6, [long.clone(), vec![0, 0]].concat(), ERR_TOO_BIG),
        (8, b"x".to_vec(), ERR_INVALID),
        (9, b"\0\0\0\0\xff\xff\xff\xff".to_vec(), ERR_INVALID),
        (9, [b"\0\0\0\0\0\0\0\x01".to_vec(), long].concat(), ERR_TOO_BIG),
        (9, queries("third", &[]), ERR_UNKNOWN),
        (10, queries("disk", &["base:allocation"]), ERR_INVALID),
    ] {
        let mut bench = bench();
        assert_eq!(kind(&bench.exchange(&option(number, &data)), number), expected, "{data:?}");
        assert_eq!(bench.exchange(&option(8, b"")), reply(8, 1, b""), "negotiation goes on");
    }
}

#[test]
fn metadata_contexts_are_listed_and_set() {
    let listed = [reply(9, 4, b"\0\0\0\0base:allocation"), reply(9, 1, b"")].concat();
    let none = reply(9, 1, b"");
    for (asked, answer) in [
        (&[][..], &listed),
        (&["base:"], &listed),
        (&["base:allocation"], &listed),
        (&["qemu:", "base:allocation", "base:"], &listed),
        (&["base"], &none),
        (&["base:allocation2"], &none),
        (&["qemu:dirty-bitmap:x"], &none),
    ] {
        assert_eq!(&bench().exchange(&option(9, &queries("", asked))), answer, "{asked:?}");
    }
    let mut bench = bench();
    bench.exchange(&option(8, b""));
    let set = [reply(10, 4, b"\0\0\0\x01base:allocation"), reply(10, 1, b"")].concat();
    assert_eq!(bench.exchange(&option(10, &queries("disk", &["x:", "base:allocation"]))), set);
    for asked in [&[][..], &["base:"], &["qemu:x"]] {
        assert_eq!(bench.exchange(&option(10, &queries("", asked))), reply(10, 1, b""));
    }
}

#[test]
fn option_lengths_and_counts_are_bounded() {
    let header = |number: u32, length: u32| {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes
    };
    let mut bench = bench();
    bench.take(&header(7, OPTION_LENGTH_MAX + 1)).unwrap();
    bench.take(&vec![b'I'; OPTION_LENGTH_MAX as usize]).unwrap();
    assert!(bench.sent().is_empty());
    let answer = bench.exchange(b"I");
    assert_eq!(kind(&answer, 7), ERR_TOO_BIG);
    assert_eq!(bench.exchange(&option(8, b"")), reply(8, 1, b""));
    for length in [OPTION_SKIPPED_MAX + 1, u32::MAX] {
        let fault = self::bench().take(&header(7, length));
        assert_eq!(fault, Err(PeerFault::OptionLength(length)));
    }
    let fault = self::bench().take(&header(1, OPTION_LENGTH_MAX + 1));
    assert_eq!(fault, Err(PeerFault::OptionLength(OPTION_LENGTH_MAX + 1)));
    for _ in 1..OPTIONS_MAX {
        bench.sent();
        if let Err(fault) = bench.take(&option(99, b"")) {
            assert_eq!(fault, PeerFault::OptionCount(OPTIONS_MAX + 1));
            return;
        }
    }
    panic!("no end of options");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_listened_to() {
    let pool = BufferPool::heap();
    let description = "x".repeat(4096);
    let exports = (0..20).map(|index| Export {
        name: format!("export {index}"),
        description: description.clone(),
        geometry: Geometry::new(SIZE),
    });
    let mut connection = Connection::new(exports.collect(), pool.clone(), Limits::default());
    let bytes = [&3_u32.to_be_bytes()[..], &option(3, b""), &option(3, b"")].concat();
    let buffer = pool.allocate(bytes.len());
    buffer.copy_from_slice(&bytes);
    assert_eq!(connection.receive(&buffer), Ok(20), "one list is more than may wait");
    assert!(!connection.wants_bytes());
    let waiting = connection.outgoing().bytes();
    connection.outgoing().sent(waiting as usize - 1000);
    assert!(connection.wants_bytes());
    assert_eq!(connection.receive(&buffer.slice(20, 16)), Ok(16));
}

#[test]
fn wrong_magics_and_flags_are_faults() {
    let mut bench = Bench::new(Geometry::new(SIZE));
    assert_eq!(bench.take(&7_u32.to_be_bytes()), Err(PeerFault::ClientFlags(7)));
    let fault = self::bench().take(b"IHAVEOPS\0\0\0\x03\0\0\0\0");
    assert_eq!(fault, Err(PeerFault::OptionMagic(0x4948_4156_454f_5053)));
}
