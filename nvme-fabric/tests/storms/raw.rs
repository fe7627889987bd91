//! A host that speaks in raw bytes, and leaves in the middle of something.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use block_io::{Buffer, BufferPool};
use nvme_fabric::pdu::{DataHeader, Digests, Encoder, InitializeRequest};
use nvme_fabric::spec::command::{FabricsCommand, NvmCommand};
use nvme_fabric::spec::connect::{CONTROLLER_ID_DYNAMIC, ConnectData};
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::spec::property::{Configuration, OFFSET_CONFIGURATION, SIZE_4};
use nvme_fabric::spec::sgl::Descriptor;

use crate::{HOST, SUBSYSTEM, nqn};

/// A host that says what it likes.
struct Raw {
    stream: TcpStream,
    encoder: Encoder,
    pool: BufferPool,
}

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("of TCP");
        let pool = BufferPool::heap();
        Self { stream, encoder: Encoder::new(&pool), pool }
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// What was encoded.
    fn take(&mut self) -> Vec<u8> {
        let mut pieces = Vec::new();
        self.encoder.transmit_from(&mut pieces, usize::MAX);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        self.encoder.transmitted(bytes.len());
        bytes
    }

    fn hear<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.stream.read_exact(&mut bytes).expect("an answer");
        bytes
    }

    fn say(&mut self) {
        let bytes = self.take();
        self.stream.write_all(&bytes).expect("takes it");
    }

    fn initialize_request(&mut self) -> Vec<u8> {
        self.encoder.push_initialize_request(&InitializeRequest {
            host_data_alignment: 0,
            digests: Digests::default(),
            ready_to_transfer_max: 0,
        });
        self.take()
    }

    /// ICReq and ICResp.
    fn initialize(&mut self) {
        let bytes = self.initialize_request();
        self.stream.write_all(&bytes).expect("takes it");
        assert_eq!(self.hear::<128>()[0], 1, "ICResp");
        self.encoder.set_parameters(Digests::default(), 0);
    }

    fn push_connect(&mut self, queue_id: u16, controller_id: u16) {
        let command = FabricsCommand::Connect {
            record_format: 0,
            queue_id,
            queue_size: 31,
            flow_control_disabled: false,
            keep_alive_ms: 0,
        };
        let (host_id, subsystem, host) = (HostId([5; 16]), nqn(SUBSYSTEM), nqn(HOST));
        let data = ConnectData { host_id, controller_id, subsystem, host }.encode();
        let entry = command.encode(1, Descriptor::in_capsule(data.len() as u32));
        self.encoder.push_command(&entry, Some(&self.buffer(&data)));
    }

    /// Connect and its answer: CNTLID.
    fn become_queue(&mut self, queue_id: u16, controller_id: u16) -> u16 {
        self.push_connect(queue_id, controller_id);
        self.say();
        let answer = self.hear::<24>();
        assert_eq!((answer[22], answer[23]), (0, 0), "Connect succeeds");
        u16::from_le_bytes([answer[8], answer[9]])
    }

    /// Leaves without a word, or with a reset of the stream.
    fn leave(self, with_reset: bool) {
        if with_reset {
            rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))
                .expect("of TCP");
        }
    }
}

/// Where a connection is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    BeforeInitialize,
    InInitialize,
    AfterInitialize,
    InConnect,
    AfterConnect,
    InWrite,
    WithReadsUnread,
    AfterNonsense,
    #[cfg(feature = "tls")]
    InHandshake,
    #[cfg(feature = "tls")]
    AfterClientHello,
}

pub(crate) const CUTS: &[Cut] = &[
    Cut::BeforeInitialize,
    Cut::InInitialize,
    Cut::AfterInitialize,
    Cut::InConnect,
    Cut::AfterConnect,
    Cut::InWrite,
    Cut::WithReadsUnread,
    Cut::AfterNonsense,
    #[cfg(feature = "tls")]
    Cut::InHandshake,
    #[cfg(feature = "tls")]
    Cut::AfterClientHello,
];

