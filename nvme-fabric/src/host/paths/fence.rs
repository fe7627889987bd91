//! From when on a lost association can do nothing any more.
//!
//! ```text
//!   streams closed, what is unsent dropped ──▶ controller notices ──▶ quiesced ──▶ settled
//!                └──────── 2 or 3 × KATO ─────────────┘└──── CQT ──────┘└─ grace ───┘
//! ```
//! The numbers are those of NVMe Base 2.1 §9.6 (TP4129): twice the Keep Alive Timeout, three times
//! where the controller takes traffic for a keep alive, and the Command Quiesce Time. Design 0009
//! says why nothing shorter is safe, and what is not covered.

use std::time::Duration;

use block_io::Timestamp;

use crate::spec::identify::{IdentifyController, optional};

/// KAS counts 100 ms. NVMe Base 2.1 §5.1.13.2.1
const GRANULARITY: Duration = Duration::from_millis(100);

/// How long after its streams are closed an association with this controller, made with
/// `keep_alive` as KATO, may still carry out commands. Absent when the controller never notices on
/// its own.
pub(super) fn settling_time(
    controller: &IdentifyController,
    keep_alive: Duration,
    grace: Duration,
) -> Option<Duration> {
    let granularity = GRANULARITY * u32::from(controller.keep_alive_granularity);
    if keep_alive.is_zero() || granularity.is_zero() {
        return None;
    }
    // The controller rounds up. NVMe Base 2.1 §3.9
    let units = keep_alive.as_nanos().div_ceil(granularity.as_nanos());
    let timeout = granularity.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
    let traffic_counts = controller.attributes & optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE != 0;
    let quiesce = Duration::from_millis(u64::from(controller.command_quiesce_time));
    Some(timeout.saturating_mul(if traffic_counts { 3 } else { 2 }) + quiesce + grace)
}

/// What the end of the last association left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fence {
    /// When it is settled; absent when nothing is open or nobody knows.
    pub(super) settles: Option<Timestamp>,
}

impl Fence {
    /// Whether it has become settled since the last call.
    pub(super) fn opens(&mut self, now: Timestamp) -> bool {
        self.settles.take_if(|settles| *settles <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(granularity: u16, attributes: u32, quiesce: u16) -> IdentifyController {
        IdentifyController {
            keep_alive_granularity: granularity,
            attributes,
            command_quiesce_time: quiesce,
            ..IdentifyController::default()
        }
    }

    #[test]
    fn it_is_what_the_controller_may_need_at_the_most() {
        let traffic = optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE;
        let grace = Duration::from_millis(5);
        for (controller, keep_alive_ms, expected_ms) in [
            (controller(1, 0, 0), 5000, Some(2 * 5000)),
            (controller(1, traffic, 0), 5000, Some(3 * 5000)),
            (controller(1, 0, 700), 5000, Some(2 * 5000 + 700)),
            // SPDK counts in 10 s: every 5 s are 10 there.
            (controller(100, 0, 0), 5000, Some(2 * 10_000)),
            (controller(10, traffic, 0), 1001, Some(3 * 2000)),
            (controller(1, 0, 0), 0, None),
            (controller(0, 0, 0), 5000, None),
        ] {
            let time = settling_time(&controller, Duration::from_millis(keep_alive_ms), grace);
            let expected = expected_ms.map(|ms| Duration::from_millis(ms) + grace);
            assert_eq!(time, expected, "{keep_alive_ms} ms");
        }
    }
}
