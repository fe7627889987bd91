//! Payload: in capsules and H2CData from the host, in C2HData to it, and the memory for it.

use block_io::Buffer;

use super::{Command, Connection, Incoming, Stage};
use crate::pdu::{DataHeader, PduError, ReadyToTransfer};
use crate::spec::command;
use crate::spec::status::Status;
use crate::target::Target;
use crate::target::controller::Service;
use crate::target::io::{self, Plan, Task};

impl Connection {
    /// Payload memory for the command at `place`.
    pub(super) fn allocate(&mut self, place: u16, length: u32) -> Buffer {
        let buffer = self.pool.allocate(length as usize);
        self.held += length as usize;
        self.command_mut(place).buffer = Some(buffer.clone());
        buffer
    }

    /// Puts the data of a capsule, whose command is at `place`, to its memory. At most
    /// [`crate::target::IN_CAPSULE_DATA_MAX`] bytes a command, so it never waits.
    pub(super) fn receive_capsule_data(&mut self, place: u16, length: u32) {
        let buffer = self.allocate(place, length);
        self.decoder.place_payload(buffer);
        self.incoming = Some(Incoming::Capsule(place));
    }

    /// Bytes of memory that the command at `place` still needs before it starts.
    pub(super) fn memory_needed(&mut self, place: u16, task: &Task) -> usize {
        let mut missing = |place: u16, length: u32| {
            if self.command_mut(place).buffer.is_some() { 0 } else { length as usize }
        };
        let data = match task {
            Task::Read(extent) => extent.length as u32,
            other => other.host_data_length(),
        };
        let mut needed = missing(place, data) + task.piece_length() as usize;
        if let Task::CompareAndWrite { first, .. } = task {
            needed += missing(*first, data);
        }
        needed
    }

    /// Starts a command for which there is memory, with its requests or an R2T.
    pub(super) fn start_transfer(&mut self, target: &mut Target, place: u16, plan: Plan) {
        let piece = plan.task.piece_length();
        self.command_mut(place).piece_length = piece;
        self.held += piece as usize;
        if let Task::CompareAndWrite { .. } = plan.task {
            return self.start_pair_transfer(target, place, plan);
        }
        if let Task::Read(extent) = plan.task {
            // Checked against the largest transfer.
            self.allocate(place, extent.length as u32);
            return self.run(target, place, plan);
        }
        let length = plan.task.host_data_length();
        if length == 0 || self.command_mut(place).buffer.is_some() {
            return self.run(target, place, plan);
        }
        self.ask_for_data(place, plan, length);
    }

    /// Takes memory for a command's data, and tells the host to send them.
    pub(super) fn ask_for_data(&mut self, place: u16, plan: Plan, length: u32) {
        self.allocate(place, length);
        let command = self.command_mut(place);
        let command_id = command::command_id(&command.entry);
        command.stage = Stage::Transferring(plan, length);
        self.transferring += 1;
        // One R2T for all of it, which any MAXR2T allows. NVMe/TCP Transport, "R2T".
        self.encoder.push_ready_to_transfer(&ReadyToTransfer {
            command: command_id,
            transfer_tag: place,
            offset: 0,
            length,
        });
    }

    /// Starts commands that waited for memory, as far as there is.
    pub(super) fn start_waiting(&mut self, target: &mut Target) -> bool {
        let mut progress = false;
        while let Some(place) = self.waiting.front().copied() {
            let stage = std::mem::replace(&mut self.command_mut(place).stage, Stage::Device);
            let Stage::Waiting(plan) = stage else {
                self.waiting.pop_front();
                continue;
            };
            let needed = self.memory_needed(place, &plan.task);
            if !self.has_memory(target, needed) {
                self.command_mut(place).stage = Stage::Waiting(plan);
                break;
            }
            self.waiting.pop_front();
            progress = true;
            match self.check_waiter(target, &plan) {
                Ok(()) => self.start_transfer(target, place, plan),
                Err(status) => self.refuse(place, status),
            }
        }
        progress
    }

    fn check_waiter(&self, target: &Target, plan: &Plan) -> Result<(), Status> {
        match self.queue.map(|queue| queue.service) {
            Some(Service::Subsystem(place)) => io::check_again(&target.subsystems[place], plan),
            _ => Ok(()),
        }
    }

    /// Puts the data of an H2CData to its command's memory.
    pub(super) fn receive_host_data(&mut self, data: &DataHeader) -> Result<(), PduError> {
        let Some(Some(Command {
            entry,
            stage: Stage::Transferring(_, length),
            transferred,
            buffer: Some(buffer),
            ..
        })) = self.commands.get(usize::from(data.transfer_tag))
        else {
            return Err(PduError::InvalidField {
                field: "TTAG",
                offset: 10,
                value: data.transfer_tag.into(),
                expected: "the tag of an R2T that is outstanding",
            });
        };
        if command::command_id(entry) != data.command {
            return Err(PduError::InvalidField {
                field: "CCCID",
                offset: 8,
                value: data.command.into(),
                expected: "the command that the R2T was for",
            });
        }
        // In order, within the R2T. NVMe/TCP Transport, "R2T".
        let end = data.offset.checked_add(data.length);
        let Some(end) = end.filter(|end| data.offset == *transferred && end <= length) else {
            return Err(PduError::DataOutOfRange {
                command: data.command,
                offset: data.offset,
                length: data.length,
                limit: *length,
            });
        };
        if data.last != (end == *length) {
            return Err(PduError::InvalidField {
                field: "FLAGS",
                offset: 1,
                value: u32::from(data.last) << 2,
                expected: "LAST_PDU exactly on the PDU that ends the R2T's data",
            });
        }
        let part = buffer.slice(data.offset as usize, data.length as usize);
        self.decoder.place_payload(part);
        self.incoming = Some(Incoming::Data(data.transfer_tag, data.length));
        Ok(())
    }

    /// The current payload is complete; returns the command that has all its data now.
    pub(super) fn payload_done(&mut self, digest_matches: bool) -> Option<u16> {
        let incoming = self.incoming.take()?;
        let (place, length) = match incoming {
            Incoming::Capsule(place) => (place, 0),
            Incoming::Data(place, length) => (place, length),
        };
        let command = self.command_mut(place);
        command.transferred += length;
        command.digest_failed |= !digest_matches;
        match (&command.stage, incoming) {
            (Stage::Transferring(_, total), _) if command.transferred < *total => None,
            _ => Some(place),
        }
    }

    /// Queues a read's data; returns whether that completes the command.
    pub(super) fn send_data(&mut self, command_id: u16, buffer: &Buffer) -> bool {
        // SUCCESS spares a completion, but also its SQHD, so only without flow control.
        // NVMe/TCP Transport, "C2HData".
        let success = self.queue.is_some_and(|queue| !queue.flow_control);
        let header = DataHeader {
            command: command_id,
            transfer_tag: 0,
            offset: 0,
            length: buffer.len() as u32,
            last: true,
            success,
        };
        self.encoder.push_controller_data(&header, buffer);
        success
    }
}
