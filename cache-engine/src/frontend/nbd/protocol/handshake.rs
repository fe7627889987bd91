//! The negotiation: greeting, client flags, and options one after another until the client enters
//! transmission or leaves.
//!
//! Bounds: an option's data is kept up to [`OPTION_LENGTH_MAX`] bytes, skipped (and refused) up to
//! [`OPTION_SKIPPED_MAX`], and [`OPTIONS_MAX`] options are answered.

use std::rc::Rc;

use block_io::Buffer;

use super::error::PeerFault;
use super::export::{Export, find};
use super::option::{self, Agreement, Outcome};
use super::outgoing::Outgoing;
use super::spec::{
    EXPORT_NAME_PADDING, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, GREETING_MAGIC, OPTION_HEADER_LENGTH,
    OPTION_MAGIC, option as option_type,
};

/// Bytes of one option's data that are kept: room for two names and hundreds of queries.
pub const OPTION_LENGTH_MAX: u32 = 16 << 10;
/// Bytes of one option's data that are skipped to refuse it in a polite way.
pub const OPTION_SKIPPED_MAX: u32 = 1 << 20;
/// Options on one connection.
pub const OPTIONS_MAX: u32 = 256;

/// What the bytes to come are.
#[derive(Clone, Copy, Debug)]
enum Stage {
    ClientFlags,
    OptionHeader,
    OptionData { option: u32, length: usize },
    OptionSkipped { option: u32, left: usize },
}

#[derive(Debug)]
pub(super) struct Handshake {
    exports: Rc<[Export]>,
    stage: Stage,
    /// The bytes of the present stage that have come, at most [`OPTION_LENGTH_MAX`].
    partial: Vec<u8>,
    agreement: Agreement,
    options: u32,
}

impl Handshake {
    /// Queues the greeting.
    pub(super) fn new(exports: Rc<[Export]>, outgoing: &mut Outgoing) -> Self {
        outgoing.push_bytes(&GREETING_MAGIC.to_be_bytes());
        outgoing.push_bytes(&OPTION_MAGIC.to_be_bytes());
        outgoing.push_bytes(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        Self {
            exports,
            stage: Stage::ClientFlags,
            partial: Vec::with_capacity(256),
            agreement: Agreement::default(),
            options: 0,
        }
    }

    pub(super) fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Takes bytes up to the end of one stage; returns how many, and what follows.
    pub(super) fn receive(
        &mut self,
        bytes: &Buffer,
        outgoing: &mut Outgoing,
    ) -> Result<(usize, Outcome), PeerFault> {
        if let Stage::OptionSkipped { option, left } = &mut self.stage {
            let count = bytes.len().min(*left);
            *left -= count;
            if *left == 0 {
                option::refuse_length(*option, outgoing);
                self.stage = Stage::OptionHeader;
            }
            return Ok((count, Outcome::Continue));
        }
        let length = match self.stage {
            Stage::ClientFlags => 4,
            Stage::OptionHeader => OPTION_HEADER_LENGTH,
            Stage::OptionData { length, .. } => length,
            Stage::OptionSkipped { .. } => 0,
        };
        let had = self.partial.len();
        let count = bytes.len().min(length - had);
        self.partial.resize(had + count, 0);
        bytes.slice(0, count).copy_to_slice(&mut self.partial[had..]);
        let mut outcome = Outcome::Continue;
        if self.partial.len() == length {
            outcome = self.advance(outgoing)?;
        }
        Ok((count, outcome))
    }

    /// The present stage's bytes are all there.
    fn advance(&mut self, outgoing: &mut Outgoing) -> Result<Outcome, PeerFault> {
        let data = std::mem::take(&mut self.partial);
        let outcome = match self.stage {
            Stage::ClientFlags => self.client_flags(&data),
            Stage::OptionHeader => self.option_header(&data, outgoing),
            Stage::OptionData { option, .. } => self.option_data(option, &data, outgoing),
            Stage::OptionSkipped { .. } => Ok(Outcome::Continue),
        };
        self.partial = data;
        self.partial.clear();
        outcome
    }

    //= NBD proto.md "Client flags": close on unknown ones
    fn client_flags(&mut self, data: &[u8]) -> Result<Outcome, PeerFault> {
        let flags = number(data, 0, 4) as u32;
        if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
            return Err(PeerFault::ClientFlags(flags));
        }
        self.agreement.fixed_newstyle = flags & u32::from(FLAG_FIXED_NEWSTYLE) != 0;
        self.agreement.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        self.stage = Stage::OptionHeader;
        Ok(Outcome::Continue)
    }

    //= NBD proto.md "Newstyle negotiation": IHAVEOPT, option, length
    fn option_header(
        &mut self,
        data: &[u8],
        outgoing: &mut Outgoing,
    ) -> Result<Outcome, PeerFault> {
        let magic = number(data, 0, 8);
        let (option, length) = (number(data, 8, 4) as u32, number(data, 12, 4) as u32);
        if magic != OPTION_MAGIC {
            return Err(PeerFault::OptionMagic(magic));
        }
        if option != option_type::EXPORT_NAME && !self.agreement.fixed_newstyle {
            return Err(PeerFault::OptionWithoutFixedNewstyle(option));
        }
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(PeerFault::OptionCount(self.options));
        }
        if length == 0 {
            return self.option_data(option, &[], outgoing);
        }
        if length <= OPTION_LENGTH_MAX {
            self.stage = Stage::OptionData { option, length: length as usize };
        } else if length <= OPTION_SKIPPED_MAX && option != option_type::EXPORT_NAME {
            self.stage = Stage::OptionSkipped { option, left: length as usize };
        } else {
            return Err(PeerFault::OptionLength(length));
        }
        Ok(Outcome::Continue)
    }

    fn option_data(
        &mut self,
        option: u32,
        data: &[u8],
        outgoing: &mut Outgoing,
    ) -> Result<Outcome, PeerFault> {
        self.stage = Stage::OptionHeader;
        if option == option_type::EXPORT_NAME {
            return self.export_name(data, outgoing);
        }
        Ok(option::answer(option, data, &self.exports, &mut self.agreement, outgoing))
    }

    //= NBD proto.md "NBD_OPT_EXPORT_NAME": size, flags, zeroes; or the connection is closed
    fn export_name(&mut self, name: &[u8], outgoing: &mut Outgoing) -> Result<Outcome, PeerFault> {
        let (index, export) = find(&self.exports, name).ok_or(PeerFault::UnknownExport)?;
        outgoing.push_bytes(&export.geometry.capacity.to_be_bytes());
        let flags = export.transmission_flags(self.agreement.structured);
        outgoing.push_bytes(&flags.to_be_bytes());
        if !self.agreement.no_zeroes {
            outgoing.push_bytes(&[0; EXPORT_NAME_PADDING]);
        }
        Ok(Outcome::Transmit(index))
    }
}

/// The big-endian number in `bytes[offset..offset + length]`, at most eight bytes.
pub(super) fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    bytes[offset..offset + length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
