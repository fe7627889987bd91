//! An input read as choices: every string of bytes is a script, a changed byte changes one step.

/// What is left of a script. Past its end every choice is the first one.
pub(in crate::targets::nvme) struct Choices<'input> {
    bytes: &'input [u8],
}

impl<'input> Choices<'input> {
    pub(in crate::targets::nvme) const fn new(bytes: &'input [u8]) -> Self {
        Self { bytes }
    }

    pub(in crate::targets::nvme) const fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(in crate::targets::nvme) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    pub(in crate::targets::nvme) fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `bound`, which is 1 to 256.
    pub(in crate::targets::nvme) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Once in `count` times, and never past the end.
    pub(in crate::targets::nvme) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}
