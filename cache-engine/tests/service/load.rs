//! Clients that read and write at random, compare every byte, and know what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::BLOCK;
use super::client::Client;

/// Reads, and waits for the bytes.
#[track_caller]
pub(crate) fn read(client: &mut Client, offset: u64, length: usize) -> Vec<u8> {
    client.read(1, offset, length as u32);
    client.send().expect("sent");
    assert_eq!(client.reply().expect("answered").error, 0);
    let mut bytes = vec![0; length];
    client.data(&mut bytes).expect("received");
    bytes
}

/// Writes, and waits for the answer.
#[track_caller]
pub(crate) fn write(client: &mut Client, offset: u64, bytes: &[u8]) {
    client.write(1, offset, bytes);
    client.send().expect("sent");
    assert_eq!(client.reply().expect("answered").error, 0);
}

/// What a client knows of a volume, and how far it is.
pub(crate) struct Load {
    /// What was acknowledged.
    pub(crate) model: Vec<u8>,
    /// Rounds done, for others to see.
    pub(crate) rounds: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Load {
    pub(crate) fn new(model: Vec<u8>) -> Self {
        Self { model, rounds: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    /// Tells it to stop. Dropping this does it too, so that a failure elsewhere ends the test.
    pub(crate) fn stop(&self) -> Stop<'_> {
        Stop(&self.stop)
    }

    /// Waits until it has done so many more rounds.
    pub(crate) fn let_it_go_on(&self, rounds: u64) {
        let end = self.rounds.load(Ordering::Acquire) + rounds;
        while self.rounds.load(Ordering::Acquire) < end && !self.stop.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    /// Writes and reads blocks until told to stop, and compares. Every request must succeed.
    pub(crate) fn run(&self, client: Client, seed: u64) -> Vec<u8> {
        self.go(client, seed, false).0
    }

    /// The same until the server ends the connection, which it must do between two answers; also
    /// the block whose write was not answered, which may be on the origin or not.
    pub(crate) fn run_until_cut(&self, client: Client, seed: u64) -> (Vec<u8>, Option<usize>) {
        self.go(client, seed, true)
    }

    fn go(&self, mut client: Client, seed: u64, may_end: bool) -> (Vec<u8>, Option<usize>) {
        let _ended = self.stop();
        let mut model = self.model.clone();
        let blocks = model.len() / BLOCK;
        let mut number = seed;
        let mut next = |below: usize| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (number >> 33) as usize % below
        };
        while !self.stop.load(Ordering::Acquire) {
            let (written, value, looked_at) = (next(blocks), next(256) as u8, next(blocks));
            let place = written * BLOCK..(written + 1) * BLOCK;
            client.write(1, place.start as u64, &[value; BLOCK]);
            let answer = client.send().and_then(|()| client.reply());
            match answer {
                Ok(reply) => assert_eq!(reply.error, 0, "seed {seed}: a write failed"),
                Err(_) if may_end => return (model, Some(written)),
                Err(error) => panic!("seed {seed}: {error}"),
            }
            model[place].fill(value);
            let place = looked_at * BLOCK..(looked_at + 1) * BLOCK;
            client.read(2, place.start as u64, BLOCK as u32);
            let answer = client.send().and_then(|()| client.reply());
            match answer {
                Ok(reply) => assert_eq!(reply.error, 0, "seed {seed}: a read failed"),
                Err(_) if may_end => return (model, None),
                Err(error) => panic!("seed {seed}: {error}"),
            }
            let mut bytes = [0; BLOCK];
            client.data(&mut bytes).expect("an answer comes whole");
            assert!(bytes == model[place], "seed {seed}: block {looked_at}");
            self.rounds.fetch_add(1, Ordering::AcqRel);
        }
        client.disconnect().expect("sent");
        (model, None)
    }
}

/// Ends a load when it is dropped.
pub(crate) struct Stop<'load>(&'load AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
