//! A write that is not cached (write-around, pass-through, ranges in doubt): the cached copy is
//! dropped, then the origin is written.

use block_io::Request;

use super::super::Cache;
use super::super::line_lock::PieceIndex;
use super::super::outbox::Token;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let piece = &cache.pieces[name];
    let (request, extent) = (piece.request, piece.extent);
    cache.requests[request].seen.pass_through = true;
    cache.forget(extent);
    write_origin(cache, name);
}

/// Sends the piece's bytes to the origin.
pub(super) fn write_origin(cache: &mut Cache, name: PieceIndex) {
    let piece = &mut cache.pieces[name];
    piece.waits_for += 1;
    let (request, extent) = (piece.request, piece.extent);
    let buffer = cache.client_buffer(name, extent);
    let force_unit_access = cache.requests[request].force_unit_access();
    let id = cache.requests[request].volume;
    let volume = &mut cache.volumes[id];
    volume.statistics.origin_write_bytes += extent.length;
    let token = Token::Change { piece: name }.id();
    let write = Request::write(token, extent.offset - volume.base(), buffer);
    cache.outbox.origin.push((id, write.with_force_unit_access(force_unit_access)));
}
