//! Commands that take several steps of the device, one after the other, in bounded memory:
//! compare, verify, copy, and compare and write.
//!
//! ```text
//!   next ──▶ Ask(request) ──device──▶ completed ──▶ next ──▶ … ──▶ Done | Fail
//!
//!   compare            read, compare, read, compare, …
//!   verify             read, read, …
//!   copy               read, write, read, write, …
//!   compare and write  read, compare, …, write
//! ```
//! One piece of at most [`PIECE_MAX`] is in memory at a time, beside what the host sent. A copy
//! whose source and destination overlap gives what the order of its pieces gives; NVM §3.2.2
//! promises nothing else.
//!
//! Absent: being alone with the blocks, which `extents` does.

use block_io::{Buffer, BufferPool, Extent, IoError, Operation};

use crate::spec::status::Status;

/// Memory of one sequence, in bytes.
pub(in crate::target) const PIECE_MAX: u64 = 128 << 10;

/// Bytes that are compared at a time.
const COMPARE_AT_ONCE: usize = 4096;

/// A command under way.
#[derive(Debug)]
pub(in crate::target) struct Sequence {
    work: Work,
    /// One piece's memory.
    piece: Buffer,
    /// What was asked for and has not been answered.
    asked: Option<Extent>,
}

#[derive(Debug)]
enum Work {
    /// `data` is what the host says that `extent` holds; `then` is what to write if it does.
    Compare {
        extent: Extent,
        done: u64,
        data: Buffer,
        then: Option<Write>,
    },
    Verify {
        rest: Extent,
    },
    Copy(Copy),
}

#[derive(Debug)]
struct Write {
    data: Buffer,
    force_unit_access: bool,
    is_asked: bool,
}

#[derive(Debug)]
struct Copy {
    /// Sources, in order.
    sources: Vec<Extent>,
    /// Which one is next, and how much of it is copied.
    source: usize,
    done: u64,
    /// Where the next piece goes.
    destination: u64,
    is_read: bool,
    force_unit_access: bool,
}

/// What a sequence wants.
#[derive(Debug)]
pub(in crate::target) enum Next {
    /// This of the device.
    Ask { operation: Operation, extent: Extent, buffer: Buffer, force_unit_access: bool },
    /// Nothing: the command has succeeded.
    Done,
}

/// Why a sequence ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Failure {
    /// The blocks do not hold the host's data.
    Miscompare,
    /// The device failed a read.
    Read(IoError),
    /// The device failed a write.
    Write(IoError),
}

impl Sequence {
    /// Compares `extent` with the host's data.
    pub(in crate::target) fn compare(extent: Extent, data: Buffer, piece: Buffer) -> Self {
        let work = Work::Compare { extent, done: 0, data, then: None };
        Self { work, piece, asked: None }
    }

    /// The same, and writes `write` there when it is equal.
    pub(in crate::target) fn compare_and_write(
        extent: Extent,
        data: Buffer,
        write: Buffer,
        force_unit_access: bool,
        piece: Buffer,
    ) -> Self {
        let then = Some(Write { data: write, force_unit_access, is_asked: false });
        Self { work: Work::Compare { extent, done: 0, data, then }, piece, asked: None }
    }

    /// Reads `extent` for the sake of reading it.
    pub(in crate::target) fn verify(extent: Extent, piece: Buffer) -> Self {
        Self { work: Work::Verify { rest: extent }, piece, asked: None }
    }

    /// Copies `sources` one behind the other to `destination`.
    pub(in crate::target) fn copy(
        sources: Vec<Extent>,
        destination: u64,
        force_unit_access: bool,
        piece: Buffer,
    ) -> Self {
        let copy =
            Copy { sources, source: 0, done: 0, destination, is_read: false, force_unit_access };
        Self { work: Work::Copy(copy), piece, asked: None }
    }

    /// Whether it has changed anything, or is about to.
    pub(in crate::target) fn has_written(&self) -> bool {
        match &self.work {
            Work::Compare { then, .. } => then.as_ref().is_some_and(|write| write.is_asked),
            Work::Verify { .. } => false,
            Work::Copy(copy) => copy.is_read || copy.source > 0 || copy.done > 0,
        }
    }

    /// Dword 0 of a copy that failed: the first source range that is not copied. NVM §3.2.2.
    pub(in crate::target) fn result(&self) -> u64 {
        match &self.work {
            Work::Copy(copy) => copy.source as u64,
            Work::Compare { .. } | Work::Verify { .. } => 0,
        }
    }

