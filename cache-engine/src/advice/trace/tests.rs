//! Every format on samples of a few lines, and what is said of bad ones.

use super::*;

fn parse_with(bytes: &[u8], options: &TraceOptions) -> Result<(Format, Vec<Access>), String> {
    let mut found = Vec::new();
    let mut source = bytes;
    let format = read(&mut source, options, &mut |access| found.push(access));
    format.map(|format| (format, found)).map_err(|error| error.to_string())
}

fn parse(bytes: &[u8]) -> Result<(Format, Vec<Access>), String> {
    parse_with(bytes, &TraceOptions::default())
}

fn access(offset: u64, length: u64, is_write: bool) -> Access {
    Access { extent: Extent::new(offset, length), is_write }
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = parse(bytes).expect_err("it is bad");
    assert!(error.contains(expected), "`{expected}` in: {error}");
}

#[test]
fn arc_lists() {
    let found = parse(b"110765 64 0 0\n\n110888 0 0 1\n110829 59 0 2");
    let expected = [access(110_765 * 512, 64 * 512, false), access(110_829 * 512, 59 * 512, false)];
    assert_eq!(found, Ok((Format::ArcList, expected.to_vec())));
    refused(b"1 1 0 0\n1 one 0 0\n", "line 2: count `one`: must be a whole number");
    refused(b"1 1 0 0\n1 1 0\n", "line 2: `1 1 0`: must be four numbers");
    refused(b"1 1 0 0\n36028797018963968 1 0 0\n", "line 2: address 36028797018963968");
    refused(b"1 99999999 0 0\n", "line 1: length 51199999488: must be at most 1073741824");
}

const CLOUD_PHYSICS: &[u8] = b"version,time,op,size,lbn\n1,5633898,2a,512,42932745\n\
    1,5633898,28,6656,40409911\n1,5633899,35,0,0\n";

#[test]
fn csv_with_a_header() {
    let expected = vec![access(42_932_745 * 512, 512, true), access(40_409_911 * 512, 6656, false)];
    assert_eq!(parse(CLOUD_PHYSICS), Ok((Format::Csv, expected)));
    let bytes = parse(b"time;Offset;Length;Type\n1;4096;512;Read\n");
    assert_eq!(bytes, Ok((Format::Csv, vec![access(4096, 512, false)])));
    refused(b"a,b,c\n1,2,3\n", "line 1: `a,b,c`: must be a header with a column for the address");
    refused(b"lbn,op\n1,r\n", "a column for the size (size, ");
    refused(b"lbn,size,op\n1,512,x\n", "line 2: operation `x`: must be read or write");
    refused(b"lbn,size,op\n1,512\n", "line 2: `1,512`: must have 3 columns");
}

#[test]
fn csv_with_columns_named() {
    let columns = "time-col=2, obj-id-col=5, obj-size-col=4, op-col=3, delimiter=,, has-header=1";
    let options = |text: &str| TraceOptions {
        csv_columns: Some(text.parse().expect("columns")),
        ..TraceOptions::default()
    };
    assert_eq!(parse_with(CLOUD_PHYSICS, &options(columns)), parse(CLOUD_PHYSICS));
    let found = parse_with(b"7|8192|100\n", &options("offset-col=2,size-col=3,delimiter=|"));
    assert_eq!(found, Ok((Format::Csv, vec![access(8192, 100, false)])));
    for (text, expected) in [
        ("obj-id-col=0,size-col=2", "obj-id-col `0`: must be a column from 1 to 1000"),
        ("obj-id-col=1", "obj-size-col is missing"),
        ("size-col=1", "obj-id-col or offset-col is missing"),
        ("colour=1", "csv column `colour`: must be one of"),
        ("obj-id-col", "must be KEY=VALUE"),
        ("has-header=maybe", "must be true or false"),
        ("delimiter=xy", "delimiter `xy`: must be"),
    ] {
        let error = text.parse::<CsvColumns>().expect_err(text);
        assert!(error.contains(expected), "`{expected}` in: {error}");
    }
}

