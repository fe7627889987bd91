//! Strangers: whatever the bytes, a connection goes on or ends, and nothing panics or grows.

use super::*;

/// Small numbers that look random and can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

fn bytes_of(encoder: &mut Encoder) -> Vec<u8> {
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, 1000);
    let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
    encoder.transmitted(bytes.len());
    bytes
}

/// An encoder after the initialisation of a connection, and the bytes of that.
fn opening(world: &World, digests: Digests) -> (Encoder, Vec<u8>) {
    let mut encoder = Encoder::new(&world.pool);
    encoder.push_initialize_request(&InitializeRequest {
        host_data_alignment: 0,
        digests,
        ready_to_transfer_max: 0,
    });
    let bytes = bytes_of(&mut encoder);
    encoder.set_parameters(digests, 0);
    (encoder, bytes)
}

fn connect_data(controller_id: u16) -> ConnectData {
    ConnectData {
        host_id: HostId([9; 16]),
        controller_id,
        subsystem: nqn(SUBSYSTEM),
        host: nqn(HOST),
    }
}

/// What a host sends from ICReq on to an admin queue in use, and where each PDU starts.
fn admin_exchange(world: &World, digests: Digests) -> (Vec<u8>, Vec<usize>) {
    let (mut encoder, mut bytes) = opening(world, digests);
    let mut starts = vec![0];
    let data = connect_data(CONTROLLER_ID_DYNAMIC);
    let enable = FabricsCommand::PropertySet {
        size: SIZE_4,
        offset: OFFSET_CONFIGURATION,
        value: Configuration::ENABLED.encode().into(),
    };
    let identify =
        AdminCommand::Identify { namespace_id: 1, structure: 0, controller_id: 0, command_set: 0 };
    let log = AdminCommand::GetLogPage {
        namespace_id: 0,
        page: 2,
        specific: 0,
        retain_event: false,
        length: 512,
        offset: 0,
        index_offset: false,
    };
    let entries = [
        connect(0, 31).encode(0, Descriptor::in_capsule(1024)),
        enable.encode(1, Descriptor::NONE),
        identify.encode(2, Descriptor::transport(4096)),
        log.encode(3, Descriptor::transport(512)),
        AdminCommand::AsynchronousEventRequest.encode(4, Descriptor::NONE),
        AdminCommand::SetFeatures { namespace_id: 0, feature: 7, save: false, value: 0x30003 }
            .encode(5, Descriptor::NONE),
        AdminCommand::KeepAlive.encode(6, Descriptor::NONE),
    ];
    for (index, entry) in entries.iter().enumerate() {
        starts.push(bytes.len());
        let payload = (index == 0).then(|| buffer(&world.pool, &data.encode()));
        encoder.push_command(entry, payload.as_ref());
        bytes.extend(bytes_of(&mut encoder));
    }
    (bytes, starts)
}

/// What a host sends on I/O queue 1 after Connect; `controller_id` is the queue's controller.
fn io_exchange(world: &World, digests: Digests, controller_id: u16) -> (Vec<u8>, Vec<usize>) {
    let (mut encoder, mut bytes) = opening(world, digests);
    let mut starts = vec![0];
    let data = connect_data(controller_id);
    let mut push = |encoder: &mut Encoder| {
        starts.push(bytes.len());
        bytes.extend(bytes_of(encoder));
    };
    let payload = buffer(&world.pool, &data.encode());
    encoder.push_command(&connect(1, 15).encode(0, Descriptor::in_capsule(1024)), Some(&payload));
    push(&mut encoder);
    let (start, blocks, force_unit_access) = (4, 8, false);
    let write = NvmCommand::Write { start, blocks, force_unit_access };
    let read = NvmCommand::Read { start, blocks, force_unit_access };
    let payload = buffer(&world.pool, &[7; 4096]);
    encoder.push_command(&write.encode(1, 1, Descriptor::in_capsule(4096)), Some(&payload));
    push(&mut encoder);
    encoder.push_command(&read.encode(2, 1, Descriptor::transport(4096)), None);
    push(&mut encoder);
    // Two commands are at the device when this one comes, so its R2T has the third place's tag.
    encoder.push_command(&write.encode(3, 1, Descriptor::transport(4096)), None);
    push(&mut encoder);
    let header = DataHeader {
        command: 3,
        transfer_tag: 2,
        offset: 0,
        length: 4096,
        last: true,
        success: false,
    };
    encoder.push_host_data(&header, &payload);
    push(&mut encoder);
    let manage = NvmCommand::DatasetManagement { ranges: 1, deallocate: true };
    let ranges = buffer(&world.pool, &[0; 16]);
    encoder.push_command(&manage.encode(4, 1, Descriptor::in_capsule(16)), Some(&ranges));
    push(&mut encoder);
    encoder.push_command(&NvmCommand::Flush.encode(5, 1, Descriptor::NONE), None);
    push(&mut encoder);
    (bytes, starts)
}

