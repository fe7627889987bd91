//! Steps of one queue: what a controller may answer, and what it may not.

use std::time::Duration;

use block_io::{Buffer, BufferPool, Timestamp};

use super::*;
use crate::pdu::{DataHeader, FatalErrorStatus, InitializeResponse, PduError, ReadyToTransfer};
use crate::spec::command::NvmCommand;
use crate::spec::completion::Completion;
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;

const DIGESTS: Digests = Digests { header: true, data: true };

struct Bench {
    pool: BufferPool,
    connection: Connection,
    /// The controller's words.
    controller: Encoder,
}

fn receive(connection: &mut Connection, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut pieces: Vec<Buffer> = Vec::new();
        connection.receive_into(&mut pieces);
        let before = rest.len();
        for piece in pieces {
            let length = piece.len().min(rest.len());
            piece.slice(0, length).copy_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        if rest.len() == before {
            return;
        }
        connection.received(before - rest.len());
    }
}

fn bytes_of(take: impl FnOnce(&mut Vec<Buffer>)) -> Vec<u8> {
    let mut pieces = Vec::new();
    take(&mut pieces);
    pieces.iter().flat_map(Buffer::to_vec).collect()
}

impl Bench {
    fn new(digests: Digests) -> Self {
        let pool = BufferPool::heap();
        let options =
            ConnectionOptions { digests, commands_max: 4, transfer_max: 1 << 20, abort_time: None };
        let connection = Connection::new(&pool, options, Timestamp(0));
        let mut bench = Self { controller: Encoder::new(&pool), pool, connection };
        assert_eq!(bench.sent().len(), 128, "ICReq");
        bench.controller.push_initialize_response(&InitializeResponse {
            controller_data_alignment: 0,
            digests,
            host_data_max: 4096,
        });
        bench.hear();
        assert!(bench.connection.is_open());
        bench.controller.set_parameters(digests, 0);
        bench
    }

    /// What the connection sends.
    fn sent(&mut self) -> Vec<u8> {
        let bytes = bytes_of(|pieces| self.connection.transmit_from(pieces, 64));
        if !bytes.is_empty() {
            self.connection.transmitted(bytes.len());
        }
        bytes
    }

    /// The connection receives what the controller has said.
    fn hear(&mut self) {
        let bytes = bytes_of(|pieces| self.controller.transmit_from(pieces, 64));
        self.controller.transmitted(bytes.len());
        receive(&mut self.connection, &bytes);
    }

    /// Submits a command and returns its name.
    fn submit(&mut self, data: Data) -> u16 {
        let entry = NvmCommand::Flush.encode(0, 1, Descriptor::NONE);
        self.connection.submit(entry, data, 77, Some(Duration::from_secs(30))).expect("room");
        let bytes = self.sent();
        assert_eq!(bytes[0], 4, "CapsuleCmd");
        u16::from_le_bytes([bytes[10], bytes[11]])
    }

    fn respond(&mut self, id: u16, status: Status) {
        let completion = Completion { result: 5, queue_head: 0, command_id: id, status };
        self.controller.push_response(&completion.encode());
        self.hear();
    }

    fn data(&mut self, id: u16, offset: u32, data: &Buffer, last: bool, success: bool) {
        let length = data.len() as u32;
        let fields = DataHeader { command: id, transfer_tag: 0, offset, length, last, success };
        self.controller.push_controller_data(&fields, data);
        self.hear();
    }

    fn ask(&mut self, id: u16, offset: u32, length: u32) {
        let fields = ReadyToTransfer { command: id, transfer_tag: 0x99, offset, length };
        self.controller.push_ready_to_transfer(&fields);
        self.hear();
    }

    fn outcome(&mut self) -> Outcome {
        let finished = self.connection.next_finished().expect("a command has ended");
        assert_eq!(finished.token, 77);
        assert_eq!(self.connection.next_finished(), None, "only one");
        finished.outcome
    }

    /// The connection has ended, has told the peer so, and loses its commands once closed.
    fn expect_refusal(mut self, status: FatalErrorStatus, information: u32) {
        let error = self.connection.error().cloned();
        let Some(ConnectionError::Protocol(error)) = error else {
            panic!("expected {status:?}, got {error:?}");
        };
        assert_eq!((error.status(), error.information()), (status, information), "{error}");
        assert!(!self.connection.wants_close(), "the TermReq goes out first");
        let bytes = self.sent();
        assert_eq!(bytes[0], 2, "H2CTermReq");
        assert_eq!(bytes[8..10], status.number().to_le_bytes());
        assert_eq!(bytes[10..14], information.to_le_bytes());
        assert!(self.connection.wants_close());
        let lost = self.connection.in_flight();
        assert_eq!(self.connection.next_finished(), None, "nothing ends before the socket does");
        self.connection.transport_closed();
        let finished = std::iter::from_fn(|| self.connection.next_finished());
        assert_eq!(finished.filter(|one| one.outcome == Outcome::Lost).count(), lost);
    }
}

