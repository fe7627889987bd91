//! A table of fixed capacity with small numbers as names: requests, pieces and fills in flight.
//!
//! Nothing is allocated after start, and a full table is an answer, not an error. Values that are
//! looked up by something else hang in chains, which [`bucket`] chooses.

/// Which of `buckets` chains, a power of two, a key belongs to: Fibonacci hashing, which spreads
/// neighbours.
pub(crate) fn bucket(key: u64, buckets: usize) -> usize {
    debug_assert!(buckets.is_power_of_two());
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (buckets - 1)
}

/// At most `capacity` values, each under a number below it.
pub(crate) struct Table<Value> {
    places: Box<[Option<Value>]>,
    free: Vec<u16>,
}

impl<Value> Table<Value> {
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity < usize::from(u16::MAX), "a name is 16 bits, and one is kept for none");
        let mut places = Vec::new();
        places.resize_with(capacity, || None);
        Self { places: places.into_boxed_slice(), free: (0..capacity as u16).rev().collect() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts a value in; the caller has seen that there is room.
    #[inline(always)]
    pub(crate) fn insert(&mut self, value: Value) -> u16 {
        let name = self.free.pop().expect("the caller has asked is_full");
        self.places[usize::from(name)] = Some(value);
        name
    }

    /// Every value in use, in the order of their names.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.places.iter_mut().flatten()
    }

    /// The same, to look at.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Value> {
        self.places.iter().flatten()
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, name: u16) -> Value {
        let value = self.places[usize::from(name)].take().expect("a name in use");
        self.free.push(name);
        value
    }
}

impl<Value> std::ops::Index<u16> for Table<Value> {
    type Output = Value;
    fn index(&self, name: u16) -> &Value {
        self.places[usize::from(name)].as_ref().expect("a name in use")
    }
}

impl<Value> std::ops::IndexMut<u16> for Table<Value> {
    fn index_mut(&mut self, name: u16) -> &mut Value {
        self.places[usize::from(name)].as_mut().expect("a name in use")
    }
}
