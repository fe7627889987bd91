//! A small NBD client of the demo's own: blocking, over a Unix socket, with requests pipelined.
//!
//! It is written from the specification and shares no code with the server, so that the demo is
//! a judge of it. Fixed newstyle, `NBD_OPT_GO`, simple replies; no structured replies, no TLS.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

//= NBD proto.md "Newstyle negotiation"
const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
//= NBD proto.md "Option types" and "Option reply types"
const OPTION_GO: u32 = 7;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const REPLY_ERROR: u32 = 1 << 31;
/// More than any option reply that `NBD_OPT_GO` can get: information items and error messages.
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;
//= NBD proto.md "Request message" and "Simple reply message"
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_FLUSH: u16 = 3;

/// A connection in the transmission phase.
#[derive(Debug)]
pub(crate) struct Client {
    input: BufReader<UnixStream>,
    output: UnixStream,
    pending: Vec<u8>,
    capacity: u64,
}

/// One answer, without the data of a read, which follows on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The request's own number.
    pub(crate) cookie: u64,
    /// NBD error, 0 for success. Only a successful read is followed by data.
    pub(crate) error: u32,
}

impl Client {
    /// Connects to `export` behind the Unix socket at `path`.
    pub(crate) fn connect(path: &Path, export: &str) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?, export)
    }

    /// As [`connect`](Self::connect), over a connection that exists.
    pub(crate) fn over(stream: UnixStream, export: &str) -> io::Result<Self> {
        let mut client = Self {
            input: BufReader::with_capacity(256 << 10, stream.try_clone()?),
            output: stream,
            pending: Vec::with_capacity(64 << 10),
            capacity: 0,
        };
        client.negotiate(export)?;
        Ok(client)
    }

    /// Size of the export in bytes.
    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Queues a read; [`send`](Self::send) sends what is queued.
    pub(crate) fn read(&mut self, cookie: u64, offset: u64, length: u32) {
        self.request(COMMAND_READ, cookie, offset, length);
    }

    /// Queues a write of `content`.
    pub(crate) fn write(&mut self, cookie: u64, offset: u64, content: &[u8]) {
        self.request(COMMAND_WRITE, cookie, offset, content.len() as u32);
        self.pending.extend_from_slice(content);
    }

    /// Queues a flush.
    pub(crate) fn flush(&mut self, cookie: u64) {
        self.request(COMMAND_FLUSH, cookie, 0, 0);
    }

    /// Sends what is queued.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let sent = self.output.write_all(&self.pending);
        self.pending.clear();
        sent
    }

    /// Waits for the next answer.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let magic = self.u32()?;
        if magic != SIMPLE_REPLY_MAGIC {
            return Err(protocol(format!("reply magic {magic:#x}")));
        }
        let error = self.u32()?;
        Ok(Reply { error, cookie: self.u64()? })
    }

    /// Whether the start of another answer has been received already.
    pub(crate) fn has_reply(&self) -> bool {
        !self.input.buffer().is_empty()
    }

    /// Receives the data that follows a successful answer to a read.
    pub(crate) fn data(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(into)
    }

    /// Says goodbye. Nothing may be in flight.
    pub(crate) fn disconnect(mut self) -> io::Result<()> {
        self.request(COMMAND_DISCONNECT, 0, 0, 0);
        self.send()
    }

    fn request(&mut self, command: u16, cookie: u64, offset: u64, length: u32) {
        self.pending.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        self.pending.extend_from_slice(&0_u16.to_be_bytes());
        self.pending.extend_from_slice(&command.to_be_bytes());
        self.pending.extend_from_slice(&cookie.to_be_bytes());
        self.pending.extend_from_slice(&offset.to_be_bytes());
        self.pending.extend_from_slice(&length.to_be_bytes());
    }

    fn negotiate(&mut self, export: &str) -> io::Result<()> {
        let (init, option) = (self.u64()?, self.u64()?);
        if (init, option) != (INIT_MAGIC, OPTION_MAGIC) {
            return Err(protocol(format!("greeting {init:#x} {option:#x}")));
        }
        let flags = self.u16()? & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(protocol("a server without fixed newstyle".to_owned()));
        }
        self.pending.extend_from_slice(&u32::from(flags).to_be_bytes());
        self.pending.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        self.pending.extend_from_slice(&OPTION_GO.to_be_bytes());
        self.pending.extend_from_slice(&(4 + export.len() as u32 + 2).to_be_bytes());
        self.pending.extend_from_slice(&(export.len() as u32).to_be_bytes());
        self.pending.extend_from_slice(export.as_bytes());
        // No information requests: the export's own is always sent.
        self.pending.extend_from_slice(&0_u16.to_be_bytes());
        self.send()?;
        while self.option_reply(export)? {}
        if self.capacity == 0 {
            return Err(protocol("no NBD_INFO_EXPORT before the end of negotiation".to_owned()));
        }
        Ok(())
    }

    /// Takes one reply to `NBD_OPT_GO`; whether more follow.
    fn option_reply(&mut self, export: &str) -> io::Result<bool> {
        let (magic, option) = (self.u64()?, self.u32()?);
        let (kind, length) = (self.u32()?, self.u32()?);
        if (magic, option) != (OPTION_REPLY_MAGIC, OPTION_GO) || length > OPTION_REPLY_BYTES_MAX {
            return Err(protocol(format!("option reply {magic:#x} {option} {kind:#x} {length}")));
        }
        let mut content = vec![0; length as usize];
        self.input.read_exact(&mut content)?;
        match kind {
            REPLY_ACK => Ok(false),
            REPLY_INFO => {
                if let [0, 0, size @ .., _, _] = content.as_slice()
                    && let Ok(size) = size.try_into()
                {
                    const { assert!(INFO_EXPORT == 0) };
                    self.capacity = u64::from_be_bytes(size);
                }
                Ok(true)
            }
            kind if kind & REPLY_ERROR != 0 => Err(protocol(format!(
                "export `{export}` refused ({kind:#x}): {}",
                String::from_utf8_lossy(&content)
            ))),
            kind => Err(protocol(format!("option reply type {kind:#x}"))),
        }
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn protocol(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("NBD server: unexpected {what}"))
}
