//! A toy journal under crash images: the right one survives all of them, and each of four wrong
//! ones is caught by the kind of image that is meant for it.

use std::collections::BTreeSet;

use block_io::sim::{DiskFaults, SimDisk, SimQueue, World, fill_pattern};
use block_io::{BlockDevice, Buffer, BufferPool};

use super::*;

/// One block of two sectors in place, at the journal's first place, and its commit record.
const HOME: u64 = 0;
const JOURNAL: u64 = 4096;
const COMMIT: u64 = 8192;
const BLOCK: usize = 1024;
const ROUNDS: u64 = 6;

/// What the journal leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// No flush between the journal's block and its commit record.
    NoFlushBeforeCommit,
    /// The answer comes before the commit record is durable.
    NoFlushBeforeAnswer,
    /// The block in place is written before the commit record is durable.
    HomeBeforeCommit,
    /// Journal block and commit record are recovered without a look at the whole block.
    NoChecksum,
}

struct Toy {
    world: World,
    queue: RecordingQueue<SimQueue>,
    pool: BufferPool,
    next: u64,
}

impl Toy {
    fn new(recording: &Recording) -> Self {
        let world = World::new(3);
        let geometry = Geometry { volatile_cache: true, ..Geometry::new(64 << 10) };
        let disk = SimDisk::new(&world, "disk", geometry);
        disk.set_faults(DiskFaults::unordered());
        let queue = recording.queue(disk.open_queue(&world, 8).expect("opens"));
        Self { world, queue, pool: BufferPool::heap(), next: 0 }
    }

    fn submit(&mut self, request: Request) {
        let id = RequestId(self.next);
        self.next += 1;
        self.queue.submit(Request { id, ..request }).expect("room");
    }

    fn write(&mut self, offset: u64, round: u64) {
        let buffer = self.pool.allocate(BLOCK);
        fill_pattern(&buffer, round, 0);
        self.submit(Request::write(RequestId(0), offset, buffer));
    }

    fn wait(&mut self) {
        let mut completions = Vec::new();
        while self.queue.in_flight() > 0 {
            self.world.advance();
            self.queue.poll(self.world.now(), &mut completions);
        }
    }

    fn flush(&mut self) {
        self.wait();
        self.submit(Request::flush(RequestId(0)));
        self.wait();
    }

    /// One transaction: journal, commit, in place.
    fn round(&mut self, round: u64, fault: Fault, recording: &Recording) {
        if fault == Fault::HomeBeforeCommit {
            self.write(HOME, round);
        }
        self.write(JOURNAL, round);
        if !matches!(fault, Fault::NoFlushBeforeCommit | Fault::NoChecksum) {
            self.flush();
        }
        self.write(COMMIT, round);
        match fault {
            Fault::NoFlushBeforeAnswer => self.wait(),
            _ => self.flush(),
        }
        recording.mark(round);
        self.write(HOME, round);
        // The journal's block is used again, so what is in place must be durable.
        self.flush();
    }
}

fn of_round(round: u64) -> Vec<u8> {
    let buffer: Buffer = BufferPool::heap().allocate(BLOCK);
    buffer.fill(0);
    if round > 0 {
        fill_pattern(&buffer, round, 0);
    }
    buffer.to_vec()
}

/// The round whose block this is, whole.
fn round_of(bytes: &[u8]) -> Option<u64> {
    (0..=ROUNDS).find(|round| of_round(*round) == bytes)
}

/// A commit record that is whole says that the journal's block is to be put in place. What is then
/// in place must be whole, of the last round that was answered or of the one under way.
fn recover(image: &CrashImage, fault: Fault) -> Result<(), String> {
    let read = |offset| image.medium.read(Extent::new(offset, BLOCK as u64));
    let commit = round_of(&read(COMMIT));
    let journal = read(JOURNAL);
    let home = match (commit, round_of(&journal)) {
        (Some(committed), _) if committed > 0 && fault == Fault::NoChecksum => journal,
        (Some(committed), Some(journaled)) if committed > 0 && committed <= journaled => {
            // A journal's block newer than the commit record is of a transaction not committed:
            // then the one committed is in place already.
            if committed == journaled { journal } else { read(HOME) }
        }
        (Some(committed), None) if committed > 0 && fault == Fault::NoFlushBeforeCommit => {
            return Err(format!("round {committed} is committed and its block is torn"));
        }
        _ => read(HOME),
    };
    let found = round_of(&home).ok_or("what is in place is torn")?;
    let right = image.mark..=image.mark + 1;
    if right.contains(&found) { Ok(()) } else { Err(format!("round {found}, not {right:?}")) }
}

