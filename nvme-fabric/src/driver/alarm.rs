//! One timer for a driver: armed for the next of its deadlines or earlier, so that a deadline that
//! moves later costs nothing until the timer goes off.

use block_io::Timestamp;
use block_io::reactor::{Event, OperationId, Port};

use super::stream::{Operation, token};

/// Every alarm's token: no stream has this number.
const ALARM: u64 = token(usize::MAX >> 8, Operation::Other);

/// The timer, which may be armed.
#[derive(Default)]
pub(super) struct Alarm(Option<(OperationId, Timestamp)>);

impl Alarm {
    /// Takes the event if it is an alarm's, the one that is armed or an earlier one's.
    pub(super) fn takes(&mut self, event: &Event) -> bool {
        if self.0.is_some_and(|(armed, _)| armed == event.operation) {
            self.0 = None;
        }
        event.token == ALARM
    }

    /// Arms it for `deadline`, unless it goes off before that anyway.
    pub(super) fn set(&mut self, port: &Port, deadline: Timestamp, now: Timestamp) {
        if self.0.is_some_and(|(_, armed)| armed <= deadline.max(now)) {
            return;
        }
        self.clear(port);
        self.0 = Some((port.timer(deadline, ALARM), deadline));
    }

    /// Disarms it.
    pub(super) fn clear(&mut self, port: &Port) {
        if let Some((operation, _)) = self.0.take() {
            port.cancel(operation);
        }
    }
}
