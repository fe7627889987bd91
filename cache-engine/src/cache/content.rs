//! The bytes themselves, between a client's buffer and the cache device: encrypted and checksummed
//! on their way in, checked and decrypted on their way out.
//!
//! Both see whole blocks only. A read of part of a block then reads all of it.

use block_io::{Buffer, Completion, Extent, Request};

use super::Cache;
use super::blocks::{BLOCK_SIZE, BLOCKS_MAX, BlockSet};
use super::config::{Verification, VolumeId};
use super::fill::{Checksums, Ended, FillIndex};
use super::index::Slot;
use super::line_lock::PieceIndex;
use super::outbox::Token;
use super::piece::client_whole;
use super::store::Source;

/// CRC32C of every block of a cache, where each read is to be checked.
pub(crate) struct ChecksumTable {
    table: Box<[u32]>,
    blocks_per_line: usize,
}

impl ChecksumTable {
    pub(crate) fn new(slots: u64, blocks_per_line: usize) -> Self {
        Self { table: vec![0; slots as usize * blocks_per_line].into(), blocks_per_line }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        size_of_val(&*self.table) as u64
    }

    fn keep(&mut self, slot: Slot, blocks: BlockSet, checksums: &[u32]) {
        let kept = self.of_slot(slot);
        for block in blocks.iter() {
            kept[block] = checksums[block];
        }
    }

    fn of_slot(&mut self, slot: Slot) -> &mut [u32] {
        let first = slot.0 as usize * self.blocks_per_line;
        &mut self.table[first..first + self.blocks_per_line]
    }
}

impl Cache {
    /// Whether reads of this volume from the cache must be of whole blocks.
    pub(super) fn sees_blocks_whole(&self, volume: VolumeId) -> bool {
        self.checksums.is_some() || self.volumes[volume].cipher.is_some()
    }

    /// The whole blocks around a part of a volume.
    pub(super) fn whole_blocks(&self, part: Extent) -> Extent {
        let end = match self.volumes.at(part.offset) {
            // Of a request that was there before the volume shrank.
            Some(id) => self.volumes[id].end().max(part.end()),
            None => u64::MAX,
        };
        let whole = part.align_outward(BLOCK_SIZE);
        Extent::new(whole.offset, whole.end().min(end) - whole.offset)
    }

    pub(super) fn is_whole_blocks(&self, volume: VolumeId, part: Extent) -> bool {
        part.offset.is_multiple_of(BLOCK_SIZE)
            && (part.end().is_multiple_of(BLOCK_SIZE) || part.end() == self.volumes[volume].end())
    }

    /// The bytes of `extent` as they go to the cache device, and their checksums where somebody
    /// will ask for them. Those of what is not encrypted are taken before another view of the
    /// memory is made, which makes them quicker.
    pub(super) fn bytes_to_store(
        &mut self,
        name: PieceIndex,
        id: VolumeId,
        extent: Extent,
        source: Source<'_>,
        fill: FillIndex,
    ) -> Buffer {
        let volume = &self.volumes[id];
        let (buffer, start) = match source {
            Source::Client => client_whole(&self.pieces, &self.requests, &self.volumes, name),
            Source::Read(buffer, start) => (buffer, start),
        };
        let at = (extent.offset - start) as usize;
        let length = extent.length as usize;
        let sealed = volume.cipher.as_ref().map(|cipher| {
            let sealed = self.pool.allocate(length);
            cipher.encrypt(extent.offset - volume.base(), &buffer.slice(at, length), &sealed);
            sealed
        });
        if self.keeper.is_some() || self.checksums.is_some() {
            let first = ((extent.offset & (self.line_size.bytes() - 1)) / BLOCK_SIZE) as usize;
            let count = extent.length.div_ceil(BLOCK_SIZE) as usize;
            let checksums = &mut self.fills.checksums_mut(fill)[first..first + count];
            match &sealed {
                Some(sealed) => sealed.crc32c_blocks(0, checksums),
                None => buffer.crc32c_blocks(at, checksums),
            }
        }
        sealed.unwrap_or_else(|| buffer.slice(at, length))
    }

    /// Makes what came from the cache device what the client wrote. False when it is not what was
    /// stored; its blocks are dropped then. `extent` is of whole blocks if this volume needs it.
    #[inline(always)]
    pub(super) fn open_blocks(
        &mut self,
        id: VolumeId,
        slot: Slot,
        extent: Extent,
        buffer: &Buffer,
    ) -> bool {
        !self.sees_blocks_whole(id) || self.open_whole_blocks(id, slot, extent, buffer)
    }

