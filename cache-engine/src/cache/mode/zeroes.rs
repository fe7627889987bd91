//! Discard and write zeroes, the same in every mode: the cached copy is dropped, then the origin
//! is told.

use block_io::{Extent, Operation, Request};

use super::super::Cache;
use super::super::line_lock::PieceIndex;
use super::super::outbox::Token;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let piece = &mut cache.pieces[name];
    piece.waits_for += 1;
    let (request, flat) = (piece.request, piece.extent);
    cache.forget(flat);
    let token = Token::Change { piece: name }.id();
    let id = cache.requests[request].volume;
    let extent = Extent::new(flat.offset - cache.volumes[id].base(), flat.length);
    let change = match cache.requests[request].operation() {
        Operation::Discard => Request::discard(token, extent),
        _ => Request::write_zeroes(token, extent),
    };
    let force_unit_access = cache.requests[request].force_unit_access();
    cache.outbox.origin.push((id, change.with_force_unit_access(force_unit_access)));
}
