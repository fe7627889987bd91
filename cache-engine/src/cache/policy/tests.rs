//! The policies together, as the engine asks them.

use super::*;

const LINE: u64 = 16 << 10;
const PG: VolumeId = VolumeId(0);
const VM: VolumeId = VolumeId(1);
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
    policy.volume_detached(PG);
    assert_eq!(policy.spatial_use(PG), 128);
    assert!(policy.unresolved().is_empty());
    assert_eq!(policy.settings(), &PolicySettings::default());
}

/// Reads 64 KiB after 64 KiB, `count` times; the last verdict.
fn scan(policy: &mut Policy, volume: VolumeId, count: u64) -> Verdict {
    let verdicts: Vec<_> =
        (0..count).map(|step| read(policy, volume, step << 16, 64 << 10)).collect();
    *verdicts.last().expect("at least one")
}

/// Occupies slots `first..first + count`.
fn occupy(policy: &mut Policy, volume: VolumeId, first: u32, count: u32) {
    for slot in first..first + count {
        policy.line_inserted(Slot(slot), Owner { volume, class: ClassId::DEFAULT });
    }
}

#[test]
fn long_runs_pass_by_once_the_cache_is_full_or_always_as_set() {
    let mut policy = policy(160, &[("volume", "volume=vm,cutoff=64KiB")]);
    assert!(!scan(&mut policy, PG, 40).bypass, "there is free space");
    assert!(scan(&mut policy, VM, 2).bypass, "its own cutoff does not ask for space");
    occupy(&mut policy, PG, 0, 139);
    assert!(!scan(&mut policy, PG, 40).bypass);
    occupy(&mut policy, PG, 139, 1);
    let mut again = Policy::new(START, LineSize::default(), 160, policy.settings(), volume)
        .expect("the same settings");
    occupy(&mut again, PG, 0, 140);
    assert!(!scan(&mut again, PG, 16).bypass, "1 MiB is not beyond the cutoff");
    let verdict = read(&mut again, PG, 1 << 20, 4096);
    assert!(verdict.bypass, "seven eighths are full");
    assert!(!again.admit(START, &verdict, 1 << 20, 4096, true));
    assert_eq!(again.statistics(START).bypassed_requests, 1);
    let missed = Extent::new(1 << 20, 4096);
    assert_eq!(again.fill_extent(&verdict, missed, Hints::default(), 1 << 40), missed);
    again.set(START, &settings(&[("sequential-cutoff", "never")]), volume).expect("fine");
    assert!(!read(&mut again, PG, (1 << 20) + 4096, 4096).bypass);
}

#[test]
fn a_volume_at_its_maximum_has_no_room_for_runs_though_the_cache_has() {
    let mut policy = policy(160, &[("volume", "volume=pg,max=5%")]);
    occupy(&mut policy, PG, 0, 8);
    assert!(scan(&mut policy, PG, 17).bypass);
    assert!(!scan(&mut policy, VM, 17).bypass);
}

#[test]
fn the_same_settings_again_do_not_put_off_the_next_look() {
    let mut policy = policy(160, &[("purge", "high=60%,low=50%,every=1m")]);
    let due = policy.next_deadline();
    let (same, later) = (policy.settings().clone(), Timestamp(59_000_000_000));
    policy.set(later, &same, volume).expect("the same");
    assert_eq!(policy.next_deadline(), due);
    policy.set(later, &settings(&[("purge", "high=60%,low=50%,every=2m")]), volume).expect("fine");
    assert!(policy.next_deadline() > due);
}

#[test]
fn a_cache_that_is_kept_partly_free_still_cuts_runs_off() {
    let mut policy = policy(160, &[("purge", "high=60%,low=50%")]);
    occupy(&mut policy, PG, 0, 80);
    assert!(scan(&mut policy, PG, 17).bypass);
}

#[test]
fn other_requests_than_reads_and_writes_are_classified_and_are_no_runs() {
    let mut policy = policy(160, &[("class", "class=w,direction=write")]);
    let discard = policy.observe(PG, Operation::Discard, Extent::new(0, 1 << 32));
    assert_eq!((discard.run, discard.bypass), (0, false));
    assert_ne!(discard.class, ClassId::DEFAULT);
    let flush = policy.observe(PG, Operation::Flush, Extent::default());
    assert_eq!(flush.run, 0);
}

