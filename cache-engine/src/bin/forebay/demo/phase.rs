//! Runs one phase of the demo: keeps a fixed number of requests in flight on a connection, times
//! each, and compares every byte that comes back with the model.
//!
//! A block with a write in flight gets no other request, because its content is then in no order;
//! everything else overlaps freely.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::Client;
use super::workload::{BLOCK_SIZE, Model, Random, Zipf};

/// One request, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// First block.
    pub(super) block: u64,
    /// Number of blocks; a write is of one.
    pub(super) blocks: u32,
    /// A write of the block's next version, or a read.
    pub(super) write: bool,
}

impl Ask {
    fn conflicts_with(&self, other: &Self) -> bool {
        let overlaps = self.block < other.block + u64::from(other.blocks)
            && other.block < self.block + u64::from(self.blocks);
        overlaps && (self.write || other.write)
    }
}

/// Where a phase's requests come from.
pub(super) trait Source {
    /// The next request, or `None` at the end of the phase.
    fn next(&mut self) -> Option<Ask>;
    /// How far the phase is, from 0 to 1.
    fn progress(&self) -> f64;
}

/// Random single blocks by popularity, until a time.
pub(super) struct Popular<'interrupted> {
    pub(super) zipf: Zipf,
    pub(super) random: Random,
    /// Writes among 100 requests.
    pub(super) write_percent: u64,
    pub(super) start: Instant,
    pub(super) duration: Duration,
    pub(super) interrupted: &'interrupted dyn Fn() -> bool,
}

impl Source for Popular<'_> {
    fn next(&mut self) -> Option<Ask> {
        if self.start.elapsed() >= self.duration || (self.interrupted)() {
            return None;
        }
        let write = self.random.next() % 100 < self.write_percent;
        Some(Ask { block: self.zipf.sample(&mut self.random), blocks: 1, write })
    }

    fn progress(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() / self.duration.as_secs_f64()).min(1.0)
    }
}

/// Every block once, in order, in large reads.
pub(super) struct Sweep<'interrupted> {
    pub(super) next: u64,
    pub(super) blocks: u64,
    pub(super) interrupted: &'interrupted dyn Fn() -> bool,
}

/// Blocks in one read of a sweep: 64 KiB.
const SWEEP_BLOCKS: u64 = 16;

impl Source for Sweep<'_> {
    fn next(&mut self) -> Option<Ask> {
        if self.next == self.blocks || (self.interrupted)() {
            return None;
        }
        let block = self.next;
        self.next = (block + SWEEP_BLOCKS).min(self.blocks);
        Some(Ask { block, blocks: (self.next - block) as u32, write: false })
    }

    fn progress(&self) -> f64 {
        self.next as f64 / self.blocks as f64
    }
}

/// What a phase found.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// Bytes read and written.
    pub(super) bytes: u64,
    pub(super) wrong_bytes: u64,
    pub(super) elapsed: Duration,
    /// Nanoseconds from a request's sending to its answer's arrival.
    pub(super) latency: Histogram<u64>,
}

/// Runs `source` to its end with `depth` requests in flight.
///
/// # Errors
/// When the connection fails or the server answers any request with an error.
pub(super) fn run(
    client: &mut Client,
    model: &mut Model,
    source: &mut impl Source,
    depth: usize,
    progress: &mut dyn FnMut(f64),
) -> io::Result<Outcome> {
    Phase {
        client,
        model,
        slots: vec![None; depth],
        held: None,
        ended: false,
        content: vec![0; SWEEP_BLOCKS as usize * BLOCK_SIZE],
        outcome: Outcome {
            reads: 0,
            writes: 0,
            bytes: 0,
            wrong_bytes: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX, 3)
                .expect("the bounds and three significant digits are within its range"),
        },
    }
    .run(source, progress)
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    ask: Ask,
    sent: Instant,
}

struct Phase<'parts> {
    client: &'parts mut Client,
    model: &'parts mut Model,
    /// By cookie.
    slots: Vec<Option<InFlight>>,
    /// A request that conflicts with one in flight and waits for it.
    held: Option<Ask>,
    ended: bool,
    content: Vec<u8>,
    outcome: Outcome,
}

