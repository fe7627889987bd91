//! What is to happen to a request, in the 64 bits that the world keeps for an event.
//!
//! ```text
//!   number: 42 bits │ place: 20 bits │ moment: 2 bits
//! ```
//! Absent: the time, which is the world's.

/// What an event is about: a part of a request, its completion, or a lost write that lands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Part(usize),
    Completion,
    Late,
}

/// A moment, the request's place in the slab, and its number, for the place may have a new one.
#[derive(Clone, Copy)]
pub(super) struct EventToken {
    pub(super) moment: Moment,
    pub(super) place: u32,
    pub(super) number: u64,
}

impl EventToken {
    const PLACE_BITS: u32 = 20;

    pub(super) fn pack(self) -> u64 {
        let kind = match self.moment {
            Moment::Part(index) => index as u64,
            Moment::Completion => 2,
            Moment::Late => 3,
        };
        debug_assert!(self.place < 1 << Self::PLACE_BITS, "a million requests in flight");
        (self.number << Self::PLACE_BITS | u64::from(self.place)) << 2 | kind
    }

    pub(super) fn unpack(token: u64) -> Self {
        let moment = match token & 3 {
            2 => Moment::Completion,
            3 => Moment::Late,
            index => Moment::Part(index as usize),
        };
        let place = (token >> 2) as u32 & ((1 << Self::PLACE_BITS) - 1);
        Self { moment, place, number: token >> (2 + Self::PLACE_BITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_told() {
        for moment in [Moment::Part(0), Moment::Part(1), Moment::Completion, Moment::Late] {
            let token = EventToken { moment, place: (1 << 20) - 1, number: (1 << 42) - 1 };
            let EventToken { moment: told, place, number } = EventToken::unpack(token.pack());
            assert!(told == moment && place == token.place && number == token.number);
        }
    }
}