#[test]
fn a_read_fills_its_buffer_and_ends_with_a_response_or_without() {
    for (digests, success) in
        [(Digests::default(), false), (Digests::default(), true), (DIGESTS, false), (DIGESTS, true)]
    {
        let mut bench = Bench::new(digests);
        let buffer = bench.pool.allocate(8192);
        let id = bench.submit(Data::ToHost(buffer.clone()));
        let half = bench.pool.allocate(4096);
        half.fill(1);
        bench.data(id, 0, &half, false, false);
        half.fill(2);
        bench.data(id, 4096, &half, true, success);
        if !success {
            assert_eq!(bench.connection.next_finished(), None);
            bench.respond(id, Status::SUCCESS);
        }
        assert!(matches!(bench.outcome(), Outcome::Completed(done) if done.status.is_success()));
        assert_eq!(buffer.to_vec(), [[1; 4096], [2; 4096]].concat());
        drop((half, bench));
        assert!(buffer.is_unique());
    }
}

#[test]
fn small_writes_go_in_the_capsule_and_large_ones_when_asked_for() {
    let mut bench = Bench::new(Digests::default());
    let data = bench.pool.allocate(8192);
    let entry = NvmCommand::Flush.encode(0, 1, Descriptor::NONE);
    let to_controller = Data::ToController(data);
    bench.connection.submit(entry, to_controller, 77, None).expect("room");
    assert_eq!(bench.sent().len(), 72 + 8192);

    let large = bench.pool.allocate(12 << 10);
    large.fill(7);
    let id = bench.submit(Data::ToController(large));
    bench.ask(id, 0, 4096);
    assert_eq!(bench.sent().len(), 24 + 4096);
    // The rest in one request, in pieces of MAXH2CDATA, the last of which says so.
    bench.ask(id, 4096, 8192);
    let bytes = bench.sent();
    assert_eq!(bytes.len(), 2 * (24 + 4096));
    for (number, pdu) in bytes.chunks(24 + 4096).enumerate() {
        assert_eq!((pdu[0], pdu[1] & 4 != 0), (6, number == 1));
        assert_eq!(pdu[10..12], [0x99, 0], "TTAG is echoed");
        assert_eq!(pdu[12..16], (4096 * (number as u32 + 1)).to_le_bytes());
    }
    bench.respond(id, Status::SUCCESS);
    assert!(matches!(bench.outcome(), Outcome::Completed(_)));
}

#[test]
fn wrong_or_missing_data_fail_the_command_and_not_the_connection() {
    let mut bench = Bench::new(DIGESTS);
    let id = bench.submit(Data::ToHost(bench.pool.allocate(4096)));
    let data = bench.pool.allocate(4096);
    let fields = DataHeader {
        command: id,
        transfer_tag: 0,
        offset: 0,
        length: 4096,
        last: true,
        success: true,
    };
    bench.controller.push_controller_data(&fields, &data);
    let mut bytes = bytes_of(|pieces| bench.controller.transmit_from(pieces, 64));
    bench.controller.transmitted(bytes.len());
    bytes[100] ^= 0x10;
    receive(&mut bench.connection, &bytes);
    assert_eq!(bench.outcome(), Outcome::DataDigest);

    let id = bench.submit(Data::ToHost(bench.pool.allocate(8192)));
    bench.data(id, 0, &data, false, false);
    bench.respond(id, Status::SUCCESS);
    assert_eq!(bench.outcome(), Outcome::Short(4096));

    let id = bench.submit(Data::ToHost(bench.pool.allocate(8192)));
    bench.data(id, 0, &data, false, false);
    bench.respond(id, Status::UNRECOVERED_READ_ERROR);
    assert!(matches!(
        bench.outcome(),
        Outcome::Completed(done) if done.status == Status::UNRECOVERED_READ_ERROR
    ));
    assert!(bench.connection.is_open());
}

#[test]
fn what_speaks_of_no_command_ends_the_connection() {
    let invalid = FatalErrorStatus::InvalidHeaderField;
    let mut bench = Bench::new(Digests::default());
    bench.respond(9, Status::SUCCESS);
    bench.expect_refusal(invalid, 20);

    let mut bench = Bench::new(Digests::default());
    let id = bench.submit(Data::None);
    bench.respond(id, Status::SUCCESS);
    bench.outcome();
    bench.respond(id, Status::SUCCESS);
    bench.expect_refusal(invalid, 20);

    let mut bench = Bench::new(Digests::default());
    let data = bench.pool.allocate(512);
    bench.data(3, 0, &data, true, false);
    bench.expect_refusal(invalid, 8);

    let mut bench = Bench::new(Digests::default());
    bench.ask(3, 0, 512);
    bench.expect_refusal(invalid, 8);
}

