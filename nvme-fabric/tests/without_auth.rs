//! A host that was built without the feature `auth`, and a scripted controller that asks it for a
//! proof.
#![cfg(not(feature = "auth"))]

mod scripted;

use block_io::{BufferPool, Timestamp};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::{Controller, HostOptions};
use nvme_fabric::pdu::Endpoint;
use nvme_fabric::spec::command::FabricsCommand;
use nvme_fabric::spec::connect::ConnectResult;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use scripted::{Heard, Peer, Say};

/// Why the association with a controller that answers Connect so does not come up.
fn refusal(answer: ConnectResult) -> String {
    let mut peer = Peer::new(move |heard| match heard {
        Heard::Fabrics(FabricsCommand::Connect { .. }) => Some(Say::Done(answer.encode().into())),
        _ => None,
    });
    let subsystem = Nqn::new("nqn.2014-08.com.example:volume").expect("well formed");
    let host_id = HostId([7; 16]);
    let options = HostOptions::new("target:4420", subsystem, Nqn::from_uuid(host_id), host_id);
    let (pool, purpose) = (BufferPool::heap(), Purpose::Namespace(1));
    let mut host = Controller::new(&pool, options, purpose, Timestamp(0)).expect("good options");
    assert_eq!(host.next_stream_wanted(), Some(0));
    host.stream_established(0);
    let mut pieces = Vec::new();
    for _ in 0..100 {
        host.tick(Timestamp(0));
        if let Some(error) = host.error() {
            return error.to_string();
        }
        let connection = host.connection(0).expect("it has a stream");
        connection.transmit_from(&mut pieces, 8);
        let bytes: Vec<u8> = pieces.drain(..).flat_map(|piece| piece.to_vec()).collect();
        connection.transmitted(bytes.len());
        peer.feed(&bytes);
        connection.receive_into(&mut pieces);
        let piece = pieces.drain(..).next().expect("it listens");
        let count = piece.len().min(peer.outbox.len());
        let bytes: Vec<u8> = peer.outbox.drain(..count).collect();
        piece.slice(0, count).copy_from_slice(&bytes);
        if count > 0 {
            connection.received(count);
        }
    }
    panic!("it goes on: {:?}", host.state());
}

#[test]
fn a_host_that_is_asked_for_a_proof_says_what_it_was_built_without() {
    for (authentication_required, secure_channel_required) in [(true, false), (false, true)] {
        let answer =
            ConnectResult { controller_id: 1, authentication_required, secure_channel_required };
        let error = refusal(answer);
        assert!(error.contains("target:4420: authentication of queue 0"), "{error}");
        assert!(error.contains("built without the feature `auth`"), "{error}");
    }
}
