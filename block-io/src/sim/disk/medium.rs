//! The bytes of a simulated disk: sparse, and a copy costs next to nothing.
//!
//! ```text
//!   tables[offset / 512 KiB] ──▶ 128 × page, counted ──▶ 4096 bytes, counted; absent are zeroes
//! ```
//! A copy shares tables and pages with the original, and whoever writes first copies those. So a
//! snapshot for each of ten thousand crash images is affordable, and a power cut needs no undo.
//!
//! Absent: an end. The disk knows its capacity.

use std::rc::Rc;

use crate::{Buffer, Extent};

const PAGE_BYTES: usize = 4096;
const TABLE_PAGES: usize = 128;

const ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

type Page = Rc<[u8; PAGE_BYTES]>;
type Table = [Option<Page>; TABLE_PAGES];

/// Bytes from zero on; what was never written is zeroes.
#[derive(Clone, Default)]
pub struct Medium {
    tables: Vec<Option<Rc<Table>>>,
}

impl Medium {
    /// The bytes of `extent`.
    pub fn read(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = vec![0; extent.length as usize];
        for (at, part) in parts(extent) {
            if let Some(page) = self.page(part.offset) {
                bytes[at..at + part.length as usize].copy_from_slice(within(page, part));
            }
        }
        bytes
    }

    /// Copies the bytes of `extent` into `target`, which is as long.
    pub(super) fn read_to(&self, extent: Extent, target: &Buffer) {
        for (at, part) in parts(extent) {
            let target = target.slice(at, part.length as usize);
            match self.page(part.offset) {
                Some(page) => target.copy_from_slice(within(page, part)),
                None => target.fill(0),
            }
        }
    }

    /// Whether `target` has the bytes of `extent`, which is as long.
    pub(super) fn is_same(&self, extent: Extent, target: &Buffer) -> bool {
        let mut bytes = [0; PAGE_BYTES];
        parts(extent).all(|(at, part)| {
            let bytes = &mut bytes[..part.length as usize];
            target.slice(at, bytes.len()).copy_to_slice(bytes);
            match self.page(part.offset) {
                Some(page) => within(page, part) == bytes,
                None => *bytes == ZEROES[..bytes.len()],
            }
        })
    }

    /// Puts `bytes` at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, part) in parts(Extent::new(offset, bytes.len() as u64)) {
            let source = &bytes[at..at + part.length as usize];
            self.page_mut(part.offset)[range(part)].copy_from_slice(source);
        }
    }

    /// Puts the bytes of `source` at `offset`.
    pub(super) fn write_from(&mut self, offset: u64, source: &Buffer) {
        for (at, part) in parts(Extent::new(offset, source.len() as u64)) {
            let source = source.slice(at, part.length as usize);
            source.copy_to_slice(&mut self.page_mut(part.offset)[range(part)]);
        }
    }

    /// Zeroes in `extent`.
    pub fn zero(&mut self, extent: Extent) {
        for (_, part) in parts(extent) {
            if self.page(part.offset).is_some() {
                self.page_mut(part.offset)[range(part)].fill(0);
            }
        }
    }

    fn page(&self, offset: u64) -> Option<&[u8; PAGE_BYTES]> {
        let (table, page) = place(offset);
        self.tables.get(table)?.as_ref()?[page].as_deref()
    }

    fn page_mut(&mut self, offset: u64) -> &mut [u8; PAGE_BYTES] {
        let (table, page) = place(offset);
        if table >= self.tables.len() {
            self.tables.resize_with(table + 1, || None);
        }
        let table =
            self.tables[table].get_or_insert_with(|| Rc::new([const { None }; TABLE_PAGES]));
        Rc::make_mut(Rc::make_mut(table)[page].get_or_insert_with(|| Rc::new([0; PAGE_BYTES])))
    }
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pages = self.tables.iter().flatten().map(|table| table.iter().flatten().count());
        write!(f, "Medium({} pages)", pages.sum::<usize>())
    }
}

/// The parts of `extent` by page, each with its place within the extent.
fn parts(extent: Extent) -> impl Iterator<Item = (usize, Extent)> {
    extent.split(PAGE_BYTES as u64).map(move |part| ((part.offset - extent.offset) as usize, part))
}

fn place(offset: u64) -> (usize, usize) {
    let page = offset as usize / PAGE_BYTES;
    (page / TABLE_PAGES, page % TABLE_PAGES)
}

fn range(part: Extent) -> std::ops::Range<usize> {
    let start = part.offset as usize % PAGE_BYTES;
    start..start + part.length as usize
}

fn within(page: &[u8; PAGE_BYTES], part: Extent) -> &[u8] {
    &page[range(part)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_its_own_and_far_places_cost_little() {
        let mut medium = Medium::default();
        medium.write(4000, &[1; 200]);
        medium.write(1 << 40, &[7]);
        let copy = medium.clone();
        medium.write(4090, &[2; 20]);
        medium.zero(Extent::new(1 << 40, 1));
        assert_eq!(copy.read(Extent::new(3999, 202)), [&[0][..], &[1; 200], &[0]].concat());
        assert_eq!(medium.read(Extent::new(4089, 22)), [&[1][..], &[2; 20], &[1]].concat());
        assert_eq!(copy.read(Extent::new((1 << 40) - 1, 3)), [0, 7, 0]);
        assert_eq!(medium.read(Extent::new(1 << 40, 1)), [0]);
    }
}
