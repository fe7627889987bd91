//! A table of histories: those that can be true, and those that cannot, each of which must be
//! refused at its last step and not before.

use super::*;
use crate::{Buffer, BufferPool, Extent, Operation, RequestId};
use Crash::{CachePowerCut, OriginPowerCut, ProcessKilled};
use Step::*;

const ALL: Extent = Extent::new(0, 1024);

/// One step. Writes are named by their value; `true` is the volume beside the first.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A write of the value begins.
    Begin(u8),
    /// It is acknowledged.
    Ack(u8),
    /// It fails, and may have been done.
    Fail(u8),
    /// It is lost, and may be done later.
    Lose(u8),
    /// The two above at once.
    Write(u8),
    WriteThrough(u8),
    WriteOther(u8),
    Discard,
    Zeroes,
    Flush,
    FailedFlush,
    /// A read from begin to end returns the value.
    Read(u8),
    ReadOther(u8),
    /// A read begins, and ends with the value.
    BeginRead,
    EndRead(u8),
    /// One whose first sector has one value, and the second another.
    ReadTwo(u8, u8),
    Fence,
    Dies(Crash),
}

struct Player {
    history: History,
    next: u64,
}

fn buffer(first: u8, second: u8) -> Buffer {
    let buffer = BufferPool::heap().allocate(1024);
    buffer.slice(0, 512).fill(first);
    buffer.slice(512, 512).fill(second);
    buffer
}

fn write_id(value: u8) -> RequestId {
    RequestId(1000 + u64::from(value))
}

impl Player {
    fn new(volatile_cache: bool) -> Self {
        let rules = VolumeRules { capacity: 4096, volatile_cache, late_writes: true };
        Self { history: History::new(7, &[rules, rules]), next: 0 }
    }

