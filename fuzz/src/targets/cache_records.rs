//! Pages of a cache device, as somebody else may have left them: activity pages, journal blocks and
//! pages of the line table are read without a panic, and what is taken for one is written again as
//! it was read.

use cache_engine::cache::LineSize;
use cache_engine::cache::metadata::examination::{
    ActivityPage, Found, JournalBlock, JournalRecord, JournalRecords, LineTable, Page,
};
use cache_engine::cache::metadata::{FormatId, Layout};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// Activity pages.
pub const ACTIVITY_PAGE: Target = Target {
    name: "activity_page",
    length_max: INPUT_LENGTH_MAX,
    run: activity_page,
    cost: 2,
    seeds: activity_seeds,
};
/// Journal blocks.
pub const JOURNAL_BLOCK: Target = Target {
    name: "journal_block",
    length_max: INPUT_LENGTH_MAX,
    run: journal_block,
    cost: 2,
    seeds: journal_seeds,
};
/// Pages of the line table, with records of the journal on top.
pub const LINE_PAGE: Target = Target {
    name: "line_page",
    length_max: INPUT_LENGTH_MAX,
    run: line_page,
    cost: 8,
    seeds: line_seeds,
};

const FORMAT: FormatId = FormatId([7; 16]);
const NUMBER: u32 = 1;
const SEQUENCE: u64 = 9;

/// The input as a page, with its checksum at `at` made right unless the first byte is even.
fn page_of(input: &[u8], at: usize) -> Option<Page> {
    let (control, body) = input.split_first()?;
    let mut page = [0; 4096];
    let length = body.len().min(page.len());
    page[..length].copy_from_slice(&body[..length]);
    if control & 1 == 1 {
        let front = block_io::Crc32c::new().update(&page[..at]);
        let checksum = front.update(&page[at + 4..]).value();
        page[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    }
    Some(page)
}

fn activity_page(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some(page) = page_of(input, 28) else { return observer.behaviour() };
    match ActivityPage::decode(&page, FORMAT, NUMBER) {
        Found::Valid(read) => {
            assert_eq!(read.encode(FORMAT, NUMBER), page);
            let used = read.places.iter().flatten().count();
            observer.note(("valid", used.min(8), read.sequence.leading_zeros() / 8));
        }
        Found::Void => observer.note("void"),
        Found::Damaged => observer.note("damaged"),
    }
    observer.behaviour()
}

fn journal_block(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some(page) = page_of(input, 40) else { return observer.behaviour() };
    match JournalBlock::decode(&page, FORMAT, SEQUENCE) {
        Some(read) => {
            let bytes = read.encode(FORMAT, SEQUENCE).expect("it came out of one block");
            assert_eq!(JournalBlock::decode(&bytes, FORMAT, SEQUENCE), Some(read.clone()));
            observer.note(("valid", read.records.len().min(16)));
            let mut all = JournalRecords::default();
            read.records.iter().for_each(|record| all.add(record));
        }
        None => observer.note("none"),
    }
    observer.behaviour()
}

/// The first two bytes choose the line size, and how much of the input is a journal block.
fn line_page(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((choice, rest)) = input.split_first() else { return observer.behaviour() };
    let line_size = LineSize::ALL[usize::from(choice & 7) % LineSize::ALL.len()];
    let (bytes, journal) = rest.split_at(rest.len().min(4097));
    let Some(page) = page_of(bytes, 20) else { return observer.behaviour() };
    let mut records = JournalRecords::default();
    let block = page_of(journal, 40).and_then(|page| JournalBlock::decode(&page, FORMAT, SEQUENCE));
    block.iter().flat_map(|block| &block.records).for_each(|record| records.add(record));
    let layout = Layout::for_device(8 << 20, line_size).expect("it fits");
    let table = LineTable::new(layout, FORMAT);
    let (found, lines) = table.read(NUMBER, &page, &records);
    // Folding, then reading, is reading with the journal.
    let folded = table.fold(NUMBER, &page, &records);
    let (again, folded_lines) = table.read(NUMBER, &folded, &JournalRecords::default());
    assert_eq!((again, &folded_lines), (Found::Valid(()), &lines));
    assert_eq!(table.fold(NUMBER, &folded, &JournalRecords::default()), folded);
    for line in &lines.lines {
        assert!(line.valid != 0 && line.offset < layout.flat_length(), "{line:?}");
        assert!(u64::from(line.slot) < u64::from(layout.sets) * 16, "{line:?}");
    }
    let some = (lines.lines.len().min(8), lines.unsound.min(3));
    observer.note((matches!(found, Found::Valid(())), matches!(found, Found::Damaged), some));
    observer.behaviour()
}

fn records() -> Vec<JournalRecord> {
    // Slots of the second page, for lines of every size.
    let record = |slot: u32| JournalRecord {
        slot,
        entry: 1 << 31 | slot,
        valid: 0b1011,
        changed: 0b11,
        checksums: std::array::from_fn(|block| if block < 2 { slot } else { 0 }),
    };
    (48..400).step_by(37).map(record).collect()
}

fn seed(page: &Page) -> Vec<u8> {
    [&[1], &page[..]].concat()
}

fn activity_seeds() -> Vec<Vec<u8>> {
    let page = |count: u64| {
        let places = (0..507).map(|place| (place < count).then_some(place * 3)).collect();
        ActivityPage { sequence: count, journal_head: 7, places }.encode(FORMAT, NUMBER)
    };
    [0, 5, 507].map(|count| seed(&page(count))).to_vec()
}

fn journal_seeds() -> Vec<Vec<u8>> {
    let block = |count: usize| {
        let records = records().into_iter().take(count).collect();
        JournalBlock { run: 3, records }.encode(FORMAT, SEQUENCE).expect("they are few")
    };
    [0, 1, 10].map(|count| seed(&block(count))).to_vec()
}

fn line_seeds() -> Vec<Vec<u8>> {
    let mut all = JournalRecords::default();
    records().iter().for_each(|record| all.add(record));
    let seeds = (0_u8..).zip(LineSize::ALL).map(|(choice, line_size)| {
        let layout = Layout::for_device(8 << 20, line_size).expect("it fits");
        let page = LineTable::new(layout, FORMAT).fold(NUMBER, &[0; 4096], &all);
        [&[choice], &seed(&page)[..], &journal_seeds()[2]].concat()
    });
    seeds.collect()
}