/// Feeds a new connection, serves its requests, lets it send; then ends it. Whether it took the
/// bytes as valid.
fn survive(world: &mut World, bytes: &[u8]) -> bool {
    let mut connection = Connection::new(world.target.settings(), &world.pool, LOCAL, world.now);
    for part in bytes.chunks(1 << 16) {
        let taken = feed(&mut connection, world, part);
        assert!(taken == part.len() || connection.is_finished(), "it takes what it is given");
        loop {
            let mut progress = connection.poll(&mut world.target, world.now);
            while let Some(submission) = connection.next_submission() {
                world.serve(&mut connection, submission);
                progress = true;
            }
            let mut pieces = Vec::new();
            connection.transmit_from(&mut pieces, 64);
            let sent = pieces.iter().map(Buffer::len).sum();
            if sent > 0 {
                connection.transmitted(sent);
            }
            if !progress && sent == 0 {
                break;
            }
        }
    }
    assert!(connection.commands_in_flight() <= 32);
    let is_valid = connection.error().is_none();
    connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    assert_eq!(connection.deadline(), None);
    assert!(connection.is_finished());
    is_valid
}

const DIGESTS: [Digests; 2] =
    [Digests { header: false, data: false }, Digests { header: true, data: true }];

#[test]
fn every_truncation_of_a_valid_exchange_is_survived() {
    for digests in DIGESTS {
        let mut world = world();
        let (bytes, _) = admin_exchange(&world, digests);
        for length in 0..=bytes.len() {
            assert!(survive(&mut world, &bytes[..length]), "{length} bytes");
            assert_eq!(world.target.controllers_in_use(), 0);
        }
        let admin = Host::admin(&mut world, SUBSYSTEM);
        let (bytes, _) = io_exchange(&world, digests, admin.controller_id);
        for length in (0..=bytes.len()).step_by(7).chain([bytes.len()]) {
            assert!(survive(&mut world, &bytes[..length]), "{length} bytes");
        }
        assert_eq!(world.memory[4 * 512], 7, "the whole exchange wrote");
    }
}

#[test]
fn every_corruption_of_a_header_byte_is_survived() {
    for digests in DIGESTS {
        let mut world = world();
        let (bytes, starts) = admin_exchange(&world, digests);
        corrupt_headers(&mut world, &bytes, &starts);
        assert_eq!(world.target.controllers_in_use(), 0);
        let admin = Host::admin(&mut world, SUBSYSTEM);
        let (bytes, starts) = io_exchange(&world, digests, admin.controller_id);
        corrupt_headers(&mut world, &bytes, &starts);
    }
}

fn corrupt_headers(world: &mut World, bytes: &[u8], starts: &[usize]) {
    let mut refused = 0;
    for start in starts {
        let header = usize::from(bytes[start + 2]);
        for place in *start..start + header {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[place] ^ 1, bytes[place].wrapping_add(1)] {
                let mut changed = bytes.to_vec();
                changed[place] = value;
                refused += usize::from(!survive(world, &changed));
            }
        }
    }
    assert!(refused > 0, "some of it is a fault that ends the connection");
}

#[test]
fn random_commands_are_survived() {
    let mut world = world();
    for seed in 1..300_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let admin = Host::admin(&mut world, SUBSYSTEM);
        let exchange = if seed % 2 == 0 {
            admin_exchange
        } else {
            |world: &World, digests| io_exchange(world, digests, 1)
        };
        let (mut bytes, starts) = exchange(&world, Digests::default());
        let connected = starts[2];
        bytes.truncate(connected);
        for id in 0..40_u16 {
            let mut entry: SubmissionEntry = std::array::from_fn(|_| random.next(256) as u8);
            if random.next(4) > 0 {
                let opcodes = [0, 1, 2, 6, 8, 9, 10, 12, 24, 0x7f];
                entry[0] = opcodes[random.next(opcodes.len())];
                entry[1] = 0x40;
                entry[4..8].copy_from_slice(&[[0, 1, 2, 4][random.next(4)], 0, 0, 0]);
                entry[33..39].fill(0);
                entry[33] = [0, 2, 16][random.next(3)];
                entry[32] = 0;
                entry[39] = [0x5a, 1][random.next(2)];
                entry[42..48].fill(0);
                entry[49..52].fill(0);
            }
            entry[2..4].copy_from_slice(&id.to_le_bytes());
            let mut encoder = Encoder::new(&world.pool);
            let length = [0, 0, 0, 512, 4096][random.next(5)];
            let data = (length > 0).then(|| world.pool.allocate(length));
            encoder.push_command(&entry, data.as_ref());
            bytes.extend(bytes_of(&mut encoder));
        }
        world.asked.clear();
        survive(&mut world, &bytes);
        drop(admin);
        // The host's admin connection is simply dropped: the next one gets id 1 again.
        world.target.controllers.clear();
    }
}

