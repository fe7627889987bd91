//! A session joined with an endpoint: what the peer sends is decrypted to where the endpoint wants
//! it, what the endpoint sends is encrypted.
//!
//! ```text
//!   Endpoint (a connection) ◀─ pump ─▶ Session ◀─ ciphertext, itself an Endpoint ─▶ driver
//! ```
//! One copy more than without TLS on each way, through `plaintext`: the endpoint's places may be
//! viewed by others, and the library wants memory that is nobody else's. What an endpoint is told
//! as transmitted is encrypted and queued, at most 64 KiB, and may not have left yet.

use block_io::{Buffer, BufferPool};

use super::session::PLAINTEXT_MAX;
use super::{GeneratedKeys, KeyError, Keyring, Offer, Peer, Read, Session, TlsError};
use crate::pdu::Endpoint;

/// Pieces that are asked of the endpoint at a time.
const PIECES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Layer {
    session: Session,
    plaintext: Box<[u8]>,
    /// Kept for its capacity.
    pieces: Vec<Buffer>,
    /// The peer sends no more.
    is_closed: bool,
    /// A peer that begins without TLS is served without.
    allows_plain: bool,
    is_plain: bool,
}

/// What pumping has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Anything has moved.
    pub progress: bool,
    /// The peer has closed, and the endpoint has all that came before.
    pub is_closed: bool,
}

impl Layer {
    /// A host's, before its handshake.
    ///
    /// # Errors
    /// As [`Session::client`].
    pub fn client(offer: &Offer, pool: &BufferPool) -> Result<Self, KeyError> {
        Ok(Self::new(Session::client(offer, pool)?))
    }

    /// A target's, before the handshake.
    ///
    /// # Errors
    /// As [`Session::server`].
    pub fn server(keyring: &std::rc::Rc<Keyring>, pool: &BufferPool) -> Result<Self, KeyError> {
        Ok(Self::new(Session::server(keyring, pool)?))
    }

    fn new(session: Session) -> Self {
        Self {
            session,
            plaintext: vec![0; PLAINTEXT_MAX].into_boxed_slice(),
            pieces: Vec::with_capacity(PIECES_MAX),
            is_closed: false,
            allows_plain: false,
            is_plain: false,
        }
    }

    /// The same, which knows these keys too.
    pub fn knowing(mut self, generated: &std::rc::Rc<GeneratedKeys>) -> Self {
        self.session.know(generated);
        self
    }

    /// The same, which lets a host go on without TLS if it begins so.
    pub fn allowing_plain(self) -> Self {
        Self { allows_plain: true, ..self }
    }

    /// Whether the host began without TLS and may: all it has sent is at the endpoint, and the
    /// layer is not needed any more.
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The ciphertext's end, whose bytes a driver moves.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whose key the host has, at a target.
    pub fn peer(&self) -> Option<&Peer> {
        self.session.peer()
    }

    /// Takes the handshake on, or moves as many bytes as can be moved.
    ///
    /// # Errors
    /// Why the session is over. An alert may be queued.
    pub fn pump(&mut self, endpoint: &mut impl Endpoint) -> Result<Pumped, TlsError> {
        let mut pumped = Pumped::default();
        if !self.session.is_open() {
            pumped.progress = match self.session.advance() {
                Err(TlsError::NotTls(_)) if self.allows_plain => {
                    self.is_plain = true;
                    self.hand_over(endpoint);
                    true
                }
                outcome => outcome?,
            };
        }
        if self.session.is_open() {
            pumped.progress |= self.decrypt(endpoint)?;
            pumped.progress |= self.encrypt(endpoint)?;
        }
        pumped.is_closed = self.is_closed;
        Ok(pumped)
    }

    /// Gives the endpoint what a plain host has sent so far. What it has no room for, more than
    /// any endpoint stages, is lost and breaks the stream's protocol.
    fn hand_over(&mut self, endpoint: &mut impl Endpoint) {
        loop {
            endpoint.receive_into(&mut self.pieces);
            let room: usize = self.pieces.iter().map(Buffer::len).sum();
            let room = room.min(self.plaintext.len());
            let bytes = self.session.take_unread(&mut self.plaintext[..room]);
            scatter(&self.plaintext[..bytes], &self.pieces);
            self.pieces.clear();
            if bytes == 0 {
                return;
            }
            endpoint.received(bytes);
        }
    }

    fn decrypt(&mut self, endpoint: &mut impl Endpoint) -> Result<bool, TlsError> {
        let mut progress = false;
        while !self.is_closed {
            endpoint.receive_into(&mut self.pieces);
            let room: usize = self.pieces.iter().map(Buffer::len).sum();
            let room = room.min(self.plaintext.len());
            let read = match room {
                0 => Ok(Read::Nothing),
                _ => self.session.read(&mut self.plaintext[..room]),
            };
            if let Ok(Read::Bytes(bytes)) = read {
                scatter(&self.plaintext[..bytes], &self.pieces);
                endpoint.received(bytes);
                progress = true;
            }
            self.pieces.clear();
            match read? {
                Read::Bytes(_) => {}
                Read::Nothing => break,
                Read::Closed => self.is_closed = true,
            }
        }
        Ok(progress)
    }

    fn encrypt(&mut self, endpoint: &mut impl Endpoint) -> Result<bool, TlsError> {
        let mut progress = false;
        loop {
            let room = self.session.room();
            if room == 0 {
                return Ok(progress);
            }
            endpoint.transmit_from(&mut self.pieces, PIECES_MAX);
            let bytes = gather(&self.pieces, &mut self.plaintext[..room]);
            self.pieces.clear();
            if bytes == 0 {
                return Ok(progress);
            }
            self.session.write(&self.plaintext[..bytes])?;
            endpoint.transmitted(bytes);
            progress = true;
        }
    }
}

/// Copies `from` into `pieces`, which have room for it.
fn scatter(mut from: &[u8], pieces: &[Buffer]) {
    for piece in pieces {
        let (now, later) = from.split_at(from.len().min(piece.len()));
        piece.slice(0, now.len()).copy_from_slice(now);
        from = later;
    }
}

/// Copies what fits of `pieces` into `to`; how much that was.
fn gather(pieces: &[Buffer], to: &mut [u8]) -> usize {
    let mut filled = 0;
    for piece in pieces {
        let length = piece.len().min(to.len() - filled);
        piece.slice(0, length).copy_to_slice(&mut to[filled..filled + length]);
        filled += length;
    }
    filled
}
