//! Superblocks: what is read is what was written, and nothing else is taken for one.

use super::*;
use crate::cache::metadata::volume_record::tests::record;
use crate::cache::metadata::volume_record::{Generation, IdentityKind, OriginIdentity};

/// A superblock in which every field differs from the default.
fn superblock(sequence: u64) -> Superblock {
    let layout = Layout::for_device(1 << 30, LineSize::ALL[4]).expect("fits");
    let mut superblock = Superblock {
        features: Features { compatible: 1 << 63, read_only_compatible: 0, incompatible: 0 },
        sequence,
        shard_index: 1,
        shard_count: 2,
        state: State::InUse,
        verify_all: true,
        journal_tail: 77,
        ..Superblock::new(FormatId([7; 16]), layout)
    };
    superblock.put_volume(record(3)).expect("fits");
    superblock.put_volume(record(1)).expect("fits");
    superblock
}

fn region(superblock: &Superblock) -> Vec<u8> {
    let mut bytes = superblock.encode();
    bytes.resize(LENGTH_MAX, 0);
    bytes
}

/// The bytes with their checksum made right.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..][..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn patched(at: usize, field: &[u8]) -> Result<Superblock, Undecodable> {
    let mut bytes = superblock(1).encode();
    bytes[at..at + field.len()].copy_from_slice(field);
    Superblock::decode(&sealed(bytes))
}

#[test]
fn it_reads_as_it_was_written() {
    for state in [State::Clean, State::InUse, State::Degraded] {
        let superblock = Superblock { state, ..superblock(9) };
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock.clone()));
        assert_eq!(Superblock::decode(&region(&superblock)), Ok(superblock));
    }
    let ids: Vec<_> = superblock(0).volumes().iter().map(|volume| volume.id.0).collect();
    assert_eq!(ids, [1, 3], "by number, whatever the order they came in");
}

