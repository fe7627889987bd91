//! One TLS session: ciphertext in and out as an [`Endpoint`], plaintext by [`Session::read`] and
//! [`Session::write`].
//!
//! ```text
//!   target: Hello ──ClientHello, its identities looked up──▶ Handshake ──Finished──▶ Open ──▶ Over
//!   host:                                                    Handshake ────────────▶ Open ──▶ Over
//! ```
//! The library gets its bytes by two callbacks from the buffers of `Wires`, so it never waits and
//! never sees a socket. Its blinding (a random delay before a failed session is closed) is not
//! used: it protects ciphers that TLS 1.3 does not have.
//!
//! Absent: the handshake's deadline; the connection above has one for its whole way to ICResp.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;
use std::task::Poll;

use block_io::{Buffer, BufferPool};
use s2n_tls::connection::Connection;
use s2n_tls::enums::{Blinding, Version};
use s2n_tls::error::Error as LibraryError;

use super::hello::{self, Hello};
use super::keyring::{Keyring, Offer, Peer, library_psk};
use super::wires::{Wires, receive_callback, send_callback};
use super::{GeneratedKeys, KeyError, TlsError, TlsPsk};
use crate::pdu::Endpoint;

/// Most bytes of plaintext that one write takes: a record's. RFC 8446 §5.1
pub(super) const PLAINTEXT_MAX: usize = 16 << 10;
/// Room that a write of so much needs: its records' headers, tags, and a KeyUpdate before them.
const WRITE_ROOM: usize = PLAINTEXT_MAX + 512;
/// The cipher suites of NVMe/TCP. NVMe/TCP Transport 1.1 §3.6.1.2
const CIPHERS: [&str; 2] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"];

/// What reading has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing until more ciphertext arrives.
    Nothing,
    /// The peer has said that it sends no more (close_notify).
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A target's, before a whole ClientHello.
    Hello,
    Handshake,
    Open,
    /// Failed, or closed by this end.
    Over,
}

/// See the module.
pub struct Session {
    /// Dropped before the wires, which its callbacks use.
    connection: Connection,
    wires: Rc<RefCell<Wires>>,
    stage: Stage,
    keyring: Option<Rc<Keyring>>,
    /// More keys that a target knows.
    generated: Option<Rc<GeneratedKeys>>,
    /// Identities that the host has offered, this end or the other.
    offered: Vec<String>,
    /// Those of them that a target has keys for, and whose they are.
    known: Vec<(String, Peer)>,
    /// Bytes of the ClientHello that have been looked at.
    examined: usize,
    peer: Option<Peer>,
    /// Something of the handshake beyond the ClientHello has been sent: an alert in clear would
    /// not be understood any more.
    has_answered: bool,
}

impl Session {
    /// A host's end; its ClientHello is made by the first [`advance`](Self::advance).
    ///
    /// # Errors
    /// When the library refuses a key.
    pub fn client(offer: &Offer, pool: &BufferPool) -> Result<Self, KeyError> {
        let mut session = Self::new(Connection::new_client(), pool, Stage::Handshake);
        let configure = |session: &mut Self| {
            session.configure(offer.config())?;
            for psk in offer.psks() {
                session.connection.append_psk(&library_psk(psk)?)?;
            }
            Ok(())
        };
        configure(&mut session).map_err(|error| refused(&error))?;
        session.offered = offer.psks().iter().map(|psk| psk.identity().to_owned()).collect();
        Ok(session)
    }

