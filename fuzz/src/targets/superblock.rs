//! The start of a cache device, as somebody else may have left it: probing never panics, says why
//! it refuses, and what it takes for ours reads as it was written.

use block_io::Crc32c;
use cache_engine::cache::superblock::{Probe, SUPERBLOCK_SIZE, Superblock, probe};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The first byte says whether the checksum is made right, so that the fields behind it
/// are reached.
pub const TARGET: Target = Target { name: "superblock", run, cost: 1, seeds };

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, start)) = input.split_first() else { return observer.behaviour() };
    let mut start = start.to_vec();
    if control & 1 == 1 && start.len() >= SUPERBLOCK_SIZE {
        let (body, checksum) = start[..SUPERBLOCK_SIZE].split_at_mut(SUPERBLOCK_SIZE - 4);
        checksum.copy_from_slice(&Crc32c::new().update(body).value().to_le_bytes());
    }
    match probe(&start) {
        Probe::Zeroed => {
            assert!(start.iter().all(|byte| *byte == 0), "unused, but not zero");
            observer.note("zeroed");
        }
        Probe::Ours(superblock) => {
            assert_eq!(probe(&superblock.encode()), Probe::Ours(superblock));
            observer.note(("ours", superblock.line_size));
        }
        Probe::Foreign(what) => {
            assert!(!what.is_empty(), "refused without a word");
            observer.note_message(&what, "");
        }
    }
    observer.behaviour()
}

fn seeds() -> Vec<Vec<u8>> {
    let ours = cache_engine::cache::LineSize::ALL.map(|line_size| {
        Superblock { line_size, capacity: 1 << 30, identity: [7; 16] }.encode().to_vec()
    });
    let others = [vec![0; 8192], b"EFI PART".repeat(512), vec![1; 100]];
    ours.into_iter().chain(others).map(|start| [&[1], &start[..]].concat()).collect()
}
