//! The layouts, by bytes written down here and by every cut of them.

use super::*;

fn challenge() -> Challenge {
    Challenge {
        transaction: 0x0201,
        hash: HashFunction::Sha256,
        group: Group::Ffdhe2048,
        sequence: 0x0605_0403,
        challenge: vec![0xc1; 32],
        public: vec![0xd1; 256],
    }
}

fn reply() -> Reply {
    Reply {
        transaction: 7,
        response: vec![0xa1; 48],
        challenge: Some(vec![0xc2; 48]),
        sequence: 9,
        public: vec![0xd2; 384],
    }
}

#[test]
fn negotiate_as_it_lies_on_the_wire() {
    let negotiate = Negotiate {
        transaction: 0x0102,
        secure_channel: 0,
        hashes: vec![1, 2, 3],
        groups: vec![0, 1, 2, 3, 4, 5],
    };
    let bytes = negotiate.encode();
    assert_eq!(bytes.len(), 72);
    assert_eq!(bytes[..16], [0, 0, 0, 0, 2, 1, 0, 1, 1, 0, 3, 6, 1, 2, 3, 0]);
    assert_eq!(bytes[42..50], [0, 1, 2, 3, 4, 5, 0, 0]);
    assert_eq!(Negotiate::parse(&bytes), Ok(negotiate));
}

#[test]
fn challenge_reply_and_successes_as_they_lie_on_the_wire() {
    let bytes = challenge().encode();
    assert_eq!(bytes.len(), 16 + 32 + 256);
    assert_eq!(bytes[..17], [1, 1, 0, 0, 1, 2, 32, 0, 1, 1, 0, 1, 3, 4, 5, 6, 0xc1]);
    assert_eq!((bytes[47], bytes[48]), (0xc1, 0xd1));
    assert_eq!(Challenge::parse(&bytes), Ok(challenge()));

    let bytes = reply().encode();
    assert_eq!(bytes.len(), 16 + 96 + 384);
    assert_eq!(bytes[..17], [1, 2, 0, 0, 7, 0, 48, 0, 1, 0, 128, 1, 9, 0, 0, 0, 0xa1]);
    assert_eq!((bytes[63], bytes[64], bytes[112]), (0xa1, 0xc2, 0xd2));
    let parsed = Reply::parse(&bytes, HashFunction::Sha384, Group::Ffdhe3072);
    assert_eq!(parsed, Ok(reply()));

    let success =
        Success1 { transaction: 7, hash: HashFunction::Sha512, response: Some(vec![0xa2; 64]) };
    let bytes = success.encode();
    assert_eq!(bytes[..9], [1, 3, 0, 0, 7, 0, 64, 0, 1]);
    assert_eq!((bytes[15], bytes[16], bytes.len()), (0, 0xa2, 80));
    assert_eq!(Success1::parse(&bytes, HashFunction::Sha512), Ok(success));
    assert!(Success1::parse(&bytes, HashFunction::Sha256).is_err());

    let bytes = Success2 { transaction: 7 }.encode();
    assert_eq!(bytes, [1, 4, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn failures_as_they_lie_on_the_wire() {
    for (by, id) in [(FailureKind::Controller, 0xf1), (FailureKind::Host, 0xf0)] {
        let failure = Failure { by, transaction: 3, explanation: Explanation::GroupUnusable };
        let bytes = failure.encode();
        assert_eq!(bytes, [0, id, 0, 0, 3, 0, 1, 5]);
        assert_eq!(Failure::parse(&bytes, by), Ok(failure));
    }
}

#[test]
fn no_cut_message_is_taken_and_none_panics() {
    let negotiate =
        Negotiate { transaction: 1, secure_channel: 0, hashes: vec![1], groups: vec![0] };
    let (negotiate, challenge, reply) =
        (negotiate.encode(), challenge().encode(), reply().encode());
    for length in 0..negotiate.len() {
        assert!(Negotiate::parse(&negotiate[..length]).is_err(), "{length}");
    }
    for length in 0..challenge.len() {
        assert!(Challenge::parse(&challenge[..length]).is_err(), "{length}");
    }
    for length in 0..reply.len() {
        let cut = Reply::parse(&reply[..length], HashFunction::Sha384, Group::Ffdhe3072);
        assert!(cut.is_err(), "{length}");
    }
}

#[test]
fn the_wrong_field_is_named() {
    let mut bytes = challenge().encode();
    bytes[8] = 4;
    let error = Challenge::parse(&bytes).expect_err("no such hash");
    assert_eq!((error.field, error.explanation), ("HashID", Explanation::HashUnusable));
    bytes[8] = 2;
    assert_eq!(Challenge::parse(&bytes).expect_err("not its length").field, "HL");
    bytes[8] = 1;
    bytes[9] = 6;
    let error = Challenge::parse(&bytes).expect_err("no such group");
    assert_eq!((error.field, error.explanation), ("DHgID", Explanation::GroupUnusable));
    bytes[9] = 0;
    assert_eq!(Challenge::parse(&bytes).expect_err("a value without a group").field, "DHVLEN");
    bytes[0] = 9;
    let error = Challenge::parse(&bytes).expect_err("no such message");
    assert_eq!(error.explanation, Explanation::IncorrectMessage);
    assert_eq!(error.to_string(), "AUTH_TYPE and AUTH_ID is 0x901: must be the codes of a message");
}