#[test]
fn pinned_lines_are_admitted_whatever_else_says_no_and_go_for_each_other_only() {
    let changes = [
        ("pin", "volume=pg,range=16k-48k"),
        ("admission", "never"),
        ("endurance", "1MiB/day"),
        ("sequential-cutoff", "64KiB"),
        ("volume", "volume=pg,max=0%"),
    ];
    let mut policy = policy(160, &changes);
    let verdict = scan(&mut policy, PG, 2);
    assert!(verdict.bypass);
    for _ in 0..200 {
        assert!(policy.admit(START, &verdict, LINE, LINE, false));
    }
    assert!(!policy.admit(START, &verdict, 0, LINE, false));
    assert_eq!(policy.statistics(START).admitted_pinned, 200);
    assert_eq!(policy.statistics(START).budget, Budget::Spent);

    let newcomer =
        |offset| Newcomer { owner: Owner { volume: PG, class: ClassId::DEFAULT }, offset };
    assert_eq!(policy.room(newcomer(LINE)), Room::Any);
    assert_eq!(policy.room(newcomer(0)), Room::None);
    assert_eq!(policy.statistics(START).refused_maximum, 1);
    occupy(&mut policy, PG, 0, 1);
    occupy(&mut policy, VM, 1, 1);
    let pinned = PlacedLine { slot: Slot(0), volume: PG, offset: 2 * LINE };
    let other = PlacedLine { slot: Slot(1), volume: VM, offset: 2 * LINE };
    let mut victims =
        |newcomer, ways: &[(usize, PlacedLine)]| policy.victims(newcomer, ways.iter().copied());
    assert_eq!(victims(Some(newcomer(LINE)), &[(3, pinned), (4, other)]), 1 << 4);
    assert_eq!(victims(Some(newcomer(LINE)), &[(3, pinned)]), 1 << 3);
    let vm = Newcomer { owner: Owner { volume: VM, class: ClassId::DEFAULT }, offset: LINE };
    assert_eq!(victims(Some(vm), &[(3, pinned)]), 0);
    assert_eq!(victims(None, &[(3, pinned)]), 0);
}

#[test]
fn second_misses_are_asked_for_as_set_and_by_class() {
    let changes = [("admission", "second-miss"), ("class", "class=w,direction=write,admit=always")];
    let mut policy = policy(1600, &changes);
    let verdict = read(&mut policy, PG, 0, 4096);
    assert!(!policy.admit(START, &verdict, 0, 4096, false));
    assert!(policy.admit(START, &verdict, 0, 4096, false));
    assert!(!policy.admit(START, &verdict, 0, 4096, false));
    assert!(policy.admit(START, &verdict, LINE, 4096, true), "other blocks of it are cached");
    let write = policy.observe(PG, Operation::Write, Extent::new(0, 4096));
    assert!(policy.admit(START, &write, 5 * LINE, 4096, false));
    assert_eq!(policy.statistics(START).refused_first_miss, 2);
    policy.set(START, &settings(&[("admission", "never")]), volume).expect("fine");
    assert!(!policy.admit(START, &verdict, LINE, 4096, true));
    assert_eq!(policy.statistics(START).refused_never, 1);
}