    fn play(&mut self, step: Step) -> Result<(), Refusal> {
        match step {
            Begin(value) => {
                let request = Request::write(write_id(value), 0, buffer(value, value));
                self.history.begin(0, &request);
            }
            Ack(value) => return self.end(0, write_id(value), Ok(()), None),
            Fail(value) => return self.end(0, write_id(value), Err(IoError::Media), None),
            Lose(value) => return self.end(0, write_id(value), Err(IoError::ConnectionLost), None),
            Write(value) => return self.write(0, value, false),
            WriteThrough(value) => return self.write(0, value, true),
            WriteOther(value) => return self.write(1, value, false),
            Discard => return self.whole(Request::discard(RequestId(1), ALL), Ok(())),
            Zeroes => return self.whole(Request::write_zeroes(RequestId(1), ALL), Ok(())),
            Flush => return self.whole(Request::flush(RequestId(1)), Ok(())),
            FailedFlush => return self.whole(Request::flush(RequestId(1)), Err(IoError::Media)),
            Read(value) => return self.read(0, value, value),
            ReadTwo(first, second) => return self.read(0, first, second),
            ReadOther(value) => return self.read(1, value, value),
            BeginRead => {
                self.history.begin(0, &Request::read(RequestId(self.next), 0, buffer(0, 0)));
                self.next += 1;
            }
            // The oldest that has not ended: reads are numbered up to 1000.
            EndRead(value) => {
                self.next -= 1;
                return self.end(0, RequestId(self.next), Ok(()), Some(buffer(value, value)));
            }
            Fence => self.history.fence(0),
            Dies(crash) => {
                self.history.crash(crash);
                // Reads outlive an origin's power.
                if crash != OriginPowerCut {
                    self.next = 0;
                }
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        volume: usize,
        id: RequestId,
        result: Result<(), IoError>,
        buffer: Option<Buffer>,
    ) -> Result<(), Refusal> {
        self.history.complete(volume, &Completion { id, result, buffer })
    }

    fn write(&mut self, volume: usize, value: u8, force: bool) -> Result<(), Refusal> {
        let request = Request::write(write_id(value), 0, buffer(value, value));
        self.history.begin(volume, &request.with_force_unit_access(force));
        self.end(volume, write_id(value), Ok(()), None)
    }

    fn whole(&mut self, request: Request, result: Result<(), IoError>) -> Result<(), Refusal> {
        assert_ne!(request.operation, Operation::Read);
        let request = Request { id: RequestId(9999), ..request };
        self.history.begin(0, &request);
        self.end(0, request.id, result, None)
    }

    fn read(&mut self, volume: usize, first: u8, second: u8) -> Result<(), Refusal> {
        let request = Request::read(RequestId(5000), 0, buffer(0, 0));
        self.history.begin(volume, &request);
        self.end(volume, request.id, Ok(()), Some(buffer(first, second)))
    }
}

/// Plays `steps`, which must all be accepted, and returns what becomes of `last`.
fn outcome(volatile_cache: bool, steps: &[Step], last: Step) -> Result<(), Refusal> {
    let mut player = Player::new(volatile_cache);
    for (index, step) in steps.iter().enumerate() {
        let accepted = player.play(*step);
        assert_eq!(accepted, Ok(()), "step {index} of {steps:?}");
    }
    player.play(last)
}

/// What is true before, what may be said then, and what may not.
type Row<'steps> = (&'steps [Step], &'steps [Step], &'steps [Step]);

fn judge(volatile_cache: bool, rows: &[Row<'_>]) {
    for (steps, right, wrong) in rows {
        for last in *right {
            assert_eq!(outcome(volatile_cache, steps, *last), Ok(()), "{steps:?}, {last:?}");
        }
        for last in *wrong {
            let refusal = outcome(volatile_cache, steps, *last);
            assert!(refusal.is_err(), "{steps:?}, {last:?} was accepted");
        }
    }
}

#[test]
fn reads_are_of_the_newest_acknowledged_write_or_of_one_beside_them() {
    judge(
        false,
        &[
            (&[], &[Read(0)], &[Read(1)]),
            (&[Write(1), Write(2)], &[Read(2)], &[Read(1), Read(0), ReadTwo(2, 1)]),
            (&[Write(1), Begin(2)], &[Read(1), Read(2), ReadTwo(1, 2)], &[Read(0), Read(3)]),
            // Once seen it was done.
            (&[Write(1), Begin(2), Read(2)], &[Read(2)], &[Read(1), ReadTwo(2, 1)]),
            (&[Write(1), Begin(2), Read(1)], &[Read(2), Read(1)], &[Read(0)]),
            (&[Write(1), Begin(2), Read(2), Fail(2)], &[Read(2)], &[Read(1)]),
            (&[Write(1), BeginRead, Write(2)], &[EndRead(1), EndRead(2)], &[EndRead(0)]),
            (&[Begin(1), Begin(2), Ack(2), Ack(1)], &[Read(1), Read(2)], &[Read(0)]),
            (&[Begin(1), Begin(2), Ack(2), Ack(1), Read(2)], &[Read(2)], &[Read(1)]),
        ],
    );
}

#[test]
fn failed_lost_and_discarded_is_one_thing_or_the_other_and_then_stays() {
    judge(
        false,
        &[
            (&[Write(1), Begin(2), Fail(2)], &[Read(1), Read(2), ReadTwo(1, 2)], &[Read(0)]),
            (&[Write(1), Begin(2), Fail(2), Read(1)], &[Read(1)], &[Read(2), ReadTwo(1, 2)]),
            (&[Write(1), Begin(2), Fail(2), Read(2)], &[Read(2)], &[Read(1)]),
            (&[Write(1), Begin(2), Fail(2), Write(3)], &[Read(3)], &[Read(1), Read(2)]),
            // A lost one may come at any time, and over a later one, until the fence.
            (&[Write(1), Begin(2), Lose(2), Read(1)], &[Read(1), Read(2)], &[Read(3)]),
            (&[Write(1), Begin(2), Lose(2), Write(3)], &[Read(3), Read(2)], &[Read(1)]),
            (&[Begin(2), Lose(2), Write(3), Fence, Read(3)], &[Read(3)], &[Read(2)]),
            (&[Begin(2), Lose(2), Fence, Write(3)], &[Read(3)], &[Read(2)]),
            (&[Write(1), Discard], &[Read(1), Read(0), Read(9)], &[]),
            (&[Write(1), Discard, Read(9)], &[Read(9)], &[Read(1), Read(0)]),
            (&[Write(1), Discard, Read(9), Zeroes], &[Read(0)], &[Read(9), Read(1)]),
        ],
    );
}

#[test]
fn after_the_process_was_killed_what_was_acknowledged_is_there() {
    for crash in [ProcessKilled, CachePowerCut] {
        for volatile in [false, true] {
            judge(
                volatile,
                &[
                    (&[Write(1), Dies(crash)], &[Read(1)], &[Read(0)]),
                    (
                        &[Write(1), Begin(2), Dies(crash)],
                        &[Read(1), Read(2), ReadTwo(2, 1)],
                        &[Read(0)],
                    ),
                    (&[Write(1), Begin(2), Dies(crash), Read(1)], &[Read(1)], &[Read(2)]),
                    (&[Write(1), Begin(2), Dies(crash), Read(2)], &[Read(2)], &[Read(1)]),
                    (&[Write(1), Begin(2), Read(2), Dies(crash)], &[Read(2)], &[Read(1)]),
                    // Nothing lands any more, not even what was lost before.
                    (&[Begin(2), Lose(2), Dies(crash), Read(0)], &[Read(0)], &[Read(2)]),
                    (&[Begin(2), Dies(crash), Write(3)], &[Read(3)], &[Read(2)]),
                    (&[Begin(2), Dies(crash), Read(2), Dies(crash)], &[Read(2)], &[Read(0)]),
                ],
            );
        }
    }
}

#[test]
fn a_power_cut_of_the_origin_loses_only_what_was_not_durable() {
    judge(
        true,
        &[
            (&[Write(1), Dies(OriginPowerCut)], &[Read(1), Read(0)], &[Read(2)]),
            (&[Write(1), Dies(OriginPowerCut), Read(0)], &[Read(0)], &[Read(1)]),
            (&[Write(1), Read(1), Dies(OriginPowerCut), Read(1)], &[Read(1)], &[Read(0)]),
            (&[Write(1), Flush, Dies(OriginPowerCut)], &[Read(1)], &[Read(0)]),
            (&[Write(1), FailedFlush, Dies(OriginPowerCut)], &[Read(1), Read(0)], &[]),
            (&[WriteThrough(1), Dies(OriginPowerCut)], &[Read(1)], &[Read(0)]),
            (&[Write(1), Flush, Write(2), Dies(OriginPowerCut)], &[Read(1), Read(2)], &[Read(0)]),
            (
                &[Write(1), Flush, Begin(2), Dies(OriginPowerCut), Fail(2)],
                &[Read(1), Read(2)],
                &[Read(0)],
            ),
            // A read that began before may still say what was there then.
            (
                &[Write(1), Flush, BeginRead, Write(2), Flush, Dies(OriginPowerCut)],
                &[EndRead(1), EndRead(2)],
                &[EndRead(0)],
            ),
            (
                &[Write(1), Dies(OriginPowerCut), Dies(ProcessKilled), Read(0)],
                &[Read(0)],
                &[Read(1)],
            ),
        ],
    );
    judge(false, &[(&[Write(1), Dies(OriginPowerCut)], &[Read(1)], &[Read(0)])]);
}

#[test]
fn volumes_are_apart() {
    judge(
        false,
        &[
            (&[Write(1)], &[ReadOther(0), Read(1)], &[ReadOther(1)]),
            (&[Write(1), WriteOther(2)], &[ReadOther(2), Read(1)], &[Read(2), ReadOther(1)]),
            (&[WriteOther(2), Dies(ProcessKilled)], &[ReadOther(2)], &[Read(2), ReadOther(0)]),
        ],
    );
    let refusal = outcome(false, &[Write(1)], ReadOther(1)).expect_err("a foreign volume's bytes");
    assert!(refusal.to_string().starts_with("volume 1: seed 7: read 5000 returned"), "{refusal}");
}
