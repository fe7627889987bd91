//! Which extents may have lines recorded on the device: a bit for each, shared with a few others.
//!
//! Asked by a change whose extent is not active: without a line recorded there is nothing that a
//! crash could bring back, and the change need not wait. A wrong yes costs a wait; there is no
//! wrong no. Absent: forgetting; a bit stays until the next start.

/// A bit for extents by number.
pub(super) struct Recorded {
    words: Box<[u64]>,
    shift: u32,
}

impl Recorded {
    /// Bits for a cache of `slots` slots: 512 bytes to 1 MiB.
    pub(super) fn new(slots: u64) -> Self {
        let bits = (slots / 16).next_power_of_two().clamp(1 << 12, 1 << 23);
        let words = vec![0; (bits / 64) as usize].into_boxed_slice();
        Self { words, shift: 64 - bits.trailing_zeros() }
    }

    pub(super) fn add(&mut self, extent: u64) {
        let (word, bit) = self.place(extent);
        self.words[word] |= bit;
    }

    pub(super) fn may_contain(&self, extent: u64) -> bool {
        let (word, bit) = self.place(extent);
        self.words[word] & bit != 0
    }

    fn place(&self, extent: u64) -> (usize, u64) {
        let hash = extent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        ((hash / 64) as usize, 1 << (hash % 64))
    }
}
