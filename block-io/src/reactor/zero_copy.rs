//! Sends for which the kernel makes no copy: when to ask for one.
//!
//! Pinning pages and a second completion cost more than copying a few kilobytes, and to copy is what
//! the kernel does after all where the way is not a network interface that gathers (loopback, a
//! container's veth). So only large sends ask, if the configuration says from what size on, and a
//! socket for which the kernel once had to copy never asks again.
//!
//! Absent: receiving without a copy, for which the interface's rings would have to be ours.

use super::Descriptor;
use super::features::Features;
use crate::Buffer;

/// What a reactor knows about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZeroCopy {
    /// Bytes of a send.
    from: usize,
    one_piece: bool,
    several_pieces: bool,
}

impl ZeroCopy {
    pub(super) fn new(from: Option<usize>, features: &Features) -> Self {
        Self {
            from: from.unwrap_or(usize::MAX),
            one_piece: features.has("SEND_ZC"),
            several_pieces: features.has("SENDMSG_ZC"),
        }
    }

    /// Whether these bytes are to be sent so.
    pub(super) fn is_for(&self, socket: &Descriptor, pieces: &[Buffer]) -> bool {
        if self.from == usize::MAX {
            return false;
        }
        let is_known = if pieces.len() == 1 { self.one_piece } else { self.several_pieces };
        is_known
            && pieces.iter().map(Buffer::len).sum::<usize>() >= self.from
            && socket.may_spare_copy()
    }
}
