//! Completion queue entries.

use super::field::{put_u16, put_u64, u16_at, u64_at};
use super::status::Status;

/// Bytes of a completion queue entry.
pub const LENGTH: usize = 16;

/// A completion queue entry. Base §3.3.3.2; over fabrics the SQ identifier and the phase
/// tag are reserved (Base §3.3.3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Bytes 0-7, dwords 0 and 1: the command's result, 0 where it has none.
    pub result: u64,
    /// Bytes 8-9: the submission queue's head, reserved when the host disabled flow control.
    pub queue_head: u16,
    /// Bytes 12-13: the host's name for the command.
    pub command_id: u16,
    /// Bytes 14-15.
    pub status: Status,
}

impl Completion {
    /// The completion in 16 bytes.
    pub const fn parse(bytes: &[u8; LENGTH]) -> Self {
        Self {
            result: u64_at(bytes, 0),
            queue_head: u16_at(bytes, 8),
            command_id: u16_at(bytes, 12),
            status: Status::from_field(u16_at(bytes, 14)),
        }
    }

    /// The 16 bytes of it.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        put_u64(&mut bytes, 0, self.result);
        put_u16(&mut bytes, 8, self.queue_head);
        put_u16(&mut bytes, 12, self.command_id);
        put_u16(&mut bytes, 14, self.status.field());
        bytes
    }

    /// Dword 0 of the result.
    pub const fn dword_0(&self) -> u32 {
        self.result as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_lies_on_the_wire() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0x21, 0x03, 0x04, 0x80];
        let completion = Completion::parse(&bytes);
        assert_eq!(
            completion,
            Completion {
                result: 0x2_0000_0001,
                queue_head: 5,
                command_id: 0x0321,
                status: Status::INVALID_FIELD.do_not_retry(),
            }
        );
        assert_eq!(completion.encode(), bytes);
    }
}
