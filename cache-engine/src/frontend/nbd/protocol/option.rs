//! Options: from the bytes of one to its answer. Framing is `handshake`'s business.

use super::export::{Export, find};
use super::outgoing::Outgoing;
use super::spec::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, BASE_NAMESPACE, OPTION_REPLY_MAGIC, STRING_MAX, info,
    option, option_reply,
};

/// What is settled so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreement {
    pub(super) fixed_newstyle: bool,
    pub(super) no_zeroes: bool,
    pub(super) structured: bool,
    /// The export for which `base:allocation` was last set.
    pub(super) allocation_for: Option<usize>,
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next option.
    Continue,
    /// Requests for this export.
    Transmit(usize),
    /// The end, by the client's wish.
    Abort,
}

/// Why an option is refused: the reply's type, and a sentence for the client's user.
type Refusal = (u32, &'static str);

const TRUNCATED: Refusal = (option_reply::ERR_INVALID, "the option's data is truncated");
const TRAILING: Refusal = (option_reply::ERR_INVALID, "bytes are left after the option's data");
const LONG_STRING: Refusal = (option_reply::ERR_TOO_BIG, "a string is longer than 4096 bytes");
const UNKNOWN_EXPORT: Refusal = (option_reply::ERR_UNKNOWN, "there is no export of that name");

/// Answers every option but EXPORT_NAME, whose answer has a form of its own.
pub(super) fn answer(
    option: u32,
    data: &[u8],
    exports: &[Export],
    agreement: &mut Agreement,
    outgoing: &mut Outgoing,
) -> Outcome {
    let mut replies = Replies { option, outgoing };
    let answered = match option {
        option::ABORT => Ok(Outcome::Abort),
        option::LIST => list(data, exports, &mut replies),
        option::INFO | option::GO => describe(data, exports, agreement, &mut replies),
        option::STRUCTURED_REPLY => Fields(data).end().map(|()| {
            agreement.structured = true;
            Outcome::Continue
        }),
        option::LIST_META_CONTEXT => list_contexts(data, exports, &mut replies),
        option::SET_META_CONTEXT => set_context(data, exports, agreement, &mut replies),
        _ => Err((option_reply::ERR_UNSUP, "the option is not supported")),
    };
    match answered {
        Ok(outcome) => {
            replies.push(option_reply::ACK, &[]);
            outcome
        }
        Err(refusal) => {
            replies.refuse(refusal);
            Outcome::Continue
        }
    }
}

/// Refuses an option that was too long to be kept.
pub(super) fn refuse_length(option: u32, outgoing: &mut Outgoing) {
    Replies { option, outgoing }.refuse((option_reply::ERR_TOO_BIG, "the option is too long"));
}

//= NBD proto.md "NBD_OPT_LIST"
fn list(data: &[u8], exports: &[Export], replies: &mut Replies) -> Result<Outcome, Refusal> {
    Fields(data).end()?;
    for export in exports {
        let length = (export.name.len() as u32).to_be_bytes();
        let parts: [&[u8]; 3] = [&length, export.name.as_bytes(), export.description.as_bytes()];
        replies.push(option_reply::SERVER, &parts);
    }
    Ok(Outcome::Continue)
}

//= NBD proto.md "NBD_OPT_INFO" and "NBD_OPT_GO": length and name, count and information requests
fn describe(
    data: &[u8],
    exports: &[Export],
    agreement: &Agreement,
    replies: &mut Replies,
) -> Result<Outcome, Refusal> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u16()?;
    let (mut wants_name, mut wants_description, mut wants_block_size) = (false, false, false);
    for _ in 0..count {
        match fields.u16()? {
            info::NAME => wants_name = true,
            info::DESCRIPTION => wants_description = true,
            info::BLOCK_SIZE => wants_block_size = true,
            // Told in any case, or unknown to us and then left out, as the specification wants.
            _ => {}
        }
    }
    fields.end()?;
    let (index, export) = find(exports, name).ok_or(UNKNOWN_EXPORT)?;
    let goes = replies.option == option::GO;
    if goes && export.requires_block_size() && !wants_block_size {
        return Err((option_reply::ERR_BLOCK_SIZE_REQD, "ask for the block size (NBD_INFO 3)"));
    }
    let size = export.geometry.capacity.to_be_bytes();
    let flags = export.transmission_flags(agreement.structured).to_be_bytes();
    replies.information(info::EXPORT, &[&size, &flags]);
    if wants_name {
        replies.information(info::NAME, &[export.name.as_bytes()]);
    }
    if wants_description && !export.description.is_empty() {
        replies.information(info::DESCRIPTION, &[export.description.as_bytes()]);
    }
    // Told even when not asked for: clients skip what they did not ask for.
    let [minimum, preferred, maximum] = export.block_sizes().map(u32::to_be_bytes);
    replies.information(info::BLOCK_SIZE, &[&minimum, &preferred, &maximum]);
    Ok(if goes { Outcome::Transmit(index) } else { Outcome::Continue })
}

