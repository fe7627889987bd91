//! Reading a discovery log in pieces, and knowing that all of them are of one log.
//!
//! ```text
//!   header ▶ entries … ▶ header again, which re-arms the event ─┬─ the same generation ▶ read
//!      ▲                                                        └─ another one ─┐
//!      └────────────────────────────────────────────────────────────────────────┘
//! ```
//! Only the last piece is read without RAE: a log that changes before it is of another generation
//! then, and one that changes after it is told by another event. Nothing falls in between.
//!
//! Bounds: [`ENTRIES_MAX`] entries, [`RESTARTS_MAX`] changes while reading. Absent: extended
//! entries, which are not asked for.

use crate::spec::log_page::{DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH};

/// Entries read with one command: 4 KiB of data, which any controller's MDTS allows.
const ENTRIES_PER_READ: usize = 4;
/// Bytes of the largest piece.
pub const PIECE_LENGTH_MAX: usize = ENTRIES_PER_READ * ENTRY_LENGTH;
/// Entries that are read at most; a log of more is refused.
pub const ENTRIES_MAX: u64 = 4096;
/// How often the log may change under the reader before it gives up.
pub const RESTARTS_MAX: u32 = 8;

/// A discovery log, all of one generation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DiscoveryLog {
    /// GENCTR.
    pub generation: u64,
    /// In the controller's order, unchecked: see [`super::route()`].
    pub entries: Vec<DiscoveryEntry>,
}

/// A part of the log page that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte of the page.
    pub offset: u64,
    /// Bytes, at most [`PIECE_LENGTH_MAX`].
    pub length: usize,
    /// RAE: the event stays as it is.
    pub retain_event: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Header,
    /// The header that was read first says how many.
    Entries(DiscoveryHeader),
    HeaderAgain(DiscoveryHeader),
}

/// What follows a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another piece.
    Read(Piece),
    /// The log is read.
    Done(DiscoveryLog),
}

/// One reading. See the module.
#[derive(Clone, Debug)]
pub struct LogReader {
    step: Step,
    entries: Vec<DiscoveryEntry>,
    restarts: u32,
}

impl LogReader {
    /// A reading from the start, and its first piece.
    pub fn begin() -> (Self, Piece) {
        let reader = Self { step: Step::Header, entries: Vec::new(), restarts: 0 };
        (reader, Piece { offset: 0, length: HEADER_LENGTH, retain_event: true })
    }

    /// Takes the bytes of the piece that was asked for last, all of them.
    ///
    /// # Errors
    /// What about the log cannot be, and what would be right.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Next, String> {
        match self.step {
            Step::Header => self.take_header(header(bytes)?),
            Step::Entries(first) => {
                self.entries.extend(bytes.chunks_exact(ENTRY_LENGTH).map(|chunk| {
                    let mut entry = [0; ENTRY_LENGTH];
                    entry.copy_from_slice(chunk);
                    DiscoveryEntry::parse(&entry)
                }));
                Ok(self.read_on(first))
            }
            Step::HeaderAgain(first) => {
                let again = header(bytes)?;
                // Another count under the same generation is another log too.
                if again == first {
                    let entries = std::mem::take(&mut self.entries);
                    return Ok(Next::Done(DiscoveryLog { generation: first.generation, entries }));
                }
                self.restarts += 1;
                if self.restarts > RESTARTS_MAX {
                    return Err(format!(
                        "the log changed {} times while it was read (GENCTR is {} now): must keep \
                         still for one reading",
                        self.restarts, again.generation
                    ));
                }
                self.entries.clear();
                self.take_header(again)
            }
        }
    }

    fn take_header(&mut self, header: DiscoveryHeader) -> Result<Next, String> {
        let DiscoveryHeader { records, format, .. } = header;
        if records > ENTRIES_MAX {
            return Err(format!("NUMREC is {records}: at most {ENTRIES_MAX} are read"));
        }
        if format != 0 {
            return Err(format!("RECFMT is {format}: must be 0"));
        }
        Ok(self.read_on(header))
    }

    /// The next entries, or the header again after the last.
    fn read_on(&mut self, first: DiscoveryHeader) -> Next {
        let rest = first.records as usize - self.entries.len();
        let (step, piece) = match rest {
            0 => {
                let piece = Piece { offset: 0, length: HEADER_LENGTH, retain_event: false };
                (Step::HeaderAgain(first), piece)
            }
            _ => {
                let offset = (HEADER_LENGTH + self.entries.len() * ENTRY_LENGTH) as u64;
                let length = rest.min(ENTRIES_PER_READ) * ENTRY_LENGTH;
                (Step::Entries(first), Piece { offset, length, retain_event: true })
            }
        };
        self.step = step;
        Next::Read(piece)
    }
}

