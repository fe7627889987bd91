//! The machine on a disk of memory: one with a volatile cache, that loses power at any sector.

mod crash;
mod parts;
mod rules;

use block_io::sim::Random;
use block_io::{BufferPool, IoError, Operation, Request, Timestamp};

use super::*;
use crate::cache::line::Place;
use crate::cache::metadata::FormatId;
use crate::cache::metadata::layout::SUPERBLOCK_REGION;
use crate::cache::metadata::superblock::newest;
use crate::cache::outbox::Token;

const SECTOR: usize = 512;

/// The front of a cache device, without its data slots.
#[derive(Clone)]
struct Disk {
    /// What reads return.
    visible: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// Sectors that a power cut may or may not leave, in order, each with its write's number.
    unflushed: Vec<(u64, usize, [u8; SECTOR])>,
    stamp: u64,
}

impl Disk {
    fn new(layout: &Layout) -> Self {
        let length = layout.table_offset as usize + layout.table_pages as usize * PAGE_SIZE;
        let (visible, durable) = (vec![0; length], vec![0; length]);
        Self { visible, durable, unflushed: Vec::new(), stamp: 0 }
    }

    fn write(&mut self, request: &Request) {
        let (at, bytes) = (request.extent.offset as usize, bytes_of(request));
        self.visible[at..at + bytes.len()].copy_from_slice(&bytes);
        self.stamp += 1;
        for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            let place = at + index * SECTOR;
            if request.force_unit_access {
                self.unflushed.retain(|(_, other, _)| *other != place);
                self.durable[place..place + SECTOR].copy_from_slice(sector);
            } else {
                let sector = sector.try_into().expect("a whole sector");
                self.unflushed.push((self.stamp, place, sector));
            }
        }
    }

    /// Makes what was written before `stamp` durable.
    fn flush(&mut self, stamp: u64) {
        let durable = &mut self.durable;
        self.unflushed.retain(|(written, place, sector)| {
            if *written <= stamp {
                durable[*place..place + SECTOR].copy_from_slice(sector);
            }
            *written > stamp
        });
    }

    /// The power fails: of each sector any of its unflushed versions may be left.
    fn cut(&mut self, in_flight: &[Sent], random: &mut Random) {
        for sent in in_flight {
            if sent.request.operation == Operation::Write && random.coin() {
                let request = &sent.request;
                let volatile = Request {
                    id: request.id,
                    operation: request.operation,
                    extent: request.extent,
                    force_unit_access: false,
                    buffer: request.buffer.clone(),
                };
                self.write(&volatile);
            }
        }
        let survives = random.range(0..=1000) as u32;
        for (_, place, sector) in std::mem::take(&mut self.unflushed) {
            if random.chance(survives) {
                self.durable[place..place + SECTOR].copy_from_slice(&sector);
            }
        }
        self.visible.clone_from(&self.durable);
    }

    fn superblock(&self) -> Superblock {
        let region = SUPERBLOCK_REGION as usize;
        newest(&self.visible[..region], &self.visible[region..2 * region]).expect("one is whole")
    }

    fn page(&self, offset: u64) -> &[u8; PAGE_SIZE] {
        self.visible[offset as usize..].first_chunk().expect("within the disk")
    }
}

fn bytes_of(request: &Request) -> Vec<u8> {
    request.buffer.as_ref().expect("a write has its bytes").to_vec()
}

/// A request on its way.
struct Sent {
    request: Request,
    /// What had been written when it was sent.
    stamp: u64,
}

/// A machine and its disk.
struct Rig {
    machine: Persistence,
    disk: Disk,
    in_flight: Vec<Sent>,
    now: Timestamp,
}

impl Rig {
    /// A formatted disk with `sets` sets of lines of 4 KiB.
    fn format(sets: u32) -> Disk {
        let line_size = LineSize::ALL[0];
        let mut layout = Layout::for_device(8 << 20, line_size).expect("fits");
        assert!(sets <= layout.sets);
        layout.sets = sets;
        layout.table_pages = sets.div_ceil(layout.sets_per_page);
        layout.check().expect("sound");
        let superblock = Superblock::new(FormatId([1; 16]), layout);
        let bytes = superblock.encode();
        let mut disk = Disk::new(&layout);
        disk.visible[..bytes.len()].copy_from_slice(&bytes);
        disk.durable.clone_from(&disk.visible);
        disk
    }

    fn config(fresh: u8) -> PersistenceConfig {
        PersistenceConfig {
            extents_per_page: 16,
            pending_min: 256,
            ..PersistenceConfig::new(64, 64 << 10, FormatId([fresh; 16]))
        }
    }

