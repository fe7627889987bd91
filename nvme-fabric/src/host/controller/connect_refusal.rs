//! A Connect that was refused, in words: what was offered, which part of it was refused, and what
//! that usually means.

use super::{Controller, QueueIndex};
use crate::error::ConnectionError;
use crate::host::HostOptions;
use crate::spec::completion::Completion;
use crate::spec::connect::InvalidParameter;
use crate::spec::status::Status;

/// What was offered in one Connect.
struct Offer<'options> {
    options: &'options HostOptions,
    queue: QueueIndex,
    /// Entries of the queue.
    entries: u16,
    keep_alive_ms: u32,
    /// CNTLID of the association; none for the admin queue, which takes any.
    controller_id: Option<u16>,
}

impl Controller {
    /// Names what was offered, and which part of it was refused.
    pub(super) fn connect_refusal(
        &self,
        queue: QueueIndex,
        completion: Completion,
    ) -> ConnectionError {
        let offer = Offer {
            options: &self.options,
            queue,
            entries: self.depth(queue),
            keep_alive_ms: if queue == 0 { self.keep_alive.milliseconds() } else { 0 },
            controller_id: (queue > 0).then_some(self.identity.controller_id),
        };
        ConnectionError::Refused(offer.refusal(completion))
    }
}

impl Offer<'_> {
    fn refusal(&self, completion: Completion) -> String {
        let HostOptions { address, subsystem, host, host_id, .. } = self.options;
        let (queue, status) = (self.queue, completion.status);
        let mut text = format!(
            "{address}: Connect of queue {queue} to subsystem {subsystem} as host {host} \
             ({host_id}): {status}"
        );
        if status.is(Status::CONNECT_INVALID_PARAMETERS) {
            let parameter = InvalidParameter::parse(completion.dword_0());
            let place = if parameter.in_data { "data" } else { "command" };
            let field = self.field(parameter);
            text += &format!("; refused is {field}, byte {} of the {place}", parameter.offset);
        } else if let Some(meaning) = self.meaning(status) {
            text += &format!("; {meaning}");
        }
        text
    }

    /// The parameter that holds this byte, with what was offered in it. NVMe Base 2.1 §6.3
    fn field(&self, parameter: InvalidParameter) -> String {
        let HostOptions { subsystem, host, host_id, .. } = self.options;
        let controller_id = || match self.controller_id {
            Some(id) => format!("CNTLID {id}"),
            None => "CNTLID 0xffff (any)".to_owned(),
        };
        match (parameter.in_data, parameter.offset) {
            (true, 0..16) => format!("HOSTID {host_id}"),
            (true, 16..18) => controller_id(),
            (true, 256..512) => format!("SUBNQN {subsystem} (is there such a subsystem?)"),
            (true, 512..768) => format!("HOSTNQN {host} (is this host allowed?)"),
            (false, 40..42) => "RECFMT 0".to_owned(),
            (false, 42..44) => format!("QID {}", self.queue),
            (false, 44..46) => format!("SQSIZE, a queue of {} entries", self.entries),
            (false, 46) => "CATTR, without SQ flow control".to_owned(),
            (false, 48..52) => format!("KATO {} ms", self.keep_alive_ms),
            _ => "a field".to_owned(),
        }
    }

    /// What a status without a parameter usually means here.
    fn meaning(&self, status: Status) -> Option<String> {
        let HostOptions { subsystem, host, .. } = self.options;
        let meaning = |it: Status| status.is(it);
        Some(match () {
            () if meaning(Status::CONNECT_INCOMPATIBLE_FORMAT) => {
                "RECFMT 0 was offered, the only format that this host knows".to_owned()
            }
            () if meaning(Status::CONNECT_CONTROLLER_BUSY) => {
                format!("subsystem {subsystem} has no controller free; another host may leave")
            }
            () if meaning(Status::CONNECT_INVALID_HOST) => {
                format!("host {host} is not allowed to connect to subsystem {subsystem}")
            }
            () if meaning(Status::CONNECT_RESTART_DISCOVERY) => {
                "the subsystem is elsewhere now; ask its discovery service".to_owned()
            }
            () if meaning(Status::AUTHENTICATION_REQUIRED) => {
                format!("subsystem {subsystem} wants host {host} to authenticate first")
            }
            () if meaning(Status::KEEP_ALIVE_INVALID) => {
                format!("KATO {} ms was offered", self.keep_alive_ms)
            }
            () if meaning(Status::HOST_ID_INCONSISTENT) => {
                format!("host {host} is known by another identifier than was offered")
            }
            () if meaning(Status::INVALID_QUEUE_SIZE) => {
                format!("a queue of {} entries was offered", self.entries)
            }
            () => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::nqn::{HostId, Nqn};

    fn refusal(queue: QueueIndex, status: Status, result: u64) -> String {
        let name = |name| Nqn::new(name).expect("well formed");
        let (subsystem, host) = (name("nqn.2014-08.org.example:v"), name("nqn.2014-08.me"));
        let options = HostOptions::new("h:4420", subsystem, host, HostId([7; 16]));
        let controller_id = (queue > 0).then_some(5);
        let offer =
            Offer { options: &options, queue, entries: 128, keep_alive_ms: 5000, controller_id };
        let text = offer.refusal(Completion { result, queue_head: 0, command_id: 0, status });
        for part in ["h:4420", "nqn.2014-08.org.example:v", "nqn.2014-08.me", "07070707-"] {
            assert!(text.contains(part), "what was offered: {text}");
        }
        text
    }

    #[test]
    fn the_refused_parameter_is_named_with_its_value() {
        for (in_data, offset, expected) in [
            (true, 0, "HOSTID 07070707-0707-0707-0707-070707070707, byte 0 of the data"),
            (true, 16, "CNTLID 5"),
            (true, 256, "SUBNQN nqn.2014-08.org.example:v (is there such a subsystem?)"),
            (true, 512, "HOSTNQN nqn.2014-08.me (is this host allowed?)"),
            (false, 40, "RECFMT 0, byte 40 of the command"),
            (false, 42, "QID 1"),
            (false, 44, "SQSIZE, a queue of 128 entries"),
            (false, 46, "CATTR"),
            (false, 48, "KATO 5000 ms"),
            (false, 60, "a field, byte 60 of the command"),
            (true, 1000, "a field, byte 1000 of the data"),
        ] {
            let result = InvalidParameter { offset, in_data }.encode();
            let text = refusal(1, Status::CONNECT_INVALID_PARAMETERS, result.into());
            assert!(text.contains(expected) && text.contains("0x182"), "{text}");
        }
        let result = InvalidParameter { offset: 16, in_data: true }.encode();
        let text = refusal(0, Status::CONNECT_INVALID_PARAMETERS.do_not_retry(), result.into());
        assert!(text.contains("CNTLID 0xffff (any)"), "{text}");
    }

    #[test]
    fn other_refusals_say_what_they_mean_here() {
        for (status, expected) in [
            (Status::CONNECT_INCOMPATIBLE_FORMAT, "RECFMT 0 was offered"),
            (Status::CONNECT_CONTROLLER_BUSY, "no controller free"),
            (Status::CONNECT_INVALID_HOST, "is not allowed to connect"),
            (Status::CONNECT_RESTART_DISCOVERY, "ask its discovery service"),
            (Status::AUTHENTICATION_REQUIRED, "authenticate first"),
            (Status::KEEP_ALIVE_INVALID, "KATO 5000 ms was offered"),
            (Status::HOST_ID_INCONSISTENT, "known by another identifier"),
            (Status::INVALID_QUEUE_SIZE, "a queue of 128 entries was offered"),
            (Status::INTERNAL_ERROR, "Internal Error (0x006)"),
        ] {
            let text = refusal(0, status.do_not_retry(), 0);
            assert!(text.contains(expected), "{text}");
        }
    }
}
