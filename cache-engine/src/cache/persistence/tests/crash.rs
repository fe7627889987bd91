//! A small cache on the machine, its power cut at random points: what is loaded afterwards must be
//! what the origin has.
//!
//! Every block of the origin has a version that grows when a change of it is sent. A slot's data
//! says which line and version it is, and is as volatile as the records are. A loaded line whose
//! data match their checksums is served; so they must be the newest version that was ever sent.

use std::collections::BTreeMap;

use super::*;
use crate::cache::metadata::activity_page::{self, Copy};
use crate::cache::metadata::line_page::{self, Verdict};

const SETS: u32 = 50;
const EXTENTS: u64 = 40;
const PIECES: usize = 8;
/// Room in a part of a fold: for the slots of a page that are used, so that a fold takes parts.
const PART_PLACES: usize = 84;

type Content = (u64, u64);

fn checksum((line, version): Content) -> u32 {
    (line.wrapping_mul(0x9E37_79B9) ^ version.wrapping_mul(0x85EB_CA6B)) as u32 | 1
}

#[derive(Clone, Copy, Default)]
struct Way {
    line: Option<u64>,
    valid: bool,
    unverified: bool,
    /// A store is under way; a change may have excluded it meanwhile.
    storing: Option<Store>,
    /// When it was recorded last, and whether what it held before may be on the device still.
    recorded: u64,
}

#[derive(Clone, Copy)]
struct Store {
    content: Content,
    excluded: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Free,
    Waiting(u64),
    InFlight(u64),
}

struct Cache {
    rig: Rig,
    random: Random,
    ways: Vec<Way>,
    pieces: [Piece; PIECES],
    versions: BTreeMap<u64, u64>,
    /// Data slots: what a power cut may leave, oldest first; the last is what reads return.
    data: Vec<Vec<(u64, Content)>>,
    in_doubt: Vec<u64>,
    /// Lines whose checksums are to be asked for.
    unasked: Vec<Slot>,
    events: u64,
    barrier: Option<(u64, u64)>,
    /// Everything recorded before this event is durable.
    durable_events: u64,
}

impl Cache {
    fn new(seed: u64) -> Self {
        let slots = SETS as usize * 16;
        Self {
            rig: Rig::start_with(Rig::format(SETS), Start::Warm, PART_PLACES),
            random: Random::new(seed),
            ways: vec![Way::default(); slots],
            pieces: [Piece::Free; PIECES],
            versions: BTreeMap::new(),
            data: vec![vec![(0, (u64::MAX, 0))]; slots],
            in_doubt: Vec::new(),
            unasked: Vec::new(),
            events: 1,
            barrier: None,
            durable_events: 0,
        }
    }

    fn version(&self, line: u64) -> u64 {
        self.versions.get(&line).copied().unwrap_or(0)
    }

    fn slot_of(&self, line: u64) -> Option<usize> {
        let set = self.place(line).set as usize;
        (set * 16..set * 16 + 16).find(|slot| self.ways[*slot].line == Some(line))
    }

    fn place(&self, line: u64) -> Place {
        map(&self.rig.machine.layout).place(LineNumber(line))
    }

    /// A few lines of a few extents, so that sets are full and extents run out.
    fn any_line(&mut self) -> u64 {
        let extent = self.random.below(EXTENTS).min(self.random.below(EXTENTS));
        extent * 1024 + self.random.below(48)
    }

    fn record(&mut self, slot: usize, changed: bool) {
        let way = &mut self.ways[slot];
        let Some(line) = way.line else { return };
        self.events += 1;
        way.recorded = self.events;
        let set = |flag: bool| BlockSet(u16::from(flag));
        let valid = set(way.valid);
        let content = self.data[slot].last().expect("something").1;
        let entry = Entry::new(self.place(line).tag, false);
        let (line, now) = (LineNumber(line), self.rig.now);
        let checksums = [checksum(content); 16];
        let slot = Slot(slot as u32);
        self.rig.machine.record(slot, entry, line, valid, set(changed), &checksums, now);
    }

