//! One way of a set, packed in four bytes, and a set of sixteen of them: one CPU cache line.
//!
//! ```text
//!   bit  31       30    29          28..27     26    25..22  21..0
//!        occupied busy  unverified  frequency  main  order   tag
//! ```
//! Absent: which sectors are valid, and the ghosts; they stand beside the sets in the index.

use super::line::TAG_BITS;

/// Ways in a set.
pub(crate) const WAYS: usize = 16;

/// One way of a set. Zero is an empty way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entry(pub(crate) u32);

pub(crate) const TAG_MASK: u32 = (1 << TAG_BITS) - 1;
const ORDER_SHIFT: u32 = 22;
const MAIN: u32 = 1 << 26;
const FREQUENCY_SHIFT: u32 = 27;
const UNVERIFIED: u32 = 1 << 29;
const BUSY: u32 = 1 << 30;
pub(crate) const OCCUPIED: u32 = 1 << 31;

/// Uses that an entry can count.
pub(crate) const FREQUENCY_MAX: u32 = 3;

impl Entry {
    pub(crate) fn new(tag: u32, main: bool) -> Self {
        debug_assert!(tag <= TAG_MASK);
        Self(OCCUPIED | tag | if main { MAIN } else { 0 })
    }
    pub(crate) fn is_occupied(self) -> bool {
        self.0 & OCCUPIED != 0
    }
    pub(crate) fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }
    /// Whether its content came from an earlier run that did not end in order, and has not been
    /// checked since.
    #[cfg_attr(not(test), expect(dead_code, reason = "asked once a start is warm"))]
    pub(crate) fn is_unverified(self) -> bool {
        self.0 & UNVERIFIED != 0
    }
    pub(crate) fn is_main(self) -> bool {
        self.0 & MAIN != 0
    }
    /// Uses since the entry last moved, up to [`FREQUENCY_MAX`].
    pub(crate) fn frequency(self) -> u32 {
        (self.0 >> FREQUENCY_SHIFT) & FREQUENCY_MAX
    }
    pub(crate) fn order(self) -> u32 {
        (self.0 >> ORDER_SHIFT) & 15
    }
    pub(crate) fn tag(self) -> u32 {
        self.0 & TAG_MASK
    }
    pub(crate) fn set_busy(&mut self, busy: bool) {
        self.0 = if busy { self.0 | BUSY } else { self.0 & !BUSY };
    }
    pub(crate) fn set_unverified(&mut self, unverified: bool) {
        self.0 = if unverified { self.0 | UNVERIFIED } else { self.0 & !UNVERIFIED };
    }
    pub(crate) fn set_order(&mut self, order: u32) {
        debug_assert!(order < WAYS as u32);
        self.0 = (self.0 & !(15 << ORDER_SHIFT)) | order << ORDER_SHIFT;
    }
    pub(crate) fn set_main(&mut self) {
        self.0 |= MAIN;
    }
    pub(crate) fn set_frequency(&mut self, frequency: u32) {
        debug_assert!(frequency <= FREQUENCY_MAX);
        self.0 = (self.0 & !(FREQUENCY_MAX << FREQUENCY_SHIFT)) | frequency << FREQUENCY_SHIFT;
    }
    /// Counts a use, up to `most`. Writes only when there is something new.
    pub(crate) fn note_use(&mut self, most: u32) {
        if self.frequency() < most {
            self.set_frequency(self.frequency() + 1);
        }
    }
}

/// Sixteen ways, on a CPU cache line of their own.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(crate) struct Set(pub(crate) [Entry; WAYS]);