impl Phase<'_> {
    fn run(
        mut self,
        source: &mut impl Source,
        progress: &mut dyn FnMut(f64),
    ) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut shown = start;
        loop {
            self.submit(source);
            if self.slots.iter().all(Option::is_none) {
                self.outcome.elapsed = start.elapsed();
                return Ok(self.outcome);
            }
            self.client.send()?;
            self.take_reply()?;
            while self.client.has_reply() {
                self.take_reply()?;
            }
            if shown.elapsed() >= PROGRESS_INTERVAL {
                shown = Instant::now();
                progress(source.progress());
            }
        }
    }

    /// Queues requests until every slot is taken, the source ends, or a conflict must wait.
    fn submit(&mut self, source: &mut impl Source) {
        for cookie in 0..self.slots.len() {
            if self.slots[cookie].is_some() {
                continue;
            }
            let next = match self.held.take() {
                Some(ask) => Some(ask),
                None if self.ended => None,
                None => source.next(),
            };
            let Some(ask) = next else {
                self.ended = true;
                return;
            };
            if self.slots.iter().flatten().any(|other| ask.conflicts_with(&other.ask)) {
                self.held = Some(ask);
                return;
            }
            let offset = ask.block * BLOCK_SIZE as u64;
            if ask.write {
                let content = &mut self.content[..BLOCK_SIZE];
                self.model.fill(ask.block, self.model.version(ask.block) + 1, content);
                self.client.write(cookie as u64, offset, content);
            } else {
                self.client.read(cookie as u64, offset, ask.blocks * BLOCK_SIZE as u32);
            }
            self.slots[cookie] = Some(InFlight { ask, sent: Instant::now() });
        }
    }

    fn take_reply(&mut self) -> io::Result<()> {
        let reply = self.client.reply()?;
        let slot = self.slots.get_mut(reply.cookie as usize).and_then(Option::take);
        let Some(InFlight { ask, sent }) = slot else {
            return Err(io::Error::other(format!("an answer to no request: {reply:?}")));
        };
        if reply.error != 0 {
            let verb = if ask.write { "write" } else { "read" };
            return Err(io::Error::other(format!(
                "{verb} of block {} failed: {}",
                ask.block,
                io::Error::from_raw_os_error(reply.error as i32)
            )));
        }
        let bytes = ask.blocks as usize * BLOCK_SIZE;
        if ask.write {
            self.model.written(ask.block, self.model.version(ask.block) + 1);
            self.outcome.writes += 1;
        } else {
            let content = &mut self.content[..bytes];
            self.client.data(content)?;
            for (block, content) in (ask.block..).zip(content.chunks_exact(BLOCK_SIZE)) {
                let version = self.model.version(block);
                self.outcome.wrong_bytes += self.model.wrong_bytes(block, version, content);
            }
            self.outcome.reads += 1;
        }
        self.outcome.bytes += bytes as u64;
        let nanoseconds = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.outcome.latency.saturating_record(nanoseconds);
        Ok(())
    }
}

/// Nanoseconds up to which latencies are told apart: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// How often the progress bar is redrawn: often enough to move, seldom enough to cost nothing.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_overlaps_with_a_write_conflict() {
        let ask = |block, blocks, write| Ask { block, blocks, write };
        for (one, other, conflict) in [
            (ask(5, 1, false), ask(5, 1, false), false),
            (ask(5, 1, true), ask(5, 1, false), true),
            (ask(5, 1, true), ask(6, 1, true), false),
            (ask(0, 16, false), ask(15, 1, true), true),
            (ask(0, 16, false), ask(16, 1, true), false),
        ] {
            assert_eq!(one.conflicts_with(&other), conflict, "{one:?} {other:?}");
            assert_eq!(other.conflicts_with(&one), conflict, "{other:?} {one:?}");
        }
    }

    /// Negotiates and answers reads of one block from `model`, the one of block `wrong` with a
    /// byte flipped, until the client leaves.
    fn serve(mut stream: UnixStream, model: &Model, wrong: u64) -> io::Result<()> {
        let capacity = model.blocks() * BLOCK_SIZE as u64;
        stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03")?;
        stream.read_exact(&mut [0; 4 + 16 + 4 + 1 + 2])?;
        let option_reply = 0x0003_e889_0455_65a9_u64.to_be_bytes();
        let header = |kind: u32, length: u32| {
            [&option_reply[..], &7_u32.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes()]
                .concat()
        };
        stream.write_all(&header(3, 12))?;
        stream.write_all(&[&[0, 0][..], &capacity.to_be_bytes(), &[0, 1]].concat())?;
        stream.write_all(&header(1, 0))?;
        loop {
            let mut request = [0; 28];
            stream.read_exact(&mut request)?;
            let offset = u64::from_be_bytes(request[16..24].try_into().expect("eight bytes"));
            if request[7] == 2 {
                return Ok(());
            }
            let block = offset / BLOCK_SIZE as u64;
            let mut content = [0; BLOCK_SIZE];
            model.fill(block, 0, &mut content);
            content[99] ^= u8::from(block == wrong);
            stream.write_all(&[&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], &request[8..16]].concat())?;
            stream.write_all(&content)?;
        }
    }

    #[test]
    fn a_wrong_byte_from_the_server_is_found() {
        const BLOCKS: u64 = 64;
        for (wrong, expected) in [(BLOCKS, 0), (37, 1)] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let server = std::thread::spawn(move || serve(theirs, &Model::new(1, BLOCKS), wrong));
            let mut client = Client::over(ours, "x").expect("negotiated");
            assert_eq!(client.capacity(), BLOCKS * BLOCK_SIZE as u64);
            let mut model = Model::new(1, BLOCKS);
            let mut source = Each(0..BLOCKS);
            let outcome = run(&mut client, &mut model, &mut source, 8, &mut |_| {}).expect("runs");
            assert_eq!((outcome.reads, outcome.wrong_bytes), (BLOCKS, expected));
            client.disconnect().expect("sent");
            server.join().expect("no panic").expect("served");
        }
    }

    /// One read of each block.
    struct Each(std::ops::Range<u64>);

    impl Source for Each {
        fn next(&mut self) -> Option<Ask> {
            self.0.next().map(|block| Ask { block, blocks: 1, write: false })
        }

        fn progress(&self) -> f64 {
            0.0
        }
    }

    #[test]
    fn a_sweep_covers_every_block_once() {
        let mut sweep = Sweep { next: 0, blocks: 40, interrupted: &|| false };
        let asks: Vec<_> = std::iter::from_fn(|| sweep.next()).collect();
        assert_eq!(asks.iter().map(|ask| ask.blocks).collect::<Vec<_>>(), [16, 16, 8]);
        assert_eq!(asks.iter().map(|ask| ask.block).collect::<Vec<_>>(), [0, 16, 32]);
    }
}