    #[inline(never)]
    fn open_whole_blocks(
        &mut self,
        id: VolumeId,
        slot: Slot,
        extent: Extent,
        buffer: &Buffer,
    ) -> bool {
        if let Some(table) = &mut self.checksums {
            let first = ((extent.offset & (self.line_size.bytes() - 1)) / BLOCK_SIZE) as usize;
            let mut found = [0; BLOCKS_MAX];
            let found = &mut found[..buffer.len().div_ceil(BLOCK_SIZE as usize)];
            buffer.crc32c_blocks(0, found);
            if table.of_slot(slot)[first..first + found.len()] != *found {
                self.volumes[id].statistics.checksum_mismatches += 1;
                self.drop_blocks(slot, self.blocks_touched(extent));
                return false;
            }
        }
        let volume = &self.volumes[id];
        if let Some(cipher) = &volume.cipher {
            cipher.decrypt(extent.offset - volume.base(), buffer);
        }
        true
    }

    /// Keeps the checksums of what a fill has made valid, where each read is checked.
    pub(super) fn keep_fill_checksums(&mut self, slot: Slot, ended: &Ended) {
        if let Some(table) = &mut self.checksums {
            table.keep(slot, ended.install, self.fills.checksums(ended.fill));
        }
    }

    /// A line that an earlier run left is read for the first time: all of it is read and checked
    /// against what was recorded of it.
    pub(super) fn begin_verification(&mut self, name: PieceIndex, line: u16, slot: Slot) {
        if !self.ask_for_checksums(slot) {
            self.read_run(name, usize::from(line), 1);
            return;
        }
        self.pieces[name].waits_for += 1;
        let (number, _) = self.wanted_of_line(name, line);
        let flat = Extent::new(number.0 << self.line_size.shift(), self.line_size.bytes());
        let id = self.volume_of(name);
        let extent = flat.intersection(self.volumes[id].extent());
        let buffer = self.pool.allocate(extent.length as usize);
        self.cache_reads += 1;
        let token = Token::Verification { piece: name, line }.id();
        let offset = self.cache_offset(slot, extent.offset);
        self.verifications.begin(name, line, self.index.hold(slot));
        self.outbox.cache.push(Request::read(token, offset, buffer));
    }

    /// The line's bytes are there; its checksums may not be yet.
    pub(super) fn line_read(&mut self, name: PieceIndex, line: u16, completion: Completion) {
        let bytes = completion.result.map(|()| completion.buffer);
        if let Err(error) = bytes {
            let (_, part) = self.wanted_of_line(name, line);
            self.cache_read_failed(self.volume_of(name), part, error);
        }
        self.verifications.bytes_read(name, line, bytes.ok().flatten());
        self.end_verifications();
    }

    /// The checksums of a slot's line, as recorded, or none when they could not be read.
    pub(super) fn checksums_read(&mut self, slot: Slot, checksums: Option<Checksums>) {
        self.verifications.checksums_read(slot, checksums);
        self.end_verifications();
    }

    fn end_verifications(&mut self) {
        while let Some(done) = self.verifications.next_done() {
            let (name, line, slot) = (done.piece, done.line, done.hit.slot);
            let volume = self.volume_of(name);
            let unchanged = self.index.still(done.hit) && self.is_leased(volume);
            let right = unchanged && self.is_right(slot, &done.bytes, &done.checksums);
            if unchanged && !right {
                self.drop_blocks(slot, self.all_blocks());
            }
            let (number, part) = self.wanted_of_line(name, line);
            match (right, done.bytes) {
                (true, Some(bytes)) => {
                    self.index.set_verified(slot);
                    let flat = number.0 << self.line_size.shift();
                    let whole = self.whole_blocks(part);
                    let at = (whole.offset - flat) as usize;
                    let blocks = bytes.slice(at, whole.length as usize);
                    if let (Some(table), Some(known)) = (&mut self.checksums, done.checksums) {
                        table.keep(slot, self.index.valid(slot), &known);
                    }
                    let entry = &self.volumes[volume];
                    if let Some(cipher) = &entry.cipher {
                        cipher.decrypt(whole.offset - entry.base(), &blocks);
                    }
                    self.copy_to_client(name, whole, &blocks);
                    let statistics = &mut self.volumes[volume].statistics;
                    statistics.lines_verified += 1;
                    statistics.cache_read_bytes += part.length;
                }
                _ => self.read_run(name, usize::from(line), 1),
            }
            self.piece_progress(name, Ok(()));
        }
    }

    fn is_right(
        &mut self,
        slot: Slot,
        bytes: &Option<Buffer>,
        checksums: &Option<Checksums>,
    ) -> bool {
        let (Some(bytes), Some(checksums)) = (bytes, checksums) else { return false };
        let mut found = [0; BLOCKS_MAX];
        bytes.crc32c_blocks(0, &mut found[..bytes.len().div_ceil(BLOCK_SIZE as usize)]);
        let right = self.index.valid(slot).iter().all(|block| found[block] == checksums[block]);
        if !right {
            let line = self.index.line_of(slot);
            let owner = line.and_then(|line| self.volumes.at(line.0 << self.line_size.shift()));
            if let Some(owner) = owner {
                self.volumes[owner].statistics.checksum_mismatches += 1;
            }
        }
        right
    }

    /// Whether every read of the cache is checked.
    pub(super) fn checks_every_read(&self) -> bool {
        self.verification == Verification::Always
    }
}
