//! The discovery log by itself: a controller that gives any page to every piece it is asked for.
//!
//! What must hold: pieces are within the page and bounded in number, and only the last re-arms the
//! event; a log that was read has as many entries as its header said; what is read is encoded to
//! bytes that read the same; a difference tells exactly what differs; a walk of referrals asks
//! nobody twice.

use std::collections::BTreeSet;

use nvme_fabric::host::discovery::log::{
    ENTRIES_MAX, LogReader, Next, PIECE_LENGTH_MAX, Piece, RESTARTS_MAX,
};
use nvme_fabric::host::discovery::{Difference, DiscoveryLog, Walk, WalkLimits, route};
use nvme_fabric::spec::log_page::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH, SubsystemKind,
    TRANSPORT_TCP, entry_flag,
};

use super::target_script::choices::Choices;
use super::{nqn, subsystem};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The input is a script: each piece that the host asks for takes what its header or
/// its entries say from it, as changes to sound ones.
pub const TARGET: Target = Target { name: "discovery_log", length_max: 512, run, cost: 2, seeds };

/// Logs of a run.
const READINGS_MAX: usize = 3;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let mut choices = Choices::new(input);
    let mut before: Vec<DiscoveryEntry> = Vec::new();
    let start = route(&sound_entry(0)).expect("a sound one");
    let limits = WalkLimits { depth_max: 2, services_max: 6, entries_max: 40 };
    let mut walk = Walk::new(start, limits);
    let mut asked = BTreeSet::new();
    for _ in 0..READINGS_MAX {
        let Some(visit) = walk.next_visit() else { break };
        assert!(asked.insert(visit.route.clone()), "{} was asked already", visit.route);
        assert!(visit.depth <= limits.depth_max && asked.len() <= limits.services_max);
        match read(&mut choices, &mut observer) {
            Ok(log) => {
                for entry in &log.entries {
                    check_entry(entry, &mut observer);
                }
                check_difference(&before, &log.entries);
                before.clone_from(&log.entries);
                let name = log.entries.first().map_or("", |entry| &entry.subsystem).to_owned();
                walk.answered(visit, &name, log);
            }
            Err(error) => {
                observer.note_message(&error, "");
                walk.failed(visit, error);
            }
        }
    }
    let findings = walk.into_findings();
    let entries: usize = findings.answers.iter().map(|answer| answer.log.entries.len()).sum();
    assert!(entries <= limits.entries_max, "{entries} entries are kept");
    for unfollowed in &findings.unfollowed {
        assert!(!unfollowed.reason.is_empty(), "not followed without a word");
    }
    observer.note((findings.answers.len(), findings.failures.len(), findings.unfollowed.len()));
    observer.behaviour()
}

/// Reads a log that the script makes up.
fn read(choices: &mut Choices<'_>, observer: &mut Observer) -> Result<DiscoveryLog, String> {
    let (mut reader, mut piece) = LogReader::begin();
    let mut header = DiscoveryHeader { generation: 1, records: 0, format: 0 };
    let mut pieces = 0;
    let bound = (u64::from(RESTARTS_MAX) + 2) * (ENTRIES_MAX + 2);
    loop {
        pieces += 1;
        assert!(pieces <= bound, "{pieces} pieces of one log");
        check_piece(piece, &header);
        let bytes = page(piece, &mut header, choices);
        let is_last = !piece.retain_event;
        match reader.take(&bytes)? {
            Next::Read(next) => piece = next,
            Next::Done(log) => {
                assert!(is_last, "read to the end, and the event is not armed");
                assert_eq!(log.entries.len() as u64, header.records, "entries of {header:?}");
                assert_eq!(log.generation, header.generation);
                observer.note_magnitude(log.entries.len() as u64);
                observer.note_magnitude(pieces);
                return Ok(log);
            }
        }
    }
}

fn check_piece(piece: Piece, header: &DiscoveryHeader) {
    assert!((1..=PIECE_LENGTH_MAX).contains(&piece.length), "{piece:?}");
    let end = piece.offset + piece.length as u64;
    let page = HEADER_LENGTH as u64 + header.records.min(ENTRIES_MAX) * ENTRY_LENGTH as u64;
    assert!(end <= page.max(HEADER_LENGTH as u64), "{piece:?} of {header:?}");
    assert!(piece.retain_event || piece.offset == 0, "{piece:?} arms the event too early");
}

