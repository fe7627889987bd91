//! Reads the first block of a remote namespace with the host on the `tokio-uring` runtime.
//!
//! `cargo run --example tokio_uring_read --features tokio-uring -- HOST PORT SUBSYSTEM-NQN`
#![allow(clippy::print_stdout, reason = "it is what an example shows")]

use std::error::Error;

use block_io::BufferPool;
use nvme_fabric::driver::ConnectOptions;
use nvme_fabric::driver::tokio_uring::NvmeTcpClient;
use nvme_fabric::spec::nqn::{HostId, Nqn};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, subsystem] = &arguments[..] else {
        return Err("arguments: HOST PORT SUBSYSTEM-NQN".into());
    };
    // Always the same for a machine, and another one on every machine.
    let host_id = HostId(*b"tokio-uring-read");
    let host_nqn = Nqn::from_uuid(host_id);
    let mut options = ConnectOptions::new(host, Nqn::new(subsystem)?, host_nqn, host_id);
    options.port = port.parse()?;

    tokio_uring::start(async {
        let client = NvmeTcpClient::connect(&BufferPool::heap(), &options).await?;
        println!("{:?}", client.geometry().ok_or("it is up")?);

        let bytes = client.read(0, 4096).await?.to_vec();
        println!("{:02x?}", &bytes[..16]);

        client.shut_down().await;
        Ok(())
    })
}
