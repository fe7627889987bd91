//! Discovery of a target's subsystems.

use std::net::{IpAddr, Ipv4Addr};

use nvme_fabric::host::discovery::Discovery;
use nvme_fabric::spec::log_page::SubsystemKind;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{Listener, SecureChannel, Subsystem};

use crate::harness::{Pair, SUBSYSTEM, Setup, nqn};

fn discover(seed: u64) -> Pair<Discovery> {
    let mut setup = Setup::new(seed);
    setup.options.subsystem = Nqn::discovery();
    setup.pair(|pool, options, now| Discovery::once(pool, options, now).expect("options are right"))
}

#[test]
fn every_subsystem_is_told_with_its_address() {
    for seed in 0..8 {
        let mut pair = discover(seed);
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        pair.target.add_listener(Listener { address, port: 4420, channel: SecureChannel::None });
        pair.target.add_discovery_listener(Listener {
            address,
            port: 8009,
            channel: SecureChannel::None,
        });
        for number in 0..9 {
            let name = nqn(&format!("nqn.2014-08.com.example:other-{number}"));
            let subsystem = Subsystem::new(name, "1").expect("a serial number");
            pair.target.add_subsystem(subsystem).expect("the name is free");
        }
        pair.run_until(|pair| pair.host.is_over());
        let served = pair.served();
        let entries = pair.host.into_log().expect("the log was read").entries;
        assert_eq!(entries.len(), 11, "seed {seed}");
        assert_eq!(entries[0].kind, SubsystemKind::CurrentDiscovery);
        assert_eq!(entries[1].subsystem, SUBSYSTEM);
        assert_eq!((&*entries[1].address, &*entries[1].service), ("127.0.0.1", "4420"));
        assert_eq!(entries[10].subsystem, "nqn.2014-08.com.example:other-8");
        assert!(served <= 1, "it is leaving");
    }
}

#[test]
fn a_log_that_changes_while_it_is_read_is_read_again() {
    let mut pair = discover(0);
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    pair.target.add_listener(Listener { address, port: 4420, channel: SecureChannel::None });
    let mut added = 0;
    pair.run_until(|pair| {
        // While the log is being read, as the admin queue has a connection that is up.
        if pair.host.controller().is_up() && added < 3 {
            added += 1;
            let name = nqn(&format!("nqn.2014-08.com.example:late-{added}"));
            let subsystem = Subsystem::new(name, "1").expect("a serial number");
            pair.target.add_subsystem(subsystem).expect("the name is free");
        }
        pair.host.is_over()
    });
    assert_eq!(pair.host.into_log().expect("the log was read").entries.len(), 4);
}

#[test]
fn an_io_controller_is_no_discovery_service_and_nobody_there_is_an_error() {
    let mut pair = discover(0);
    pair.network.refuse(crate::harness::TARGET, true);
    pair.run_until(|pair| pair.host.is_over());
    let error = pair.host.into_log().expect_err("nobody listens").to_string();
    assert!(error.contains("target:4420"), "{error}");
}
