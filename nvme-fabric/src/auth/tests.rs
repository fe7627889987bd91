//! Both ends against each other, and against values that others computed.

use super::group::KeyPair;
use super::hash::{hash, hmac};
use super::host::{Action, Exchange};
use super::response::{Asked, Role, response};
use super::target::{Allowed, Authentication};
use super::*;
use crate::spec::auth::{Kind, Negotiate, Success1};
use zeroize::Zeroizing;

/// From nvme-cli's manual page of `gen-dhchap-key`, and SPDK's test/nvmf.
const KNOWN: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";
const HOST: &str = "nqn.2014-08.com.example:host";
const SUBSYSTEM: &str = "nqn.2014-08.com.example:volume";
const NAMES: Names<'_> = Names { host: HOST, subsystem: SUBSYSTEM };

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random(seed: u8) -> Random {
    Random::new(&[seed; SEED_LENGTH])
}

fn keys(seed: u8) -> Keys {
    Keys::new(Secret::generate(None, &mut random(seed)))
}

/// Runs a transaction; what the host says at its end.
fn run(host: &Keys, target: &Keys, authentication: &mut Authentication, seed: u8) -> Action {
    let (mut ours, mut theirs) = (random(seed), random(seed.wrapping_add(100)));
    let (mut exchange, negotiate) = Exchange::start(host, seed.into(), Concatenation::None);
    let mut action = Action::Send(negotiate);
    loop {
        action = match action {
            Action::Send(message) => {
                authentication.send(&message, Allowed::PLAIN, target, NAMES, &mut theirs);
                exchange.sent()
            }
            Action::Receive => {
                let mut message = authentication.receive();
                message.resize(4096, 0);
                exchange.received(&message, host, NAMES, &mut ours)
            }
            end => return end,
        };
    }
}

#[test]
fn a_known_secret_is_read_and_written_back() {
    let secret = Secret::parse(KNOWN).expect("well formed");
    assert_eq!(*secret.text(), KNOWN);
    assert!(Secret::parse(&format!(" {KNOWN}\n")).is_ok());
    assert_eq!(format!("{secret:?}"), "Secret(not shown)");
}

#[test]
fn a_secret_that_is_wrong_is_refused_by_field_and_never_shown() {
    for (text, field) in [
        (KNOWN.replace("DHHC-1", "DHHC-2"), "DHHC-1:"),
        (KNOWN.replace(":00:", ":04:"), "hash field"),
        (KNOWN.replace("ia6z", "ib6z"), "CRC-32"),
        (KNOWN.trim_end_matches(':').to_owned(), "must end with `:`"),
        (KNOWN.replace("aQ2n:", "aQ2:"), "Base64"),
        (KNOWN.replace("HWUz6aQ2n:", ":"), "Base64"),
        ("DHHC-1:00:AAAA:".to_owned(), "has 3 bytes"),
        (String::new(), "DHHC-1:"),
        ("DHHC-1:00".to_owned(), "hash field"),
    ] {
        let error = Secret::parse(&text).expect_err(&text).to_string();
        assert!(error.contains(field), "{text}: {error}");
        assert!(!error.contains("6zGod") && !error.contains("pUWj"), "{error}");
    }
}

#[test]
fn every_generated_secret_can_be_read_again() {
    for transformation in [None].into_iter().chain(HashFunction::ALL.map(Some)) {
        let secret = Secret::generate(transformation, &mut random(1));
        let text = secret.text();
        assert!(text.len() <= secret::TEXT_LENGTH_MAX);
        let again = Secret::parse(&text).expect("what was written");
        assert_eq!(again.transformed(HOST)[..], secret.transformed(HOST)[..]);
    }
}

#[test]
fn a_secret_is_transformed_with_its_owners_name() {
    // hmac.new(key, name + b"NVMe-over-Fabrics", hash) of Python 3.
    for (id, right) in [
        ("00", "89aeb31a874eaf84841b46736b0dfdf2ba58d30aa2a545a3e235a3521e07594c"),
        ("01", "51b79345b17ac01c70b7f61a10d00db5fa964b1532628902dfbab8d4d6e9fcfd"),
        (
            "02",
            "fd24aea9ae76cb645d066aef9eb3209b2482705742d60deaaf12f0237c0e6ec2\
             e078d2d80c97b24f5ecd7b64e36ca011",
        ),
        (
            "03",
            "2981a7b4eee3f9a34db3d2ba1f72bacce4e10589952f1011bf0971a6938730c5\
             888039de4e8ca961a5524f7e530d7781ae33fa3832ca2019e55fc663f19b2063",
        ),
    ] {
        let text = KNOWN.replace(":00:", &format!(":{id}:"));
        let secret = Secret::parse(&text).expect("well formed");
        assert_eq!(hexadecimal(&secret.transformed(HOST)), right, "{id}");
    }
}

