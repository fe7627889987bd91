//! What the cache wants done: requests for its two devices and answers for its clients.
//!
//! The cache only appends; whoever drives it takes everything after each call. A request's id on
//! either device is a [`Token`], which says what it belongs to when its completion comes back.

use block_io::{Completion, Request, RequestId};

use super::line_lock::PieceIndex;

/// Actions since the outbox was last emptied.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the origin, in this order.
    pub origin: Vec<Request>,
    /// For the cache device; no order among them matters.
    pub cache: Vec<Request>,
    /// For the clients.
    pub replies: Vec<Completion>,
}

impl Outbox {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.origin.is_empty() && self.cache.is_empty() && self.replies.is_empty()
    }
}

/// What a device request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A piece's change of the origin (write, discard, write zeroes).
    Change { piece: PieceIndex },
    /// A piece's read of some of its lines, counted from its first, from the origin.
    OriginRead { piece: PieceIndex, first: u16, count: u16 },
    /// A piece's read of one of its lines from the cache.
    CacheRead { piece: PieceIndex, line: u16 },
    /// A store into the cache.
    Fill { fill: u16 },
    /// A client's flush, passed on.
    Flush { request: u16 },
    /// The cache's own records on the cache device.
    Metadata { index: u16 },
}

impl Token {
    pub(crate) fn id(self) -> RequestId {
        let pack = |kind: u64, a: u16, b: u16, c: u16| {
            RequestId(kind << 48 | u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c))
        };
        match self {
            Self::Change { piece } => pack(0, piece, 0, 0),
            Self::OriginRead { piece, first, count } => pack(1, piece, first, count),
            Self::CacheRead { piece, line } => pack(2, piece, line, 0),
            Self::Fill { fill } => pack(3, fill, 0, 0),
            Self::Flush { request } => pack(4, request, 0, 0),
            Self::Metadata { index } => pack(5, index, 0, 0),
        }
    }

    /// # Panics
    /// When the id is none that [`id`](Self::id) made: the device under the cache invented it.
    pub(crate) fn of(id: RequestId) -> Self {
        let (a, b, c) = ((id.0 >> 32) as u16, (id.0 >> 16) as u16, id.0 as u16);
        match id.0 >> 48 {
            0 => Self::Change { piece: a },
            1 => Self::OriginRead { piece: a, first: b, count: c },
            2 => Self::CacheRead { piece: a, line: b },
            3 => Self::Fill { fill: a },
            4 => Self::Flush { request: a },
            5 => Self::Metadata { index: a },
            _ => panic!("a device completed request {}, which the cache never made", id.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for token in [
            Token::Change { piece: 7 },
            Token::OriginRead { piece: 65534, first: 255, count: 256 },
            Token::CacheRead { piece: 1, line: 200 },
            Token::Fill { fill: 511 },
            Token::Flush { request: 3 },
            Token::Metadata { index: 319 },
        ] {
            assert_eq!(Token::of(token.id()), token);
        }
    }
}
