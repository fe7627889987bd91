//! Places for things that come and go, found again by a number that does not move.
//!
//! Absent: a bound, which the queues of the disk have.

/// The places.
pub(super) struct Slab<Item> {
    places: Vec<Option<Item>>,
    free: Vec<u32>,
}

impl<Item> Default for Slab<Item> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<Item> Slab<Item> {
    /// Puts `item` into a free place.
    pub(super) fn insert(&mut self, item: Item) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(item);
            return place;
        }
        self.places.push(Some(item));
        self.places.len() as u32 - 1
    }

    /// Takes out what is at `place`.
    pub(super) fn remove(&mut self, place: u32) -> Option<Item> {
        let item = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(item)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Item> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Item> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Places and what is there, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Item)> {
        (0..).zip(&self.places).filter_map(|(place, item)| Some((place, item.as_ref()?)))
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Item)> {
        (0..).zip(&mut self.places).filter_map(|(place, item)| Some((place, item.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_the_others_stay() {
        let mut slab = Slab::default();
        let places = ["a", "b", "c"].map(|item| slab.insert(item));
        assert_eq!((slab.remove(places[1]), slab.remove(places[1])), (Some("b"), None));
        assert_eq!((slab.len(), slab.get(places[1])), (2, None));
        assert_eq!(slab.insert("d"), places[1]);
        slab.iter_mut().for_each(|(_, item)| *item = if *item == "a" { "e" } else { *item });
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(0, &"e"), (1, &"d"), (2, &"c")]);
    }
}
