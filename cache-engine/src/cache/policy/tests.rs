//! The policies together, as the engine asks them.

use super::*;

const LINE: u64 = 16 << 10;
const PG: VolumeId = VolumeId(0);
const START: Timestamp = Timestamp(0);

fn volume(name: &str) -> Option<VolumeId> {
    ["pg", "vm"].iter().position(|known| *known == name).map(|at| VolumeId(at as u16))
}

fn settings(changes: &[(&str, &str)]) -> PolicySettings {
    let mut settings = PolicySettings::default();
    for (name, value) in changes {
        settings.change(name, value).unwrap_or_else(|error| panic!("{error}"));
    }
    settings
}

fn policy(slots: u64, changes: &[(&str, &str)]) -> Policy {
    Policy::new(START, LineSize::default(), slots, &settings(changes), volume)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn read(policy: &mut Policy, volume: VolumeId, offset: u64, length: u64) -> Verdict {
    policy.observe(volume, Operation::Read, Extent::new(offset, length))
}

#[test]
fn with_the_default_settings_a_miss_is_admitted_and_any_line_may_go_for_it() {
    let mut policy = policy(160, &[]);
    let verdict = read(&mut policy, PG, 3 * LINE + 4096, 4096);
    assert_eq!(verdict, Verdict { volume: PG, class: ClassId::DEFAULT, bypass: false, run: 4096 });
    assert!(policy.admit(START, &verdict, 3 * LINE, 4096, false));
    let missed = Extent::new(3 * LINE + 4096, 4096);
    let read = policy.fill_extent(&verdict, missed, Hints::default(), 1 << 30);
    assert_eq!(read, Extent::new(3 * LINE, LINE));
    let owner = Owner { volume: PG, class: verdict.class };
    assert_eq!(policy.room(Newcomer { owner, offset: 3 * LINE }), Room::Any);
    policy.line_inserted(Slot(5), owner);
    assert!(!policy.has_ranks());
    let line = PlacedLine { slot: Slot(5), volume: PG, offset: 3 * LINE };
    assert_eq!(policy.victim_rank(line, None), Some(Rank::Ordinary));
    assert_eq!(policy.victims(None, [(5, line)]), 1 << 5);
    assert_eq!(policy.class_of(Slot(5)), ClassId::DEFAULT);
    assert_eq!(policy.volume_occupancy(PG).lines, 1);
    policy.line_removed(Slot(5), PG);
    assert_eq!(policy.class_occupancies().map(|held| held.lines).collect::<Vec<_>>(), [0]);
    assert_eq!((policy.tick(START).lines, policy.next_deadline()), (0, None));
    assert_eq!(policy.statistics(START).admitted_bytes, 4096);
    assert_eq!(policy.spatial_use(PG), 128);
    assert!(policy.unresolved().is_empty());
    assert_eq!(policy.settings(), &PolicySettings::default());
}
