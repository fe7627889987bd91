//! A host that says reservation commands, which our host has no words for: an association of an
//! admin queue and one I/O queue, one command at a time.

use std::io::{Read, Write};
use std::net::TcpStream;

use block_io::{Buffer, BufferPool};
use nvme_fabric::pdu::{Digests, Encoder, InitializeRequest};
use nvme_fabric::spec::command::{FabricsCommand, ReservationCommand, SubmissionEntry};
use nvme_fabric::spec::connect::{CONTROLLER_ID_DYNAMIC, ConnectData};
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::spec::property::{Configuration, OFFSET_CONFIGURATION, SIZE_4};
use nvme_fabric::spec::sgl::Descriptor;

/// A connection that is a queue.
struct Queue {
    stream: TcpStream,
    encoder: Encoder,
    pool: BufferPool,
    commands: u16,
}

/// See the module.
pub(crate) struct RawHost {
    _admin: Queue,
    io: Queue,
}

/// What a command came to: SC and SCT, both 0 for success. Base §4.2.3.
pub(crate) type StatusCode = u16;

impl Queue {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        let pool = BufferPool::heap();
        let encoder = Encoder::new(&pool);
        let mut queue = Self { stream, encoder, pool, commands: 0 };
        queue.encoder.push_initialize_request(&InitializeRequest {
            host_data_alignment: 0,
            digests: Digests::default(),
            ready_to_transfer_max: 0,
        });
        queue.say();
        let mut answer = [0; 128];
        queue.stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[0], 1, "ICResp");
        queue.encoder.set_parameters(Digests::default(), 0);
        queue
    }

    fn say(&mut self) {
        let mut pieces = Vec::new();
        self.encoder.transmit_from(&mut pieces, usize::MAX);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        self.encoder.transmitted(bytes.len());
        self.stream.write_all(&bytes).expect("takes it");
    }

    /// A command with these data in its capsule: the response capsule.
    fn run(
        &mut self,
        encode: impl Fn(u16, Descriptor) -> SubmissionEntry,
        data: &[u8],
    ) -> [u8; 24] {
        self.commands += 1;
        if data.is_empty() {
            self.encoder.push_command(&encode(self.commands, Descriptor::NONE), None);
        } else {
            let buffer = self.pool.allocate(data.len());
            buffer.copy_from_slice(data);
            let entry = encode(self.commands, Descriptor::in_capsule(data.len() as u32));
            self.encoder.push_command(&entry, Some(&buffer));
        }
        self.say();
        let mut answer = [0; 24];
        self.stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[0], 5, "CapsuleResp");
        answer
    }

    /// CNTLID.
    fn become_queue(&mut self, subsystem: &str, host: &str, queue_id: u16, controller: u16) -> u16 {
        let command = FabricsCommand::Connect {
            record_format: 0,
            queue_id,
            queue_size: 31,
            flow_control_disabled: false,
            keep_alive_ms: 0,
        };
        let name = |text: &str| text.parse().expect("a name");
        let data = ConnectData {
            // As the other hosts of the tests have it.
            host_id: HostId([host.len() as u8; 16]),
            controller_id: controller,
            subsystem: name(subsystem),
            host: name(host),
        };
        let answer = self.run(|id, data| command.encode(id, data), &data.encode());
        assert_eq!(status(&answer), 0, "Connect succeeds");
        u16::from_le_bytes([answer[8], answer[9]])
    }
}

/// The status field of a response capsule without its phase bit and DNR.
fn status(answer: &[u8; 24]) -> StatusCode {
    (u16::from_le_bytes([answer[22], answer[23]]) >> 1) & 0x7ff
}

impl RawHost {
    pub(crate) fn connect(port: u16, host: &str, subsystem: &str) -> Self {
        let mut admin = Queue::connect(port);
        let controller = admin.become_queue(subsystem, host, 0, CONTROLLER_ID_DYNAMIC);
        let enable = FabricsCommand::PropertySet {
            size: SIZE_4,
            offset: OFFSET_CONFIGURATION,
            value: Configuration::ENABLED.encode().into(),
        };
        assert_eq!(status(&admin.run(|id, data| enable.encode(id, data), &[])), 0, "enabled");
        let mut io = Queue::connect(port);
        io.become_queue(subsystem, host, 1, controller);
        Self { _admin: admin, io }
    }

    pub(crate) fn reserve(
        &mut self,
        namespace_id: u32,
        command: ReservationCommand,
        keys: &[u8],
    ) -> StatusCode {
        status(&self.io.run(|id, data| command.encode(id, namespace_id, data), keys))
    }
}
