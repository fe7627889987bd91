//! What the cache wants done: requests for its two devices and answers for its clients.
//!
//! The cache only appends; whoever drives it takes everything after each call. A request's id on
//! either device is a [`Token`], which says what it belongs to when its completion comes back.

use block_io::{Completion, Request, RequestId};

use super::config::VolumeId;
use super::line_lock::PieceIndex;

/// Actions since the outbox was last emptied.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the origins of volumes, in this order.
    pub origin: Vec<(VolumeId, Request)>,
    /// For the cache device; no order among them matters.
    pub cache: Vec<Request>,
    /// For the clients of volumes.
    pub replies: Vec<(VolumeId, Completion)>,
    /// For whoever runs the cache.
    pub events: Vec<Event>,
}

impl Outbox {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.origin.is_empty()
            && self.cache.is_empty()
            && self.replies.is_empty()
            && self.events.is_empty()
    }
}

/// Something that whoever runs the cache should know, or has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What an administrator asked for under this ticket is done, and will stay so after a crash.
    Done(Ticket),
    /// The sweep over what an earlier run left has ended: every line of it is in use or dropped.
    Loaded,
    /// The cache device failed too often, or answers no more. Everything passes through, and the
    /// cache will not come back warm; what it held is dropped. The text says what happened.
    Degraded(String),
    /// The device can't be told that it is not to be used warm: the record outside it has to say
    /// so. Writes wait until [`Cache::disowned`](super::Cache::disowned) is called.
    Disown,
    /// A volume's lease is over: its requests go to the origin, and what was cached is dropped.
    LeaseOver(VolumeId),
    /// A volume's origin is another device now: nothing that was cached of it is served any more.
    AnotherOrigin(VolumeId),
    /// A volume's lease counts, where none did before: the cache is used from now on.
    LeaseHeld(VolumeId),
    /// Requests for the cache device from now on are for the new one.
    Replaced,
    /// All is on the device that a warm start needs; it may be closed.
    Stopped,
}

/// Names something that takes a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a device request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A piece's change of the origin (write, discard, write zeroes).
    Change { piece: PieceIndex },
    /// A piece's read of some of its lines, counted from its first, from the origin.
    OriginRead { piece: PieceIndex, first: u16, count: u16 },
    /// A piece's read of one of its lines from the cache.
    CacheRead { piece: PieceIndex, line: u16 },
    /// A piece's read of a whole line that is unverified, from the cache.
    Verification { piece: PieceIndex, line: u16 },
    /// A read that is served in place.
    Hit { hit: u16 },
    /// A store into the cache.
    Fill { fill: u16 },
    /// A client's flush, passed on.
    Flush { request: u16 },
    /// A flush of an origin that no client asked for.
    OwnFlush { volume: u16 },
    /// A read or write of what the cache keeps about its lines.
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
            Self::Hit { hit } => pack(5, hit, 0, 0),
            Self::Metadata { index } => pack(6, index, 0, 0),
            Self::Verification { piece, line } => pack(7, piece, line, 0),
            Self::OwnFlush { volume } => pack(8, volume, 0, 0),
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
            5 => Self::Hit { hit: a },
            6 => Self::Metadata { index: a },
            7 => Self::Verification { piece: a, line: b },
            8 => Self::OwnFlush { volume: a },
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
            Token::Verification { piece: 1, line: 200 },
            Token::Hit { hit: 9 },
            Token::Fill { fill: 511 },
            Token::Flush { request: 3 },
            Token::OwnFlush { volume: 255 },
            Token::Metadata { index: 65535 },
        ] {
            assert_eq!(Token::of(token.id()), token);
        }
    }
}
