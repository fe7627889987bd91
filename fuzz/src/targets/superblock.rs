//! The start of a cache device, as somebody else may have left it: probing never panics, says why
//! it refuses, and what it takes for ours reads as it was written.

use cache_engine::cache::metadata::layout::SUPERBLOCK_REGION;
use cache_engine::cache::metadata::probe::{Probe, probe};
use cache_engine::cache::metadata::{
    FormatId, Generation, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::{LineSize, VolumeId};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// The target. The first byte says at which of the two places the rest stands (bit 1), and whether
/// the checksum is made right (bit 0), so that the fields behind it are reached.
pub const TARGET: Target =
    Target { name: "superblock", length_max: INPUT_LENGTH_MAX, run, cost: 4, seeds };

const LENGTH_AT: usize = 12;
const CHECKSUM_AT: usize = 16;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, start)) = input.split_first() else { return observer.behaviour() };
    let mut start = start.to_vec();
    if control & 1 == 1 {
        seal(&mut start);
    }
    if control & 2 == 2 {
        start.splice(0..0, vec![0; SUPERBLOCK_REGION as usize]);
    }
    match probe(&start) {
        Probe::Zeroed => {
            assert!(start.iter().all(|byte| *byte == 0), "unused, but not zero");
            observer.note("zeroed");
        }
        Probe::Ours(superblock) => {
            let again = Superblock::decode(&superblock.encode());
            assert_eq!(again.as_ref(), Ok(&*superblock));
            superblock.layout.check().expect("what is taken for ours makes sense");
            let volumes = superblock.volumes().len();
            observer.note(("ours", superblock.layout.line_size, superblock.state, volumes));
        }
        Probe::Older { version, line_size } => observer.note(("older", version, line_size)),
        Probe::Foreign(what) => {
            assert!(!what.is_empty(), "refused without a word");
            observer.note_message(&what, "");
        }
    }
    observer.behaviour()
}

/// Makes the checksum right, of version 1 or of a later one.
fn seal(start: &mut [u8]) {
    let Some(version) = start.get(8..12).map(<[u8]>::to_vec) else { return };
    if version == [1, 0, 0, 0] && start.len() >= 4096 {
        let (body, checksum) = start[..4096].split_at_mut(4092);
        checksum.copy_from_slice(&block_io::Crc32c::new().update(body).value().to_le_bytes());
        return;
    }
    let Some(length) = start.get(LENGTH_AT..).and_then(|rest| rest.first_chunk()) else { return };
    let length = u32::from_le_bytes(*length) as usize;
    if length < 4096 || length > start.len() {
        return;
    }
    start[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let checksum = block_io::Crc32c::new().update(&start[..length]).value();
    start[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
}

fn seeds() -> Vec<Vec<u8>> {
    let ours = LineSize::ALL.map(|line_size| superblock(line_size).encode());
    let mut older = vec![0; 4096];
    older[..16].copy_from_slice(b"FOREBAY\0\x01\0\0\0\0\x40\0\0");
    let others = [vec![0; 8192], b"EFI PART".repeat(512), vec![1; 100], older];
    ours.into_iter().chain(others).map(|start| [&[1], &start[..]].concat()).collect()
}

/// A superblock with volumes, more of them the larger its lines.
fn superblock(line_size: LineSize) -> Superblock {
    let layout = Layout::for_device(1 << 30, line_size).expect("it fits");
    let mut superblock = Superblock::new(FormatId([7; 16]), layout);
    for id in 0..(line_size.bytes() / 8192) as u16 {
        let identity = OriginIdentity::new(IdentityKind::File, format!("file-{id}"));
        let record = VolumeRecord {
            id: VolumeId(id),
            name: format!("volume-{id}"),
            identity: identity.expect("it is short"),
            size: 1 << 20,
            base: u64::from(id) << 26,
            span: 1 << 26,
            generation: Generation::new(vec![1; usize::from(id)]).expect("it is short"),
            attach_epoch: 1,
            key_check: [0; 16],
            flags: 0,
        };
        superblock.put_volume(record).expect("it fits");
    }
    superblock
}