#[test]
fn a_host_that_does_not_read_is_not_read_from() {
    let settings = Settings { bytes_in_flight_max: 1 << 20, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let identify =
        AdminCommand::Identify { namespace_id: 1, structure: 0, controller_id: 0, command_set: 0 };
    for id in 0..2000 {
        host.encoder.push_command(&identify.encode(id, Descriptor::transport(4096)), None);
    }
    let bytes = bytes_of(&mut host.encoder);
    let taken = feed(&mut host.connection, &mut world, &bytes);
    assert!(taken < bytes.len(), "it stops to receive");
    assert!(host.connection.queued_bytes() < 2 << 20);
    // As soon as the host reads, everything is answered.
    let mut rest = &bytes[taken..];
    while !rest.is_empty() {
        host.pump(&mut world);
        let taken = feed(&mut host.connection, &mut world, rest);
        rest = &rest[taken..];
    }
    host.pump(&mut world);
    assert_eq!(std::iter::from_fn(|| host.completion()).count(), 2000);
}

/// One stranger: a valid exchange with a few bytes changed, cut anywhere, on devices that answer
/// late, out of order or with errors, by a host that reads now and then.
fn meet_stranger(world: &mut World, seed: u64, exchange: &[u8]) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut bytes = exchange.to_vec();
    for _ in 0..random.next(4) {
        let place = random.next(bytes.len());
        bytes[place] = random.next(256) as u8;
    }
    let mut connection = Connection::new(world.target.settings(), &world.pool, LOCAL, world.now);
    let mut at_device: Vec<Submission> = Vec::new();
    let mut rest = &bytes[..];
    for _ in 0..400 {
        match random.next(5) {
            0 | 1 => {
                let length = [1, 8, 100, 5000][random.next(4)].min(rest.len());
                let taken = feed(&mut connection, world, &rest[..length]);
                rest = &rest[taken..];
            }
            2 => {
                at_device.extend(connection.next_submission());
                if random.next(4) == 0
                    && let Some(submission) = at_device.pop()
                {
                    connection.return_submission(submission);
                }
            }
            3 if !at_device.is_empty() => {
                let submission = at_device.swap_remove(random.next(at_device.len()));
                if random.next(8) == 0 {
                    world.failures.push_back(IoError::Media);
                }
                world.serve(&mut connection, submission);
            }
            _ => {
                let mut pieces = Vec::new();
                connection.transmit_from(&mut pieces, 1 + random.next(3));
                let most: usize = pieces.iter().map(Buffer::len).sum();
                connection.transmitted(random.next(most + 1));
            }
        }
        connection.poll(&mut world.target, world.now);
        assert!(connection.commands_in_flight() <= 32, "seed {seed}");
        assert!(connection.held_bytes() <= world.target.settings().bytes_in_flight_max);
    }
    connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    for submission in at_device {
        world.serve(&mut connection, submission);
    }
    world.failures.clear();
    world.asked.clear();
}

#[test]
fn strangers_of_every_kind_are_survived() {
    for digests in DIGESTS {
        let mut world = world();
        let (admin, _) = admin_exchange(&world, digests);
        for seed in 1..1000 {
            meet_stranger(&mut world, seed, &admin);
            assert_eq!(world.target.controllers_in_use(), 0, "seed {seed}");
        }
        let host = Host::admin(&mut world, SUBSYSTEM);
        let (io, _) = io_exchange(&world, digests, host.controller_id);
        for seed in 1..1000 {
            meet_stranger(&mut world, seed, &io);
        }
        let controller = world.target.controllers[0].as_ref().expect("the host is connected");
        assert!(!controller.io_queues.contains(&true), "every QID is free again");
        // The host's and its connection's own: a staging and a block for headers each.
        assert_eq!(world.pool.heap_blocks(), 4, "no payload memory is left");
    }
}
