//! Secure channel concatenation: the two ends authenticate in clear, and come again with TLS by the
//! key that this has made. The kernel can since 6.15.

use std::path::Path;

use block_io::BlockDevice;
use forebay_vm::case::{
    HOST_AUTHENTICATION, HOST_TLS, KERNEL_HOST, KERNEL_TARGET, RAM_DISK, TARGET_AUTHENTICATION,
    TARGET_TLS,
};
use forebay_vm::scene::debian::Release;
use forebay_vm::scene::kernel_host::{Connection, HOST_NQN};
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::nvmet::KernelTarget;
use forebay_vm::scene::our_target::{self, OurTarget};
use forebay_vm::scene::secret::Secret;
use forebay_vm::scene::tls::HandshakeDaemon;
use forebay_vm::scene::{eventually, free_port, our_host};
use forebay_vm::{Case, Need};
use nvme_fabric::auth::Keys;
use nvme_fabric::driver::ConnectOptions;
use nvme_fabric::host::HostAuthentication;

use super::kernel_host::nvme_connects;
use super::{LIMIT, assert_encrypted};
use crate::kernel_host::{restarts_under_load, verify};
use crate::our_host::{DISK, SUBSYSTEM, USED, verify_restarts, zero_disk};

/// Linux 6.15 was the first with `concat`.
const SINCE: Need = Need::KernelSince(6, 15);