    /// The next request; nothing may be out.
    pub(in crate::target) fn next(&mut self, pool: &BufferPool) -> Next {
        let piece_max = self.piece.len() as u64;
        let writes_piece = matches!(&self.work, Work::Copy(copy) if copy.is_read);
        if !writes_piece && !self.piece.is_unique() {
            // A device may still be reading what it has completed (a cache that stores its copy).
            self.piece = pool.allocate(self.piece.len());
        }
        let (operation, extent, buffer, force_unit_access) = match &mut self.work {
            Work::Compare { extent, done, then, .. } if *done == extent.length => {
                let Some(write) = then.as_mut().filter(|write| !write.is_asked) else {
                    return Next::Done;
                };
                write.is_asked = true;
                (Operation::Write, *extent, write.data.clone(), write.force_unit_access)
            }
            Work::Compare { extent, done, .. } => {
                let length = (extent.length - *done).min(piece_max);
                let part = Extent::new(extent.offset + *done, length);
                (Operation::Read, part, self.piece.slice(0, length as usize), false)
            }
            Work::Verify { rest } if rest.is_empty() => return Next::Done,
            Work::Verify { rest } => {
                let length = rest.length.min(piece_max);
                let part = Extent::new(rest.offset, length);
                (Operation::Read, part, self.piece.slice(0, length as usize), false)
            }
            Work::Copy(copy) => {
                let Some(source) = copy.sources.get(copy.source) else { return Next::Done };
                let length = (source.length - copy.done).min(piece_max);
                let buffer = self.piece.slice(0, length as usize);
                if copy.is_read {
                    let part = Extent::new(copy.destination, length);
                    (Operation::Write, part, buffer, copy.force_unit_access)
                } else {
                    let part = Extent::new(source.offset + copy.done, length);
                    (Operation::Read, part, buffer, false)
                }
            }
        };
        self.asked = Some(extent);
        Next::Ask { operation, extent, buffer, force_unit_access }
    }

    /// The device has answered.
    pub(in crate::target) fn completed(
        &mut self,
        result: Result<(), IoError>,
    ) -> Result<(), Failure> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let length = asked.length;
        match &mut self.work {
            Work::Compare { extent, done, .. } if *done == extent.length => {
                result.map_err(Failure::Write)
            }
            Work::Compare { done, data, .. } => {
                result.map_err(Failure::Read)?;
                let expected = data.slice(*done as usize, length as usize);
                if !is_equal(&expected, &self.piece.slice(0, length as usize)) {
                    return Err(Failure::Miscompare);
                }
                *done += length;
                Ok(())
            }
            Work::Verify { rest } => {
                result.map_err(Failure::Read)?;
                *rest = Extent::new(rest.offset + length, rest.length - length);
                Ok(())
            }
            Work::Copy(copy) if copy.is_read => {
                result.map_err(Failure::Write)?;
                copy.is_read = false;
                copy.destination += length;
                copy.done += length;
                if copy.sources.get(copy.source).is_some_and(|source| source.length == copy.done) {
                    (copy.source, copy.done) = (copy.source + 1, 0);
                }
                Ok(())
            }
            Work::Copy(copy) => {
                result.map_err(Failure::Read)?;
                copy.is_read = true;
                Ok(())
            }
        }
    }
}

impl Failure {
    /// What it is to a host.
    pub(in crate::target) fn status(self) -> Status {
        match self {
            Self::Miscompare => Status::COMPARE_FAILURE.do_not_retry(),
            Self::Read(IoError::Media) => Status::UNRECOVERED_READ_ERROR,
            Self::Write(IoError::Media) => Status::WRITE_FAULT,
            Self::Read(error) | Self::Write(error) => super::status_of(error),
        }
    }
}

