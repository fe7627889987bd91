//! stub
use super::config::{LineSize, VolumeId};
use super::index::{Rank, Slot};
use super::line::LineNumber;
use block_io::{Extent, Operation, Timestamp};
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClassId;
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) bypass: bool,
    pub(crate) class: ClassId,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FillWidth {
    #[default]
    Line,
    Requested,
}
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PolicySettings {
    pub fill_width: FillWidth,
}
pub(crate) struct Policy {
    settings: PolicySettings,
}
impl Policy {
    pub(crate) fn new(s: &PolicySettings, _slots: u64, _l: LineSize) -> Self {
        Self { settings: s.clone() }
    }
    pub(crate) fn set(&mut self, s: &PolicySettings) {
        self.settings = s.clone();
    }
    pub(crate) fn observe(
        &mut self,
        _n: Timestamp,
        _v: VolumeId,
        _o: Operation,
        _e: Extent,
    ) -> Verdict {
        Verdict::default()
    }
    pub(crate) fn admit(
        &mut self,
        _n: Timestamp,
        _v: &Verdict,
        _l: LineNumber,
        _b: u64,
        _c: bool,
    ) -> bool {
        true
    }
    pub(crate) fn fill_extent(
        &self,
        _v: VolumeId,
        _d: &Verdict,
        blocks: Extent,
        line: u64,
    ) -> Extent {
        match self.settings.fill_width {
            FillWidth::Line => blocks.align_outward(line),
            FillWidth::Requested => blocks,
        }
    }
    pub(crate) fn victim_rank(&self, _o: VolumeId, _l: LineNumber, _s: Slot) -> Rank {
        Rank::Normal
    }
    pub(crate) fn line_inserted(&mut self, _s: Slot, _v: VolumeId, _c: ClassId) {}
    pub(crate) fn line_removed(&mut self, _s: Slot, _v: Option<VolumeId>) {}
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
}
