//! The identities that a ClientHello offers, read before the library sees it.
//!
//! ```text
//!   record {22, 3, x, length} ClientHello {1, length, … extensions … 41: pre_shared_key}
//! ```
//! RFC 8446 §4.1.2, §4.2.11, §5.1. A target needs them to find the keys, and to name the identity
//! that it does not know. Everything else in the message is the library's to check.

/// The longest ClientHello with its record headers that is waited for.
pub const HELLO_MAX: usize = 16 << 10;
/// Identities that are looked at; the rest is as if it was not offered.
pub const IDENTITIES_MAX: usize = 8;

/// ContentType handshake. RFC 8446 §5.1
pub(super) const RECORD_HANDSHAKE: u8 = 22;
/// ContentType alert.
pub(super) const RECORD_ALERT: u8 = 21;
/// ContentType change_cipher_spec.
pub(super) const RECORD_CHANGE_CIPHER_SPEC: u8 = 20;
const RECORD_HEADER: usize = 5;
/// HandshakeType client_hello, and the length behind it. RFC 8446 §4
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;
/// ExtensionType pre_shared_key. RFC 8446 §4.2
const PRE_SHARED_KEY: u16 = 41;

/// What the first bytes of a stream are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More must arrive.
    Incomplete,
    /// No TLS record; its first byte.
    NotTls(u8),
    /// A TLS record that begins no ClientHello, or a damaged one.
    Malformed(&'static str),
    /// The identities offered, in order; none without the extension.
    Complete(Vec<Vec<u8>>),
}

/// Reads what has arrived so far, from the stream's first byte on.
pub fn read(stream: &[u8]) -> Hello {
    match stream.first() {
        None => return Hello::Incomplete,
        Some(&RECORD_HANDSHAKE) => {}
        Some(&byte) => return Hello::NotTls(byte),
    }
    let mut message = Vec::new();
    let mut rest = Reader(stream);
    let is_over = loop {
        if message.len() >= MESSAGE_HEADER {
            let length = u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize;
            if message[0] != CLIENT_HELLO {
                return Hello::Malformed("the first message is no ClientHello");
            }
            if length > HELLO_MAX {
                return Hello::Malformed("the ClientHello has more than 16384 bytes");
            }
            if message.len() >= MESSAGE_HEADER + length {
                message.truncate(MESSAGE_HEADER + length);
                break true;
            }
        }
        let Some(header) = rest.take(RECORD_HEADER) else { break false };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != RECORD_HANDSHAKE || header[1] != 3 || length == 0 || length > HELLO_MAX {
            return Hello::Malformed("a record's header is damaged");
        }
        let Some(fragment) = rest.take(length) else { break false };
        message.extend_from_slice(fragment);
    };
    if is_over {
        let identities = identities(Reader(&message[MESSAGE_HEADER..]));
        return identities.map_or(Hello::Malformed("the ClientHello is damaged"), Hello::Complete);
    }
    if stream.len() >= HELLO_MAX {
        return Hello::Malformed("the ClientHello has more than 16384 bytes");
    }
    Hello::Incomplete
}

/// The identities in a ClientHello's body; `None` when its lengths do not fit.
fn identities(mut body: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    // legacy_version and random.
    body.take(2 + 32)?;
    // legacy_session_id, cipher_suites, legacy_compression_methods.
    body.vector_8()?;
    body.vector_16()?;
    body.vector_8()?;
    let mut identities = Vec::new();
    let mut extensions = Reader(body.vector_16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector_16()?;
        if kind != PRE_SHARED_KEY {
            continue;
        }
        let mut offered = Reader(Reader(data).vector_16()?);
        while !offered.0.is_empty() && identities.len() < IDENTITIES_MAX {
            identities.push(offered.vector_16()?.to_vec());
            // obfuscated_ticket_age
            offered.take(4)?;
        }
    }
    Some(identities)
}

/// Bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector_8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector_16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector_16(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(vector_16(extensions));
        let length = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        [&[RECORD_HANDSHAKE, 3, 1][..], &vector_16(fragment)].concat()
    }

    fn offering(identities: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = identities
            .iter()
            .flat_map(|identity| [vector_16(identity), vec![0; 4]].concat())
            .collect();
        let offer = [vector_16(&list), vec![0, 33], vec![32; 33]].concat();
        let other = [vec![0, 43], vector_16(&[2, 3, 4])].concat();
        hello(&[other, vec![0, 41], vector_16(&offer)].concat())
    }

    #[test]
    fn identities_are_found_however_the_message_is_cut_into_records_and_receives() {
        let message = offering(&[b"NVMe1R01 a b c", b"NVMe0R01 a b"]);
        let expected = vec![b"NVMe1R01 a b c".to_vec(), b"NVMe0R01 a b".to_vec()];
        for cut in 1..message.len() {
            let stream = [record(&message[..cut]), record(&message[cut..])].concat();
            assert_eq!(read(&stream), Hello::Complete(expected.clone()), "cut at {cut}");
        }
        let stream = record(&message);
        for length in 0..stream.len() {
            assert_eq!(read(&stream[..length]), Hello::Incomplete, "{length} bytes");
        }
        assert_eq!(read(&record(&hello(&[]))), Hello::Complete(Vec::new()));
    }

    #[test]
    fn what_is_no_hello_is_told() {
        assert_eq!(read(&[0, 0, 128]), Hello::NotTls(0));
        for stream in [
            record(&[2, 0, 0, 0]),
            vec![RECORD_HANDSHAKE, 3, 1, 0, 0],
            vec![RECORD_HANDSHAKE, 3, 1, 0xff, 0xff],
            vec![RECORD_HANDSHAKE, 1, 1, 0, 1],
            record(&[CLIENT_HELLO, 0, 0xff, 0xff]),
            record(&[CLIENT_HELLO, 0, 0, 2, 3, 3]),
            record(&hello(&[0, 41, 0, 3, 0, 9, 1])),
        ] {
            assert!(matches!(read(&stream), Hello::Malformed(_)), "{stream:?}");
        }
        // Records of one byte never grow past the bound.
        let mut stream = Vec::new();
        let fragments = record(&[CLIENT_HELLO])
            .into_iter()
            .chain(record(&[0]).into_iter().cycle().take(HELLO_MAX));
        stream.extend(fragments);
        stream.truncate(HELLO_MAX);
        assert_ne!(read(&stream), Hello::Incomplete);
    }

    #[test]
    fn random_damage_does_not_panic() {
        let good = record(&offering(&[b"NVMe1R01 a b c"]));
        let mut random = block_io::sim::Random::new(7);
        for _ in 0..20_000 {
            let mut stream = good.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(stream.len() as u64) as usize;
                stream[at] = random.below(256) as u8;
            }
            stream.truncate(1 + random.below(stream.len() as u64) as usize);
            read(&stream);
        }
    }
}
