//! ICReq and ICResp, from the host's side.
//!
//! Absent: the deadline; bringing up the controller has one for the whole way.

use super::{Connection, Phase};
use crate::error::ConnectionError;
use crate::pdu::{InitializeRequest, InitializeResponse};

impl Connection {
    pub(super) fn start_handshake(&mut self) {
        self.encoder.push_initialize_request(&InitializeRequest {
            // No padding before data that arrive: placing them costs the same anywhere.
            host_data_alignment: 0,
            digests: self.options.digests,
            // 0's based: one at a time is all that throughput needs, as an R2T may ask for
            // everything.
            ready_to_transfer_max: 0,
        });
    }

    /// ICResp ends the handshake, if the peer uses the digests that were asked for.
    pub(super) fn take_initialize_response(&mut self, response: InitializeResponse) {
        let (asked, got) = (self.options.digests, response.digests);
        if asked != got {
            let word = |on| if on { "on" } else { "off" };
            self.end(ConnectionError::Refused(format!(
                "digests offered: header {}, data {}; the controller answers header {}, data {}",
                word(asked.header),
                word(asked.data),
                word(got.header),
                word(got.data),
            )));
            return;
        }
        self.decoder.set_digests(got);
        self.encoder.set_parameters(got, response.controller_data_alignment);
        self.host_data_max = response.host_data_max;
        self.phase = Phase::Open;
    }
}
