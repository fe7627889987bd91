//! Our host with TLS, and the kernel's target.

use std::path::Path;
use std::time::Duration;

use block_io::BlockDevice;
use block_io::reactor::Reactor;
use forebay_vm::case::{KERNEL_TARGET, RAM_DISK, TARGET_AUTHENTICATION, TARGET_TLS};
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::nvmet::KernelTarget;
use forebay_vm::scene::our_host::HOST_NQN;
use forebay_vm::scene::secret::Secret;
use forebay_vm::scene::tls::{HandshakeDaemon, Hash, TlsKey, forget_keys};
use forebay_vm::scene::{free_port, kernel_version, our_host};
use forebay_vm::{Case, Need};
use nvme_fabric::auth::Keys;
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::host::HostAuthentication;
use nvme_fabric::tls::{HostTls, Identities, IdentityVersion};

use super::{LIMIT, kinds, with_key};
use crate::our_host::{DISK, SUBSYSTEM, USED, verify_restarts, zero_disk};

const NEEDS: &[Need] = &[
    KERNEL_TARGET,
    RAM_DISK,
    TARGET_TLS[0],
    TARGET_TLS[1],
    TARGET_TLS[2],
    TARGET_TLS[3],
    TARGET_TLS[4],
    TARGET_TLS[5],
];
const AUTHENTICATION_NEEDS: &[Need] = &[
    KERNEL_TARGET,
    RAM_DISK,
    TARGET_AUTHENTICATION,
    Need::Forebay,
    TARGET_TLS[0],
    TARGET_TLS[1],
    TARGET_TLS[2],
    TARGET_TLS[3],
    TARGET_TLS[4],
    TARGET_TLS[5],
];

pub(crate) const CASES: &[Case] = &[
    Case::new("tls::our_host_reads_what_it_wrote", reads_what_it_wrote).needs(NEEDS).limit(LIMIT),
    Case::new("tls::our_host_offers_both_identities", offers_both).needs(NEEDS).limit(LIMIT),
    Case::new("tls::our_host_waits_for_the_kernels_target_that_restarts", restarted)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::the_kernels_target_refuses_our_host_with_another_key", refuses_other_keys)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::the_kernels_target_refuses_our_host_without_tls", refuses_plain)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::the_kernels_target_without_tls_is_refused_by_our_host", plain_target)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_host_and_the_kernels_target_prove_themselves_too", authenticated)
        .needs(AUTHENTICATION_NEEDS)
        .limit(LIMIT),
];

/// The kernel's target over its RAM disk, which speaks TLS only.
fn target() -> KernelTarget {
    zero_disk();
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, Path::new(DISK));
    target.require_tls();
    target.listen();
    target
}

fn options(target: &KernelTarget, key: &TlsKey, identities: Identities) -> ConnectOptions {
    let mut options = our_host::options(SUBSYSTEM, target.port());
    options.tls = Some(HostTls { psk: key.ours(), identities });
    options
}

fn verify(reactor: &Reactor, device: &NvmeTcpDevice, seed: u64) {
    let mut queue = device.open_queue(reactor, 32).expect("a queue");
    let mut load = Load::new(seed, USED);
    assert_eq!(load.run(reactor, &mut queue, 200), 0);
    assert_eq!(load.read_back(reactor, &mut queue), 0);
}

const fn only(version: u8) -> Identities {
    Identities::Only(if version == 0 { IdentityVersion::Zero } else { IdentityVersion::One })
}

fn reads_what_it_wrote() {
    let daemon = HandshakeDaemon::start();
    let reactor = load::reactor();
    for (seed, (hash, version)) in kinds().enumerate() {
        let key = TlsKey::new("host", hash, HOST_NQN);
        key.insert(HOST_NQN, SUBSYSTEM, version);
        let target = target();
        let options = options(&target, &key, only(version));
        let device = our_host::connect(&reactor, &options).expect("connects");
        verify(&reactor, &device, 200 + seed as u64);
        device.shut_down(&reactor).expect("shuts down");
        drop(target);
        forget_keys();
    }
    drop(daemon);
}

