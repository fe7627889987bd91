//! Clients on many connections that read and write the same blocks, each of which is a register:
//! a read finds nothing older than the last write acknowledged before it, and nothing newer than
//! the last one begun.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::client::Client;

pub(crate) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Sectors that one read is of at the most: it begins and ends within blocks, and in two lines.
const SECTORS_MAX: u64 = 20;

/// A block as clients know it. Writes of it wait for each other, so that they have an order.
#[derive(Default)]
struct Register {
    turn: Mutex<()>,
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

/// What was written to a volume.
pub(crate) struct Ledger {
    registers: Vec<Register>,
    reads: AtomicU64,
    writes: AtomicU64,
    /// Asked for and not answered, because the connection ended.
    unanswered: AtomicU64,
    stop: AtomicBool,
}

/// What the sector of a block says after the write of this number.
fn sector(block: u64, write: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if write > 0 {
        for words in bytes.chunks_mut(16) {
            words[..8].copy_from_slice(&block.to_le_bytes());
            words[8..].copy_from_slice(&write.to_le_bytes());
        }
    }
    bytes
}

fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

impl Ledger {
    /// Of a volume of zeroes.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            registers: (0..size / BLOCK as u64).map(|_| Register::default()).collect(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Reads and writes that were answered, without errors.
    pub(crate) fn answered(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.writes.load(Ordering::Relaxed))
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Lets the clients end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Lets clients to come go on.
    pub(crate) fn go_on(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Waits until clients have been answered so much more.
    pub(crate) fn wait_for_more(&self, requests: u64) {
        let answered = || self.reads.load(Ordering::Relaxed) + self.writes.load(Ordering::Relaxed);
        let until = answered() + requests;
        while answered() < until && !self.stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    /// One client's life: until it was answered so often, is to stop, or its connection ends.
    pub(crate) fn run(&self, mut client: Client, seed: u64, requests: u64) {
        let mut state = seed;
        for _ in 0..requests {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let is_write = random(&mut state, 10) < 3;
            let place = random(&mut state, self.registers.len() as u64);
            let done = match is_write {
                true => self.write(&mut client, place),
                false => self.read(&mut client, place, &mut state),
            };
            if let Err(error) = done {
                assert_ne!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn write(&self, client: &mut Client, block: u64) -> io::Result<()> {
        let register = &self.registers[block as usize];
        let _turn = register.turn.lock().expect("no client panicked");
        let write = register.begun.load(Ordering::SeqCst) + 1;
        register.begun.store(write, Ordering::SeqCst);
        client.write(write, block * BLOCK as u64, &sector(block, write).repeat(BLOCK / SECTOR));
        client.send()?;
        let reply = client.reply()?;
        assert_eq!((reply.cookie, reply.error), (write, 0), "write {write} of block {block}");
        register.acknowledged.store(write, Ordering::SeqCst);
        self.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read(&self, client: &mut Client, block: u64, state: &mut u64) -> io::Result<()> {
        let sectors = self.registers.len() as u64 * (BLOCK / SECTOR) as u64;
        let first = block * (BLOCK / SECTOR) as u64 + random(state, (BLOCK / SECTOR) as u64);
        let count = (1 + random(state, SECTORS_MAX)).min(sectors - first);
        let blocks = first / 8..(first + count).div_ceil(8);
        let known = |count: fn(&Register) -> &AtomicU64| -> Vec<u64> {
            blocks
                .clone()
                .map(|at| count(&self.registers[at as usize]).load(Ordering::SeqCst))
                .collect()
        };
        let oldest = known(|register| &register.acknowledged);
        client.read(first, first * SECTOR as u64, (count as usize * SECTOR) as u32);
        client.send()?;
        let reply = client.reply()?;
        assert_eq!((reply.cookie, reply.error), (first, 0), "read of {count} at {first}");
        let mut bytes = vec![0; count as usize * SECTOR];
        client.data(&mut bytes)?;
        let newest = known(|register| &register.begun);
        for (at, read) in (first..).zip(bytes.chunks(SECTOR)) {
            let index = (at / 8 - blocks.start) as usize;
            check(at / 8, read, oldest[index], newest[index]);
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Compares all of the origin with what was acknowledged.
    pub(crate) fn compare(&self, origin: &Path) {
        let content = std::fs::read(origin).expect("readable");
        for (block, (register, bytes)) in
            self.registers.iter().zip(content.chunks(BLOCK)).enumerate()
        {
            let oldest = register.acknowledged.load(Ordering::SeqCst);
            let newest = register.begun.load(Ordering::SeqCst);
            for read in bytes.chunks(SECTOR) {
                check(block as u64, read, oldest, newest);
            }
        }
    }
}

#[track_caller]
fn check(block: u64, read: &[u8], oldest: u64, newest: u64) {
    let write = u64::from_le_bytes(read[8..16].try_into().expect("eight"));
    assert!(
        (oldest..=newest).contains(&write),
        "block {block}: has write {write}, must have one from {oldest} to {newest}"
    );
    assert_eq!(read, sector(block, write), "block {block}, write {write}");
}