fn oracle(object: u64, size: u32) -> Vec<u8> {
    let mut bytes = 5u32.to_le_bytes().to_vec();
    bytes.extend(object.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend((-1i64).to_le_bytes());
    bytes
}

#[test]
fn oracle_general() {
    let mut bytes = oracle(9, 512);
    bytes.extend(oracle(10, 0));
    bytes.extend(oracle(11, 4096));
    let expected = vec![access(9 * 512, 512, false), access(11 * 512, 4096, false)];
    assert_eq!(parse(&bytes), Ok((Format::OracleGeneral, expected)));
    let options = TraceOptions { address_unit: 4096, ..TraceOptions::default() };
    let found = parse_with(&oracle(9, 512), &options).expect("good");
    assert_eq!(found.1, [access(9 * 4096, 512, false)]);
    refused(&bytes[..60], "byte 48: the trace is cut off; a record has 24 bytes");
    bytes.extend(oracle(u64::MAX, 1));
    refused(&bytes, "byte 72: address 18446744073709551615");
}

#[test]
fn blkparse_text() {
    let text = b"  8,0    3        1     0.000000000   697  G   W 223490 + 8 [kjournald]\n\
          8,0    3        2     0.000001829   697  Q  WS 223490 + 8 [kjournald]\n\
          8,0    3        3     0.000002000   697  Q   R 8 + 16 [cat]\n\
          8,0    3        4     0.000002000   697  Q  FN [cat]\n\
          8,0    3        5     0.000002000   697  Q   D 8 + 16 [fstrim]\n\
        CPU0 (sda):\n Reads Queued:           1,        8KiB\n";
    let expected = vec![access(223_490 * 512, 4096, true), access(4096, 8192, false)];
    assert_eq!(parse(text), Ok((Format::Blkparse, expected)));
    refused(b"8,0 3 1 0.0 697 Q R 5 [cat]", "line 1: `8,0 3 1 0.0 697 Q R 5 [cat]`: must end in");
    refused(b"8,0 3 1 0.0 697 Q R x + 8 [cat]", "line 1: sector `x`: must be a whole number");
    refused(b"8,0 3 1 0.0 697 C R 5 + 8 [cat]", "holds no read or write in the format blkparse");
}

fn blktrace_record(action: u32, sector: u64, bytes: u32, payload: &[u8], big: bool) -> Vec<u8> {
    let mut record = Vec::new();
    let mut put = |number: u64, width: usize| {
        let bytes = number.to_be_bytes();
        let field = &bytes[8 - width..];
        record.extend(field.iter().copied().take(if big { width } else { 0 }));
        record.extend(field.iter().rev().copied().take(if big { 0 } else { width }));
    };
    for (number, width) in [(0x6561_7407, 4), (1, 4), (2, 8), (sector, 8), (bytes.into(), 4)] {
        put(number, width);
    }
    for (number, width) in [(action.into(), 4), (3, 4), (4, 4), (0, 4), (0, 2)] {
        put(number, width);
    }
    put(payload.len() as u64, 2);
    record.extend(payload);
    record
}

#[test]
fn blktrace_records_in_either_byte_order() {
    let (queue_read, queue_write) = (1 | 1 << 16 | 1 << 20, 1 | 1 << 17 | 1 << 20);
    for big in [false, true] {
        let mut bytes = blktrace_record(queue_read, 8, 4096, b"", big);
        bytes.extend(blktrace_record(1 << 26, 0, 0, b"a process", big));
        bytes.extend(blktrace_record(queue_write, 16, 512, b"", big));
        bytes.extend(blktrace_record(queue_write | 1 << 29, 16, 512, b"", big));
        let expected = vec![access(4096, 4096, false), access(8192, 512, true)];
        assert_eq!(parse(&bytes), Ok((Format::Blktrace, expected)));
        refused(&bytes[..50], "byte 48: the trace is cut off; a record has 48 bytes");
        refused(&bytes[..100], "byte 48: the trace is cut off; 9 bytes must follow");
        bytes[48] ^= 0xff;
        bytes[51] ^= 0xff;
        refused(&bytes, "byte 48: magic number");
    }
    let mut old = blktrace_record(queue_read, 8, 4096, b"", false);
    old[0] = 6;
    refused(&old, "byte 0: version 6: must be 7");
}

#[test]
fn fio_logs() {
    let second = b"fio version 2 iolog\n/dev/a add\n/dev/a open\n/dev/a read 4096 512\n\
        /dev/b write 0 4096\n/dev/a wait 3 0\n/dev/a close\n";
    let expected = vec![access(4096, 512, false), access(1 << 50, 4096, true)];
    assert_eq!(parse(second), Ok((Format::Iolog, expected.clone())));
    let third = b"fio version 3 iolog\n0 /dev/a add\n5 /dev/a read 4096 512\n\
        7 /dev/b write 0 4096\n9 /dev/a close\n";
    assert_eq!(parse(third), Ok((Format::Iolog, expected)));
    refused(b"fio version 9 iolog\n", "line 1: `fio version 9 iolog`: must be");
    refused(b"fio version 2 iolog\na peek 1 2\n", "line 2: action `peek`: must be add");
    refused(b"fio version 2 iolog\na read 1\n", "line 2: `a read 1`: must end in `read OFFSET");
    refused(b"fio version 3 iolog\nx a read 1 1\n", "line 2: time `x`: must be a whole number");
    let far = format!("fio version 2 iolog\na read {} 1\n", 1u64 << 50);
    refused(far.as_bytes(), "line 2: offset 1125899906842624: must be below");
}

/// `1 1 0 0\n` by the zstd program: a frame with a checksum.
const FRAME: &[u8] = &[
    0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x08, 0x41, 0x00, 0x00, 0x31, 0x20, 0x31, 0x20, 0x30, 0x20, 0x30,
    0x0a,
];
const CHECKSUM: [u8; 4] = [0x56, 0xdb, 0x54, 0xb0];

#[test]
fn zstd_frames_are_read_through() {
    let frame = [FRAME, &CHECKSUM].concat();
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
    let whole = [&skippable[..], &frame, &skippable, &frame].concat();
    let (format, found) = parse(&whole).expect("good");
    assert_eq!((format, found.len()), (Format::ArcList, 2));
    let mut wrong = frame.clone();
    *wrong.last_mut().expect("not empty") ^= 1;
    refused(&wrong, "reading: zstd: a frame's checksum is wrong");
    refused(&frame[..12], "reading: zstd: ");
    refused(&skippable[..9], "reading: ");
}

#[test]
fn what_is_no_trace_is_said_to_be_none() {
    refused(b"", "is empty");
    refused(b"hello world\n", "begins with `hello world`; name its format, one of arc, csv");
    refused(&vec![b'1'; 10_000], "name its format");
    refused(format!("1 1 0 0\n{}", "1".repeat(9000)).as_bytes(), "line 2: a line must be shorter");
    refused(b"1 1 0 0\n\xff\xfe\n", "line 2: a line must be text");
    assert!("vscsi".parse::<Format>().expect_err("not known").contains("oracle-general"));
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
}
