//! Origins that go away and come back while the engine goes on: unreachable, with the writes of the
//! time lost or still to land, or without power, with what was not flushed gone.
//!
//! ```text
//!   unreachable:   every request is lost; its write may land later ─▶ fence: none does any more
//!   without power: what is volatile is gone, every request fails ──▶ back, fence
//! ```
//! What an origin without power has lost it is asked for only when it is back, so that is when it
//! happens, for a client.
//!
//! Writes that the outage leaves in doubt keep their extents active. Where all places of the
//! activity log are taken so, a write elsewhere waits for the fence, and nothing else does.

use std::time::Duration;

use block_io::sim::DiskFaults;

use super::run::Run;

/// Turns of the world without any answer after which a client has waited enough.
const STALLED: u32 = 20;

/// One outage, of one origin at a time.
pub(super) struct Outage {
    volume: usize,
    /// Requests until it ends.
    left: u64,
    lost_power: bool,
    /// As they were before.
    faults: DiskFaults,
}

impl Run<'_> {
    /// Before each request: an outage begins, goes on, or ends.
    pub(super) fn upset_origins(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.left = outage.left.saturating_sub(1);
            if outage.left == 0 {
                self.end_outage();
            }
        } else if self.random.chance(self.scenario.outages) {
            self.begin_outage();
        }
    }

    fn begin_outage(&mut self) {
        let volume = self.some_volume();
        let lost_power = self.scenario.volatile_origins;
        let left = self.random.range(1..=120);
        let origin = &self.origins[volume];
        let faults = origin.faults();
        if lost_power {
            origin.power_cut(&mut self.random);
            origin.fail_all(true);
            self.outcome.origin_power_cuts += 1;
        } else {
            let late_max = Duration::from_millis(self.random.range(1..=50));
            origin.set_faults(DiskFaults { lost: 1000, late_max, ..faults.clone() });
        }
        self.outcome.outages += 1;
        self.tell(|| format!("volume {volume}: its origin is gone, power too: {lost_power}"));
        self.outage = Some(Outage { volume, left, lost_power, faults });
    }

    /// The origin is back, and what was on its way to it is not any more.
    pub(super) fn end_outage(&mut self) {
        let Some(Outage { volume, lost_power, faults, .. }) = self.outage.take() else { return };
        self.tell(|| format!("volume {volume}: its origin is back"));
        let origin = &self.origins[volume];
        origin.set_faults(faults);
        origin.fence();
        if lost_power {
            origin.fail_all(false);
            self.history.origin_power_cut(volume);
        }
        self.history.fence(volume);
        self.engine().fence_one(volume);
    }

    /// The same at a crash, when nobody is there to be told.
    pub(super) fn crash_outage(&mut self) {
        let Some(Outage { volume, lost_power, faults, .. }) = self.outage.take() else { return };
        self.origins[volume].set_faults(faults);
        if lost_power {
            self.origins[volume].fail_all(false);
            self.history.origin_power_cut(volume);
        }
    }

    /// Nothing has moved for a while. Where that is because writes wait for the origin to be back,
    /// it comes back. Returns whether it was.
    pub(super) fn end_stall(&mut self, advanced: bool, turns: u32) -> bool {
        let stalls = self.outage.is_some() && (!advanced || turns > STALLED);
        if !stalls || self.engine().is_idle() && self.engine().in_flight() == 0 {
            return false;
        }
        let (waiting, _) = self.engine().waiting();
        if waiting == 0 || self.in_flight_on_devices() > 0 {
            return false;
        }
        self.tell(|| format!("{waiting} writes wait for the origin to be back"));
        self.outcome.stalls += 1;
        self.end_outage();
        true
    }
}