#[test]
fn exponentiation_is_what_another_implementation_computes() {
    // pow() of Python 3: SHA-256 of g^x, and of g^xy, with x and y as below.
    for (group, public, shared) in [
        (
            Group::Ffdhe2048,
            "8b86d040edb2357dffadef05bd33eb7edb94f2d13b09bb155e5a12905eb3396e",
            "a09436b3422c8df59d4172ee0052c64bb575a9a60438a2fa7d7332a730ec45f2",
        ),
        (
            Group::Ffdhe3072,
            "34d04a5729fc64e329c7b7f8670b5898d7cb6c0d897609b50a67ff9457728cd3",
            "746761339093d0733fe027ace30f901d1797544457da9a6ab82f5e7a3c765a8e",
        ),
        (
            Group::Ffdhe4096,
            "944152465b13e74867d9f1df028fa6d7618c435fb13f46851d2c27d58f8cd2d8",
            "f277352ef85471ab8b1996d3e79a1bb9ef6fccd000b5decee831208e9fb8beb5",
        ),
        (
            Group::Ffdhe6144,
            "54b09b577de2e998c50fd831130f802d4f671d17566e4725040fe25e68641871",
            "e30d816171b84b01a835e6728464243cbef896ee7726d0788833c8abde8af5c0",
        ),
        (
            Group::Ffdhe8192,
            "ec9c45a5524e2ad993932b8258f184ffe866a70062c70376cdf255195b1b85ab",
            "e60f0c54f77bea2bcfe1a332f05383894eb18198a7732d84996d11e846867223",
        ),
    ] {
        let length = [0, 32, 40, 48, 48, 56][usize::from(group.id())];
        let exponent = |factor: usize, offset: usize| {
            Zeroizing::new((0..length).map(|i| (i * factor + offset) as u8).collect::<Vec<u8>>())
        };
        let ours = KeyPair::of_exponent(group, exponent(7, 1)).expect("a group");
        let theirs = KeyPair::of_exponent(group, exponent(11, 3)).expect("a group");
        let digest = |bytes: &[u8]| hexadecimal(&hash(HashFunction::Sha256, bytes));
        assert_eq!(digest(ours.public()), public, "{group}");
        let value = ours.share(theirs.public()).expect("a sound value");
        assert_eq!(digest(value.bytes()), shared, "{group}");
        assert_eq!(value.bytes().len(), group.length());
    }
}

#[test]
fn public_values_that_give_the_secret_away_are_refused() {
    let group = Group::Ffdhe2048;
    let pair = KeyPair::new(group, &mut random(1)).expect("a group");
    let prime = primes::FFDHE2048.to_vec();
    let with_last = |last: u8| [&prime[..255], &[last]].concat();
    for bad in [vec![], vec![0], vec![1], prime.clone(), with_last(0xfe), vec![0xff; 256]] {
        assert!(pair.share(&bad).is_err(), "{}", hexadecimal(&bad));
    }
    assert!(pair.share(&vec![2; 257]).is_err());
    assert!(pair.share(&[2]).is_ok() && pair.share(&with_last(0xfd)).is_ok());
}

#[test]
fn a_response_is_what_another_implementation_computes() {
    // hmac and hashlib of Python 3.
    let secret = Secret::parse(KNOWN).expect("well formed");
    let pair = KeyPair::of_exponent(Group::Ffdhe2048, Zeroizing::new(vec![0; 32])).expect("one");
    let shared = pair.share(&[2]).expect("sound");
    assert_eq!(hexadecimal(shared.bytes()).trim_start_matches('0'), "1", "2^0");
    let asked = Asked {
        hash: HashFunction::Sha384,
        transaction: 0x0102,
        secure_channel: 0,
        challenge: &[0x33; 48],
        sequence: 0x0a0b_0c0d,
        shared: None,
    };
    let host = response(Role::Host, &secret, NAMES, &asked);
    assert_eq!(
        hexadecimal(&host),
        "d76f3dac838600c24788e98059ea80ae21147e198f5dc6b45c0359908830b0e3\
         5e9cb74cce33ebbeb5dcacf737f237d6"
    );
    let asked = Asked { shared: Some(&shared), ..asked };
    let controller = response(Role::Controller, &secret, NAMES, &asked);
    assert_eq!(
        hexadecimal(&controller),
        "151d8a48da178b36d6eeb8cf8410ddc1d5fa8556446a44c6cd03e55f1627dbcc\
         0887b21897d8014d6ecfc7e9123a55ad"
    );
}

