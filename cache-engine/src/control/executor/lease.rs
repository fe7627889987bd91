//! Leases: the caller says until when an origin is this host's alone.
//!
//! A request may have lain in a socket, and this process may have been suspended meanwhile. So its
//! end is absolute, and it is judged by a clock that is read after it has come: a renewal that
//! comes after the end of the lease that it was to renew is another lease, however old the time is
//! that the service goes by.

use block_io::{BlockQueue, Timestamp};

use super::Executor;
use crate::cache::{Cache, Ticket};
use crate::control::model::Answer;
use crate::control::report;

impl<Origin: BlockQueue, CacheDevice: BlockQueue, Reply> Executor<Origin, CacheDevice, Reply> {
    /// What the clock says after the requests have come that are [executed](Self::execute) next.
    pub fn set_clock(&mut self, now: Timestamp) {
        self.now = now;
    }

    pub(super) fn lease(&mut self, name: &str, until_ns: u64, reply: Reply) {
        match self.try_lease(name, Timestamp(until_ns)) {
            Ok((answer, Some(ticket))) => self.wait(ticket, reply, answer, None),
            Ok((answer, None)) => self.answers.push_back((reply, answer)),
            Err(message) => self.answers.push_back((reply, Answer::error(message))),
        }
    }

    /// The answer, and what it has to wait for: nobody may be told that the lease is given back
    /// while anything of before may become a hit.
    fn try_lease(&self, name: &str, until: Timestamp) -> Result<(Answer, Option<Ticket>), String> {
        let (_, id) = self.cached(name)?;
        let engine = self.engine()?;
        if until != Timestamp::default() && until <= self.now {
            return Err(format!(
                "volume '{name}': the lease ended {:.3} s ago; renew it before its end, and count \
                 its time from before it is asked for",
                self.now.since(until).as_secs_f64()
            ));
        }
        let set = engine.change(|cache: &mut Cache| cache.set_lease(self.now, id, Some(until)));
        set.map_err(|error| error.to_string())?;
        let cache = engine.cache();
        let status = report::lease(&cache, id).ok_or("the volume is gone")?;
        let drop = cache.lease_drop(id).filter(|_| until == Timestamp::default());
        Ok((Answer::Lease(status), drop))
    }
}
