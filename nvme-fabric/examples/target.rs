//! Serves a file or a block device as a namespace until it is killed, and prints the address.
//!
//! `cargo run --example target -- PATH SUBSYSTEM-NQN ADDRESS:PORT`
#![allow(clippy::print_stdout, reason = "it is what an example shows")]

use std::error::Error;

use block_io::device::file::{FileDevice, OpenOptions};
use block_io::reactor::{Reactor, ReactorConfig};
use block_io::{BlockDevice, BlockQueue};
use nvme_fabric::driver::TargetTask;
use nvme_fabric::driver::target::Service;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, address] = &arguments[..] else {
        return Err("arguments: PATH SUBSYSTEM-NQN ADDRESS:PORT".into());
    };
    let reactor = Reactor::new(ReactorConfig::default())?;
    let queue = FileDevice::open(path, OpenOptions::default())?.open_queue(&reactor, 128)?;

    // By the UUID hosts know the namespace again: another one for each device.
    let uuid = "9b2f0c54-7d0b-4c1e-9c46-3d1f0a7be001".parse()?;
    let mut subsystem = Subsystem::new(Nqn::new(name)?, "serial-1")?;
    subsystem.add_namespace(Namespace::new(queue.geometry(), uuid)?)?;

    let target = Target::new(Settings::default())?;
    let mut task = TargetTask::new(&reactor, target, Vec::new())?;
    task.add_subsystem(subsystem, vec![queue])?;
    println!("{}", task.listen(address.parse()?, Service::Subsystems)?);
    reactor.run(&mut task)?;
    Ok(())
}
