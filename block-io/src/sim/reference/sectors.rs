//! What the reference knows, by sector: a table of tables, so that small disks are an index away
//! and large ones cost what was written.

use super::sector::Sector;

const CHUNK: usize = 1024;

/// Sectors by number; absent: zeroes, never written.
#[derive(Default)]
pub(super) struct Sectors {
    chunks: Vec<Option<Box<[Option<Sector>]>>>,
}

impl Sectors {
    pub(super) fn get(&self, number: u64) -> Option<&Sector> {
        let (chunk, index) = place(number);
        self.chunks.get(chunk)?.as_ref()?[index].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Sector> {
        let (chunk, index) = place(number);
        self.chunks.get_mut(chunk)?.as_mut()?[index].as_mut()
    }

    /// The sector `number`, which is `otherwise` when it was absent.
    pub(super) fn entry(&mut self, number: u64, otherwise: impl FnOnce() -> Sector) -> &mut Sector {
        let (chunk, index) = place(number);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let empty = || std::iter::repeat_with(|| None).take(CHUNK).collect();
        self.chunks[chunk].get_or_insert_with(empty)[index].get_or_insert_with(otherwise)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Sector> {
        self.chunks.iter_mut().flatten().flat_map(|chunk| chunk.iter_mut().flatten())
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.iter().flatten().map(|chunk| chunk.iter().flatten().count()).sum()
    }
}

fn place(number: u64) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}