/// Compares two runs of the same length. By copies on the stack, for a view gives no slice.
fn is_equal(one: &Buffer, other: &Buffer) -> bool {
    let (mut left, mut right) = ([0; COMPARE_AT_ONCE], [0; COMPARE_AT_ONCE]);
    let length = one.len().min(other.len());
    (0..length).step_by(COMPARE_AT_ONCE).all(|at| {
        let count = COMPARE_AT_ONCE.min(length - at);
        one.slice(at, count).copy_to_slice(&mut left[..count]);
        other.slice(at, count).copy_to_slice(&mut right[..count]);
        left[..count] == right[..count]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::BufferPool;

    /// Runs a sequence on `disk`; what it asked for.
    fn run(
        pool: &BufferPool,
        sequence: &mut Sequence,
        disk: &mut [u8],
    ) -> Result<Vec<(Operation, Extent)>, Failure> {
        let mut asked = Vec::new();
        while let Next::Ask { operation, extent, buffer, .. } = sequence.next(pool) {
            let range = extent.offset as usize..extent.end() as usize;
            match operation {
                Operation::Write => buffer.copy_to_slice(&mut disk[range]),
                _ => buffer.copy_from_slice(&disk[range]),
            }
            asked.push((operation, extent));
            sequence.completed(Ok(()))?;
        }
        Ok(asked)
    }

    fn buffer(pool: &BufferPool, bytes: &[u8]) -> Buffer {
        let buffer = pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    #[test]
    fn a_compare_looks_at_every_byte_in_pieces() {
        let pool = BufferPool::heap();
        let mut disk: Vec<u8> = (0..20_000).map(|at| (at / 7) as u8).collect();
        let extent = Extent::new(512, 9 * 1024);
        let same = disk[512..512 + 9 * 1024].to_vec();
        let mut sequence = Sequence::compare(extent, buffer(&pool, &same), pool.allocate(4096));
        let asked = run(&pool, &mut sequence, &mut disk).expect("equal");
        let lengths: Vec<u64> = asked.iter().map(|(_, extent)| extent.length).collect();
        assert_eq!(lengths, [4096, 4096, 1024]);
        for at in [0, 4095, 4096, 9 * 1024 - 1] {
            let mut other = same.clone();
            other[at] ^= 1;
            let data = buffer(&pool, &other);
            let mut sequence = Sequence::compare(extent, data, pool.allocate(4096));
            assert_eq!(run(&pool, &mut sequence, &mut disk), Err(Failure::Miscompare), "byte {at}");
        }
    }

    #[test]
    fn a_compare_and_write_writes_only_what_was_equal() {
        let pool = BufferPool::heap();
        let mut disk = vec![1; 4096];
        let extent = Extent::new(1024, 2048);
        let (old, new) = (buffer(&pool, &[1; 2048]), buffer(&pool, &[2; 2048]));
        let make = || {
            let piece = pool.allocate(1024);
            Sequence::compare_and_write(extent, old.clone(), new.clone(), true, piece)
        };
        assert_eq!(run(&pool, &mut make(), &mut disk).expect("equal").len(), 3);
        assert_eq!((disk[1023], disk[1024], disk[3071], disk[3072]), (1, 2, 2, 1));
        let mut again = make();
        assert_eq!(run(&pool, &mut again, &mut disk), Err(Failure::Miscompare));
        assert!(!again.has_written());
    }

    #[test]
    fn a_copy_puts_its_sources_one_behind_the_other() {
        let pool = BufferPool::heap();
        let mut disk: Vec<u8> = (0..16384).map(|at| (at / 512) as u8).collect();
        let sources = vec![Extent::new(4096, 1536), Extent::new(0, 512), Extent::new(1024, 1024)];
        let expected: Vec<u8> = sources
            .iter()
            .flat_map(|source| disk[source.offset as usize..source.end() as usize].to_vec())
            .collect();
        let mut sequence = Sequence::copy(sources, 8192, false, pool.allocate(1024));
        run(&pool, &mut sequence, &mut disk).expect("no failure");
        assert_eq!(disk[8192..8192 + 3072], expected);
        assert_eq!((disk[8191], disk[8192 + 3072]), (15, 22), "and nothing else");
    }

    #[test]
    fn a_failed_copy_tells_the_source_that_is_not_copied() {
        let pool = BufferPool::heap();
        let sources = vec![Extent::new(0, 1024), Extent::new(4096, 512)];
        let mut sequence = Sequence::copy(sources, 8192, false, pool.allocate(512));
        for _ in 0..4 {
            assert!(matches!(sequence.next(&pool), Next::Ask { .. }));
            assert_eq!((sequence.completed(Ok(())), sequence.asked), (Ok(()), None));
        }
        assert!(matches!(sequence.next(&pool), Next::Ask { .. }));
        let failed = sequence.completed(Err(IoError::Media));
        assert_eq!((failed, sequence.result()), (Err(Failure::Read(IoError::Media)), 1));
    }
}
