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
//! No client waits for the end of an outage, on this volume or another: its own requests fail, and
//! what the outage leaves in doubt or unflushed takes no place in the activity log for longer than
//! that takes to find out.

use std::time::Duration;

use block_io::sim::DiskFaults;

use super::run::Run;

/// Turns of the world, of 100 us each, without any answer after which somebody waits for ever. What
/// an origin fails to flush is let go at once.
const STALLED: u32 = 2000;

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

    /// So many turns of the world have gone by without an answer of any device. Nobody waits for an
    /// origin that is away but who asked it: a write that finds no place in the activity log has
    /// one when what the origin holds is let go.
    pub(super) fn watch_waiting(&mut self, turns: u32) {
        if self.outage.is_none() {
            return;
        }
        let (waiting, _) = self.engine().waiting();
        self.outcome.waits_in_outages += u64::from(waiting > 0);
        if self.in_flight_on_devices() > 0 {
            return;
        }
        let (seed, state) = (self.world.seed(), self.engine().state());
        let in_flight = self.engine().in_flight();
        assert!(turns < STALLED || in_flight == 0, "seed {seed}: waits for an origin: {state}");
    }
}
