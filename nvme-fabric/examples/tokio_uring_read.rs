//! Reads the first bytes of a remote namespace with the host on the `tokio-uring` runtime.
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
    let host_id = HostId(*b"tokio-uring-read");
    let mut options =
        ConnectOptions::new(host.clone(), Nqn::new(subsystem)?, Nqn::from_uuid(host_id), host_id);
    options.port = port.parse()?;
    tokio_uring::start(async {
        let client = NvmeTcpClient::connect(&BufferPool::heap(), &options).await?;
        let identity = client.identity();
        let geometry = client.geometry().ok_or("no geometry")?;
        println!(
            "{} ({}): {} bytes in blocks of {}",
            identity.controller.model_number,
            identity.controller.serial_number,
            geometry.capacity,
            geometry.block_size
        );
        let bytes = client.read(0, 4096).await?.to_vec();
        for (line, chunk) in bytes.chunks(16).enumerate().take(16) {
            let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{:08x}  {}", line * 16, digits.join(" "));
        }
        client.shut_down().await;
        Ok(())
    })
}
