//! The cache beside reference disks: any requests to several volumes, any order of completions,
//! failures of all devices, writes that land late, mode switches, invalidations, volumes that
//! shrink, grow, go and come back, stops and crashes. Every read is checked, every request gets one
//! answer, and at the end origins and references agree.
//!
//! What the steps do is in `harness`, `starts` and `end`; here is which bytes mean which.

mod devices;
mod end;
mod harness;
mod starts;

use block_io::{IoError, Operation};
use cache_engine::cache::CacheMode;

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;
use devices::Landing;
use harness::Harness;

/// The target. Three bytes of configuration, then steps of four bytes each.
pub const TARGET: Target =
    Target { name: "cache_against_reference", length_max: INPUT_LENGTH_MAX, run, cost: 4, seeds };

const STEP_LENGTH: usize = 4;

fn run(input: &[u8]) -> Behaviour {
    let [mode, line_size, sizes, steps @ ..] = input else {
        return Observer::default().behaviour();
    };
    let mut harness = Harness::new(*mode, *line_size, *sizes);
    for step in steps.chunks_exact(STEP_LENGTH) {
        take(&mut harness, step[0], step[1], step[2], step[3]);
    }
    harness.finish();
    harness.observer.behaviour()
}

/// The upper half of `kind` chooses the volume.
fn take(harness: &mut Harness, kind: u8, a: u8, b: u8, c: u8) {
    let volume = usize::from(kind >> 4);
    match kind % 16 {
        0..=3 => harness.submit(volume, Operation::Read, a, b, c),
        4..=6 => harness.submit(volume, Operation::Write, a, b, c),
        7 => {
            let operations = [Operation::WriteZeroes, Operation::Discard, Operation::Flush];
            harness.submit(volume, operations[usize::from(c) % 3], a, b, c);
        }
        8..=10 => harness.complete_origin(volume, a, Ok(()), Landing::All),
        11 => fail_origin(harness, volume, a, b),
        12 | 13 => harness.complete_cache(a, Ok(()), Landing::All),
        14 => harness.complete_cache(a, Err(IoError::Media), Landing::Garbage),
        _ => match a % 16 {
            mode @ 0..=2 => harness.set_mode(volume, CacheMode::ALL[usize::from(mode)]),
            3 => harness.land_late(volume, b),
            4 => harness.fence(volume),
            5 | 6 => harness.another_writes(volume, b, c),
            7 | 8 => harness.resize(volume, b, c),
            9 => harness.remove(volume),
            10 => harness.add(volume),
            11 => harness.stop_and_start(),
            12 | 13 => harness.crash(b, c),
            _ => harness.pass(b),
        },
    }
}

fn fail_origin(harness: &mut Harness, volume: usize, which: u8, how: u8) {
    let (error, landing) = match how % 5 {
        0 => (IoError::Media, Landing::Part),
        1 => (IoError::Media, Landing::None),
        2 => (IoError::ConnectionLost, Landing::Late),
        3 => (IoError::TimedOut, Landing::All),
        _ => (IoError::NoSpace, Landing::None),
    };
    harness.complete_origin(volume, which, Err(error), landing);
}

fn seeds() -> Vec<Vec<u8>> {
    let workloads: [&[[u8; STEP_LENGTH]]; 9] = [
        // A miss, its fill, a hit.
        &[[0, 0, 8, 7], [8, 0, 0, 0], [12, 0, 0, 0], [0, 0, 8, 7], [12, 0, 0, 0]],
        // A write and a read of it, with the fill still on its way.
        &[[4, 0, 0, 15], [8, 0, 0, 0], [0, 0, 4, 3], [12, 0, 0, 0], [12, 0, 0, 0]],
        // A fill overtaken by a write.
        &[[0, 0, 0, 7], [8, 0, 0, 0], [4, 0, 2, 3], [8, 0, 0, 0], [12, 1, 0, 0], [12, 0, 0, 0]],
        // A write that is lost, and lands after the next.
        &[[4, 0, 0, 7], [11, 0, 2, 0], [4, 0, 0, 7], [8, 0, 0, 0], [15, 3, 0, 0], [0, 0, 0, 7]],
        // Overlapping large requests, discards, and failures of the cache device.
        &[[5, 0, 0, 0xf0], [0, 0, 9, 0xf8], [7, 0, 40, 9], [8, 0, 0, 0], [14, 0, 0, 0]],
        // Another's write, told of between a read and its fill.
        &[[0, 0, 0, 7], [15, 5, 0, 7], [8, 0, 0, 0], [12, 0, 0, 0], [15, 14, 20, 0], [0, 0, 0, 7]],
        // A volume that shrinks and grows, one that goes and comes back.
        &[
            [0, 0, 60, 9],
            [8, 0, 0, 0],
            [12, 0, 0, 0],
            [15, 7, 0, 40],
            [15, 8, 0, 0],
            [16, 0, 0, 7],
            [24, 0, 0, 0],
            [31, 9, 0, 0],
            [31, 10, 0, 0],
            [16, 0, 0, 7],
            [15, 14, 20, 0],
        ],
        // Stops, and crashes with something in flight.
        &[
            [0, 0, 8, 7],
            [8, 0, 0, 0],
            [12, 0, 0, 0],
            [15, 11, 0, 0],
            [0, 0, 8, 7],
            [12, 0, 0, 0],
            [4, 0, 8, 7],
            [8, 0, 0, 0],
            [15, 12, 7, 3],
            [0, 0, 8, 7],
            [12, 0, 0, 0],
            [12, 0, 0, 0],
        ],
        // Mode switches between writes and reads.
        &[[4, 1, 0, 9], [15, 1, 0, 0], [4, 1, 0, 3], [15, 2, 0, 0], [4, 1, 4, 3], [15, 0, 0, 0]],
    ];
    let mut seeds = Vec::new();
    for (index, workload) in workloads.iter().enumerate() {
        for mode in 0..3 {
            // In memory with one volume, on a device with two.
            for sizes in [(index as u8 & 7) << 1, (index as u8 & 7) << 1 | 0xC0] {
                let steps = workload.concat().repeat(4);
                seeds.push([&[mode, index as u8, sizes][..], &steps].concat());
            }
        }
    }
    seeds
}
