//! A reading of what a server sends, apart from the server's own code: enough of a client to say
//! that every byte is part of an answer, and how many answers there are.

/// Reads big-endian numbers off the front of bytes.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> &'a [u8] {
        assert!(self.rest.len() >= count, "{what}: {} bytes of {count}", self.rest.len());
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    fn number(&mut self, count: usize, what: &str) -> u64 {
        self.take(count, what).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// Checks the server's side of a negotiation and returns its answers as option and kind. With
/// `entered` the negotiation ended, and what is not an answer to an option is not looked at.
///
/// # Panics
/// When the bytes are not what a server may send.
pub(super) fn negotiation(sent: &[u8], entered: bool) -> Vec<(u32, u32)> {
    let mut reader = Reader { rest: sent };
    //= NBD proto.md "Newstyle negotiation": two magics and the handshake flags
    assert_eq!(reader.take(18, "greeting"), b"NBDMAGICIHAVEOPT\x00\x03");
    let mut answers = Vec::new();
    while !reader.rest.is_empty() {
        //= NBD proto.md "Newstyle negotiation": magic, option, kind, length, data
        if reader.rest.len() < 8
            || !reader.rest.starts_with(&[0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9])
        {
            assert!(entered, "{:02x?}… is no answer to an option", &reader.rest[..1]);
            break;
        }
        reader.take(8, "magic");
        let option = reader.number(4, "option") as u32;
        let kind = reader.number(4, "kind") as u32;
        let length = reader.number(4, "length") as usize;
        assert!(length <= 64 << 10, "an answer of {length} bytes");
        reader.take(length, "data");
        answers.push((option, kind));
    }
    answers
}

/// A final answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    /// Whether it or a chunk before it said that the request failed.
    pub(super) failed: bool,
}

/// Reads replies. `simple_payload` says how many bytes follow a simple reply without error to the
/// request of this cookie.
///
/// # Panics
/// When the bytes are not what a server may send.
pub(super) fn replies(sent: &[u8], simple_payload: impl Fn(u64) -> usize) -> Vec<Reply> {
    let mut reader = Reader { rest: sent };
    let mut replies = Vec::new();
    while !reader.rest.is_empty() {
        match reader.number(4, "magic") {
            //= NBD proto.md "Simple reply message": error, cookie, data
            0x6744_6698 => {
                let failed = reader.number(4, "error") != 0;
                let cookie = reader.number(8, "cookie");
                let length = if failed { 0 } else { simple_payload(cookie) };
                reader.take(length, "payload of a simple reply");
                replies.push(Reply { cookie, failed });
            }
            //= NBD proto.md "Structured reply chunk message": flags, kind, cookie, length, payload
            0x668e_33ef => {
                let flags = reader.number(2, "flags");
                let kind = reader.number(2, "kind");
                let cookie = reader.number(8, "cookie");
                let length = reader.number(4, "length") as usize;
                reader.take(length, "payload of a chunk");
                if flags & 1 == 1 {
                    replies.push(Reply { cookie, failed: kind >> 15 == 1 });
                }
            }
            magic => panic!("{magic:#x} begins no reply"),
        }
    }
    replies
}
