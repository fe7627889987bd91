//! Commands supported and effects: which opcodes there are, and what they change. Base §5.16.1.6.

use crate::spec::field::put_u32;

/// Bytes of the page.
pub const EFFECTS_LENGTH: usize = 4096;

/// Where the commands of I/O queues begin; those of admin queues begin at 0. Both in the order of
/// opcodes, four bytes each.
const IO_COMMANDS: usize = 1024;

/// CSUPP, bit 0 of a command: there is such a command.
pub const EFFECT_SUPPORTED: u32 = 1 << 0;
/// LBCC, bit 1: it may change what logical blocks hold.
pub const EFFECT_CONTENT: u32 = 1 << 1;

/// The page that says this of these opcodes, and of every other that there is no such command.
pub fn encode_effects(
    admin: impl IntoIterator<Item = (u8, u32)>,
    io: impl IntoIterator<Item = (u8, u32)>,
) -> [u8; EFFECTS_LENGTH] {
    let mut bytes = [0; EFFECTS_LENGTH];
    for (opcode, effects) in admin {
        put_u32(&mut bytes, 4 * usize::from(opcode), effects);
    }
    for (opcode, effects) in io {
        put_u32(&mut bytes, IO_COMMANDS + 4 * usize::from(opcode), effects);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_lies_on_the_wire() {
        let bytes = encode_effects([(0xff, 1)], [(0, 1), (0x19, 3), (0xff, 0x0004_0000)]);
        let set: Vec<_> = (0..EFFECTS_LENGTH).filter(|at| bytes[*at] != 0).collect();
        assert_eq!(set, [1020, 1024, 1124, 2046]);
        assert_eq!((bytes[1124], bytes[2046]), (3, 4));
    }
}