/// The bytes of a piece, sometimes too few.
fn page(piece: Piece, header: &mut DiscoveryHeader, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = if piece.offset == 0 {
        let records = match choices.below(8) {
            0..=4 => choices.below(12) as u64,
            5 => header.records,
            6 => u64::from(choices.number()),
            _ => u64::MAX - u64::from(choices.byte()),
        };
        // Past the end of the script everything stays as it is.
        if !choices.is_over() && (piece.retain_event || choices.one_in(4)) {
            let generation = header.generation.wrapping_add(choices.below(2) as u64);
            let format = u16::from(choices.one_in(32));
            *header = DiscoveryHeader { generation, records, format };
        }
        let bytes = header.encode();
        assert_eq!(DiscoveryHeader::parse(&bytes), *header, "a header reads differently");
        bytes.to_vec()
    } else {
        (0..piece.length / ENTRY_LENGTH).flat_map(|number| entry(number as u8, choices)).collect()
    };
    if choices.one_in(64) {
        bytes.truncate(usize::from(choices.number()) % (bytes.len() + 1));
        // The driver never gives less than was asked for: a short page ends with zeros.
        bytes.resize(piece.length, 0);
        if let Some(header_bytes) = bytes.first_chunk().filter(|_| piece.offset == 0) {
            *header = DiscoveryHeader::parse(header_bytes);
        }
    }
    bytes
}

/// A sound entry with some bytes changed.
fn entry(number: u8, choices: &mut Choices<'_>) -> [u8; ENTRY_LENGTH] {
    let mut bytes = sound_entry(number).encode();
    for _ in 0..choices.below(8) {
        let place = [0, 1, 2, 3, 4, 10, 32, 33, 36, 256, 260, 290, 480, 512, 514, 520, 767, 768]
            [choices.below(18)];
        bytes[place] = choices.byte();
    }
    if choices.one_in(8) {
        // A text in one of the text fields.
        let field = [32, 256, 512][choices.below(3)];
        for place in 0..choices.below(64) {
            bytes[field + place % 32] = choices.byte();
        }
    }
    bytes
}

fn sound_entry(number: u8) -> DiscoveryEntry {
    DiscoveryEntry {
        transport: TRANSPORT_TCP,
        family: AddressFamily::Ipv4,
        kind: [SubsystemKind::Referral, SubsystemKind::Nvm][usize::from(number % 2)],
        requirements: 0,
        port_id: u16::from(number),
        controller_id: 0xffff,
        admin_queue_size: 32,
        flags: if number == 4 { entry_flag::DUPLICATE } else { 0 },
        service: "4420".to_owned(),
        subsystem: subsystem().to_string(),
        address: format!("192.0.2.{}", number + 1),
        security: 0,
    }
}

fn check_entry(entry: &DiscoveryEntry, observer: &mut Observer) {
    // Text is cut at the field's end and padded; what was read fits.
    let again = DiscoveryEntry::parse(&entry.encode());
    let is_text = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if [&entry.service, &entry.subsystem, &entry.address].iter().all(|text| is_text(text)) {
        assert_eq!(again, *entry, "an entry reads differently");
    }
    match route(entry) {
        Ok(route) => {
            assert!(route.address.port() > 0 && !route.address.ip().is_unspecified(), "{route}");
            assert_eq!(route.subsystem, nqn(&entry.subsystem));
            observer.note("a route");
        }
        Err(error) => observer.note_message(&error, ""),
    }
}

/// Of two logs: nothing is told twice, and what differs is told.
fn check_difference(before: &[DiscoveryEntry], now: &[DiscoveryEntry]) {
    let difference = Difference::between(before, now);
    assert!(difference.appeared.len() + difference.changed.len() <= now.len());
    assert!(difference.gone.len() + difference.changed.len() <= before.len());
    for entry in &difference.appeared {
        assert!(now.contains(entry) && !before.contains(entry), "{entry:?} appeared");
    }
    for entry in &difference.gone {
        assert!(before.contains(entry) && !now.contains(entry), "{entry:?} is gone");
    }
    let back = Difference::between(now, before);
    assert_eq!(back.appeared.len(), difference.gone.len(), "seen from the other side");
    assert_eq!(back.gone.len(), difference.appeared.len(), "seen from the other side");
    assert_eq!(back.changed.len(), difference.changed.len(), "seen from the other side");
    assert!(Difference::between(now, now).is_empty());
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    // Logs of no, one and several entries; one that changes; one that never ends.
    let mut seeds = vec![vec![], vec![0, 1, 0, 0, 0, 0], vec![0, 9, 1, 0], vec![7, 0, 1, 0]];
    for length in [8, 30, 60, 120] {
        for _ in 0..6 {
            seeds.push((0..length).map(|_| random.next() as u8).collect());
        }
    }
    seeds
}
