//! Hosts that prove who they are, and targets that do, over the simulated network.

use std::time::Duration;

use block_io::sim::Direction;
use block_io::{Request, RequestId};
use nvme_fabric::auth::{Choices, Group, HashFunction, Keys, Random, Secret};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::host::{HostAuthentication, HostOptions};
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::Subsystem;

use crate::harness::{Setup, options};

fn secret(seed: u8) -> Secret {
    Secret::generate(Some(HashFunction::Sha256), &mut Random::new(&[seed; 32]))
}

/// What must be proved, and what with.
#[derive(Clone, Default)]
pub(crate) struct Proofs {
    /// What the target knows of the host.
    keys: Option<Keys>,
    /// Hosts without keys are refused.
    are_required: bool,
}

impl Proofs {
    /// Hands out the target's part of them.
    pub(crate) fn prepare(&self, subsystem: &mut Subsystem, host: &Nqn) {
        subsystem.require_authentication(self.are_required);
        if let Some(keys) = self.keys.clone() {
            subsystem.set_host_keys(host.clone(), keys).expect("there are choices");
        }
    }
}

/// A setup in which the host has `host` and the target `target`.
fn setup(seed: u64, host: Option<Keys>, target: Option<Keys>) -> Setup {
    let authentication = host.map(HostAuthentication::new);
    let options = HostOptions { authentication, io_queues: 2, ..options() };
    let proofs = Proofs { keys: target, are_required: false };
    Setup { options, proofs, ..Setup::new(seed) }
}

/// Authentication Send and Receive, by the name of the queue, as the host sent them: bytes 4 of
/// entries whose opcode is that of Fabrics commands.
fn authentication_commands(tape: &[u8]) -> usize {
    // CapsuleCmd: PDU type 4, header of 72 bytes; entry at 8, with opcode 7Fh and FCTYPE at 12.
    let is_command = |at: usize| {
        let bytes = &tape[at..];
        bytes[0] == 4 && bytes[8] == 0x7f && matches!(bytes[12], 5 | 6)
    };
    let (mut at, mut count) = (0, 0);
    while at + 72 <= tape.len() {
        count += usize::from(is_command(at));
        let length = u32::from_le_bytes([tape[at + 4], tape[at + 5], tape[at + 6], tape[at + 7]]);
        at += length as usize;
    }
    count
}

#[test]
fn every_queue_is_authenticated_one_way_and_both_ways() {
    for seed in 0..8 {
        let one_way = Keys::new(secret(1));
        let both_ways = one_way.clone().with_controller(secret(2));
        // Negotiate, Challenge, Reply, Success1, and Success2 when the controller proved itself.
        for (host, commands) in [(&one_way, 4), (&both_ways, 5)] {
            let mut pair = setup(seed, Some(host.clone()), Some(both_ways.clone())).connect();
            let queue = pair.bring_up(4);
            for tape in &pair.tapes {
                assert_eq!(authentication_commands(&tape.to_target), commands, "seed {seed}");
            }
            assert_eq!(pair.tapes.len(), 3);
            let data = pair.pool.allocate(8192);
            data.fill(0xa5);
            let written = pair.request(queue, Request::write(RequestId(1), 4096, data));
            assert_eq!(written.result, Ok(()), "seed {seed}");
            let read = Request::read(RequestId(2), 4096, pair.pool.allocate(8192));
            let read = pair.request(queue, read);
            assert!(read.buffer.expect("a read's").to_vec().iter().all(|byte| *byte == 0xa5));
        }
    }
}

#[test]
fn a_host_that_is_not_asked_needs_no_proof_of_its_own() {
    let mut pair = setup(1, Some(Keys::new(secret(1))), None).connect();
    pair.bring_up(1);
    assert!(pair.tapes.iter().all(|tape| authentication_commands(&tape.to_target) == 0));
}

