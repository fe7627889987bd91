//! A write in write-through mode: to the origin, and beside it into the cache.
//!
//! ```text
//!   start ─ cached copy invalid ─┬─▶ origin write ──▶ answer
//!                                └─▶ fills ──both sides done──▶ valid
//! ```
//! The client's answer is the origin's. A store that takes longer, or fails, costs a later miss
//! and nothing else.

use super::super::Cache;
use super::super::line_lock::PieceIndex;
use super::write_around;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let extent = cache.pieces[name].extent;
    cache.invalidate(extent);
    for (line, part) in cache.line_parts(extent) {
        if let Some(fill) = cache.store(name, line, part, true) {
            cache.statistics.write_fills += 1;
            cache.fills.get_mut(fill).next_of_piece = cache.pieces[name].first_fill;
            cache.pieces[name].first_fill = fill;
        }
    }
    write_around::write_origin(cache, name);
}