    /// A target's end, which knows the keys of `keyring`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn server(keyring: &Rc<Keyring>, pool: &BufferPool) -> Result<Self, KeyError> {
        let mut session = Self::new(Connection::new_server(), pool, Stage::Hello);
        session.configure(keyring.config()).map_err(|error| refused(&error))?;
        session.keyring = Some(Rc::clone(keyring));
        Ok(session)
    }

    /// A target's end knows these keys too, as they are when the host has said what it offers.
    pub(super) fn know(&mut self, generated: &Rc<GeneratedKeys>) {
        self.generated = Some(Rc::clone(generated));
    }

    /// The key of an identity, and whose it is.
    fn find(&self, identity: &[u8]) -> Option<(TlsPsk, Peer)> {
        let configured = self.keyring.as_ref().and_then(|keyring| keyring.find(identity).cloned());
        configured.or_else(|| self.generated.as_ref()?.find(identity))
    }

    fn new(connection: Connection, pool: &BufferPool, stage: Stage) -> Self {
        let wires = Wires::new(pool);
        Self {
            connection,
            wires: Rc::new(RefCell::new(wires)),
            stage,
            keyring: None,
            generated: None,
            offered: Vec::new(),
            known: Vec::new(),
            examined: 0,
            peer: None,
            has_answered: false,
        }
    }

    fn configure(&mut self, config: s2n_tls::config::Config) -> Result<(), LibraryError> {
        let context = Rc::as_ptr(&self.wires).cast_mut().cast::<c_void>();
        self.connection.set_config(config)?;
        self.connection.set_blinding(Blinding::SelfService)?;
        self.connection.prefer_throughput()?;
        self.connection.set_receive_callback(Some(receive_callback))?;
        self.connection.set_send_callback(Some(send_callback))?;
        // SAFETY: the context is the inside of `self.wires`, which is never replaced and is
        // dropped after the connection; only shared references to it are made.
        unsafe {
            self.connection.set_receive_context(context)?;
            self.connection.set_send_context(context)?;
        }
        Ok(())
    }

    /// Whether the handshake is over and plaintext flows.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whose key the host has proved to have, at a target, once the session is open.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref().filter(|_| self.is_open())
    }

    /// Takes the handshake as far as what has arrived allows. Returns whether the session has
    /// become open.
    ///
    /// # Errors
    /// Why there is no session; an alert is queued where the peer would understand it.
    pub fn advance(&mut self) -> Result<bool, TlsError> {
        let outcome = self.try_advance();
        if let Err(error) = &outcome {
            self.fail(error);
        }
        outcome
    }

    fn try_advance(&mut self) -> Result<bool, TlsError> {
        if self.stage == Stage::Hello {
            self.look_up()?;
        }
        if self.stage != Stage::Handshake {
            return Ok(false);
        }
        self.look_at_first_byte()?;
        let outcome = match self.connection.poll_negotiate() {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(error)) => Err(error),
        };
        if self.keyring.is_some() && self.wires.borrow().outbound.length() > 0 {
            self.has_answered = true;
        }
        match outcome {
            Ok(false) => Ok(false),
            Ok(true) => self.check_agreed().map(|()| true),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Finds the keys for what the ClientHello offers, once it is complete.
    fn look_up(&mut self) -> Result<(), TlsError> {
        let head = {
            let wires = self.wires.borrow();
            let length = wires.inbound.length().min(hello::HELLO_MAX);
            if length == self.examined {
                return Ok(());
            }
            self.examined = length;
            wires.inbound.buffer.slice(wires.inbound.start, length).to_vec()
        };
        let identities = match hello::read(&head) {
            Hello::Incomplete => return Ok(()),
            Hello::NotTls(byte) => return Err(TlsError::NotTls(byte)),
            Hello::Malformed(what) => return Err(TlsError::Protocol(what.to_owned())),
            Hello::Complete(identities) => identities,
        };
        let shown = |identity: &Vec<u8>| String::from_utf8_lossy(identity).into_owned();
        self.offered = identities.iter().map(shown).collect();
        if identities.is_empty() {
            return Err(TlsError::NothingOffered);
        }
        for identity in &identities {
            let Some((psk, peer)) = self.find(identity) else { continue };
            // The same identity twice is appended once: the library refuses the second.
            if self.known.iter().any(|(known, _)| known == psk.identity()) {
                continue;
            }
            library_psk(&psk)
                .and_then(|psk| self.connection.append_psk(&psk))
                .map_err(|error| protocol(&error))?;
            self.known.push((psk.identity().to_owned(), peer));
        }
        if self.known.is_empty() {
            return Err(TlsError::UnknownIdentity(self.offered.clone()));
        }
        self.stage = Stage::Handshake;
        Ok(())
    }

    /// A host finds out from the first byte that the target speaks no TLS.
    fn look_at_first_byte(&mut self) -> Result<(), TlsError> {
        let wires = self.wires.borrow();
        if self.examined > 0 || wires.inbound.length() == 0 || self.keyring.is_some() {
            return Ok(());
        }
        self.examined = 1;
        let mut first = [0];
        wires.inbound.buffer.slice(wires.inbound.start, 1).copy_to_slice(&mut first);
        match first[0] {
            hello::RECORD_HANDSHAKE | hello::RECORD_ALERT | hello::RECORD_CHANGE_CIPHER_SPEC => {
                Ok(())
            }
            byte => Err(TlsError::NotTls(byte)),
        }
    }

    /// Whether what was agreed to is what NVMe/TCP allows: nothing but a key proves who it is.
    fn check_agreed(&mut self) -> Result<(), TlsError> {
        let unsuitable = |what: String| Err(TlsError::Unsuitable(what));
        let version =
            self.connection.actual_protocol_version().map_err(|error| protocol(&error))?;
        if version != Version::TLS13 {
            return unsuitable(format!("agreed to {version:?}: must be TLS 1.3"));
        }
        let cipher = self.connection.cipher_suite().map_err(|error| protocol(&error))?;
        if !CIPHERS.contains(&cipher) {
            return unsuitable(format!("agreed to {cipher}: must be {}", CIPHERS.join(" or ")));
        }
        let length = self.connection.negotiated_psk_identity_length().unwrap_or(0);
        let mut identity = vec![0; length];
        if length > 0 {
            let read = self.connection.negotiated_psk_identity(&mut identity);
            read.map_err(|error| protocol(&error))?;
        }
        let identity = String::from_utf8_lossy(&identity).into_owned();
        if !self.offered.contains(&identity) {
            return unsuitable("agreed to no pre-shared key that was offered".to_owned());
        }
        let known = self.known.iter().find(|(known, _)| *known == identity);
        self.peer = known.map(|(_, peer)| peer.clone());
        self.stage = Stage::Open;
        Ok(())
    }

    fn explain(&self, error: &LibraryError) -> TlsError {
        if let Some(code) = self.connection.alert() {
            let is_host = self.keyring.is_none();
            let offered = if is_host { self.offered.clone() } else { Vec::new() };
            return TlsError::Alert(code, offered);
        }
        if error.name() == "S2N_ERR_BAD_PSK_BINDER" {
            return TlsError::WrongKey(self.offered.clone());
        }
        protocol(error)
    }

    fn fail(&mut self, error: &TlsError) {
        let is_target = self.keyring.is_some();
        if let Some(code) = error.alert().filter(|_| is_target && !self.has_answered) {
            // A record of an alert in clear: fatal, and the code. RFC 8446 §5.1, §6
            let record = [hello::RECORD_ALERT, 3, 3, 0, 2, 2, code];
            self.wires.borrow_mut().outbound.append(&record);
        }
        self.stage = Stage::Over;
    }

    /// The stream ended without a close_notify: why there is no session, when there was none yet.
    pub fn end_of_stream(&mut self) -> Option<TlsError> {
        let was_open = self.is_open();
        self.stage = Stage::Over;
        let is_host = self.keyring.is_none();
        let offered = if is_host { self.offered.clone() } else { Vec::new() };
        (!was_open).then_some(TlsError::ClosedInHandshake(offered))
    }

    /// Decrypts into `plaintext`.
    ///
    /// # Errors
    /// When the peer sends what is not encrypted with its keys, or an alert.
    pub fn read(&mut self, plaintext: &mut [u8]) -> Result<Read, TlsError> {
        if !self.is_open() {
            return Ok(Read::Nothing);
        }
        match self.connection.poll_recv(plaintext) {
            Poll::Pending => Ok(Read::Nothing),
            Poll::Ready(Ok(0)) => Ok(Read::Closed),
            Poll::Ready(Ok(bytes)) => Ok(Read::Bytes(bytes)),
            Poll::Ready(Err(error)) => {
                self.stage = Stage::Over;
                Err(self.explain(&error))
            }
        }
    }

    /// Takes what has arrived and was not looked at as TLS; how many bytes.
    pub(super) fn take_unread(&mut self, to: &mut [u8]) -> usize {
        let wire = &mut self.wires.borrow_mut().inbound;
        let bytes = wire.length().min(to.len());
        wire.buffer.slice(wire.start, bytes).copy_to_slice(&mut to[..bytes]);
        wire.consume(bytes);
        bytes
    }

    /// Most bytes that [`write`](Self::write) takes now; zero while too much is queued.
    pub fn room(&self) -> usize {
        let wires = self.wires.borrow();
        let room = wires.outbound.buffer.len() - wires.outbound.end;
        if self.is_open() && room >= WRITE_ROOM { PLAINTEXT_MAX } else { 0 }
    }

    /// Encrypts all of `plaintext`, at most what there is [`room`](Self::room) for.
    ///
    /// # Errors
    /// When the library fails.
    pub fn write(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        debug_assert!(plaintext.len() <= self.room(), "there must be room");
        let mut written = 0;
        while written < plaintext.len() {
            match self.connection.poll_send(&plaintext[written..]) {
                Poll::Ready(Ok(bytes)) => written += bytes,
                Poll::Ready(Err(error)) => {
                    self.stage = Stage::Over;
                    return Err(protocol(&error));
                }
                Poll::Pending => {
                    self.stage = Stage::Over;
                    return Err(TlsError::Protocol("a record had no room".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Queues a close_notify, when there is a session to close. RFC 8446 §6.1
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Over) == Stage::Open {
            // Without room for it the peer finds the stream closed all the same.
            let _ = self.connection.poll_shutdown_send();
        }
    }

    /// Whether ciphertext is queued and not yet sent.
    pub fn has_output(&self) -> bool {
        self.wires.borrow().outbound.length() > 0
    }

    #[cfg(test)]
    pub(super) fn library(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Endpoint for Session {
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        if self.stage == Stage::Over {
            return;
        }
        let wire = &mut self.wires.borrow_mut().inbound;
        wire.rewind();
        if wire.end < wire.buffer.len() {
            pieces.push(wire.buffer.slice(wire.end, wire.buffer.len() - wire.end));
        }
    }

    fn received(&mut self, bytes: usize) {
        let wire = &mut self.wires.borrow_mut().inbound;
        wire.end += bytes;
        debug_assert!(wire.end <= wire.buffer.len(), "received more than was offered");
    }

    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, pieces_max: usize) {
        let wire = &self.wires.borrow().outbound;
        if wire.length() > 0 && pieces_max > 0 {
            pieces.push(wire.buffer.slice(wire.start, wire.length()));
        }
    }

    fn transmitted(&mut self, bytes: usize) {
        let wire = &mut self.wires.borrow_mut().outbound;
        wire.consume(bytes);
        wire.rewind();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, {:?})", self.stage, self.offered)
    }
}

fn protocol(error: &LibraryError) -> TlsError {
    TlsError::Protocol(format!("{} ({})", error.message(), error.name()))
}

fn refused(error: &LibraryError) -> KeyError {
    KeyError::new(format!("the TLS library refuses a key: {}", error.message()))
}
