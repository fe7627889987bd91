//! Guests: when they may serve hits in place, and that they stop at once.

use super::super::Verification;
use super::super::cipher::{LineCipher, VolumeKey};
use super::super::guests::Guest;
use super::*;

/// A cache of 4 sets with lines 0 to 2 in it, and a guest.
fn desk() -> (Desk, Guest) {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    (0..3).for_each(|line| desk.warm(line * LINE));
    let guest = desk.cache.admit_guest(VOLUME).expect("there");
    (desk, guest)
}

fn line(number: u64) -> Extent {
    Extent::new(number * LINE, LINE)
}

/// Whether the guest would read the line from the cache device and then serve it.
fn serves(guest: &Guest, number: u64) -> bool {
    guest.lookup(NOW, line(number)).is_some_and(|(hit, _)| guest.serve(NOW, hit))
}

#[test]
fn a_guest_finds_what_the_owner_would_serve() {
    let (mut desk, guest) = desk();
    for extent in [line(0), Extent::new(LINE + 512, 1024)] {
        let (hit, place) = guest.lookup(NOW, extent).expect("cached");
        assert!(guest.serve(NOW, hit));
        let id = desk.read(extent.offset, extent.length);
        assert_eq!(desk.device[0].extent, Extent::new(place, extent.length));
        desk.settle(1);
        desk.reply(id);
    }
    for extent in [line(3), Extent::new(512, LINE), Extent::new(0, 0), line(1 << 40)] {
        assert!(guest.lookup(NOW, extent).is_none(), "{extent:?}");
    }
    let statistics = desk.statistics();
    assert_eq!((statistics.read_hits, statistics.hit_retries), (4, 0));
    assert_eq!(statistics.cache_read_bytes, 2 * (LINE + 1024));
}

#[test]
fn what_guests_counted_stays_when_they_go() {
    let (mut desk, guest) = desk();
    assert!(serves(&guest, 0));
    drop(guest);
    for hits in 1..4 {
        let guest = desk.cache.admit_guest(VOLUME).expect("there");
        assert!(serves(&guest, 1));
        assert_eq!(desk.statistics().read_hits, hits + 1);
    }
}

#[test]
fn a_hit_under_way_is_not_served_after_a_write() {
    let (mut desk, guest) = desk();
    let (hit, _) = guest.lookup(NOW, line(0)).expect("cached");
    let id = desk.write(0, LINE, 7);
    assert!(!guest.serve(NOW, hit) && !serves(&guest, 0));
    assert_eq!(desk.statistics().hit_retries, 1);
    desk.settle(0);
    desk.reply(id);
    assert!(serves(&guest, 0));
}

/// That a guest stops at once, hits under way included, when `change` is made.
fn stops(change: impl FnOnce(&mut Desk)) -> (Desk, Guest) {
    let (mut desk, guest) = desk();
    let (hit, _) = guest.lookup(NOW, line(0)).expect("cached");
    change(&mut desk);
    assert!(!guest.is_open(NOW) && !guest.serve(NOW, hit), "it was under way");
    assert!((0..3).all(|number| guest.lookup(NOW, line(number)).is_none()), "nothing is found");
    (desk, guest)
}

#[test]
fn guests_stop_in_pass_through_and_go_on_after_it() {
    let (mut desk, guest) = stops(|desk| desk.set_mode(CacheMode::PassThrough));
    desk.set_mode(CacheMode::WriteAround);
    assert!(serves(&guest, 0));
}

#[test]
fn guests_stop_while_anything_is_in_doubt() {
    let (mut desk, guest) = stops(|desk| {
        desk.write(8 * LINE, LINE, 1);
        desk.origin_answers(0, Err(IoError::ConnectionLost));
    });
    desk.cache.fence(VOLUME);
    assert!(serves(&guest, 0));
}

#[test]
fn guests_stop_when_the_device_is_given_up() {
    stops(|desk| {
        for _ in 0..=CacheConfig::default().errors_max {
            desk.cache.guest_read_failed(VOLUME, line(9), IoError::Media);
        }
    });
}

#[test]
fn guests_stop_when_the_run_ends() {
    stops(|desk| desk.cache.stop());
}

#[test]
fn a_removed_volume_is_served_no_more_not_even_to_the_next_of_its_number() {
    let (mut desk, guest) = stops(|desk| {
        desk.cache.remove_volume(VOLUME).expect("quiet");
    });
    assert!(guest.membership().is_over());
    assert_eq!(desk.cache.add_volume(volume(16 << 20)).expect("room"), VOLUME);
    let next = desk.cache.admit_guest(VOLUME).expect("there");
    assert!(guest.membership().is_over() && !next.membership().is_over());
    assert!(!serves(&guest, 0) && !serves(&next, 0));
}

#[test]
fn a_resized_volume_is_served_up_to_its_end_and_where_it_is() {
    for capacity in [2 * LINE, 8 << 30] {
        let (mut desk, guest) = desk();
        let (hit, _) = guest.lookup(NOW, line(0)).expect("cached");
        desk.cache.resize_volume(VOLUME, capacity).expect("quiet");
        assert!(!guest.serve(NOW, hit), "it was under way");
        assert_eq!(guest.geometry().capacity, capacity);
        assert_eq!(serves(&guest, 0), capacity == 2 * LINE, "moved, or where it was");
        assert!(!serves(&guest, 2), "beyond the end, or moved");
        desk.warm(LINE);
        assert!(serves(&guest, 1));
    }
}

#[test]
fn what_must_be_decrypted_or_checked_is_the_owners() {
    let config = CacheConfig { line_size: LineSize::ALL[0], ..plain() };
    let checked = CacheConfig { verification: Verification::Always, ..config.clone() };
    let mut desk = Desk::with(checked, 4);
    desk.warm(0);
    let guest = desk.cache.admit_guest(VOLUME).expect("there");
    assert!(guest.lookup(NOW, line(0)).is_none());

    let mut desk = Desk::with(config, 4);
    let key = VolumeKey::new(&std::array::from_fn(|at| at as u8)).expect("halves differ");
    let cipher = Some(LineCipher::new(&key));
    let id = desk.cache.add_volume(VolumeSettings { cipher, ..volume(1 << 20) }).expect("room");
    let buffer = desk.pool.allocate(4096);
    desk.cache.submit(NOW, id, Request::read(RequestId(1), 0, buffer)).expect("room");
    desk.collect();
    desk.settle(1);
    let guest = desk.cache.admit_guest(id).expect("there");
    assert!(guest.lookup(NOW, line(0)).is_none());
}