    fn begin_change(&mut self) {
        let line = self.any_line();
        let busy = [Piece::Waiting(line), Piece::InFlight(line)];
        if self.pieces.iter().any(|piece| busy.contains(piece)) {
            return;
        }
        let Some(piece) = self.pieces.iter().position(|piece| *piece == Piece::Free) else {
            return;
        };
        let extent = Extent::new(line * 4096, 4096);
        let leave = self.rig.machine.begin_change(piece as u16, extent, false, self.rig.now);
        if leave != Leave::Later {
            self.send(piece, line);
        } else {
            self.pieces[piece] = Piece::Waiting(line);
        }
    }

    /// The change is sent: from here on the origin may have it.
    fn send(&mut self, piece: usize, line: u64) {
        self.pieces[piece] = Piece::InFlight(line);
        *self.versions.entry(line).or_default() += 1;
        let Some(slot) = self.slot_of(line) else { return };
        if let Some(store) = &mut self.ways[slot].storing {
            store.excluded = true;
        }
        if self.ways[slot].valid {
            self.ways[slot].valid = false;
            self.record(slot, false);
        }
    }

    fn end_change(&mut self, piece: usize) {
        let Piece::InFlight(line) = self.pieces[piece] else { return };
        self.pieces[piece] = Piece::Free;
        let in_doubt = self.random.chance(30);
        self.rig.machine.end_change(Extent::new(line * 4096, 4096));
        if in_doubt {
            self.in_doubt.push(line);
        } else if self.random.coin() {
            self.begin_store(line);
        }
    }

    fn begin_store(&mut self, line: u64) {
        let changing = |piece: &Piece| *piece == Piece::InFlight(line);
        let refused = self.in_doubt.contains(&line) || self.pieces.iter().any(changing);
        let set = self.place(line).set;
        let loaded = set < self.rig.machine.sets_loaded();
        if refused || !loaded || !self.rig.machine.has_room_beside(0) {
            return;
        }
        let slot = self.slot_of(line).unwrap_or_else(|| {
            let empty = |slot: &usize| self.ways[*slot].line.is_none();
            let mut ways = set as usize * 16..set as usize * 16 + 4;
            let any = ways.start + self.random.below(4) as usize;
            ways.find(empty).unwrap_or(any)
        });
        let way = self.ways[slot];
        if way.storing.is_some() || way.unverified || (way.valid && way.line == Some(line)) {
            return;
        }
        if way.line != Some(line) {
            self.ways[slot] = Way { line: Some(line), recorded: way.recorded, ..Way::default() };
            self.record(slot, false);
        }
        let content = (line, self.version(line));
        self.ways[slot].storing = Some(Store { content, excluded: false });
    }

    fn end_store(&mut self, slot: usize) {
        let Some(store) = self.ways[slot].storing.take() else { return };
        self.data[slot].push((self.rig.disk.stamp + 1, store.content));
        self.rig.disk.stamp += 1;
        if !store.excluded {
            self.ways[slot].valid = true;
            self.record(slot, true);
        }
    }

    fn answer(&mut self) {
        let count = self.rig.in_flight.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.random.below(count) as usize;
        let sent = &self.rig.in_flight[at];
        let flushed = (sent.request.operation == Operation::Flush).then_some(sent.stamp);
        self.rig.answer(at, Ok(()));
        if let Some(stamp) = flushed {
            for versions in &mut self.data {
                let newest = versions.iter().rposition(|(written, _)| *written <= stamp);
                versions.drain(..newest.unwrap_or(0));
            }
        }
    }

    fn follow(&mut self) {
        self.rig.pull();
        for piece in std::mem::take(self.rig.machine.activated()) {
            let Piece::Waiting(line) = self.pieces[usize::from(piece)] else { panic!("it waits") };
            self.send(usize::from(piece), line);
        }
        if let Some((barrier, events)) = self.barrier
            && self.rig.machine.is_recorded(barrier)
        {
            (self.durable_events, self.barrier) = (events, None);
        }
        if let Some(slot) = self.unasked.pop()
            && !self.rig.machine.read_checksums(slot)
        {
            self.unasked.push(slot);
        }
        for (slot, known) in std::mem::take(self.rig.machine.checksums_read()) {
            self.verify(slot.0 as usize, known);
        }
        if self.random.chance(300) {
            self.take_loaded();
        }
    }