    /// The machine of a disk, not stepped yet; a part of a fold has room for a page's slots.
    fn start(disk: Disk, start: Start) -> Self {
        Self::start_with(disk, start, 21 * 16)
    }

    fn start_with(disk: Disk, start: Start, part_places_max: usize) -> Self {
        let superblock = disk.superblock();
        let map = map(&superblock.layout);
        let fresh = superblock.sequence as u8;
        let pool = BufferPool::heap();
        let config = PersistenceConfig { part_places_max, ..Self::config(fresh | 128) };
        let machine = Persistence::start(superblock, map, pool, start, config);
        Self { machine, disk, in_flight: Vec::new(), now: Timestamp(0) }
    }

    /// Takes the machine's requests.
    fn pull(&mut self) {
        let stamp = self.disk.stamp;
        let requests = self.machine.requests(self.now).drain(..);
        self.in_flight.extend(requests.map(|request| Sent { request, stamp }));
    }

    /// Does a request and answers it.
    fn answer(&mut self, at: usize, result: Result<(), IoError>) {
        let Sent { request, stamp } = self.in_flight.remove(at);
        if result.is_ok() {
            match request.operation {
                Operation::Write => self.disk.write(&request),
                Operation::Flush => self.disk.flush(stamp),
                _ => {
                    let buffer = request.buffer.as_ref().expect("a read has room");
                    let at = request.extent.offset as usize;
                    buffer.copy_from_slice(&self.disk.visible[at..at + buffer.len()]);
                }
            }
        }
        let Token::Metadata { index } = Token::of(request.id) else { panic!("its own token") };
        self.machine.complete(index, result, self.now);
        self.pull();
    }

    /// Answers everything until nothing moves.
    fn settle(&mut self) {
        self.pull();
        while !self.in_flight.is_empty() {
            self.answer(0, Ok(()));
        }
    }

    /// Lets time pass, and answers everything.
    fn pass(&mut self, milliseconds: u64) {
        self.now = Timestamp(self.now.0 + milliseconds * 1_000_000);
        self.machine.tick(self.now);
        self.settle();
    }

    /// Goes on until the start is over, and gives every line that was loaded.
    fn load(&mut self) -> Vec<LoadedLine> {
        let mut lines = Vec::new();
        for _ in 0..1000 {
            self.settle();
            while let Some((_, loaded)) = self.machine.loaded() {
                lines.extend_from_slice(loaded);
            }
            if self.machine.is_started() {
                return lines;
            }
        }
        panic!("the start does not end: {:?}", self.machine.phase);
    }

    /// A machine that has started on that disk, and the lines it has found.
    fn started(disk: Disk, start: Start) -> (Self, Vec<LoadedLine>) {
        let mut rig = Self::start(disk, start);
        let lines = rig.load();
        (rig, lines)
    }

    /// The same disk after a stop in order.
    fn stop(mut self) -> Disk {
        self.machine.stop();
        for _ in 0..100 {
            self.pass(1);
        }
        assert!(self.machine.is_stopped());
        self.disk
    }

    fn begin(&mut self, piece: u16, extent: u64) -> bool {
        self.machine.begin_change(piece, bytes_in(extent), false, self.now) != Leave::Later
    }

    fn end(&mut self, extent: u64) {
        self.machine.end_change(bytes_in(extent));
    }

    /// Records a line as stored, in the way that its set has for it.
    fn store(&mut self, line: u64, way: u32) -> Slot {
        let place = map(&self.machine.layout).place(LineNumber(line));
        let slot = Slot(place.set * 16 + way);
        let (all, entry) = (BlockSet(1), Entry::new(place.tag, false));
        let checksums = [line as u32; 16];
        self.machine.record(slot, entry, LineNumber(line), all, all, &checksums, self.now);
        slot
    }

    /// The writes on their way within a part of the device.
    fn writes(&self, part: std::ops::Range<u64>) -> Vec<usize> {
        let within = |sent: &Sent| {
            sent.request.operation == Operation::Write && part.contains(&sent.request.extent.offset)
        };
        (0..self.in_flight.len()).filter(|at| within(&self.in_flight[*at])).collect()
    }
}

/// 600 extents of lines of 4 KiB.
fn map(layout: &Layout) -> LineMap {
    LineMap::new(600 * 1024, layout.sets).expect("tags fit")
}

fn bytes_in(extent: u64) -> Extent {
    Extent::new(extent * EXTENT_SIZE + 4096, 4096)
}

fn line_of(layout: &Layout, loaded: &LoadedLine) -> u64 {
    let set = loaded.slot.0 / 16;
    map(layout).line(Place { set, tag: loaded.entry.tag() }).0
}