/// The target has the key by one identity only, and is offered both.
fn offers_both() {
    let daemon = HandshakeDaemon::start();
    let reactor = load::reactor();
    let key = TlsKey::new("host", Hash::Sha256, HOST_NQN);
    let target = target();
    for version in [1, 0] {
        key.insert(HOST_NQN, SUBSYSTEM, version);
        let options = options(&target, &key, Identities::Both);
        let device = our_host::connect(&reactor, &options);
        let device = device.unwrap_or_else(|error| panic!("version {version}: {error}"));
        device.shut_down(&reactor).expect("shuts down");
        forget_keys();
    }
    drop(target);
    drop(daemon);
}

fn restarted() {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    let mut target = target();
    let mut options = options(&target, &key, Identities::Both);
    options.keep_alive = Duration::from_secs(1);
    options.reconnect_delay_max = Duration::from_secs(1);
    verify_restarts(&options, 210, || {
        target.stop();
        target.listen();
    });
    drop(target);
    drop(daemon);
}

fn refusal(options: &ConnectOptions) -> String {
    let outcome = our_host::connect(&load::reactor(), options);
    outcome.map(drop).expect_err("it must not connect").to_string()
}

fn refuses_other_keys() {
    let daemon = HandshakeDaemon::start();
    let (key, other) =
        (TlsKey::new("host", Hash::Sha256, HOST_NQN), TlsKey::new("other", Hash::Sha256, HOST_NQN));
    let target = target();
    for version in [1, 0] {
        other.insert(HOST_NQN, SUBSYSTEM, version);
        let error = refusal(&options(&target, &key, only(version)));
        assert!(error.contains("TLS: ") && error.contains("identity"), "{version}: {error}");
        forget_keys();
    }
    key.insert(HOST_NQN, SUBSYSTEM, 1);
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, &options(&target, &key, Identities::Both));
    device.expect("it has the key").shut_down(&reactor).expect("shuts down");
    drop(target);
    drop(daemon);
}

fn refuses_plain() {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    let target = target();
    let mut options = options(&target, &key, Identities::Both);
    let tls = options.tls.take();
    let error = refusal(&options);
    assert!(!error.is_empty());
    options.tls = tls;
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, &options).expect("with TLS it connects");
    device.shut_down(&reactor).expect("shuts down");
    drop(target);
    drop(daemon);
}

fn plain_target() {
    let daemon = HandshakeDaemon::start();
    let key = TlsKey::new("host", Hash::Sha256, HOST_NQN);
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, Path::new(DISK));
    target.listen();
    let error = refusal(&options(&target, &key, Identities::Both));
    assert!(error.contains("TLS: "), "{error}");
    drop(target);
    drop(daemon);
}

/// DH-HMAC-CHAP inside of TLS. Since it can concatenate the kernel takes TLS for proof enough, and
/// asks no host that comes with it. Linux drivers/nvme/target/auth.c, `nvmet_setup_auth`
fn authenticated() {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    let (host, controller) = (Secret::new("host", "sha256"), Secret::new("controller", "sha256"));
    let mut target = target();
    let secrets = [("dhchap_key", host.text()), ("dhchap_ctrl_key", controller.text())];
    target.allow_host(HOST_NQN, &secrets);
    let mut options = options(&target, &key, Identities::Both);
    let keys = Keys::new(host.ours()).with_controller(controller.ours());
    if kernel_version() < (6, 15) {
        let error = refusal(&options);
        assert!(error.contains("requires it, and this host has no secret"), "{error}");
        options.authentication = Some(HostAuthentication::new(keys));
    } else {
        // A target that does not ask proves nothing, which is what the second secret is for.
        options.authentication = Some(HostAuthentication::new(keys));
        let error = refusal(&options);
        assert!(error.contains("the controller does not ask for authentication"), "{error}");
        options.authentication = Some(HostAuthentication::new(Keys::new(host.ours())));
    }
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, &options).expect("connects");
    verify(&reactor, &device, 220);
    device.shut_down(&reactor).expect("shuts down");
    drop(target);
    drop(daemon);
}