#[test]
fn every_hash_and_group_authenticates_one_way_and_both_ways() {
    for (hash, group) in
        HashFunction::ALL.into_iter().zip([Group::Ffdhe3072, Group::Ffdhe6144, Group::Ffdhe8192])
    {
        for group in [Group::Null, Group::Ffdhe2048, Group::Ffdhe4096, group] {
            for controller in [None, Some(Secret::generate(Some(hash), &mut random(9)))] {
                let choices = Choices { hashes: vec![hash], groups: vec![group] };
                let keys = Keys { controller, choices, ..keys(1) };
                let mut authentication = Authentication::default();
                let end = run(&keys, &keys, &mut authentication, 3);
                assert_eq!(end, Action::Done, "{hash} {group}");
                assert!(authentication.is_authenticated());
                assert_eq!(authentication.failure(), None);
            }
        }
    }
}

#[test]
fn the_target_prefers_its_own_first_choice() {
    let choices = Choices {
        hashes: vec![HashFunction::Sha512, HashFunction::Sha256],
        groups: vec![Group::Null, Group::Ffdhe2048],
    };
    let target = Keys { choices, ..keys(1) };
    let mut authentication = Authentication::default();
    let (_, negotiate) = Exchange::start(&keys(1), 1, Concatenation::None);
    authentication.send(&negotiate, Allowed::PLAIN, &target, NAMES, &mut random(1));
    let challenge = authentication.receive();
    assert_eq!((challenge[8], challenge[9]), (3, 0));
}

#[test]
fn a_wrong_secret_of_either_end_is_found_out() {
    let controller = |seed| Some(Secret::generate(None, &mut random(seed)));
    let mut authentication = Authentication::default();
    let Action::Failed(text) = run(&keys(1), &keys(2), &mut authentication, 1) else {
        panic!("a host without the secret got in");
    };
    assert!(text.contains("AUTH_Failure1") && text.contains("different secrets"), "{text}");
    assert!(!authentication.is_authenticated());
    assert!(authentication.failure().is_some_and(|text| text.contains("the host's response")));

    let host = Keys { controller: controller(5), ..keys(1) };
    let target = Keys { controller: controller(6), ..keys(1) };
    let mut authentication = Authentication::default();
    let Action::Failed(text) = run(&host, &target, &mut authentication, 1) else {
        panic!("a controller without its secret was believed");
    };
    assert!(text.contains("the controller's response is wrong"), "{text}");
    assert!(!authentication.is_authenticated());
    assert!(authentication.failure().is_some_and(|text| text.contains("AUTH_Failure2")));

    let mut authentication = Authentication::default();
    let end = run(&host, &keys(1), &mut authentication, 1);
    assert!(matches!(end, Action::Failed(_)), "the controller has no secret to prove");
    assert!(!authentication.is_authenticated());
}

#[test]
fn a_controller_that_leaves_its_proof_out_is_not_believed() {
    let host = keys(1).with_controller(Secret::generate(None, &mut random(5)));
    let mut authentication = Authentication::default();
    let (mut exchange, negotiate) = Exchange::start(&host, 1, Concatenation::None);
    authentication.send(&negotiate, Allowed::PLAIN, &host, NAMES, &mut random(2));
    assert_eq!(exchange.sent(), Action::Receive);
    let challenge = authentication.receive();
    let reply = exchange.received(&challenge, &host, NAMES, &mut random(3));
    assert!(matches!(reply, Action::Send(_)));
    assert_eq!(exchange.sent(), Action::Receive);
    let success = Success1 { transaction: 1, hash: HashFunction::Sha256, response: None };
    let Action::Send(failure) = exchange.received(&success.encode(), &host, NAMES, &mut random(3))
    else {
        panic!("it was believed");
    };
    assert_eq!(failure[..2], [0, 0xf0]);
    assert!(matches!(exchange.sent(), Action::Failed(text) if text.contains("RVALID")));
}

#[test]
fn what_was_not_offered_is_not_used_and_nothing_in_common_is_said() {
    let only = |hash, group| Choices { hashes: vec![hash], groups: vec![group] };
    let one = only(HashFunction::Sha256, Group::Null);
    let host = Keys { choices: one, ..keys(1) };
    for (choices, explanation) in [
        (only(HashFunction::Sha384, Group::Null), "hash function"),
        (only(HashFunction::Sha256, Group::Ffdhe2048), "Diffie-Hellman group"),
    ] {
        let target = Keys { choices, ..keys(1) };
        let end = run(&host, &target, &mut Authentication::default(), 1);
        assert!(matches!(&end, Action::Failed(text) if text.contains(explanation)), "{end:?}");
    }
}

