//! From bytes as they arrive to PDUs, each header validated, each payload put in its place.
//!
//! ```text
//!            ┌────────── payload done ───────────┐
//!            ▼                                   │
//!   Header ──┬─▶ a PDU without data ──▶ Header   │
//!            └─▶ a PDU with data ──▶ Awaiting place ──▶ Payload
//! ```
//! Bytes arrive in the rest of the current payload's place and, behind it, in staging. Headers are
//! always decoded from staging; payload bytes that landed there are copied once to their place.
//! An error is final: the connection it came from must end.
//!
//! Absent: any opinion on commands; whether an identifier is live, and where data may go, is for
//! the owner to check between [`Decoder::next_event`] and [`Decoder::place_payload`].

use std::ops::Range;

use block_io::Buffer;

use super::digest::DIGEST_LENGTH;
use super::header::{COMMON_HEADER_LENGTH, HEADER_LENGTH_MAX, flag};
use super::termination::TERMINATION_LENGTH_MAX;
use super::{
    CommandCapsule, CommonHeader, Crc32c, DataHeader, Digests, InitializeRequest,
    InitializeResponse, Pdu, PduError, PduType, ReadyToTransfer, Side, Termination, capsule,
    u32_at,
};

/// Staging must hold the longest header with digest and padding (PDO is one byte), or the longest
/// TermReq.
const STAGING_LEAST: usize = 512;
/// Payloads from this size on are worth a receive of their own.
const DIRECT_LEAST: u32 = 16 << 10;
/// Staging offered after a large payload: a few headers, and little of the next large payload.
const STAGING_BEHIND_LARGE: usize = 2048;

/// Most bytes of data that one PDU may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In a CapsuleCmd.
    pub capsule_data_max: u32,
    /// In an H2CData (this end's MAXH2CDATA) or C2HData.
    pub data_max: u32,
}

/// What the decoder has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A valid header. When [`Pdu::data_length`] is not zero, [`Decoder::place_payload`] or
    /// [`Decoder::skip_payload`] must be called before anything further is decoded.
    Pdu(Pdu),
    /// The last PDU's data are in their place.
    PayloadDone {
        /// Whether the data digest matched; true when none is in use or the data were skipped.
        digest_matches: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    receiver: Side,
    limits: Limits,
    digests: Digests,
    /// ICReq or ICResp has been received.
    initialized: bool,
    staging: Buffer,
    /// Bytes received into staging and not yet used.
    staged: Range<usize>,
    /// Bytes of the last [`receive_into`](Self::receive_into) that go straight to a payload.
    direct: usize,
    /// The header of the current PDU, for the errors that it may lead to.
    header: [u8; HEADER_LENGTH_MAX],
    header_length: usize,
    /// The last payload was a large one, as the next may be: little of it shall land in staging.
    large: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Header,
    AwaitingPlace { length: u32, digest: bool },
    Payload(Payload),
}

#[derive(Debug)]
struct Payload {
    /// Absent when the data are skipped.
    place: Option<Buffer>,
    length: u32,
    filled: u32,
    /// How far the digest has been computed.
    digested: u32,
    digest: bool,
    crc: Crc32c,
}

impl Decoder {
    /// A decoder for the end `receiver` of a new connection, which expects ICReq or ICResp first.
    ///
    /// # Panics
    /// When `staging` is smaller than 512 bytes.
    pub fn new(receiver: Side, staging: Buffer, limits: Limits) -> Self {
        assert!(staging.len() >= STAGING_LEAST, "staging of {} bytes", staging.len());
        Self {
            receiver,
            limits,
            digests: Digests::default(),
            initialized: false,
            staging,
            staged: 0..0,
            direct: 0,
            header: [0; HEADER_LENGTH_MAX],
            header_length: 0,
            large: false,
            state: State::Header,
        }
    }

    /// The digests that the ends have agreed on, from the next PDU on.
    pub fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// The limits from the next PDU on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The header of the PDU decoded last, as much as was received of it: what a TermReq about it
    /// quotes.
    pub fn last_header(&self) -> &[u8] {
        &self.header[..self.header_length]
    }