    fn take_loaded(&mut self) {
        let layout = self.rig.machine.layout;
        let Some((_, lines)) = self.rig.machine.loaded() else { return };
        let lines = lines.to_vec();
        for loaded in lines {
            let slot = loaded.slot.0 as usize;
            let unverified = loaded.entry.is_unverified();
            let line = Some(line_of(&layout, &loaded));
            assert!(
                self.ways[slot].line.is_none(),
                "slot {slot} was stored in before it was loaded"
            );
            self.ways[slot] = Way { line, valid: true, unverified, recorded: 0, ..Way::default() };
            if unverified {
                self.unasked.push(loaded.slot);
            } else {
                self.check_content(slot);
            }
        }
    }

    fn verify(&mut self, slot: usize, known: Option<LineChecksums>) {
        let way = self.ways[slot];
        let Some(line) = way.line.filter(|_| way.unverified && way.valid) else {
            self.ways[slot].unverified = false;
            return;
        };
        let content = self.data[slot].last().expect("something").1;
        let right = known.is_some_and(|known| {
            known.entry.tag() == self.place(line).tag && known.checksums[0] == checksum(content)
        });
        self.ways[slot].unverified = false;
        if right {
            self.check_content(slot);
        } else {
            self.ways[slot].valid = false;
            self.record(slot, false);
        }
    }

