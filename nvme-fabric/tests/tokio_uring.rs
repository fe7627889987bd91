//! The host on the `tokio-uring` runtime against the target on a reactor.

use std::sync::mpsc;

use block_io::device::memory::MemoryDevice;
use block_io::reactor::{Reactor, ReactorConfig, Task, Wait};
use block_io::sim::fill_pattern;
use block_io::{BlockDevice, BufferPool, Extent, Geometry, IoError, PoolLayout};
use nvme_fabric::driver::ConnectOptions;
use nvme_fabric::driver::target::{Service, TargetTask};
use nvme_fabric::driver::tokio_uring::NvmeTcpClient;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};

const SUBSYSTEM: &str = "nqn.2014-08.com.example:tokio";
const CAPACITY: u64 = 8 << 20;

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

/// Serves a memory device until told to stop; returns its content then.
fn serve(address: &mpsc::Sender<(u16, block_io::reactor::MailSender<()>)>) -> Vec<u8> {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    let reactor = Reactor::new(config).expect("a reactor");
    let geometry = Geometry { transfer_max: 128 << 10, ..Geometry::new(CAPACITY) };
    let device = MemoryDevice::with_geometry(geometry).expect("a device");
    let queue = device.open_queue(&reactor, 256).expect("opens");
    let mut target = Target::new(Settings::default()).expect("settings are right");
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "1").expect("a serial number");
    let namespace = Namespace::new(geometry, HostId([1; 16])).expect("a namespace");
    subsystem.add_namespace(namespace).expect("room");
    target.add_subsystem(subsystem).expect("the name is free");
    let mut task = TargetTask::new(&reactor, target, vec![vec![queue]]).expect("a task");
    let any = "127.0.0.1:0".parse().expect("an address");
    let port = task.listen(any, Service::Subsystems).expect("listens").port();
    let (stop, stopped) = reactor.mailbox(1).expect("a mailbox");
    address.send((port, stop)).expect("somebody waits");
    while !task.is_finished() {
        let progress = task.poll(reactor.now());
        if stopped.receive().is_some() {
            task.stop();
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
    device.content(Extent::new(0, CAPACITY))
}

#[test]
fn requests_side_by_side_and_an_end_that_everybody_is_told() {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || serve(&send));
    let (port, stop) = receive.recv().expect("it serves");
    let host_id = HostId([2; 16]);
    let mut options =
        ConnectOptions::new("127.0.0.1", nqn(SUBSYSTEM), Nqn::from_uuid(host_id), host_id);
    options.port = port;
    (options.header_digest, options.data_digest) = (true, true);
    options.queue_depth = 4;
    let content = tokio_uring::start(async move {
        let pool = BufferPool::heap();
        let client = NvmeTcpClient::connect(&pool, &options).await.expect("connects");
        assert_eq!(client.geometry().expect("it is up").capacity, CAPACITY);
        let lengths = [512, 4096, 8192, 65536, 1 << 20, 4096, 300 << 10, 512];
        let mut tasks = Vec::new();
        let mut offset = 0;
        for (number, length) in lengths.into_iter().enumerate() {
            let (client, pool) = (client.clone(), pool.clone());
            tasks.push(tokio_uring::spawn(async move {
                let buffer = pool.allocate(length);
                fill_pattern(&buffer, number as u64 + 1, offset);
                let bytes = buffer.to_vec();
                client.write(offset, buffer).await.expect("written");
                let read = client.read(offset, length).await.expect("read");
                assert!(read.to_vec() == bytes, "{length} bytes at {offset}");
            }));
            offset += length as u64;
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        client.flush().await.expect("flushed");
        client.write_zeroes(Extent::new(0, 512)).await.expect("zeroed");
        assert_eq!(client.read(CAPACITY, 512).await.err(), Some(IoError::OutOfRange));
        let second = NvmeTcpClient::connect(&pool, &options).await.expect("connects");
        client.shut_down().await;
        second.flush().await.expect("the other association lives");
        stop.send(()).expect("room");
        let content = thread.join().expect("the target has ended well");
        assert_eq!(second.read(0, 512).await.err(), Some(IoError::ConnectionLost));
        content
    });
    assert_eq!(content[..512], [0; 512]);
    assert!(content[512..1024].iter().any(|byte| *byte != 0));
}