#[test]
fn data_out_of_range_end_the_connection() {
    let outside = FatalErrorStatus::DataOutOfRange;
    // (bytes of the command, is a read, offset, length, both of the second part if any)
    for (offset, length) in [(4, 4096), (0, 8192), (512, 3584), (u32::MAX - 3, 4)] {
        let mut bench = Bench::new(Digests::default());
        let id = bench.submit(Data::ToHost(bench.pool.allocate(4096)));
        let data = bench.pool.allocate(length);
        bench.data(id, offset, &data, false, false);
        bench.expect_refusal(outside, 0);
    }
    // The same part again, and one after the last.
    for (first_last, offset) in [(false, 0), (true, 512)] {
        let mut bench = Bench::new(Digests::default());
        let id = bench.submit(Data::ToHost(bench.pool.allocate(4096)));
        let data = bench.pool.allocate(512);
        bench.data(id, 0, &data, first_last, false);
        bench.data(id, offset, &data, false, false);
        bench.expect_refusal(outside, 0);
    }
    // The wrong direction.
    let mut bench = Bench::new(Digests::default());
    let id = bench.submit(Data::ToController(bench.pool.allocate(16 << 10)));
    let data = bench.pool.allocate(512);
    bench.data(id, 0, &data, false, false);
    bench.expect_refusal(outside, 0);
    let mut bench = Bench::new(Digests::default());
    let id = bench.submit(Data::ToHost(bench.pool.allocate(4096)));
    bench.ask(id, 0, 512);
    bench.expect_refusal(outside, 0);
}

#[test]
fn requests_for_data_out_of_range_end_the_connection() {
    let outside = FatalErrorStatus::DataOutOfRange;
    for (offset, length) in [(512, 512), (0, 32 << 10), (u32::MAX - 3, 8)] {
        let mut bench = Bench::new(Digests::default());
        let id = bench.submit(Data::ToController(bench.pool.allocate(16 << 10)));
        bench.ask(id, offset, length);
        bench.expect_refusal(outside, 0);
    }
    let mut bench = Bench::new(Digests::default());
    let id = bench.submit(Data::ToController(bench.pool.allocate(512)));
    bench.ask(id, 0, 512);
    bench.expect_refusal(outside, 0);
}

#[test]
fn a_wrong_header_digest_ends_the_connection() {
    let mut bench = Bench::new(DIGESTS);
    let id = bench.submit(Data::None);
    let completion =
        Completion { result: 0, queue_head: 0, command_id: id, status: Status::SUCCESS };
    bench.controller.push_response(&completion.encode());
    let mut bytes = bytes_of(|pieces| bench.controller.transmit_from(pieces, 64));
    bytes[9] ^= 1;
    let digest = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes"));
    receive(&mut bench.connection, &bytes);
    bench.expect_refusal(FatalErrorStatus::HeaderDigestError, digest);
}

#[test]
fn digests_that_the_controller_does_not_agree_to_are_refused() {
    for (asked, answered) in [
        (DIGESTS, Digests::default()),
        (Digests::default(), DIGESTS),
        (DIGESTS, Digests { header: true, data: false }),
    ] {
        let pool = BufferPool::heap();
        let options = ConnectionOptions {
            digests: asked,
            commands_max: 4,
            transfer_max: 4096,
            abort_time: None,
        };
        let mut connection = Connection::new(&pool, options, Timestamp(0));
        let mut controller = Encoder::new(&pool);
        controller.push_initialize_response(&InitializeResponse {
            controller_data_alignment: 0,
            digests: answered,
            host_data_max: 4096,
        });
        receive(&mut connection, &bytes_of(|pieces| controller.transmit_from(pieces, 64)));
        let error = connection.error().expect("refused").to_string();
        assert!(error.contains("digests offered"), "{error}");
    }
}

#[test]
fn a_termination_by_the_controller_is_told_and_not_answered() {
    let mut bench = Bench::new(Digests::default());
    bench.submit(Data::None);
    let error =
        PduError::UnsupportedParameter { field: "SGL", offset: 24, value: 0, expected: "another" };
    bench.controller.push_termination(Side::Controller, &error, &[4; 72]);
    bench.hear();
    let text = bench.connection.error().expect("over").to_string();
    assert!(text.contains("unsupported parameter at byte 24"), "{text}");
    assert!(bench.sent().is_empty());
    assert!(bench.connection.wants_close());
    bench.connection.transport_closed();
    assert_eq!(bench.outcome(), Outcome::Lost);
}

#[test]
fn an_overdue_command_ends_the_connection_at_its_time() {
    let mut bench = Bench::new(Digests::default());
    bench.submit(Data::None);
    let deadline = bench.connection.next_deadline().expect("a command has one");
    assert_eq!(deadline, Timestamp(0) + Duration::from_secs(30));
    bench.connection.tick(Timestamp(deadline.0 - 1));
    assert!(bench.connection.is_open());
    bench.connection.tick(deadline);
    assert!(bench.connection.wants_close());
}