    /// Appends the pieces that the next receive fills: the rest of a payload's place, and staging.
    /// None when staging is full, which only happens while a payload awaits its place.
    pub fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        self.compact();
        self.direct = 0;
        let staging_max = if self.large { STAGING_BEHIND_LARGE } else { self.staging.len() };
        if let State::Payload(payload) = &self.state
            && let Some(place) = &payload.place
            && self.staged.is_empty()
            && payload.filled < payload.length
        {
            self.direct = (payload.length - payload.filled) as usize;
            pieces.push(place.slice(payload.filled as usize, self.direct));
        }
        let room = (self.staging.len() - self.staged.end).min(staging_max);
        if room > 0 {
            pieces.push(self.staging.slice(self.staged.end, room));
        }
    }

    /// The receive over the pieces from [`receive_into`](Self::receive_into) brought `bytes`.
    pub fn received(&mut self, bytes: usize) {
        let direct = bytes.min(std::mem::take(&mut self.direct));
        if direct > 0
            && let State::Payload(payload) = &mut self.state
        {
            payload.filled += direct as u32;
        }
        self.staged.end += bytes - direct;
        debug_assert!(self.staged.end <= self.staging.len(), "received more than was offered");
    }

    /// The next thing found in what has been received; `None` until more arrives, or until the
    /// current PDU's data have a place.
    ///
    /// # Errors
    /// What the peer has done wrong. The connection must end.
    pub fn next_event(&mut self) -> Result<Option<Decoded>, PduError> {
        match &self.state {
            State::Header => self.decode_header().map(|pdu| pdu.map(Decoded::Pdu)),
            State::AwaitingPlace { .. } => Ok(None),
            State::Payload(_) => Ok(self.take_payload()),
        }
    }

    /// The current PDU's data go to `place`.
    ///
    /// # Panics
    /// When the last event was not a PDU with data, or `place` is not of exactly its length.
    pub fn place_payload(&mut self, place: Buffer) {
        self.start_payload(Some(place));
    }

    /// The current PDU's data go nowhere.
    ///
    /// # Panics
    /// When the last event was not a PDU with data.
    pub fn skip_payload(&mut self) {
        self.start_payload(None);
    }

    /// Lets go of a payload's place: the connection is gone, and no more bytes will come.
    pub fn abandon_payload(&mut self) {
        self.direct = 0;
        self.state = State::Header;
    }

    fn start_payload(&mut self, place: Option<Buffer>) {
        let State::AwaitingPlace { length, digest } = self.state else {
            panic!("no PDU awaits a place for its data");
        };
        if let Some(place) = &place {
            assert_eq!(place.len(), length as usize, "bytes of the place and of the data");
        }
        self.state = State::Payload(Payload {
            place,
            length,
            filled: 0,
            digested: 0,
            digest,
            crc: Crc32c::new(),
        });
        self.large = length >= DIRECT_LEAST;
    }

    /// Moves what little is staged to the front when the room behind it runs low.
    fn compact(&mut self) {
        if self.staged.is_empty() {
            self.staged = 0..0;
        } else if self.staging.len() - self.staged.end < TERMINATION_LENGTH_MAX.max(256)
            && self.staged.start > 0
        {
            let length = self.staged.len();
            self.staging.slice(0, length).copy_from(&self.staging.slice(self.staged.start, length));
            self.staged = 0..length;
        }
    }

    /// Copies the first staged bytes out, as many as `target` holds.
    fn peek(&self, target: &mut [u8]) {
        self.staging.slice(self.staged.start, target.len()).copy_to_slice(target);
    }

    fn decode_header(&mut self) -> Result<Option<Pdu>, PduError> {
        if self.staged.len() < COMMON_HEADER_LENGTH {
            return Ok(None);
        }
        let mut common = [0; COMMON_HEADER_LENGTH];
        self.peek(&mut common);
        self.header[..COMMON_HEADER_LENGTH].copy_from_slice(&common);
        self.header_length = COMMON_HEADER_LENGTH;
        let common = CommonHeader::parse(&common, self.receiver)?;
        self.check_turn(common.kind)?;
        let frame = self.frame(&common)?;
        if self.staged.len() < frame.needed {
            return Ok(None);
        }
        let header_length = usize::from(common.header_length);
        let mut with_digest = [0; HEADER_LENGTH_MAX + DIGEST_LENGTH];
        let digest_length = if frame.header_digest { DIGEST_LENGTH } else { 0 };
        let with_digest = &mut with_digest[..header_length + digest_length];
        self.peek(with_digest);
        let (header, digest) = with_digest.split_at(header_length);
        self.header[..header_length].copy_from_slice(header);
        self.header_length = header_length;
        if frame.header_digest {
            let (received, computed) = (u32_at(digest, 0), Crc32c::new().update(header).value());
            if received != computed {
                return Err(PduError::HeaderDigest { received, computed });
            }
        }
        let pdu = parse(&common, header, frame.data_length)?;
        self.staged.start += frame.needed;
        self.initialized |= common.kind.is_initialization();
        if frame.data_length > 0 {
            self.state =
                State::AwaitingPlace { length: frame.data_length, digest: frame.data_digest };
        }
        Ok(Some(pdu))
    }

    /// Exactly one ICReq and one ICResp, before anything else; a termination at any time.
    /// NVMe/TCP Transport 1.1 §3.4.1
    fn check_turn(&self, kind: PduType) -> Result<(), PduError> {
        if kind.is_termination() || kind.is_initialization() != self.initialized {
            return Ok(());
        }
        let expected = match (self.initialized, self.receiver) {
            (true, _) => "anything but a second ICReq or ICResp",
            (false, Side::Host) => "ICResp (1) first",
            (false, Side::Controller) => "ICReq (0) first",
        };
        Err(PduError::Sequence { received: kind as u8, expected })
    }

    /// Lengths of the parts of a PDU, checked against each other and the limits.
    fn frame(&self, common: &CommonHeader) -> Result<Frame, PduError> {
        let kind = common.kind;
        let header_digest = self.digests.header && kind.carries_digests();
        if kind.carries_digests() && (common.flags & flag::HEADER_DIGEST != 0) != header_digest {
            return Err(wrong_flags(common.flags, "HDGSTF as negotiated"));
        }
        let header = u32::from(common.header_length);
        let least = header + if header_digest { DIGEST_LENGTH as u32 } else { 0 };
        let bare =
            Frame { needed: least as usize, header_digest, data_length: 0, data_digest: false };
        if kind.is_termination() {
            if !(least..=TERMINATION_LENGTH_MAX as u32).contains(&common.length) {
                return Err(wrong_length(common.length, "24 to 152 in a TermReq"));
            }
            return Ok(Frame { needed: common.length as usize, ..bare });
        }
        if common.length == least {
            return Ok(bare);
        }
        if !kind.may_carry_data() || common.length < least {
            return Err(wrong_length(common.length, "the header's length with its digest"));
        }
        let data_digest = self.digests.data;
        if (common.flags & flag::DATA_DIGEST != 0) != data_digest {
            return Err(wrong_flags(common.flags, "DDGSTF as negotiated"));
        }
        let offset = u32::from(common.data_offset);
        if offset < least {
            return Err(PduError::InvalidField {
                field: "PDO",
                offset: 3,
                value: offset,
                expected: "at least the header's length with its digest",
            });
        }
        let around = offset + if data_digest { DIGEST_LENGTH as u32 } else { 0 };
        if common.length <= around {
            return Err(wrong_length(common.length, "large enough for data after PDO"));
        }
        let data_length = common.length - around;
        self.check_data_length(kind, common.length, data_length)?;
        Ok(Frame { needed: offset as usize, header_digest, data_length, data_digest })
    }

    fn check_data_length(&self, kind: PduType, length: u32, data: u32) -> Result<(), PduError> {
        if kind == PduType::Command && data > self.limits.capsule_data_max {
            return Err(wrong_length(length, "within the in-capsule data size of this queue"));
        }
        if kind != PduType::Command && data > self.limits.data_max {
            return Err(PduError::LimitExceeded {
                what: "data in one PDU",
                value: data,
                limit: self.limits.data_max,
            });
        }
        Ok(())
    }

    /// Moves staged bytes to the payload's place; tells when it is complete.
    fn take_payload(&mut self) -> Option<Decoded> {
        let State::Payload(payload) = &mut self.state else {
            return None;
        };
        let take = self.staged.len().min((payload.length - payload.filled) as usize);
        if take > 0 {
            if let Some(place) = &payload.place {
                let staged = self.staging.slice(self.staged.start, take);
                place.slice(payload.filled as usize, take).copy_from(&staged);
            }
            payload.filled += take as u32;
            self.staged.start += take;
        }
        if payload.digest
            && payload.digested < payload.filled
            && let Some(place) = &payload.place
        {
            let fresh = (payload.filled - payload.digested) as usize;
            payload.crc = payload.crc.update_buffer(&place.slice(payload.digested as usize, fresh));
            payload.digested = payload.filled;
        }
        if payload.filled < payload.length {
            return None;
        }
        let mut digest_matches = true;
        if payload.digest {
            if self.staged.len() < DIGEST_LENGTH {
                return None;
            }
            let mut digest = [0; DIGEST_LENGTH];
            self.staging.slice(self.staged.start, DIGEST_LENGTH).copy_to_slice(&mut digest);
            self.staged.start += DIGEST_LENGTH;
            digest_matches =
                payload.place.is_none() || u32::from_le_bytes(digest) == payload.crc.value();
        }
        self.state = State::Header;
        Some(Decoded::PayloadDone { digest_matches })
    }
}

