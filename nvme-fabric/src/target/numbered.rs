//! Things by numbers that are given out once: what was removed is not taken for what came later.
//!
//! Lookups guess the place that a number has when nothing was removed, and search by halves
//! otherwise.

use std::ops::Index;

/// Things in the order of their numbers. See the module.
#[derive(Clone, Debug)]
pub struct Numbered<Value> {
    /// Ascending by number.
    entries: Vec<(usize, Value)>,
    /// Above every number that was given out.
    next: usize,
}

impl<Value> Default for Numbered<Value> {
    fn default() -> Self {
        Self { entries: Vec::new(), next: 0 }
    }
}

impl<Value> Numbered<Value> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The lowest number that was not given out, and neither was any above it.
    pub fn next_number(&self) -> usize {
        self.next
    }

    /// What has this number.
    pub fn get(&self, number: usize) -> Option<&Value> {
        self.place(number).map(|place| &self.entries[place].1)
    }

    /// Everything with its number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Value)> {
        self.entries.iter().map(|(number, value)| (*number, value))
    }

    /// Everything, in the order of numbers.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Value)> {
        self.entries.iter_mut().map(|(number, value)| (*number, value))
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Value> {
        self.place(number).map(|place| &mut self.entries[place].1)
    }

    /// Adds `value` under the next number, and returns that.
    pub(super) fn push(&mut self, value: Value) -> usize {
        let number = self.next;
        self.entries.push((number, value));
        self.next += 1;
        number
    }

    /// Numbers below `number` are not given out any more.
    pub(super) fn skip_to(&mut self, number: usize) {
        self.next = self.next.max(number);
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<Value> {
        self.place(number).map(|place| self.entries.remove(place).1)
    }

    fn place(&self, number: usize) -> Option<usize> {
        if self.entries.get(number).is_some_and(|(found, _)| *found == number) {
            return Some(number);
        }
        self.entries.binary_search_by_key(&number, |(found, _)| *found).ok()
    }
}

impl<Value> Index<usize> for Numbered<Value> {
    type Output = Value;

    #[track_caller]
    fn index(&self, number: usize) -> &Value {
        self.get(number).expect("the caller has seen that it is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_given_out_again() {
        let mut things = Numbered::default();
        assert_eq!([things.push("a"), things.push("b"), things.push("c")], [0, 1, 2]);
        assert_eq!((things.remove(2), things.remove(2)), (Some("c"), None));
        assert_eq!(things.push("d"), 3);
        assert_eq!(things.remove(0), Some("a"));
        things.skip_to(9);
        assert_eq!(things.push("e"), 9);
        things.skip_to(2);
        assert_eq!(things.next_number(), 10);
        assert_eq!(things.iter().collect::<Vec<_>>(), [(1, &"b"), (3, &"d"), (9, &"e")]);
        assert_eq!((things.get(3), things.get(2), things.get(100)), (Some(&"d"), None, None));
        assert_eq!((things[9], things.len()), ("e", 3));
    }
}