fn header(bytes: &[u8]) -> Result<DiscoveryHeader, String> {
    let bytes = bytes.first_chunk::<HEADER_LENGTH>();
    bytes
        .map(DiscoveryHeader::parse)
        .ok_or_else(|| format!("the header is short: must have {HEADER_LENGTH} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log page of `records` entries; the header may say otherwise.
    fn page(generation: u64, records: u64, format: u16) -> Vec<u8> {
        let mut bytes = DiscoveryHeader { generation, records, format }.encode().to_vec();
        for number in 0..records.min(16) {
            let mut entry = [0; ENTRY_LENGTH];
            entry[4..6].copy_from_slice(&(number as u16).to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    /// Reads what `page_of` gives for each command's number; the pieces asked for, and the end.
    fn read(page_of: impl Fn(usize) -> Vec<u8>) -> (Vec<Piece>, Result<DiscoveryLog, String>) {
        let (mut reader, mut piece) = LogReader::begin();
        let mut pieces = Vec::new();
        loop {
            let bytes = page_of(pieces.len());
            pieces.push(piece);
            let start = piece.offset as usize;
            match reader.take(&bytes[start..start + piece.length]) {
                Ok(Next::Read(next)) => piece = next,
                Ok(Next::Done(log)) => return (pieces, Ok(log)),
                Err(error) => return (pieces, Err(error)),
            }
        }
    }

    #[test]
    fn only_the_last_piece_re_arms_the_event() {
        let (pieces, log) = read(|_| page(7, 9, 0));
        let log = log.expect("read");
        assert_eq!((log.generation, log.entries.len()), (7, 9));
        let ids: Vec<u16> = log.entries.iter().map(|entry| entry.port_id).collect();
        assert_eq!(ids, (0..9).collect::<Vec<u16>>());
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.length).collect();
        assert_eq!(lengths, [1024, 4096, 4096, 1024, 1024]);
        let (last, before) = pieces.split_last().expect("pieces");
        assert!(before.iter().all(|piece| piece.retain_event), "{before:?}");
        assert!(!last.retain_event && last.offset == 0, "{last:?}");
        let (pieces, log) = read(|_| page(7, 0, 0));
        assert_eq!((pieces.len(), log.expect("read").entries.len()), (2, 0));
    }

    #[test]
    fn a_log_that_changed_is_read_from_the_start_with_its_new_count() {
        // Header and one piece of the first log, then another log.
        let (pieces, log) = read(|number| if number < 2 { page(1, 3, 0) } else { page(2, 5, 0) });
        let log = log.expect("read");
        assert_eq!((log.generation, log.entries.len()), (2, 5));
        assert_eq!(pieces.len(), 2 + 1 + 2 + 1);
    }

    #[test]
    fn a_log_that_never_keeps_still_and_impossible_headers_are_refused() {
        let (pieces, log) = read(|number| page(number as u64, 1, 0));
        assert!(log.expect_err("changes").contains("changed 9 times"));
        assert_eq!(pieces.len(), 1 + 2 * 9);
        for (records, format, expected) in [
            (ENTRIES_MAX + 1, 0, "NUMREC is 4097: at most 4096"),
            (u64::MAX, 0, "NUMREC is 18446744073709551615"),
            (1, 1, "RECFMT is 1: must be 0"),
        ] {
            let (_, log) = read(|_| page(1, records, format));
            let error = log.expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        // The same generation, and yet another log: it is read again.
        let (pieces, log) = read(|number| page(1, if number < 2 { 1 } else { 2 }, 0));
        assert_eq!((pieces.len(), log.expect("read").entries.len()), (5, 2));
        // Only the second of two logs cannot be.
        let (_, log) = read(|number| if number < 1 { page(1, 1, 0) } else { page(2, 5000, 0) });
        assert!(log.expect_err("too many").contains("NUMREC is 5000"));
    }
}