    /// What is served must be the line's, and the newest.
    fn check_content(&self, slot: usize) {
        let line = self.ways[slot].line.expect("it is loaded");
        let content = self.data[slot].last().expect("something").1;
        assert_eq!(content, (line, self.version(line)), "slot {slot} is served");
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.begin_change(),
            20..40 => {
                let piece = self.random.below(PIECES as u64) as usize;
                self.end_change(piece);
            }
            40..55 => {
                let line = self.any_line();
                self.begin_store(line);
            }
            55..70 => {
                let storing = |slot: &usize| self.ways[*slot].storing.is_some();
                let slot = (0..self.ways.len()).find(storing);
                slot.into_iter().for_each(|slot| self.end_store(slot));
            }
            70..95 => self.answer(),
            95..98 => {
                self.rig.now.0 += self.random.below(12_000_000);
                self.rig.machine.tick(self.rig.now);
            }
            98 => {
                if self.barrier.is_none() && self.rig.machine.phase == Phase::Running {
                    self.barrier = Some((self.rig.machine.barrier(), self.events));
                }
            }
            _ => {
                self.in_doubt.clear();
            }
        }
        self.follow();
        assert!(!self.rig.machine.is_failed());
    }

    /// Lines that a start now must find: recorded before the last barrier that is durable, not
    /// touched since, of extents that the device does not name, in pages that are whole.
    fn durable_lines(&self) -> Vec<u64> {
        let layout = self.rig.machine.layout;
        let superblock = self.rig.disk.superblock();
        let format_id = superblock.format_id;
        let mut newest: Option<activity_page::ActivityPage> = None;
        for copy in 0..2 {
            let page = self.rig.disk.page(layout.activity_page_offset(0, copy));
            if let Copy::Valid(page) = activity_page::decode(page, format_id, 0)
                && newest.as_ref().is_none_or(|newest| newest.sequence < page.sequence)
            {
                newest = Some(page);
            }
        }
        let named =
            |extent: u64| newest.as_ref().is_some_and(|page| page.places.contains(&Some(extent)));
        let whole = |slot: usize| {
            let page = slot as u32 / (layout.sets_per_page * 16);
            let bytes = self.rig.disk.page(layout.table_page_offset(page));
            line_page::check(bytes, format_id, page) != Verdict::Damaged
        };
        let survives = |(slot, way): (usize, &Way)| {
            let recorded = way.recorded > 0 && way.recorded <= self.durable_events;
            let line = way.line.filter(|_| way.valid && recorded)?;
            (!named(line / 1024) && whole(slot)).then_some(line)
        };
        self.ways.iter().enumerate().filter_map(survives).collect()
    }

    /// Power fails and comes back. Gives the lines that must be found.
    fn crash(&mut self) -> Vec<u64> {
        self.rig.pull();
        self.rig.disk.cut(&self.rig.in_flight, &mut self.random);
        let expected = self.durable_lines();
        for slot in 0..self.data.len() {
            if let Some(store) = self.ways[slot].storing
                && self.random.coin()
            {
                self.data[slot].push((0, store.content));
            }
            let left = self.random.below(self.data[slot].len() as u64) as usize;
            let content = self.data[slot][left].1;
            self.data[slot] = vec![(0, content)];
        }
        self.restart();
        expected
    }

    fn restart(&mut self) {
        let mut disk = self.rig.disk.clone();
        disk.stamp += 1;
        self.rig = Rig::start_with(disk, Start::Warm, PART_PLACES);
        self.ways.fill(Way::default());
        self.pieces = [Piece::Free; PIECES];
        self.in_doubt.clear();
        self.unasked.clear();
        (self.barrier, self.durable_events) = (None, 0);
    }

    /// Goes on without changes until everything is loaded and checked.
    fn finish_loading(&mut self) {
        for _ in 0..20_000 {
            self.answer();
            self.follow();
            let verified = self.unasked.is_empty() && self.rig.machine.checksum_reads == 0;
            if self.rig.machine.is_started() && verified {
                return;
            }
        }
        panic!("the start does not end");
    }

    /// Stops in order and starts again: what was valid must be there, but for extents in doubt.
    fn stop_and_start(&mut self) {
        self.finish_loading();
        let mut turns = 0;
        for piece in 0..PIECES {
            while matches!(self.pieces[piece], Piece::Waiting(_)) {
                turns += 1;
                assert!(turns < 10_000, "a change waits for ever");
                self.rig.now.0 += 10_000_000;
                self.rig.machine.tick(self.rig.now);
                self.answer();
                self.follow();
            }
            self.end_change(piece);
        }
        for slot in 0..self.ways.len() {
            self.end_store(slot);
        }
        self.rig.machine.stop();
        while !self.rig.machine.is_stopped() {
            turns += 1;
            assert!(turns < 20_000, "the stop does not end");
            self.rig.pull();
            self.answer();
        }
        let clean = self.rig.machine.superblock();
        let (state, verify) = (clean.state, clean.verify_all);
        assert_eq!(state, State::Clean);
        let doubtful: Vec<u64> = self.in_doubt.iter().map(|line| line / 1024).collect();
        let certain = |way: &&Way| way.line.is_some_and(|line| !doubtful.contains(&(line / 1024)));
        let valid = |way: &Way| way.line.filter(|_| way.valid);
        let expected: Vec<_> = self.ways.iter().filter(certain).filter_map(valid).collect();
        self.restart();
        self.finish_loading();
        assert_eq!(self.rig.machine.superblock().verify_all, verify);
        for line in expected {
            let found = self.slot_of(line).is_some_and(|slot| self.ways[slot].valid);
            assert!(found, "line {line} was valid when the run ended");
        }
    }
}

fn run(seed: u64) {
    let mut cache = Cache::new(seed);
    for _ in 0..4 {
        for _ in 0..cache.random.below(1500) {
            cache.step();
        }
        if cache.random.chance(250) {
            cache.stop_and_start();
            continue;
        }
        let expected = cache.crash();
        if cache.random.coin() {
            let mut found = Vec::new();
            let rig = Rig::start_with(cache.rig.disk.clone(), Start::Warm, PART_PLACES);
            let layout = rig.machine.layout;
            let mut rig = rig;
            found.extend(rig.load().iter().map(|loaded| line_of(&layout, loaded)));
            for line in expected {
                assert!(found.contains(&line), "line {line} was durable");
            }
            cache.finish_loading();
        }
    }
}

#[test]
fn whatever_a_power_cut_leaves_nothing_stale_is_loaded() {
    let one = std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let many = std::env::var("FOREBAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let seeds = one.map_or(0..many.unwrap_or(1000), |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}: FOREBAY_SEED={seed} replays it");
    }
}
