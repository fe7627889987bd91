//! A target on a reactor that is changed while the crate's own host uses it over loopback sockets.

mod served;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use block_io::reactor::Reactor;
use block_io::{BlockDevice, BlockQueue, IoError, Request, RequestId};
use nvme_fabric::driver::target::Service;
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::target::{Hosts, Settings};

use served::{Served, any_port, memory, reactor, run};

fn serve(settings: Settings) -> (Served, SocketAddr) {
    Served::start(move |reactor| {
        let mut task = served::target(reactor, settings, |_| ());
        let address = task.listen(any_port(), Service::Subsystems).expect("a free port");
        (task, address)
    })
}

fn options(address: SocketAddr, namespace_id: u32) -> ConnectOptions {
    // What cannot be done now fails at once.
    let fast_io_fail = Some(Duration::ZERO);
    ConnectOptions { namespace_id, fast_io_fail, ..served::options(address.port()) }
}

fn connect(reactor: &Reactor, address: SocketAddr, namespace_id: u32) -> NvmeTcpDevice {
    NvmeTcpDevice::connect(reactor, &options(address, namespace_id)).expect("connects")
}

fn read(reactor: &Reactor, queue: &mut impl BlockQueue) -> Result<Vec<u8>, IoError> {
    let request = Request::read(RequestId(1), 0, reactor.pool().allocate(512));
    let done = run(reactor, queue, request);
    done.result.map(|()| done.buffer.expect("a read's buffer").to_vec())
}

fn write(reactor: &Reactor, queue: &mut impl BlockQueue, byte: u8) {
    let buffer = reactor.pool().allocate(512);
    buffer.copy_from_slice(&[byte; 512]);
    assert_eq!(run(reactor, queue, Request::write(RequestId(2), 0, buffer)).result, Ok(()));
}

#[test]
fn a_namespace_comes_with_its_device_and_goes_without_its_neighbour() {
    let (served, address) = serve(Settings::default());
    let reactor = reactor();
    let first = connect(&reactor, address, 1);
    let mut first = first.open_queue(&reactor, 8).expect("a queue");
    write(&reactor, &mut first, 1);
    let key = served.change(|reactor, task| {
        let (namespace, queue) = memory(reactor, 2);
        task.add_namespace(0, None, namespace, queue).expect("room")
    });
    assert_eq!(key.namespace, 1, "NSID 2");
    let second = connect(&reactor, address, 2);
    let mut second = second.open_queue(&reactor, 8).expect("a queue");
    write(&reactor, &mut second, 2);
    assert_eq!(read(&reactor, &mut second), Ok(vec![2; 512]));
    assert_eq!(read(&reactor, &mut first), Ok(vec![1; 512]), "devices are not mixed up");
    served.change(move |_, task| {
        assert!(task.is_in_use(key));
        task.remove_namespace(key).expect("it is there");
    });
    assert!(read(&reactor, &mut second).is_err(), "its namespace is gone");
    assert_eq!(read(&reactor, &mut first), Ok(vec![1; 512]));
    assert!(!served.change(move |_, task| task.is_in_use(key)), "nothing touches its device");
    served.change(|_, task| task.remove_subsystem(0).map(|_| ()).expect("it is there"));
    assert!(read(&reactor, &mut first).is_err(), "its subsystem is gone");
    served.end();
}

#[test]
fn an_address_that_is_listened_at_no_more_refuses_and_its_connections_go_on() {
    let (served, address) = serve(Settings::default());
    let reactor = reactor();
    let another =
        served.change(|_, task| task.listen(any_port(), Service::Subsystems).expect("a free port"));
    let device = NvmeTcpDevice::connect(&reactor, &options(another, 1)).expect("connects");
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    served.change(move |_, task| task.stop_listening(another).expect("it is there"));
    let error =
        served.change(move |_, task| task.stop_listening(another).map_err(|e| e.to_string()));
    assert!(error.expect_err("twice").contains(&another.to_string()));
    // The socket is closed when the accept that was out has ended, in a turn of the target's.
    while TcpStream::connect(another).is_ok() {
        served.change(|_, _| ());
    }
    assert!(read(&reactor, &mut queue).is_ok());
    connect(&reactor, address, 1);
    served.end();
}

#[test]
fn a_host_that_is_forbidden_is_cut_off_and_cannot_come_back() {
    let (served, address) = serve(Settings::default());
    let reactor = reactor();
    let device = connect(&reactor, address, 1);
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    assert!(read(&reactor, &mut queue).is_ok());
    served.change(|_, task| {
        task.target_mut().set_hosts(0, Hosts::Listed(Vec::new())).expect("a list");
    });
    assert!(read(&reactor, &mut queue).is_err());
    let error = NvmeTcpDevice::connect(&reactor, &options(address, 1)).map(|_| ());
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("Connect Invalid Host"), "{error}");
    served.end();
}

#[test]
fn connections_that_say_nothing_make_way_and_do_not_disturb() {
    let (served, address) = serve(Settings { unconnected_max: 4, ..Settings::default() });
    let reactor = reactor();
    let device = connect(&reactor, address, 1);
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(address).expect("connects"));
    }
    // All but the last are let go; reading of those ends.
    let kept = silent.split_off(60);
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    assert!(read(&reactor, &mut queue).is_ok());
    assert!(served.change(|_, task| task.connections()) <= 2 + 4);
    drop(kept);
    served.end();
}