#[test]
fn a_stranger_gets_one_guess_and_a_known_host_may_repeat() {
    let mut authentication = Authentication::default();
    assert_eq!(run(&keys(1), &keys(1), &mut authentication, 1), Action::Done);
    assert_eq!(run(&keys(1), &keys(1), &mut authentication, 2), Action::Done);
    assert!(authentication.is_authenticated());
    let end = run(&keys(1), &keys(2), &mut authentication, 3);
    assert!(matches!(end, Action::Failed(_)), "the secret has changed");
    assert!(!authentication.is_authenticated());
    assert!(authentication.failure().is_some());

    let mut authentication = Authentication::default();
    let (_, negotiate) = Exchange::start(&keys(1), 1, Concatenation::None);
    for _ in 0..2 {
        authentication.send(&negotiate, Allowed::PLAIN, &keys(1), NAMES, &mut random(1));
    }
    assert_eq!(authentication.receive()[..2], [0, 0xf1]);
    assert!(authentication.failure().is_some());
    authentication.send(&negotiate, Allowed::PLAIN, &keys(1), NAMES, &mut random(1));
    assert_eq!(authentication.receive()[..2], [0, 0xf1], "it is over");
}

#[test]
fn messages_that_are_not_due_end_the_transaction() {
    let not_due = [Kind::Reply, Kind::Success1, Kind::Success2, Kind::Challenge, Kind::Failure1];
    for kind in not_due {
        let mut authentication = Authentication::default();
        let mut message = vec![0; 300];
        (message[0], message[1]) = kind.codes();
        authentication.send(&message, Allowed::PLAIN, &keys(1), NAMES, &mut random(1));
        let failure = authentication.receive();
        assert_eq!((failure[1], failure[7]), (0xf1, 7), "{}", kind.name());
    }
    let secure = Negotiate { transaction: 1, secure_channel: 1, hashes: vec![1], groups: vec![1] };
    let mut authentication = Authentication::default();
    authentication.send(&secure.encode(), Allowed::PLAIN, &keys(1), NAMES, &mut random(1));
    assert_eq!(authentication.receive()[7], 3, "no secure channel here");
}

#[test]
fn random_bytes_do_not_repeat_and_depend_on_the_seed() {
    let mut first = random(1);
    let (one, two) = (first.bytes(200), first.bytes(200));
    assert_ne!(one, two);
    assert_ne!(one[..64], one[64..128], "blocks differ");
    assert_eq!(random(1).bytes(200), one);
    assert_ne!(random(2).bytes(200), one);
}

