//! Discard and write zeroes, the same in every mode: the cached copy is dropped, then the origin
//! is told.

use block_io::{Operation, Request};

use super::super::Cache;
use super::super::line_lock::PieceIndex;
use super::super::outbox::Token;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let piece = &mut cache.pieces[name];
    piece.waits_for += 1;
    let (request, extent) = (piece.request, piece.extent);
    cache.invalidate(extent);
    let id = Token::Change { piece: name }.id();
    let change = match cache.requests[request].operation() {
        Operation::Discard => Request::discard(id, extent),
        _ => Request::write_zeroes(id, extent),
    };
    let force_unit_access = cache.requests[request].force_unit_access();
    cache.outbox.origin.push(change.with_force_unit_access(force_unit_access));
}
