//! Lines being checked against their recorded checksums: each waits for its bytes from the cache
//! device and for its checksums from the line table, in either order.
//!
//! Bounded by the pieces in flight; empty but for the time after an unclean stop.

use block_io::Buffer;

use super::fill::Checksums;
use super::index::{Hit, Slot};
use super::line_lock::PieceIndex;

/// A line that a piece waits for.
struct Waiting {
    piece: PieceIndex,
    line: u16,
    /// The slot as it was when the reads began.
    hit: Hit,
    bytes: Option<Option<Buffer>>,
    checksums: Option<Option<Checksums>>,
}

/// A line whose bytes and checksums are there, or are known not to come.
pub(crate) struct Done {
    pub(crate) piece: PieceIndex,
    pub(crate) line: u16,
    pub(crate) hit: Hit,
    pub(crate) bytes: Option<Buffer>,
    pub(crate) checksums: Option<Checksums>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Verifications(Vec<Waiting>);

impl Verifications {
    pub(crate) fn begin(&mut self, piece: PieceIndex, line: u16, hit: Hit) {
        self.0.push(Waiting { piece, line, hit, bytes: None, checksums: None });
    }

    pub(crate) fn bytes_read(&mut self, piece: PieceIndex, line: u16, bytes: Option<Buffer>) {
        let entry = self.0.iter_mut().find(|one| one.piece == piece && one.line == line);
        entry.expect("a verification in flight").bytes = Some(bytes);
    }

    /// For every piece that waits for this slot's.
    pub(crate) fn checksums_read(&mut self, slot: Slot, checksums: Option<Checksums>) {
        for entry in self.0.iter_mut().filter(|one| one.hit.slot == slot) {
            entry.checksums = Some(checksums);
        }
    }

    pub(crate) fn next_done(&mut self) -> Option<Done> {
        let at = self.0.iter().position(|one| one.bytes.is_some() && one.checksums.is_some())?;
        let Waiting { piece, line, hit, bytes, checksums } = self.0.swap_remove(at);
        let (bytes, checksums) = (bytes.flatten(), checksums.flatten());
        Some(Done { piece, line, hit, bytes, checksums })
    }
}
