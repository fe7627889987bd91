//! DH-HMAC-CHAP between the kernel's host and our target, and our host and the kernel's target.

use std::path::Path;

use block_io::BlockDevice;
use forebay_vm::case::{HOST_AUTHENTICATION, KERNEL_HOST, KERNEL_TARGET, TARGET_AUTHENTICATION};
use forebay_vm::scene::kernel_host::{Connection, HOST_NQN};
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::nvmet::KernelTarget;
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM, file};
use forebay_vm::scene::secret::Secret;
use forebay_vm::scene::{free_port, our_host};
use forebay_vm::{Case, Need};
use nvme_fabric::auth::Keys;
use nvme_fabric::driver::ConnectOptions;
use nvme_fabric::host::HostAuthentication;

const KERNEL_HOST_NEEDS: &[Need] = &[KERNEL_HOST, HOST_AUTHENTICATION, Need::Forebay];
const OUR_HOST_NEEDS: &[Need] = &[KERNEL_TARGET, TARGET_AUTHENTICATION, Need::Forebay];

/// Bytes of a namespace.
const SIZE: u64 = 16 << 20;

pub(crate) const CASES: &[Case] = &[
    Case::new("authentication::kernel_host_proves_itself", kernel_host_one_way)
        .needs(KERNEL_HOST_NEEDS),
    Case::new("authentication::kernel_host_and_our_target_prove_themselves", kernel_host_both_ways)
        .needs(KERNEL_HOST_NEEDS),
    Case::new("authentication::our_target_refuses_a_kernel_host", kernel_host_refused)
        .needs(KERNEL_HOST_NEEDS),
    Case::new("authentication::kernel_host_refuses_our_target", our_target_refused)
        .needs(KERNEL_HOST_NEEDS),
    Case::new("authentication::our_host_proves_itself", our_host_one_way).needs(OUR_HOST_NEEDS),
    Case::new("authentication::our_host_and_the_kernels_target_prove_themselves", both_ways)
        .needs(OUR_HOST_NEEDS),
    Case::new("authentication::the_kernels_target_refuses_our_host", our_host_refused)
        .needs(OUR_HOST_NEEDS),
    Case::new("authentication::our_host_refuses_the_kernels_target", kernel_target_refused)
        .needs(OUR_HOST_NEEDS),
];

/// The secrets of a case: the host's, the controller's, and one that nobody else knows.
struct Secrets {
    host: Secret,
    controller: Secret,
    wrong: Secret,
}

fn secrets() -> Secrets {
    let host = Secret::new("host", "sha256");
    let controller = Secret::new("controller", "sha512");
    Secrets { host, controller, wrong: Secret::new("wrong", "sha256") }
}

fn our_target(secrets: &Secrets) -> OurTarget {
    let (host, controller) = (secrets.host.path().display(), secrets.controller.path().display());
    OurTarget::start_with(
        &["memory:16MiB"],
        &[
            &format!("--host-secret={HOST_NQN}={host}"),
            &format!("--controller-secret={HOST_NQN}={controller}"),
            "--require-authentication",
        ],
    )
}

/// What the kernel's host is told of secrets.
fn options(host: Option<&Secret>, controller: Option<&Secret>) -> Vec<String> {
    let host = host.map(|secret| format!("dhchap_secret={}", secret.text()));
    let controller = controller.map(|secret| format!("dhchap_ctrl_secret={}", secret.text()));
    host.into_iter().chain(controller).collect()
}

fn try_open(target: &OurTarget, options: &[String]) -> std::io::Result<Connection> {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    Connection::try_open(SUBSYSTEM, target.port(), &options)
}

