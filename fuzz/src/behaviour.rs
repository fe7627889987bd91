//! What a run did, folded into a number: the same code path with the same answers gives the same
//! number, another one another.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What a run of a target did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Behaviour(pub u64);

/// Folds what a run does into a [`Behaviour`]. Note kinds, not contents: a variant's name, an
/// error's kind, a length's magnitude. Everything noted makes inputs worth keeping.
#[derive(Default)]
pub struct Observer {
    hasher: DefaultHasher,
}

impl Observer {
    /// Notes a fact.
    pub fn note(&mut self, fact: impl Hash) {
        fact.hash(&mut self.hasher);
    }

    /// Notes an error message's kind: its words, without those that the input put there.
    pub fn note_message(&mut self, message: &str, input: &str) {
        for word in message.split(|character: char| !character.is_ascii_alphabetic()) {
            if word.len() >= 4 && !input.contains(word) {
                self.note(word);
            }
        }
    }

    /// Notes how large something is, to the power of two.
    pub fn note_magnitude(&mut self, value: u64) {
        self.note(value.checked_ilog2());
    }

    /// What was noted.
    pub fn behaviour(self) -> Behaviour {
        Behaviour(self.hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(note: impl Fn(&mut Observer)) -> Behaviour {
        let mut observer = Observer::default();
        note(&mut observer);
        observer.behaviour()
    }

    #[test]
    fn messages_of_one_kind_are_one_behaviour() {
        let message =
            |text: &'static str, input| of(move |observer| observer.note_message(text, input));
        let odd = message("`wide`: size 12 is uneven", "wide");
        assert_eq!(odd, message("`b`: size 3 is uneven", "b"));
        assert_ne!(odd, message("`b`: size 3 is zero", "b"));
    }

    #[test]
    fn magnitudes_are_powers_of_two() {
        let magnitude = |value| of(move |observer| observer.note_magnitude(value));
        assert_eq!(magnitude(4096), magnitude(8191));
        assert_ne!(magnitude(4096), magnitude(4095));
        assert_ne!(magnitude(0), magnitude(1));
    }
}