/// Lengths of one PDU's parts.
struct Frame {
    /// Bytes up to the data, padding included; the whole PDU where there are none.
    needed: usize,
    header_digest: bool,
    data_length: u32,
    data_digest: bool,
}

fn parse(common: &CommonHeader, header: &[u8], data_length: u32) -> Result<Pdu, PduError> {
    Ok(match common.kind {
        PduType::InitializeRequest => Pdu::InitializeRequest(InitializeRequest::parse(header)?),
        PduType::InitializeResponse => Pdu::InitializeResponse(InitializeResponse::parse(header)?),
        PduType::HostTermination | PduType::ControllerTermination => {
            Pdu::Termination(Termination::parse(header))
        }
        PduType::Command => Pdu::Command(CommandCapsule::parse(header, data_length)),
        PduType::Response => Pdu::Response(capsule::parse_response(header)),
        PduType::HostData => Pdu::HostData(DataHeader::parse(header, data_length)?),
        PduType::ControllerData => Pdu::ControllerData(DataHeader::parse(header, data_length)?),
        PduType::ReadyToTransfer => Pdu::ReadyToTransfer(ReadyToTransfer::parse(header)?),
    })
}

fn wrong_length(value: u32, expected: &'static str) -> PduError {
    PduError::InvalidField { field: "PLEN", offset: 4, value, expected }
}

fn wrong_flags(flags: u8, expected: &'static str) -> PduError {
    PduError::InvalidField { field: "FLAGS", offset: 1, value: u32::from(flags), expected }
}
