//! What arrives on an open connection: answers, data and requests for data.
//!
//! Every name, offset and length from the peer is checked against the command it speaks of before
//! a byte moves.

use super::Connection;
use super::commands::Data;
use crate::error::ConnectionError;
use crate::pdu::{DataHeader, Decoded, Pdu, PduError, ReadyToTransfer};
use crate::spec::completion::Completion;
use crate::spec::status::Status;

impl Connection {
    /// Works through everything that has been received.
    pub(super) fn take_events(&mut self) -> Result<(), PduError> {
        while let Some(event) = self.decoder.next_event()? {
            match event {
                Decoded::Pdu(pdu) => self.take_pdu(pdu)?,
                Decoded::PayloadDone { digest_matches } => self.finish_payload(digest_matches),
            }
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    fn take_pdu(&mut self, pdu: Pdu) -> Result<(), PduError> {
        match pdu {
            Pdu::InitializeResponse(response) => self.take_initialize_response(response),
            Pdu::Termination(termination) => self.end(ConnectionError::Terminated(termination)),
            Pdu::Response(bytes) => {
                let completion = Completion::parse(&bytes);
                self.check_live(completion.command_id, "CID", 20)?;
                self.finish(completion.command_id, completion);
            }
            Pdu::ControllerData(data) => self.place_data(&data)?,
            Pdu::ReadyToTransfer(request) => self.answer(&request)?,
            Pdu::InitializeRequest(_) | Pdu::Command(_) | Pdu::HostData(_) => {
                unreachable!("the decoder refuses what hosts do not receive")
            }
        }
        Ok(())
    }

    fn check_live(&mut self, id: u16, field: &'static str, offset: u8) -> Result<(), PduError> {
        match self.commands.get(id) {
            Some(_) => Ok(()),
            None => Err(unknown(id, field, offset)),
        }
    }

    /// C2HData: in order, within the command's data, and nothing after the last.
    /// NVMe/TCP Transport 1.1 §3.6.2.9
    fn place_data(&mut self, part: &DataHeader) -> Result<(), PduError> {
        let Some(command) = self.commands.get(part.command) else {
            return Err(unknown(part.command, "CCCID", 8));
        };
        let Data::ToHost(buffer) = &command.data else {
            return Err(out_of_range(part.command, part.offset, part.length, 0));
        };
        let length = buffer.len() as u32;
        let room = length - command.transferred;
        if part.offset != command.transferred || part.length > room || command.last_seen {
            return Err(out_of_range(part.command, part.offset, part.length, length));
        }
        self.decoder.place_payload(buffer.slice(part.offset as usize, part.length as usize));
        command.transferred += part.length;
        command.last_seen = part.last;
        self.receiving = Some(part.command);
        self.success_follows = part.success;
        Ok(())
    }

    /// The data of a C2HData are in their place.
    fn finish_payload(&mut self, digest_matches: bool) {
        let id = self.receiving.take().expect("data were placed for a command");
        let command = self.commands.get(id).expect("a command lives while its data arrive");
        command.digest_failed |= !digest_matches;
        if std::mem::take(&mut self.success_follows) {
            let status = Status::SUCCESS;
            self.finish(id, Completion { result: 0, queue_head: 0, command_id: id, status });
        }
    }

    /// R2T: in order and within the command's data; answered at once with all that it asks for.
    /// NVMe/TCP Transport 1.1 §3.6.2.10
    fn answer(&mut self, request: &ReadyToTransfer) -> Result<(), PduError> {
        let Some(command) = self.commands.get(request.command) else {
            return Err(unknown(request.command, "CCCID", 8));
        };
        let Data::ToController(buffer) = &command.data else {
            return Err(out_of_range(request.command, request.offset, request.length, 0));
        };
        let length = buffer.len() as u32;
        let room = length - command.transferred;
        let in_order = request.offset == command.transferred && request.length <= room;
        if command.in_capsule || !in_order {
            return Err(out_of_range(request.command, request.offset, request.length, length));
        }
        command.transferred += request.length;
        let end = request.offset + request.length;
        let mut offset = request.offset;
        while offset < end {
            let part = self.host_data_max.min(end - offset);
            let fields = DataHeader {
                command: request.command,
                transfer_tag: request.transfer_tag,
                offset,
                length: part,
                last: offset + part == end,
                success: false,
            };
            self.encoder.push_host_data(&fields, &buffer.slice(offset as usize, part as usize));
            offset += part;
        }
        Ok(())
    }
}

fn unknown(id: u16, field: &'static str, offset: u8) -> PduError {
    let expected = "the identifier of a command in flight";
    PduError::InvalidField { field, offset, value: u32::from(id), expected }
}

fn out_of_range(command: u16, offset: u32, length: u32, limit: u32) -> PduError {
    PduError::DataOutOfRange { command, offset, length, limit }
}
