//! Streams keep order, cuts are exact, and the same seed is the same run.

use super::*;
use crate::Timestamp;

/// What a stream's reader saw: (when, how many bytes or the end).
type Seen = Vec<(Timestamp, Received)>;

/// Sends all of `bytes` from one end to the other until nothing happens any more.
fn transfer(world: &World, from: &SimStream, to: &SimStream, bytes: &[u8]) -> (Vec<u8>, Seen) {
    let (mut rest, mut arrived, mut seen) = (bytes, Vec::new(), Vec::new());
    loop {
        let accepted = from.send(rest).unwrap_or(0);
        rest = &rest[accepted..];
        let mut place = [0; 1000];
        let received = to.receive(&mut place);
        if let Received::Bytes(count) = received {
            arrived.extend_from_slice(&place[..count]);
        }
        if received != Received::Nothing {
            seen.push((world.now(), received));
        }
        if matches!(received, Received::End | Received::Reset) {
            break;
        }
        if accepted == 0 && received == Received::Nothing && !world.advance() {
            break;
        }
    }
    (arrived, seen)
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 3 % 251) as u8).collect()
}

#[test]
fn bytes_arrive_whole_and_in_order_however_they_travel() {
    for seed in 0..50 {
        let world = World::new(seed);
        let network = Network::new(&world);
        network.set_faults(NetworkFaults { window: 3000, ..NetworkFaults::fragmented() });
        let (near, far) = network.pair();
        let bytes = numbered(20_000);
        let (arrived, seen) = transfer(&world, &near, &far, &bytes);
        assert!(arrived == bytes, "seed {seed}");
        assert!(seen.len() > 20, "seed {seed}: it was split");
        let (back, _) = transfer(&world, &far, &near, &bytes);
        assert!(back == bytes, "seed {seed}");
    }
}

#[test]
fn a_cut_is_exact_to_the_byte_in_either_direction() {
    for cut_at in [0, 1, 2, 699, 700, 701, 4095, 4096, 9999] {
        let world = World::new(cut_at);
        let network = Network::new(&world);
        network.set_faults(NetworkFaults::fragmented());
        for direction in [Direction::ToListener, Direction::ToConnector] {
            network.plan_cut(Some((direction, cut_at)));
            let (near, far) = network.pair();
            let (from, to) = match direction {
                Direction::ToListener => (&near, &far),
                Direction::ToConnector => (&far, &near),
            };
            let bytes = numbered(10_000);
            let (arrived, seen) = transfer(&world, from, to, &bytes);
            assert!(arrived == bytes[..cut_at as usize], "{cut_at}: got {}", arrived.len());
            assert_eq!(seen.last().map(|(_, received)| *received), Some(Received::Reset));
            assert_eq!(from.send(b"more"), Err(Reset));
            assert_eq!(from.receive(&mut [0; 8]), Received::Reset);
        }
    }
}

#[test]
fn a_cut_beyond_what_is_sent_does_nothing() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    near.cut_after_sending(101);
    let (arrived, _) = transfer(&world, &near, &far, &numbered(100));
    assert_eq!((arrived.len(), far.is_cut()), (100, false));
    assert_eq!(near.send(&[7; 50]), Ok(50));
    far.cut_after_receiving(120);
    let (arrived, seen) = transfer(&world, &near, &far, b"");
    assert_eq!(arrived, [7; 20], "the cut goes through a chunk on its way");
    assert_eq!(seen.last().map(|(_, received)| *received), Some(Received::Reset));
}

#[test]
fn a_cut_at_what_has_arrived_is_now() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    transfer(&world, &near, &far, &numbered(100));
    far.cut_after_receiving(100);
    assert!(near.is_cut());
}