//= NBD proto.md "NBD_OPT_LIST_META_CONTEXT": no query, or a namespace alone, lists all of it
fn list_contexts(
    data: &[u8],
    exports: &[Export],
    replies: &mut Replies,
) -> Result<Outcome, Refusal> {
    let queries = ContextQueries::parse(data, exports)?;
    if queries.count == 0 || queries.namespace || queries.allocation {
        // The number means nothing in a list and is to be zero.
        replies.push(option_reply::META_CONTEXT, &[&[0; 4], BASE_ALLOCATION.as_bytes()]);
    }
    Ok(Outcome::Continue)
}

//= NBD proto.md "NBD_OPT_SET_META_CONTEXT": replaces what was set before, even when refused
fn set_context(
    data: &[u8],
    exports: &[Export],
    agreement: &mut Agreement,
    replies: &mut Replies,
) -> Result<Outcome, Refusal> {
    agreement.allocation_for = None;
    if !agreement.structured {
        return Err((option_reply::ERR_INVALID, "ask for structured replies first"));
    }
    let queries = ContextQueries::parse(data, exports)?;
    if queries.allocation {
        agreement.allocation_for = Some(queries.export);
        let id = BASE_ALLOCATION_ID.to_be_bytes();
        replies.push(option_reply::META_CONTEXT, &[&id, BASE_ALLOCATION.as_bytes()]);
    }
    Ok(Outcome::Continue)
}

/// The data of both metadata context options.
struct ContextQueries {
    export: usize,
    count: u32,
    /// `base:` was among the queries: a wildcard for listing, nothing for setting.
    namespace: bool,
    /// `base:allocation` was.
    allocation: bool,
}

impl ContextQueries {
    fn parse(data: &[u8], exports: &[Export]) -> Result<Self, Refusal> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u32()?;
        let (mut namespace, mut allocation) = (false, false);
        // A count beyond the data ends at the first query that is not there.
        for _ in 0..count {
            let query = fields.string()?;
            namespace |= query == BASE_NAMESPACE.as_bytes();
            allocation |= query == BASE_ALLOCATION.as_bytes();
        }
        fields.end()?;
        let (export, _) = find(exports, name).ok_or(UNKNOWN_EXPORT)?;
        Ok(Self { export, count, namespace, allocation })
    }
}

/// An option's data, read field by field.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.u32()? as usize;
        if length > STRING_MAX {
            return Err(LONG_STRING);
        }
        self.take(length)
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(TRAILING) }
    }
}

/// Writes replies to one option.
struct Replies<'a> {
    option: u32,
    outgoing: &'a mut Outgoing,
}

impl Replies<'_> {
    //= NBD proto.md "Newstyle negotiation": magic, option, reply type, length, data
    fn push(&mut self, kind: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.outgoing.push_bytes(&OPTION_REPLY_MAGIC.to_be_bytes());
        self.outgoing.push_bytes(&self.option.to_be_bytes());
        self.outgoing.push_bytes(&kind.to_be_bytes());
        self.outgoing.push_bytes(&(length as u32).to_be_bytes());
        for part in parts {
            self.outgoing.push_bytes(part);
        }
    }

    fn information(&mut self, kind: u16, parts: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let mut all: [&[u8]; 4] = [&kind, &[], &[], &[]];
        all[1..=parts.len()].copy_from_slice(parts);
        self.push(option_reply::INFO, &all);
    }

    fn refuse(&mut self, (kind, message): Refusal) {
        self.push(kind, &[message.as_bytes()]);
    }
}
