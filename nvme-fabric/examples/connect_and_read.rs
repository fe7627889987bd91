//! Connects to a remote namespace, reads its first block and leaves.
//!
//! `cargo run --example connect_and_read -- HOST PORT SUBSYSTEM-NQN`
#![allow(clippy::print_stdout, reason = "it is what an example shows")]

use std::error::Error;

use block_io::reactor::{Reactor, ReactorConfig};
use block_io::{BlockDevice, Request, RequestId};
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, subsystem] = &arguments[..] else {
        return Err("arguments: HOST PORT SUBSYSTEM-NQN".into());
    };
    // Always the same for a machine, and another one on every machine.
    let host_id = HostId(*b"connect-and-read");
    let host_nqn = Nqn::from_uuid(host_id);
    let mut options = ConnectOptions::new(host, Nqn::new(subsystem)?, host_nqn, host_id);
    options.port = port.parse()?;

    let reactor = Reactor::new(ReactorConfig::default())?;
    let device = NvmeTcpDevice::connect(&reactor, &options)?;
    println!("{:?}", device.geometry());

    let mut queue = device.open_queue(&reactor, 1)?;
    let read = Request::read(RequestId(0), 0, reactor.pool().allocate(4096));
    let completion = reactor.run_request(&mut queue, read)?;
    completion.result?;
    let bytes = completion.buffer.ok_or("a read gives its buffer back")?.to_vec();
    println!("{:02x?}", &bytes[..16]);

    device.shut_down(&reactor)?;
    Ok(())
}