#[test]
fn who_cannot_prove_himself_gets_no_association() {
    let keys = |seed| Some(Keys::new(secret(seed)));
    let both = |host, controller| Some(Keys::new(secret(host)).with_controller(secret(controller)));
    for (host, target, reason) in [
        (keys(1), keys(2), "AUTH_Failure1): the response is wrong"),
        (None, keys(2), "this host has no secret"),
        (both(1, 2), both(1, 3), "the controller's response is wrong"),
        (both(1, 2), keys(1), "AUTH_Failure1"),
        (both(1, 2), None, "the controller does not ask for authentication"),
    ] {
        for seed in 0..4 {
            let mut pair = setup(seed, host.clone(), target.clone()).connect();
            pair.run_until(|pair| pair.host.is_over() && pair.served() == 0);
            let error = pair.host.error().expect("it did not come up").clone();
            assert!(matches!(error, ConnectionError::Unauthenticated(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("target:4420: authentication of queue 0: "), "{text}");
            assert!(text.contains(reason), "{text}: not {reason}");
            assert_eq!(pair.target.controllers_in_use(), 0);
        }
    }
}

#[test]
fn what_is_wrong_with_a_controller_is_said_though_the_stream_is_cut_meanwhile() {
    let both = |controller| Some(Keys::new(secret(1)).with_controller(secret(controller)));
    let setup = || setup(1, both(2), both(3));
    let mut whole = setup().connect();
    whole.run_until(|pair| pair.host.is_over() && pair.served() == 0);
    let tape = whole.tapes.swap_remove(0).to_host;
    let (mut told, mut cut) = (0, 0);
    for at in (0..=tape.len() as u64).rev().step_by(8) {
        let mut pair = setup().connect();
        pair.network.plan_cut(Some((Direction::ToConnector, at)));
        pair.run_until(|pair| pair.host.is_over());
        match pair.host.error().expect("it did not come up") {
            ConnectionError::Unauthenticated(text) => {
                assert!(text.contains("the controller's response is wrong"), "{text}");
                told += 1;
            }
            error => {
                cut += u32::from(error.to_string().contains("target:4420: authentication of"));
            }
        }
    }
    // The completion of Failure2, of 24 bytes, is all that comes after what is wrong.
    assert_eq!(told, 4, "of {}", tape.len());
    assert!(cut > 20, "{cut}");
}

#[test]
fn a_host_without_keys_is_refused_where_they_are_required() {
    let mut setup = setup(1, None, None);
    setup.proofs.are_required = true;
    let mut pair = setup.connect();
    pair.run_until(|pair| pair.host.is_over());
    assert!(pair.error().contains("Connect Invalid Host"), "{}", pair.error());
}

#[test]
fn nothing_in_common_is_an_error_that_says_so() {
    let choices = Choices { hashes: vec![HashFunction::Sha256], groups: vec![Group::Null] };
    let host = Keys { choices, ..Keys::new(secret(1)) };
    let choices = Choices { groups: vec![Group::Ffdhe2048], ..Choices::default() };
    let target = Keys { choices, ..Keys::new(secret(1)) };
    let mut pair = setup(1, Some(host), Some(target)).connect();
    pair.run_until(|pair| pair.host.is_over());
    assert!(pair.error().contains("no Diffie-Hellman group that both can use"), "{}", pair.error());
}

/// Sends one request after the other for `seconds` of simulated time; how many came back.
fn requests_for(
    pair: &mut crate::harness::Pair<nvme_fabric::host::Controller>,
    seconds: u64,
) -> u32 {
    let queue = pair.bring_up(8);
    let end = pair.world.now() + Duration::from_secs(seconds);
    let stop = pair.world.timer(end);
    let (mut done, mut next) = (0, 0);
    let mut completions = Vec::new();
    pair.run_until(|pair| {
        while let Ok(()) =
            pair.host.submit(queue, Request::read(RequestId(next), 0, pair.pool.allocate(4096)))
        {
            next += 1;
        }
        pair.host.take_completions(queue, &mut completions);
        for completion in completions.drain(..) {
            assert_eq!(completion.result, Ok(()));
            done += 1;
        }
        stop.is_due()
    });
    done
}

#[test]
fn queues_are_authenticated_again_while_requests_go_on() {
    let keys = Keys::new(secret(1)).with_controller(secret(2));
    let mut setup = setup(4, Some(keys.clone()), Some(keys));
    if let Some(own) = &mut setup.options.authentication {
        own.repeat_every = Some(Duration::from_secs(1));
        own.keys.choices.groups = vec![Group::Null];
    }
    // The smallest queue: requests never leave a place for long.
    setup.options.queue_depth = 2;
    let mut pair = setup.connect();
    let done = requests_for(&mut pair, 4);
    assert!(done > 100, "{done}");
    assert!(pair.host.is_up(), "{}", pair.error());
    for tape in &pair.tapes {
        let commands = authentication_commands(&tape.to_target);
        // At first and then three times at least, five commands each.
        assert!(commands >= 20, "{commands}");
    }
}

#[test]
fn a_secret_that_was_changed_ends_the_association_when_it_is_asked_for_again() {
    let keys = Keys::new(secret(1));
    let mut setup = setup(1, Some(keys.clone()), Some(keys));
    if let Some(own) = &mut setup.options.authentication {
        own.repeat_every = Some(Duration::from_secs(1));
    }
    let mut pair = setup.connect();
    pair.bring_up(1);
    let host = setup.options.host.clone();
    pair.target.set_host_keys(0, host, Keys::new(secret(9))).expect("there is the subsystem");
    pair.run_until(|pair| pair.host.is_over() && pair.served() == 0);
    assert!(pair.error().contains("different secrets"), "{}", pair.error());
    let refused = |error: &ConnectionError| matches!(error, ConnectionError::Unauthenticated(_));
    assert!(pair.target_errors.iter().any(refused), "{:?}", pair.target_errors);
}

/// The harness moves bytes in clear, as a driver would that knows nothing of generated keys.
#[cfg(feature = "tls")]
#[test]
fn a_stream_in_clear_is_ended_where_a_key_for_it_was_generated() {
    let mut keys = Keys::new(secret(1)).with_concatenation();
    keys.choices.groups = vec![Group::Ffdhe2048];
    let mut pair = setup(1, Some(keys.clone()), Some(keys)).connect();
    pair.run_until(|pair| pair.host.is_over() && pair.served() == 0);
    assert!(pair.error().contains("the stream has none"), "{}", pair.error());
    assert!(pair.target.next_generated_key().is_some());
    assert_eq!(pair.target.controllers_in_use(), 0);
}
