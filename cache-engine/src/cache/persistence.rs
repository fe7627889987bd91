//! stub
use super::blocks::BlockSet;
use super::entry::Entry;
use super::fill::Checksums;
use super::index::Slot;
use super::line::LineNumber;
use block_io::{Extent, IoError, Request, Timestamp};
pub(crate) enum Change {
    Done,
    InDoubt,
}
pub(crate) struct Persistence {
    r: Vec<Request>,
    a: Vec<u16>,
}
impl Persistence {
    pub(crate) fn begin_change(&mut self, _p: u16, _e: Extent, _n: Timestamp) -> bool {
        true
    }
    pub(crate) fn end_change(&mut self, _e: Extent, _c: Change) {}
    pub(crate) fn fence(&mut self, _e: Extent) {}
    pub(crate) fn has_room(&self) -> bool {
        true
    }
    pub(crate) fn is_loaded(&self, _s: u32) -> bool {
        true
    }
    pub(crate) fn record(
        &mut self,
        _s: Slot,
        _e: Entry,
        _l: LineNumber,
        _v: BlockSet,
        _c: BlockSet,
        _k: &Checksums,
        _n: Timestamp,
    ) {
    }
    pub(crate) fn tick(&mut self, _n: Timestamp) {}
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
    pub(crate) fn requests(&mut self) -> &mut Vec<Request> {
        &mut self.r
    }
    pub(crate) fn complete(&mut self, _i: u16, _r: Result<(), IoError>, _n: Timestamp) {}
    pub(crate) fn activated(&mut self) -> &mut Vec<u16> {
        &mut self.a
    }
    pub(crate) fn barrier(&mut self) -> u64 {
        0
    }
    pub(crate) fn is_durable(&self, _t: u64) -> bool {
        true
    }
    pub(crate) fn degrade(&mut self) {}
    pub(crate) fn read_checksums(&mut self, _s: Slot) {}
}
