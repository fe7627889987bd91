//! A read that does not ask the cache: straight from the origin, nothing stored.

use super::super::Cache;
use super::super::line_lock::PieceIndex;

pub(super) fn read(cache: &mut Cache, name: PieceIndex) {
    let (request, extent) = (cache.pieces[name].request, cache.pieces[name].wanted);
    cache.requests[request].seen.pass_through = true;
    // Locked was what a read that fills would have read; only what is wanted is needed now.
    cache.pieces[name].extent = extent;
    let lines = cache.line_parts(extent).count();
    cache.read_run(name, 0, lines);
}