#[test]
fn hmac_as_in_rfc_4231() {
    // Test case 2.
    let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
    let digest = hmac(HashFunction::Sha256, b"Jefe", &parts);
    assert_eq!(
        hexadecimal(&digest),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn keys_of_a_secure_channel_as_linux_tests_them() {
    // drivers/nvme/common/tests/auth_kunit.c
    let session: Vec<u8> = (0..64).map(|i| b'A' + i).collect();
    let (first, second): (Vec<u8>, Vec<u8>) = (0..64).map(|i| (i, 0xff - i)).unzip();
    let names = Names { host: "hostnqn", subsystem: "subsysnqn" };
    for (function, psk, digest, tls) in [
        (
            HashFunction::Sha256,
            "1733c59fa7f48fcf37f5f26fc4ff0268ad4f78e030f4f3b0bfd1d47e7bb1447a",
            "OldoKuTfKddMuyCznAZojkWD7P4D9/AtzDzLimtOxqI=",
            "3c17da628474a04d2247c4cab47968c915388193f7c071bd9489cc3666cd7cc8",
        ),
        (
            HashFunction::Sha384,
            "f14b2dd3234c459694d3bc63f8968bd6b37c2c6de849e22e118749001ce4bbe8\
             640b9e3a748cb11ce4b1d71d359cce39",
            "cffMWk8TSS7HOQebjgYEIkrPrjWPV4JE5cdPB8WhEvY4JBW5YynKyv66XscN4A9n",
            "2774753233537b3fa50eb7d16a8e43457d85f4906c005b2236616c5d80939d08\
             98fff15bb8b77119d2be0aac423e7590",
        ),
    ] {
        let length = function.length();
        let generated =
            psk::of_session_key(function, &session[..length], &first[..length], &second[..length]);
        assert_eq!(hexadecimal(&generated), psk);
        assert_eq!(derivation::digest(function, &generated, names), digest);
        let context = format!("{:02} {digest}", function.id());
        let counted = derivation::Framing::Counted;
        let key = derivation::expand_label(function, counted, &generated, "nvme-tls-psk", &context);
        assert_eq!(hexadecimal(&key.expect("short enough")), tls);
    }
    let sha512 = psk::of_session_key(HashFunction::Sha512, &session, &first, &second);
    assert_eq!(
        hexadecimal(&sha512),
        "9c9f089a618b47d2d75f4b6c28070424487b445dd96e70c4c09b55e8b6000152\
         a3363c3454043f38f0b85036ded40655350aa87b8b6a282b5c1acae16233dd5b"
    );
}

/// Runs a transaction that generates a key; both ends' keys at its end.
fn concatenate(
    host: &Keys,
    target: &Keys,
    allowed: Allowed,
) -> (Action, [Option<GeneratedPsk>; 2]) {
    let mut authentication = Authentication::default();
    let (mut ours, mut theirs) = (random(1), random(2));
    let (mut exchange, negotiate) = Exchange::start(host, 7, Concatenation::New);
    let mut action = Action::Send(negotiate);
    loop {
        action = match action {
            Action::Send(message) => {
                authentication.send(&message, allowed, target, NAMES, &mut theirs);
                exchange.sent()
            }
            Action::Receive => exchange.received(&authentication.receive(), host, NAMES, &mut ours),
            end => {
                return (end, [exchange.take_generated(), authentication.take_generated()]);
            }
        };
    }
}

const CONCATENATED: Allowed = Allowed { none: false, new: true, replace: false };

#[test]
fn both_ends_generate_one_key_and_never_with_sha_512_or_without_a_group() {
    let controller = Secret::generate(None, &mut random(9));
    for host in [keys(1), keys(1).with_controller(controller)] {
        let (end, [ours, theirs]) = concatenate(&host, &host, CONCATENATED);
        assert_eq!(end, Action::Done);
        assert_eq!(ours.as_ref().map(|psk| psk.bytes().len()), Some(32));
        assert_eq!(ours, theirs);
        // The target's first choices have no key: it takes the next ones.
        let choices = Choices {
            hashes: vec![HashFunction::Sha512, HashFunction::Sha384],
            groups: vec![Group::Null, Group::Ffdhe2048],
        };
        let target = Keys { choices, ..host.clone() };
        let (end, [ours, theirs]) = concatenate(&host, &target, CONCATENATED);
        assert_eq!((end, ours.as_ref()), (Action::Done, theirs.as_ref()));
        assert_eq!(ours.map(|psk| psk.bytes().len()), Some(48));
    }
    for (hash, group) in
        [(HashFunction::Sha512, Group::Ffdhe2048), (HashFunction::Sha256, Group::Null)]
    {
        let choices = Choices { hashes: vec![hash], groups: vec![group] };
        let target = Keys { choices, ..keys(1).with_concatenation() };
        assert!(target.check().is_err(), "{hash} {group}");
        let (end, generated) = concatenate(&keys(1), &target, CONCATENATED);
        assert!(matches!(end, Action::Failed(_)), "{end:?}");
        assert_eq!(generated, [None, None]);
    }
}

#[test]
fn a_key_that_was_not_to_be_or_was_not_proved_is_not_made() {
    let (end, generated) = concatenate(&keys(1), &keys(1), Allowed::PLAIN);
    assert!(matches!(&end, Action::Failed(text) if text.contains("secure channel")), "{end:?}");
    assert_eq!(generated, [None, None]);
    let (end, generated) = concatenate(&keys(1), &keys(2), CONCATENATED);
    assert!(matches!(&end, Action::Failed(text) if text.contains("different secrets")), "{end:?}");
    assert_eq!(generated, [None, None]);
    // A controller that does not know its own secret: neither end keeps the key.
    let controller = |seed| Some(Secret::generate(None, &mut random(seed)));
    let (host, target) = (
        Keys { controller: controller(5), ..keys(1) },
        Keys { controller: controller(6), ..keys(1) },
    );
    let (end, generated) = concatenate(&host, &target, CONCATENATED);
    assert!(matches!(end, Action::Failed(_)), "{end:?}");
    assert_eq!(generated, [None, None]);
}

#[test]
fn a_generated_key_is_not_shown() {
    let (_, [psk, _]) = concatenate(&keys(1), &keys(1), CONCATENATED);
    assert_eq!(format!("{:?}", psk.expect("made")), "GeneratedPsk(32 bytes)");
}
