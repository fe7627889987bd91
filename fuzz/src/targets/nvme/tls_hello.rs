//! The first bytes of a stream that is to be TLS, from anybody: however they arrive it is the same
//! ClientHello, a verdict once given stays, and what is offered is bounded.

use nvme_fabric::tls::hello::{HELLO_MAX, Hello, IDENTITIES_MAX, read};

use super::tls_records::client_hello;
use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The input is the stream.
pub const TARGET: Target = Target { name: "tls_hello", length_max: 2048, run, cost: 1, seeds };

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let whole = read(input);
    // Of every portion that arrives first, the verdict is the later one or none yet.
    let step = (input.len() / 5).max(1);
    for length in (0..input.len()).step_by(step) {
        let early = read(&input[..length]);
        assert!(early == Hello::Incomplete || early == whole, "{early:?}, and then {whole:?}");
    }
    match &whole {
        Hello::Incomplete => {
            assert!(input.len() < HELLO_MAX, "{} bytes and no verdict", input.len());
            observer.note("incomplete");
        }
        Hello::NotTls(byte) => {
            assert_eq!(input.first(), Some(byte));
            observer.note("not TLS");
        }
        Hello::Malformed(what) => observer.note(what),
        Hello::Complete(identities) => {
            assert!(identities.len() <= IDENTITIES_MAX, "{} identities", identities.len());
            let bytes: usize = identities.iter().map(Vec::len).sum();
            assert!(bytes <= input.len(), "{bytes} bytes of identities in {}", input.len());
            observer.note_magnitude(bytes as u64);
            observer.note(identities.len());
        }
    }
    observer.behaviour()
}

/// What a sound host says first, whole and in records of a few bytes.
fn seeds() -> Vec<Vec<u8>> {
    let hello = client_hello();
    let message = &hello[5..];
    let cut = |length: usize| {
        let record =
            |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        message.chunks(length).flat_map(record).collect::<Vec<u8>>()
    };
    vec![cut(7), cut(100), vec![21, 3, 3, 0, 2, 2, 40], vec![0, 0, 128, 0, 128, 0, 0, 0], hello]
}
