//! A write in write-through mode: to the origin, and beside it into the cache.
//!
//! ```text
//!   start ─ cached copy invalid ─┬─▶ origin write ──▶ answer
//!                                └─▶ fills ──both sides done──▶ valid
//! ```
//! The client's answer is the origin's. A store that takes longer, or fails, costs a later miss
//! and nothing else. Blocks that are written in part only are dropped.

use super::super::Cache;
use super::super::line_lock::PieceIndex;
use super::write_around;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let extent = cache.pieces[name].extent;
    for (line, part) in cache.line_parts(extent) {
        let slot = cache.index.find(line);
        let owed = slot.is_some_and(|slot| cache.forget_part(line, part, slot));
        // One record when the store has ended says both, where nothing of the extent is believed
        // after a crash until then.
        let later = owed && cache.pieces[name].is_named;
        let stored = cache.store_written(name, line, part, slot, later);
        if let Some(slot) = slot
            && owed
            && !(stored && later)
        {
            cache.record_invalid(slot, line);
        }
    }
    write_around::write_origin(cache, name);
}