const KERNEL_HOST_NEEDS: &[Need] = &[
    SINCE,
    KERNEL_HOST,
    HOST_AUTHENTICATION,
    Need::Forebay,
    HOST_TLS[0],
    HOST_TLS[1],
    HOST_TLS[2],
    HOST_TLS[3],
    HOST_TLS[4],
    HOST_TLS[5],
];
const OUR_HOST_NEEDS: &[Need] = &[
    SINCE,
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
    Case::new("tls::kernel_host_concatenates_with_our_target", kernel_host)
        .needs(KERNEL_HOST_NEEDS)
        .limit(LIMIT),
    Case::new("tls::kernel_host_concatenates_again_after_a_kill", kernel_host_again)
        .needs(KERNEL_HOST_NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_host_concatenates_with_the_kernels_target", ours)
        .needs(OUR_HOST_NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_host_concatenates_again_after_a_restart", ours_again)
        .needs(OUR_HOST_NEEDS)
        .limit(LIMIT),
];

/// The secrets of both ends.
struct Secrets {
    host: Secret,
    controller: Secret,
}

impl Secrets {
    fn new() -> Self {
        let (host, controller) = ("host", "controller");
        Self { host: Secret::new(host, "sha256"), controller: Secret::new(controller, "sha384") }
    }

    /// Our target's arguments.
    fn target(&self) -> [String; 4] {
        [
            format!("--host-secret={HOST_NQN}={}", self.host.path().display()),
            format!("--controller-secret={HOST_NQN}={}", self.controller.path().display()),
            "--require-authentication".to_owned(),
            "--secure-channel=required".to_owned(),
        ]
    }

    /// The kernel's host's options.
    fn host(&self) -> [String; 2] {
        [
            format!("dhchap_secret={}", self.host.text()),
            format!("dhchap_ctrl_secret={}", self.controller.text()),
        ]
    }
}

fn start(namespace: &str, secrets: &Secrets) -> OurTarget {
    let arguments = secrets.target();
    OurTarget::start_with(&[namespace], &arguments.each_ref().map(String::as_str))
}

fn kernel_host() {
    let daemon = HandshakeDaemon::start();
    let secrets = Secrets::new();
    let target = start("memory:16MiB", &secrets);
    let [host, controller] = secrets.host();
    let opened = Connection::try_open(our_target::SUBSYSTEM, target.port(), &[&host, &controller]);
    assert!(opened.is_err(), "a host without a secure channel got in");
    let options = ["concat", &*host, &*controller, "reconnect_delay=1"];
    let connection = Connection::open(our_target::SUBSYSTEM, target.port(), &options);
    assert_encrypted(&connection);
    verify(&connection.namespace(1), 300, 200);
    let key = connection.attribute("tls_key");
    connection.set_attribute("reset_controller", "1");
    eventually("an association has a key of its own", || {
        let new = connection.attribute("tls_key")?;
        (connection.attribute("state")? == "live" && Some(new) != key).then_some(())
    });
    assert_encrypted(&connection);
    connection.close();
    // What docs/nvme-security.md says of Linux: with `concat` it asks the target to prove nothing.
    let wrong = format!("dhchap_ctrl_secret={}", Secret::new("wrong", "sha256").text());
    let [host, _] = secrets.host();
    let options = ["concat", &*host, &*wrong];
    let opened = Connection::try_open(our_target::SUBSYSTEM, target.port(), &options);
    opened.expect("this kernel asks the target for a proof: say so in the documents").close();
    // As people do it.
    let (host, controller) = (secrets.host.text(), secrets.controller.text());
    let words = [
        "--concat".to_owned(),
        format!("--dhchap-secret={host}"),
        format!("--dhchap-ctrl-secret={controller}"),
    ];
    nvme_connects(Release::Forky, &target, &words.each_ref().map(String::as_str));
    let connection = Connection::made(our_target::SUBSYSTEM);
    assert_encrypted(&connection);
    connection.close();
    assert!(target.stop().success());
    drop(daemon);
}

fn kernel_host_again() {
    let daemon = HandshakeDaemon::start();
    let secrets = Secrets::new();
    let path = our_target::file("disk", 16 << 20);
    let mut target = start(&format!("file:{}", path.display()), &secrets);
    let [host, controller] = secrets.host();
    let options = [
        "concat",
        &*host,
        &controller,
        "reconnect_delay=1",
        "ctrl_loss_tmo=100",
        "keep_alive_tmo=2",
    ];
    let connection = Connection::open(our_target::SUBSYSTEM, target.port(), &options);
    restarts_under_load(&mut target, &connection, 2);
    assert_encrypted(&connection);
    connection.close();
    assert!(target.stop().success());
    std::fs::remove_file(path).expect("it was there");
    drop(daemon);
}

/// The kernel's target over its RAM disk, which speaks TLS with who begins so.
fn kernel_target(secrets: &Secrets) -> KernelTarget {
    zero_disk();
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, Path::new(DISK));
    target.offer_tls();
    // The group NULL, which is where nobody says otherwise, makes no key.
    let keys = [("dhchap_key", secrets.host.text()), ("dhchap_dhgroup", "ffdhe2048")];
    target.allow_host(our_host::HOST_NQN, &keys);
    target.listen();
    target
}

/// The host's secret alone: Linux 7.2 forgets the challenges before the host's last word, so it
/// makes no key of an authentication both ways. drivers/nvme/target/fabrics-cmd-auth.c
fn options(target: &KernelTarget, secrets: &Secrets) -> ConnectOptions {
    let keys = Keys::new(secrets.host.ours());
    let mut options = our_host::options(SUBSYSTEM, target.port());
    options.authentication = Some(HostAuthentication::new(keys.with_concatenation()));
    options
}

fn ours() {
    let daemon = HandshakeDaemon::start();
    let secrets = Secrets::new();
    let target = kernel_target(&secrets);
    let reactor = load::reactor();
    for (hash, group) in [("hmac(sha256)", "ffdhe2048"), ("hmac(sha384)", "ffdhe3072")] {
        target.set_host(our_host::HOST_NQN, "dhchap_hash", hash);
        target.set_host(our_host::HOST_NQN, "dhchap_dhgroup", group);
        let device = our_host::connect(&reactor, &options(&target, &secrets)).expect("connects");
        let mut queue = device.open_queue(&reactor, 32).expect("a queue");
        let mut load = Load::new(310, USED);
        zero_disk();
        assert_eq!(load.run(&reactor, &mut queue, 200), 0);
        assert_eq!(load.read_back(&reactor, &mut queue), 0);
        drop(queue);
        device.shut_down(&reactor).expect("shuts down");
    }
    // What docs/nvme-security.md says of Linux: it makes no key where it is to prove itself.
    target.set_host(our_host::HOST_NQN, "dhchap_ctrl_key", secrets.controller.text());
    let mut both = options(&target, &secrets);
    let keys = Keys::new(secrets.host.ours()).with_controller(secrets.controller.ours());
    both.authentication = Some(HostAuthentication::new(keys.with_concatenation()));
    let error = our_host::connect(&reactor, &both).map(drop);
    let error = error.expect_err("this kernel proves itself: say so in the documents").to_string();
    assert!(error.contains("not know the identity offered, \"NVMe1G"), "{error}");
    drop(target);
    drop(daemon);
}

fn ours_again() {
    let daemon = HandshakeDaemon::start();
    let secrets = Secrets::new();
    let mut target = kernel_target(&secrets);
    let mut options = options(&target, &secrets);
    options.keep_alive = std::time::Duration::from_secs(1);
    options.reconnect_delay_max = std::time::Duration::from_secs(1);
    verify_restarts(&options, 320, || {
        target.stop();
        target.listen();
    });
    drop(target);
    drop(daemon);
}