#[test]
fn a_cut_now_loses_the_tail_but_not_what_arrived() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    assert_eq!(near.send(b"arrives"), Ok(7));
    world.advance();
    assert_eq!(near.send(b"is lost"), Ok(7));
    far.cut();
    while world.advance() {}
    let mut place = [0; 32];
    assert_eq!(far.receive(&mut place), Received::Bytes(7));
    assert_eq!(&place[..7], b"arrives");
    assert_eq!(far.receive(&mut place), Received::Reset);
}

#[test]
fn a_full_window_holds_the_sender_back_until_the_reader_reads() {
    let world = World::new(1);
    let network = Network::new(&world);
    network.set_faults(NetworkFaults { window: 100, ..NetworkFaults::default() });
    let (near, far) = network.pair();
    assert_eq!(near.send(&[1; 150]), Ok(100));
    while world.advance() {}
    assert_eq!(near.send(&[1; 50]), Ok(0));
    assert_eq!(far.receive(&mut [0; 30]), Received::Bytes(30));
    assert_eq!(near.send(&[1; 50]), Ok(30));
}

#[test]
fn chunks_end_where_they_are_told_to() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    near.split_at([8, 24]);
    let (_, seen) = transfer(&world, &near, &far, &numbered(100));
    let sizes: Vec<_> = seen.iter().map(|(_, received)| *received).collect();
    assert_eq!(sizes, [8, 16, 76].map(Received::Bytes));
}

#[test]
fn half_close_ends_one_direction_only() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    assert_eq!(near.send(b"last words"), Ok(10));
    near.finish();
    assert_eq!(near.send(b"more"), Err(Reset));
    let (arrived, seen) = transfer(&world, &near, &far, b"");
    assert_eq!(arrived, b"last words");
    assert_eq!(seen.last().map(|(_, received)| *received), Some(Received::End));
    let (arrived, _) = transfer(&world, &far, &near, b"answer");
    assert_eq!(arrived, b"answer");
}

#[test]
fn a_dropped_end_is_an_end_and_then_a_reset() {
    let world = World::new(1);
    let (near, far) = Network::new(&world).pair();
    drop(far);
    while world.advance() {}
    assert_eq!(near.receive(&mut [0; 8]), Received::End);
    assert_eq!(near.send(b"to nobody"), Ok(9));
    while world.advance() {}
    assert_eq!(near.send(b"to nobody"), Err(Reset));
}

#[test]
fn silence_is_not_told() {
    let world = World::new(1);
    let network = Network::new(&world);
    let (near, far) = network.pair();
    assert_eq!(near.send(b"lost"), Ok(4));
    network.silence_all();
    while world.advance() {}
    assert_eq!(far.receive(&mut [0; 8]), Received::Nothing);
    assert_eq!(near.receive(&mut [0; 8]), Received::Nothing);
    assert_eq!(near.send(b"lost"), Ok(4));
}

#[test]
fn names_are_listened_to_connected_to_and_refused() {
    let world = World::new(1);
    let network = Network::new(&world);
    let refused = network.connect("target").expect_err("nobody listens");
    assert_eq!(refused.to_string(), "connection to target refused");
    let listener = network.listen("target").expect("free");
    assert!(network.listen("target").is_err());
    network.refuse("target", true);
    assert!(network.connect("target").is_err());
    network.refuse("target", false);
    let near = network.connect("target").expect("listens");
    assert!(listener.accept().is_none(), "not there yet");
    assert!(world.advance());
    let far = listener.accept().expect("arrived");
    let (arrived, _) = transfer(&world, &near, &far, b"hello");
    assert_eq!(arrived, b"hello");
    let waiting = network.connect("target").expect("listens");
    drop(listener);
    while world.advance() {}
    assert_eq!(waiting.receive(&mut [0; 8]), Received::Reset);
    assert!(network.connect("target").is_err());
    network.cut_all();
    assert_eq!(near.send(b"more"), Err(Reset));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let world = World::new(seed);
        let network = Network::new(&world);
        network.set_faults(NetworkFaults::fragmented());
        let (near, far) = network.pair();
        transfer(&world, &near, &far, &numbered(10_000)).1
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
