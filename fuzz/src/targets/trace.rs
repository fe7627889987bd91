//! Traces of every format: reading them never panics and takes bounded memory, an error names what
//! is wrong, and what was read is within the bounds that the simulations rely on.
//!
//! The first byte chooses: the format found out from the content, or one of the six forced upon it.

use cache_engine::advice::trace::{
    self, ADDRESS_MAX, CsvColumns, Format, LENGTH_MAX, TraceOptions,
};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// The target.
pub const TARGET: Target =
    Target { name: "trace", length_max: INPUT_LENGTH_MAX, run, cost: 1, seeds };

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((choice, content)) = input.split_first() else { return observer.behaviour() };
    let format = Format::ALL.get(usize::from(*choice).wrapping_sub(1)).copied();
    let text = String::from_utf8_lossy(content);
    let first_line = text.lines().next().unwrap_or_default();
    // The same bytes as an option's value: most are refused, with a message.
    let csv_columns = match first_line.parse::<CsvColumns>() {
        Ok(columns) => Some(columns),
        Err(message) => {
            assert!(!message.is_empty(), "`{first_line}` was refused without a word");
            None
        }
    };
    let options = TraceOptions { format, csv_columns, ..TraceOptions::default() };
    let mut source = content;
    let mut requests = 0u64;
    let mut sink = |access: trace::Access| {
        requests += 1;
        assert!((1..=LENGTH_MAX).contains(&access.extent.length), "{access:?}");
        assert!(access.extent.end() <= ADDRESS_MAX, "{access:?}");
    };
    match trace::read(&mut source, &options, &mut sink) {
        Ok(found) => {
            assert!(requests > 0, "a trace without requests is none");
            assert!(format.is_none_or(|format| format == found));
            observer.note(found.to_string());
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty(), "refused without a word");
            observer.note_message(&message, &text);
        }
    }
    observer.note(requests.min(16).to_le_bytes());
    observer.behaviour()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut blktrace = Vec::new();
    for number in [0x6561_7407u32, 1, 2, 0, 8, 0, 4096, 1 | 1 << 16, 3, 4, 0, 0] {
        blktrace.extend(number.to_le_bytes());
    }
    let mut oracle = Vec::new();
    for number in [5u32, 9, 0, 512, u32::MAX, u32::MAX] {
        oracle.extend(number.to_le_bytes());
    }
    let zstd = [
        0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x08, 0x41, 0x00, 0x00, 0x31, 0x20, 0x31, 0x20, 0x30, 0x20,
        0x30, 0x0a, 0x56, 0xdb, 0x54, 0xb0,
    ];
    let texts: [&[u8]; 7] = [
        b"110765 64 0 0\n110888 1 0 1\n",
        b"version,time,op,size,lbn\n1,5633898,2a,512,42932745\n",
        b"obj-id-col=1,obj-size-col=2,op-col=3,delimiter=,,has-header=true\n5,512,r\n",
        b"  8,0    3   1     0.000000000   697  Q  WS 223490 + 8 [kjournald]\n",
        b"fio version 2 iolog\n/dev/a add\n/dev/a read 4096 512\n",
        b"fio version 3 iolog\n0 /dev/a add\n5 /dev/a write 4096 512\n",
        &zstd,
    ];
    let contents = texts.into_iter().chain([&blktrace[..], &oracle]);
    contents.flat_map(|content| [[&[0], content].concat(), [&[1], content].concat()]).collect()
}