#[test]
fn a_spent_budget_falls_back_to_second_misses_and_then_to_none_and_recovers() {
    let mut policy = policy(1600, &[("endurance", "96MiB/day:4MiB")]);
    let verdict = read(&mut policy, PG, 0, 4096);
    let line = |number: u64| number * LINE;
    for number in 0..192 {
        assert!(policy.admit(START, &verdict, line(number), LINE, false), "{number}");
    }
    assert_eq!(policy.statistics(START).budget, Budget::Scarce);
    assert!(!policy.admit(START, &verdict, line(1000), LINE, false));
    assert!(policy.admit(START, &verdict, line(1000), LINE, false));
    for _ in 0..63 {
        assert!(policy.admit(START, &verdict, line(1000), LINE, true));
    }
    assert_eq!(policy.statistics(START).budget, Budget::Spent);
    assert!(!policy.admit(START, &verdict, line(1000), LINE, true));
    let statistics = policy.statistics(START);
    assert_eq!((statistics.refused_scarce, statistics.refused_spent), (1, 1));
    assert_eq!(statistics.admitted_bytes, 4 << 20);
    let later = START + std::time::Duration::from_secs(3600);
    assert_eq!(policy.statistics(later).budget_bytes, 4 << 20);
    // The same settings again, as when a volume is attached, make no tokens.
    let same = policy.settings().clone();
    policy.set(START, &same, volume).expect("the same");
    assert_eq!(policy.statistics(START).budget, Budget::Spent);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_has_changed() {
    let mut policy = policy(160, &[("class", "class=a,size=..4k")]);
    for (name, value, expected) in [
        ("pin", "volume=pg,range=0-1GiB", "raise pin-max"),
        ("volume", "volume=pg,min=90%;volume=gone,min=1MiB", "must be at most the 160 lines"),
        ("class", "class=a,size=..4k,min=50%,max=1MiB", "rule 'class=a': min is 80 lines"),
    ] {
        let settings = settings(&[(name, value), ("admission", "never")]);
        let error = policy.set(START, &settings, volume).expect_err(value);
        assert!(error.contains(expected), "{error}");
        assert_eq!(policy.settings().admission, Admission::Always);
        assert_eq!(read(&mut policy, PG, 0, 4096).class.index(), 1, "classes are as before");
    }
}

#[test]
fn rules_of_volumes_that_are_not_there_wait_for_them() {
    let mut changed = settings(&[("volume", "volume=gone,max=0%;volume=pg")]);
    changed.change("class", "class=x,volume=gone").expect("fine");
    let mut policy = Policy::new(START, LineSize::default(), 160, &changed, volume).expect("fine");
    assert_eq!(policy.unresolved(), ["gone"]);
    let newcomer = Newcomer { owner: Owner { volume: VM, class: ClassId::DEFAULT }, offset: 0 };
    assert_eq!(policy.room(newcomer), Room::Any);
    policy
        .set(START, &changed, |name| if name == "gone" { Some(VM) } else { volume(name) })
        .expect("fine");
    assert!(policy.unresolved().is_empty());
    assert_eq!(policy.room(newcomer), Room::None);
    assert_ne!(read(&mut policy, VM, 0, 4096).class, ClassId::DEFAULT);
}

#[test]
fn a_purge_names_neither_spared_nor_pinned_lines() {
    let changes = [
        ("purge", "high=50%,low=10%,every=1s"),
        ("volume", "volume=pg,min=50%"),
        ("pin", "volume=vm,range=0-1"),
    ];
    let mut policy = policy(160, &changes);
    let due = policy.next_deadline().expect("a purge is set");
    occupy(&mut policy, PG, 0, 80);
    occupy(&mut policy, VM, 80, 1);
    assert_eq!(policy.tick(due).lines, 65);
    assert_eq!(policy.statistics(due).purged, 65);
    let pg = PlacedLine { slot: Slot(0), volume: PG, offset: 0 };
    let vm = |offset| PlacedLine { slot: Slot(80), volume: VM, offset };
    assert_eq!(policy.victims(None, [(0, pg), (1, vm(0)), (2, vm(LINE))]), 1 << 2);
    assert_eq!(policy.victims(None, [(0, pg), (1, vm(0))]), 0);
}

/// A cache of a few sets as the engine would run it, without eviction order: a random way of those
/// that the policy names goes.
struct Engine {
    policy: Policy,
    random: block_io::sim::Random,
    slots: Vec<Option<(Owner, u64)>>,
}

const WAYS: usize = 16;

impl Engine {
    fn placed(&self, slot: usize) -> Option<PlacedLine> {
        let (owner, offset) = self.slots[slot]?;
        Some(PlacedLine { slot: Slot(slot as u32), volume: owner.volume, offset })
    }

    /// Stores a line as the picture of the module says; whether it was.
    fn store(&mut self, newcomer: Newcomer) -> bool {
        let set = newcomer.offset as usize / LINE as usize * 7 % (self.slots.len() / WAYS) * WAYS;
        let room = self.policy.room(newcomer);
        let empty = (set..set + WAYS).find(|slot| self.slots[*slot].is_none());
        let slot = match (room, empty) {
            (Room::None, _) => return false,
            (Room::Any, Some(slot)) => slot,
            _ => {
                let ways: Vec<_> =
                    (0..WAYS).filter_map(|way| Some((way, self.placed(set + way)?))).collect();
                let victims = self.policy.victims(Some(newcomer), ways.iter().copied());
                let named: Vec<_> = (0..WAYS).filter(|way| victims >> way & 1 == 1).collect();
                if named.is_empty() {
                    return false;
                }
                let way = *self.random.choose(&named);
                let line = self.placed(set + way).expect("a way that was asked about");
                self.policy.line_removed(line.slot, line.volume);
                set + way
            }
        };
        self.policy.line_inserted(Slot(slot as u32), newcomer.owner);
        self.slots[slot] = Some((newcomer.owner, newcomer.offset));
        true
    }

    fn count(&self, of: impl Fn(Owner) -> bool) -> u64 {
        self.slots.iter().flatten().filter(|(owner, _)| of(*owner)).count() as u64
    }
}

#[test]
fn maxima_are_never_passed_pins_stay_and_nobody_is_locked_out() {
    for seed in 0..40 {
        let changes = [
            ("volume", "volume=pg,min=20%,max=40%"),
            ("class", "class=small,size=..4k,max=25%;class=big,size=1M..,min=10%"),
            ("pin", "volume=vm,range=0-256k"),
        ];
        let random = block_io::sim::Random::new(seed);
        let slots = vec![None; 20 * WAYS];
        let mut engine = Engine { policy: policy(slots.len() as u64, &changes), random, slots };
        let mut pinned_before = 0;
        for step in 0..3000 {
            let volume = VolumeId(engine.random.below(3) as u16);
            let length = *engine.random.choose(&[4096, 16384, 1 << 20]);
            let offset = engine.random.below(2000) * LINE;
            let verdict = read(&mut engine.policy, volume, offset, length);
            let newcomer = Newcomer { owner: Owner { volume, class: verdict.class }, offset };
            let room = engine.policy.room(newcomer);
            let stored = engine.store(newcomer);
            let is_pinned = volume == VM && offset < 256 << 10;
            assert!(stored || room == Room::Victim, "seed {seed}, step {step}: locked out");
            assert!(stored || !is_pinned, "seed {seed}, step {step}: pinned lines are stored");
            let pinned = |line: &&(Owner, u64)| line.0.volume == VM && line.1 < 256 << 10;
            let pins = engine.slots.iter().flatten().filter(pinned).count();
            assert!(pins >= pinned_before, "seed {seed}, step {step}: a pinned line went");
            pinned_before = pins;
            // Pinned lines alone may take their owner past its maximum.
            let (pg, small) = (engine.count(|owner| owner.volume == PG), ClassId(1));
            assert!(pg <= 128, "seed {seed}, step {step}: {pg} lines of 128");
            let unpinned = |line: &&(Owner, u64)| line.0.class == small && !pinned(line);
            let count = engine.slots.iter().flatten().filter(unpinned).count();
            assert!(count <= 80, "seed {seed}, step {step}: {count} lines of 80");
            assert_eq!(engine.policy.volume_occupancy(PG).lines, pg);
        }
        let held = engine.policy.class_occupancies().map(|held| held.lines);
        let total: u64 = held.sum();
        assert_eq!(total, engine.count(|_| true), "seed {seed}");
    }
}

#[test]
fn a_minimum_stays_while_others_fill_the_cache() {
    let changes = [("volume", "volume=pg,min=25%")];
    let random = block_io::sim::Random::new(1);
    let slots = vec![None; 50 * WAYS];
    let mut engine = Engine { policy: policy(slots.len() as u64, &changes), random, slots };
    let store = |engine: &mut Engine, volume, step: u64| {
        let owner = Owner { volume, class: ClassId::DEFAULT };
        engine.store(Newcomer { owner, offset: step * LINE });
    };
    for step in 0..400 {
        store(&mut engine, PG, step);
    }
    for step in 0..20_000 {
        store(&mut engine, VM, step);
    }
    assert_eq!(engine.count(|owner| owner.volume == PG), 200);
}

#[test]
fn every_setting_may_change_at_any_time() {
    let choices: [(&str, &[&str]); 9] = [
        ("admission", &["always", "second-miss", "never"]),
        ("endurance", &["unlimited", "1MiB/day", "90GiB/day:1GiB"]),
        ("sequential-cutoff", &["never", "64KiB", "64KiB:when-full"]),
        ("fill-width", &["requested", "line", "adaptive"]),
        ("purge", &["never", "high=50%,low=10%,every=1s", "high=100%,low=0%,every=1h"]),
        ("pin-max", &["25%", "100%"]),
        (
            "class",
            &["none", "class=a,size=..4k,max=10%", "class=b,min=5%,admit=second-miss;class=a"],
        ),
        ("volume", &["none", "volume=pg,max=0%", "volume=vm,min=50%;volume=pg,max=30%"]),
        ("pin", &["none", "volume=vm,range=0-1M", "volume=pg,range=0-100M"]),
    ];
    for seed in 0..40 {
        let random = block_io::sim::Random::new(seed);
        let slots = vec![None; 10 * WAYS];
        let mut engine = Engine { policy: policy(slots.len() as u64, &[]), random, slots };
        let (mut now, mut stored) = (START, 0);
        for step in 0..3000 {
            now = Timestamp(now.0 + engine.random.below(1 << 30));
            if engine.random.chance(30) {
                let (name, values) = *engine.random.choose(&choices);
                let value = *engine.random.choose(values);
                let mut changed = engine.policy.settings().clone();
                // Some contradict each other; then all stays as it was.
                if changed.change(name, value).is_ok() {
                    let _ = engine.policy.set(now, &changed, volume);
                }
            }
            let volume = VolumeId(engine.random.below(3) as u16);
            let (offset, length) =
                (engine.random.below(400) * LINE, 4096 << engine.random.below(9));
            let verdict = read(&mut engine.policy, volume, offset, length);
            if engine.policy.admit(now, &verdict, offset, LINE, false) {
                let missed = Extent::new(offset, length);
                let wide = engine.policy.fill_extent(&verdict, missed, Hints::default(), 1 << 40);
                assert!(wide.contains(missed), "seed {seed}, step {step}");
                let owner = Owner { volume, class: verdict.class };
                stored += u64::from(engine.store(Newcomer { owner, offset }));
            }
            let purge = engine.policy.tick(now).lines;
            assert!(purge <= engine.count(|_| true), "seed {seed}, step {step}");
            for number in 0..3 {
                let held = engine.policy.volume_occupancy(VolumeId(number)).lines;
                assert_eq!(held, engine.count(|owner| owner.volume.0 == number), "seed {seed}");
            }
        }
        assert!(stored > 100, "seed {seed}: {stored} lines stored");
    }
}

#[test]
fn reads_and_not_writes_use_what_was_read_ahead_and_a_volume_that_leaves_is_forgotten() {
    let mut policy = policy(160, &[]);
    let learned = |policy: &mut Policy, operation| {
        for line in 0..20_000 {
            let verdict = read(policy, PG, line * LINE * 9, 4096);
            let missed = Extent::new(line * LINE * 9, 4096);
            policy.fill_extent(&verdict, missed, Hints::default(), 1 << 40);
            policy.observe(PG, operation, Extent::new(line * LINE * 9, LINE));
        }
        policy.spatial_use(PG)
    };
    assert!(learned(&mut policy, Operation::Write) < 20);
    policy.volume_detached(PG);
    assert_eq!(policy.spatial_use(PG), 128);
    assert!(learned(&mut policy, Operation::Read) > 235);
}