fn check(fault: Fault, subsets: usize) -> Result<usize, BadImage> {
    let recording = Recording::new();
    let mut toy = Toy::new(&recording);
    for round in 1..=ROUNDS {
        toy.round(round, fault, &recording);
    }
    let plan = ImagePlan { subsets, stride: 1, volatile_cache: true, seed: 1 };
    recording.check_images(&Medium::default(), &plan, |image| recover(image, fault))
}

#[test]
fn a_correct_journal_survives_every_image() {
    let images = check(Fault::None, 12).expect("it is correct");
    assert!(images > 500, "{images}");
}

#[test]
fn each_fault_of_a_journal_is_caught() {
    for fault in [
        Fault::NoFlushBeforeCommit,
        Fault::NoFlushBeforeAnswer,
        Fault::HomeBeforeCommit,
        Fault::NoChecksum,
    ] {
        let bad = check(fault, 12).expect_err("a journal that cannot be right");
        assert!(!bad.message.is_empty() && bad.after > 0, "{fault:?}: {bad:?}");
    }
    let bad = check(Fault::NoFlushBeforeAnswer, 0).expect_err("caught without any subset");
    assert_eq!(bad.landed, Landed::Nothing, "{bad:?}");
}

/// Two writes recorded by hand, and all values of the first two sectors in the images of the end.
fn outcomes(plan: ImagePlan, record: impl Fn(&mut Toy)) -> BTreeSet<(u8, u8)> {
    let recording = Recording::new();
    let mut toy = Toy::new(&recording);
    record(&mut toy);
    let mut outcomes = BTreeSet::new();
    let end = recording.events();
    let checked = recording.check_images(&Medium::default(), &plan, |image| {
        if image.after == end {
            let bytes = image.medium.read(Extent::new(0, 1024));
            outcomes.insert((bytes[0], bytes[512]));
        }
        Ok(())
    });
    assert!(checked.is_ok());
    outcomes
}

fn write_of(toy: &mut Toy, value: u8, force: bool) {
    let buffer = toy.pool.allocate(BLOCK);
    buffer.fill(value);
    let request = Request::write(RequestId(0), 0, buffer).with_force_unit_access(force);
    toy.submit(request);
}

#[test]
fn images_have_what_a_device_may_leave_and_nothing_else() {
    let plan = ImagePlan { subsets: 200, stride: 1, volatile_cache: true, seed: 1 };
    let values = |outcomes: &BTreeSet<(u8, u8)>| -> BTreeSet<u8> {
        outcomes.iter().flat_map(|pair| [pair.0, pair.1]).collect()
    };
    let one_after_another = |toy: &mut Toy| {
        for value in [1, 2] {
            write_of(toy, value, false);
            toy.wait();
        }
    };
    let sequential = outcomes(plan, one_after_another);
    assert_eq!(sequential.len(), 9, "any of three in each sector: {sequential:?}");
    let durable = outcomes(ImagePlan { volatile_cache: false, ..plan }, one_after_another);
    assert_eq!(durable, BTreeSet::from([(2, 2)]), "without a volatile cache");
    let forced = outcomes(plan, |toy| {
        write_of(toy, 1, false);
        toy.wait();
        write_of(toy, 2, true);
        toy.wait();
    });
    assert_eq!(forced, BTreeSet::from([(2, 2)]), "forced over what was before");
    let flushed = outcomes(plan, |toy| {
        write_of(toy, 1, false);
        toy.flush();
        write_of(toy, 2, false);
    });
    assert_eq!(values(&flushed), BTreeSet::from([1, 2]), "never what was before the flush");
    let beside = outcomes(plan, |toy| {
        write_of(toy, 1, false);
        toy.submit(Request::flush(RequestId(0)));
        toy.wait();
    });
    assert!(beside.contains(&(0, 0)), "a flush is for writes that ended before it began");
    let everything = ImagePlan { subsets: 0, ..plan };
    let together = |seed| {
        outcomes(ImagePlan { seed, ..everything }, |toy| {
            write_of(toy, 1, false);
            write_of(toy, 2, false);
        })
    };
    let both: BTreeSet<_> = (0..20).flat_map(together).collect();
    assert_eq!(both, BTreeSet::from([(0, 0), (1, 1), (2, 2)]), "in either order");
    let in_order = |seed| outcomes(ImagePlan { seed, ..everything }, one_after_another);
    let both: BTreeSet<_> = (0..20).flat_map(in_order).collect();
    assert_eq!(both, BTreeSet::from([(0, 0), (2, 2)]), "never against their order");
}