fn verify_kernel_host(target: &OurTarget, options: &[String], seed: u64) {
    let connection = try_open(target, options).expect("it is let in");
    let namespace = connection.namespace(1);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(seed, namespace.capacity());
    assert_eq!(load.run(&reactor, &mut queue, 100), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connection.close();
}

fn kernel_host_one_way() {
    let secrets = secrets();
    let target = our_target(&secrets);
    verify_kernel_host(&target, &options(Some(&secrets.host), None), 1);
    assert!(target.stop().success());
}

fn kernel_host_both_ways() {
    let secrets = secrets();
    let target = our_target(&secrets);
    verify_kernel_host(&target, &options(Some(&secrets.host), Some(&secrets.controller)), 2);
    assert!(target.stop().success());
}

fn kernel_host_refused() {
    let secrets = secrets();
    let target = our_target(&secrets);
    for options in [options(Some(&secrets.wrong), None), options(None, None)] {
        assert!(try_open(&target, &options).is_err(), "a host without the secret got in");
    }
    // It serves those that have it.
    try_open(&target, &options(Some(&secrets.host), None)).expect("it is let in").close();
    assert!(target.stop().success());
}

fn our_target_refused() {
    let secrets = secrets();
    let target = our_target(&secrets);
    let options = options(Some(&secrets.host), Some(&secrets.wrong));
    assert!(try_open(&target, &options).is_err(), "a target without the secret was believed");
    assert!(target.stop().success());
}

/// The kernel's target with one namespace over a file, for our host alone.
fn kernel_target(path: &Path, secrets: &Secrets) -> KernelTarget {
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, path);
    let keys =
        [("dhchap_key", secrets.host.text()), ("dhchap_ctrl_key", secrets.controller.text())];
    target.allow_host(our_host::HOST_NQN, &keys);
    target.listen();
    target
}

fn our_options(target: &KernelTarget, keys: Option<Keys>) -> ConnectOptions {
    let mut options = our_host::options(SUBSYSTEM, target.port());
    options.authentication = keys.map(HostAuthentication::new);
    options
}

/// A verified load of our host's with the kernel's target, under every hash and some groups.
fn verify_our_host(secrets: &Secrets, keys: &Keys, seed: u64) {
    let path = file("disk", SIZE);
    let target = kernel_target(&path, secrets);
    let reactor = load::reactor();
    for (hash, group) in
        [("hmac(sha256)", "null"), ("hmac(sha384)", "ffdhe2048"), ("hmac(sha512)", "ffdhe3072")]
    {
        target.set_host(our_host::HOST_NQN, "dhchap_hash", hash);
        target.set_host(our_host::HOST_NQN, "dhchap_dhgroup", group);
        let options = our_options(&target, Some(keys.clone()));
        let device = our_host::connect(&reactor, &options).expect("it is let in");
        device.shut_down(&reactor).expect("shuts down");
    }
    let options = our_options(&target, Some(keys.clone()));
    let device = our_host::connect(&reactor, &options).expect("it is let in");
    let mut queue = device.open_queue(&reactor, 32).expect("a queue");
    let mut load = Load::new(seed, SIZE);
    assert_eq!(load.run(&reactor, &mut queue, 100), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    device.shut_down(&reactor).expect("shuts down");
    drop(target);
    std::fs::remove_file(path).expect("it was there");
}

fn our_host_one_way() {
    let secrets = secrets();
    verify_our_host(&secrets, &Keys::new(secrets.host.ours()), 3);
}

fn both_ways() {
    let secrets = secrets();
    let keys = Keys::new(secrets.host.ours()).with_controller(secrets.controller.ours());
    verify_our_host(&secrets, &keys, 4);
}

/// Connects with keys that must not do; what our host says.
fn refusal(secrets: &Secrets, keys: Option<Keys>) -> String {
    let path = file("disk", SIZE);
    let target = kernel_target(&path, secrets);
    let reactor = load::reactor();
    let outcome = our_host::connect(&reactor, &our_options(&target, keys));
    let error = outcome.expect_err("it must not connect").to_string();
    drop(target);
    std::fs::remove_file(path).expect("it was there");
    error
}

fn our_host_refused() {
    let secrets = secrets();
    let error = refusal(&secrets, Some(Keys::new(secrets.wrong.ours())));
    // The kernel's target ends the association as it refuses, which may overtake the refusal.
    let is_told = error.contains("the two ends have different secrets");
    assert!(is_told || error.contains("authentication of queue 0"), "{error}");
    let error = refusal(&secrets, None);
    assert!(error.contains("requires it, and this host has no secret"), "{error}");
}

fn kernel_target_refused() {
    let secrets = secrets();
    let keys = Keys::new(secrets.host.ours()).with_controller(secrets.wrong.ours());
    let error = refusal(&secrets, Some(keys));
    assert!(error.contains("the controller's response is wrong"), "{error}");
}