/// One connection, or an association of two, that is cut.
pub(crate) fn cut(address: SocketAddr, cut: Cut, with_reset: bool) {
    let mut host = Raw::connect(address);
    match cut {
        Cut::BeforeInitialize => {}
        Cut::InInitialize => {
            let bytes = host.initialize_request();
            host.stream.write_all(&bytes[..70]).expect("takes it");
        }
        Cut::AfterInitialize => host.initialize(),
        Cut::InConnect => {
            host.initialize();
            host.push_connect(0, CONTROLLER_ID_DYNAMIC);
            let bytes = host.take();
            host.stream.write_all(&bytes[..500]).expect("takes it");
        }
        Cut::AfterConnect => {
            host.initialize();
            host.become_queue(0, CONTROLLER_ID_DYNAMIC);
        }
        Cut::InWrite | Cut::WithReadsUnread => {
            let admin = work(address, &mut host, matches!(cut, Cut::InWrite));
            admin.leave(with_reset);
        }
        Cut::AfterNonsense => {
            host.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("takes it");
            assert_eq!(host.hear::<24>()[0], 3, "C2HTermReq");
        }
        #[cfg(feature = "tls")]
        Cut::InHandshake => {
            let hello = client_hello();
            host.stream.write_all(&hello[..hello.len() / 2]).expect("takes it");
        }
        #[cfg(feature = "tls")]
        Cut::AfterClientHello => {
            host.stream.write_all(&client_hello()).expect("takes it");
            assert_eq!(host.hear::<5>()[0], 22, "a handshake record");
        }
    }
    host.leave(with_reset);
}

/// Makes `host` an I/O queue that is in the middle of something; returns its admin queue.
fn work(address: SocketAddr, host: &mut Raw, writes: bool) -> Raw {
    let mut admin = Raw::connect(address);
    admin.initialize();
    let controller = admin.become_queue(0, CONTROLLER_ID_DYNAMIC);
    let enable = FabricsCommand::PropertySet {
        size: SIZE_4,
        offset: OFFSET_CONFIGURATION,
        value: Configuration::ENABLED.encode().into(),
    };
    admin.encoder.push_command(&enable.encode(2, Descriptor::NONE), None);
    admin.say();
    admin.hear::<24>();
    host.initialize();
    host.become_queue(1, controller);
    let length = 64 << 10;
    let blocks = length / 512;
    let data = Descriptor::transport(length);
    if !writes {
        for id in 2..16 {
            let read = NvmCommand::Read { start: 0, blocks, force_unit_access: false };
            host.encoder.push_command(&read.encode(id, 1, data), None);
        }
        host.say();
        return admin;
    }
    let write = NvmCommand::Write { start: 0, blocks, force_unit_access: false };
    host.encoder.push_command(&write.encode(2, 1, data), None);
    host.say();
    let asked = host.hear::<24>();
    assert_eq!(asked[0], 9, "R2T");
    let transfer_tag = u16::from_le_bytes([asked[10], asked[11]]);
    let header =
        DataHeader { command: 2, transfer_tag, offset: 0, length, last: true, success: false };
    let payload = host.buffer(&vec![7; length as usize]);
    host.encoder.push_host_data(&header, &payload);
    let bytes = host.take();
    host.stream.write_all(&bytes[..9000]).expect("takes it");
    admin
}

/// The first flight of a host with the right key.
#[cfg(feature = "tls")]
fn client_hello() -> Vec<u8> {
    use nvme_fabric::pdu::Endpoint;
    use nvme_fabric::tls::{ConfiguredPsk, HostTls, Identities, IdentityVersion, Offer, Session};
    let psk = ConfiguredPsk::new(&[0x5a; 32]).expect("a key");
    let tls = HostTls { psk, identities: Identities::Only(IdentityVersion::Zero) };
    let offer = Offer::new(&tls, &nqn(HOST), &nqn(SUBSYSTEM)).expect("derives");
    let mut session = Session::client(&offer, &BufferPool::heap()).expect("the library works");
    session.advance().expect("says ClientHello");
    let mut pieces = Vec::new();
    session.transmit_from(&mut pieces, 8);
    pieces.iter().flat_map(Buffer::to_vec).collect()
}
