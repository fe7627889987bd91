//! Times and policies of the paths to a namespace; all may change while it is in use.

use std::time::Duration;

use super::policy::PathPolicy;
use crate::host::HostOptions;
use crate::host::requests::retry::LostChanges;

/// See the module. Zero is a time like any other, except where the field says what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Pause before the first attempt to reconnect; each further one is twice as long.
    pub reconnect_delay_min: Duration,
    /// The longest pause. The actual one is half of it to all of it, by chance. One that has begun
    /// ends after a shorter one, when it is changed.
    pub reconnect_delay_max: Duration,
    /// For so long without any usable path requests wait; then they fail, and later ones at once,
    /// until there is a path again. Absent: they wait until every path is given up.
    pub fast_io_fail: Option<Duration>,
    /// A path that could not be connected for so long is given up. Absent: never.
    pub controller_loss: Option<Duration>,
    /// How long bringing an association up may take in all.
    pub connect_timeout: Duration,
    /// How long a command may take before it is aborted.
    pub command_timeout: Duration,
    /// How much longer it may take then before the association is reset; absent: not at all, and
    /// nothing is aborted. Applies to associations made from now on.
    pub abort_time: Option<Duration>,
    /// KATO of associations made from now on; zero for none, which leaves lost changes unsettled
    /// for ever: they fail.
    pub keep_alive: Duration,
    /// What becomes of changes whose association was lost before they were answered.
    pub lost_changes: LostChanges,
    /// Added to the time after which a lost association is taken to have ended: for clocks that run
    /// differently and packets that arrive late.
    pub fence_grace: Duration,
    /// How commands are spread over equally good paths.
    pub policy: PathPolicy,
}

impl Default for Settings {
    /// Half a second to 10 s between attempts, for ever; requests fail after a minute without a
    /// path; the rest as in [`HostOptions::new`].
    fn default() -> Self {
        Self {
            reconnect_delay_min: Duration::from_millis(500),
            reconnect_delay_max: Duration::from_secs(10),
            fast_io_fail: Some(Duration::from_secs(60)),
            controller_loss: None,
            connect_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            abort_time: Some(Duration::from_secs(5)),
            keep_alive: Duration::from_secs(5),
            lost_changes: LostChanges::default(),
            fence_grace: Duration::from_secs(1),
            policy: PathPolicy::default(),
        }
    }
}

impl Settings {
    /// The options of the next association.
    pub(super) fn apply(&self, options: &mut HostOptions) {
        options.connect_timeout = self.connect_timeout;
        options.command_timeout = self.command_timeout;
        options.abort_time = self.abort_time;
        options.keep_alive = self.keep_alive;
    }
}