#[test]
fn addresses_that_were_used_stay_so() {
    let mut superblock = superblock(1);
    let used = superblock.space_used();
    assert_eq!(used, superblock.volumes().iter().map(VolumeRecord::end).max().unwrap_or(0));
    for id in [1, 3] {
        superblock.remove_volume(VolumeId(id)).expect("there");
    }
    let read = Superblock::decode(&superblock.encode()).expect("whole");
    assert_eq!((read.volumes().len(), read.space_used()), (0, used));
    for wrong in [used - 1, u64::MAX] {
        let error = patched(144, &wrong.to_le_bytes()).expect_err("refused").to_string();
        assert!(error.contains(&format!("{wrong} bytes of addresses used")), "{error}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = superblock(1);
    let bytes = good.encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let read = Superblock::decode(&damaged);
        assert!(matches!(read, Err(Undecodable::Damaged(_) | Undecodable::Foreign)), "bit {bit}");
    }
}

#[test]
fn a_write_cut_short_at_any_sector_leaves_the_superblock_before() {
    let mut long = superblock(4);
    for id in 4..40 {
        long.put_volume(record(id)).expect("fits");
    }
    assert!(long.encode().len() > PAGE_SIZE, "several pages");
    // What stood there before the write is two sequence numbers older, and of another length.
    for (before, older, new) in
        [(superblock(2), superblock(3), long.clone()), (long, superblock(5), superblock(6))]
    {
        let (old, fresh) = (region(&before), region(&new));
        let kept = region(&older);
        for boundary in (0..=LENGTH_MAX).step_by(512) {
            let front_first = [&fresh[..boundary], &old[boundary..]].concat();
            let back_first = [&old[..boundary], &fresh[boundary..]].concat();
            for torn in [front_first, back_first] {
                let length = new.encode().len();
                let whole = torn[..length] == fresh[..length];
                let expected = if whole { &new } else { &older };
                let even = new.sequence.is_multiple_of(2);
                let (first, second) = if even { (&torn, &kept) } else { (&kept, &torn) };
                assert_eq!(newest(first, second).as_ref(), Ok(expected), "cut at {boundary}");
            }
        }
    }
}

#[test]
fn the_newest_valid_copy_counts() {
    let (even, odd) = (region(&superblock(4)), region(&superblock(5)));
    let mut damaged = region(&superblock(6));
    damaged[30] ^= 1;
    let zeroes = vec![0; LENGTH_MAX];
    let sequence =
        |first: &[u8], second: &[u8]| newest(first, second).map(|superblock| superblock.sequence);
    assert_eq!(sequence(&even, &odd), Ok(5));
    assert_eq!(sequence(&region(&superblock(6)), &odd), Ok(6));
    assert_eq!(sequence(&damaged, &odd), Ok(5));
    assert_eq!(sequence(&zeroes, &odd), Ok(5));
    assert_eq!(sequence(&even, &zeroes), Ok(4));
    assert_eq!(sequence(&even, &damaged), Ok(4));
    assert_eq!(sequence(&zeroes, &zeroes), Err(Undecodable::Zeroed));
    assert!(matches!(sequence(&damaged, &zeroes), Err(Undecodable::Damaged(_))));
    assert!(matches!(sequence(&odd, &even), Err(Undecodable::Damaged(_))), "in the wrong places");
}

#[test]
fn a_device_that_somebody_took_over_is_foreign_whatever_is_left_of_ours() {
    let (even, odd) = (region(&superblock(4)), region(&superblock(5)));
    let mut file_system = even.clone();
    file_system[..512].fill(0);
    file_system[1080..1082].copy_from_slice(&[0x53, 0xEF]);
    assert_eq!(newest(&file_system, &odd), Err(Undecodable::Foreign));
    let mut magic_flipped = even;
    magic_flipped[0] ^= 1;
    assert_eq!(newest(&magic_flipped, &odd).map(|superblock| superblock.sequence), Ok(5));
}

#[test]
fn unknown_features_are_refused_by_name_or_kept() {
    let high = (1_u64 << 40 | 1 << 3).to_le_bytes();
    let compatible = patched(24, &high).expect("may be ignored");
    assert_eq!(compatible.features.compatible, 1 << 40 | 1 << 3);
    assert_eq!(Superblock::decode(&compatible.encode()), Ok(compatible));
    let read_only = patched(32, &high).expect("may be read");
    let refusal = read_only.check_writable().expect_err("not written").to_string();
    assert!(refusal.contains("read-only compatible feature bits 3, 40"), "{refusal}");
    assert!(superblock(1).check_writable().is_ok());
    let Err(Undecodable::Unsupported(what)) = patched(40, &high) else { panic!("refused") };
    assert!(what.contains("unknown incompatible feature bits 3, 40"), "{what}");
    let mut newer = superblock(4).encode();
    newer[40] = 1;
    let refused = newest(&sealed(newer), &region(&superblock(5)));
    assert!(matches!(refused, Err(Undecodable::Unsupported(_))), "whatever the other one says");
}

#[test]
fn other_versions_are_told_by_number() {
    let Err(Undecodable::Unsupported(what)) = patched(8, &3_u32.to_le_bytes()) else {
        panic!("refused")
    };
    assert!(what.contains("version 3; this program knows version 2"), "{what}");
    let read = Superblock::decode(&version_1(LineSize::ALL[0]));
    assert_eq!(read, Err(Undecodable::Older { version: 1, line_size: LineSize::ALL[0] }));
    let mut damaged = version_1(LineSize::ALL[0]);
    damaged[30] ^= 1;
    assert!(matches!(Superblock::decode(&damaged), Err(Undecodable::Damaged(_))));
    // Behind the block of version 1 there is data, whatever it looks like.
    let read = newest(&version_1(LineSize::ALL[0]), &region(&superblock(5)));
    assert!(matches!(read, Err(Undecodable::Older { .. })), "{read:?}");
}

#[test]
fn fields_that_make_no_sense_are_refused_though_the_checksum_is_right() {
    let fields: [(&str, usize, &[u8]); 10] = [
        ("state 3", 20, &[3]),
        ("verify-all flag 2", 21, &[2]),
        ("257 volumes", 22, &[1, 1]),
        ("line size 5", 88, &[5, 0, 0, 0]),
        ("sets 0", 92, &[0; 4]),
        ("sequence", 64, &[0xff; 8]),
        ("journal tail", 72, &[0xff; 8]),
        ("shard 1 of 1", 142, &[1, 0]),
        ("data offset", 120, &[0xff; 8]),
        ("ends within a record", 22, &[255, 0]),
    ];
    for (words, at, field) in fields {
        let refusal = patched(at, field).expect_err(words).to_string();
        assert!(refusal.contains(words) || words == "ends within a record", "{refusal}");
    }
}

#[test]
fn volumes_share_neither_number_nor_name_nor_addresses() {
    let mut cache = superblock(0);
    let mut clash = record(9);
    clash.base = record(1).base + (64 << 20);
    clash.span = 64 << 20;
    clash.size = 1;
    let refusal = cache.put_volume(clash).expect_err("shares addresses").to_string();
    assert!(refusal.contains("addresses in common"), "{refusal}");
    let namesake = VolumeRecord { name: "volume-1".into(), ..record(9) };
    let refusal = cache.put_volume(namesake).expect_err("shares a name").to_string();
    assert!(refusal.contains("'volume-1'"), "{refusal}");
    cache.put_volume(VolumeRecord { size: 5, ..record(1) }).expect("takes its own place");
    assert_eq!(cache.volume(VolumeId(1)).map(|volume| volume.size), Some(5));
    assert_eq!(cache.volume_named("volume-3").map(|volume| volume.id.0), Some(3));
    assert!(cache.remove_volume(VolumeId(1)).is_some() && cache.volumes().len() == 1);
}

#[test]
fn a_full_table_is_refused_and_a_new_generation_always_fits() {
    let layout = Layout::for_device(1 << 40, LineSize::default()).expect("fits");
    let mut cache = Superblock::new(FormatId([1; 16]), layout);
    let large = |id: u16| VolumeRecord {
        name: format!("{id:064}"),
        identity: OriginIdentity::new(IdentityKind::Assigned, "x".repeat(96)).expect("fits"),
        ..record(id)
    };
    let refused = (0..256).find(|id| cache.put_volume(large(*id)).is_err());
    let refused = refused.expect("all at their longest are too many");
    assert_eq!(cache.encode().len(), LENGTH_MAX, "{refused} volumes");
    let refusal = cache.put_volume(large(refused)).expect_err("full").to_string();
    assert!(refusal.contains("no room"), "{refusal}");
    let generation = Generation::new(vec![9; 64]).expect("fits");
    cache.put_volume(VolumeRecord { generation, ..large(0) }).expect("same length");
    assert_eq!(Superblock::decode(&cache.encode()), Ok(cache));
    let mut many = Superblock::new(FormatId([1; 16]), layout);
    for id in 0..256 {
        many.put_volume(record(id)).expect("256 with ordinary names fit");
    }
    assert!(many.encode().len() <= LENGTH_MAX);
}

/// A superblock as version 1 wrote it.
fn version_1(line_size: LineSize) -> Vec<u8> {
    let mut block = vec![0; PAGE_SIZE];
    block[..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&1_u32.to_le_bytes());
    block[12..16].copy_from_slice(&(line_size.bytes() as u32).to_le_bytes());
    block[16..24].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    block[24..40].copy_from_slice(&[7; 16]);
    block[40..48].copy_from_slice(&(64_u64 << 10).to_le_bytes());
    let checksum = block_io::Crc32c::new().update(&block[..4092]).value();
    block[4092..].copy_from_slice(&checksum.to_le_bytes());
    block
}
