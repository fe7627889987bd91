//! The kernel's host with TLS, and `forebay target`.

use forebay_vm::case::{FIO, HOST_AUTHENTICATION, HOST_TLS, KERNEL_HOST};
use forebay_vm::scene::debian::Release;
use forebay_vm::scene::kernel_host::{Connection, HOST_ID, HOST_NQN};
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM};
use forebay_vm::scene::secret::Secret;
use forebay_vm::scene::tls::{HandshakeDaemon, Hash, TlsKey, forget_keys};
use forebay_vm::{Case, Need};

use super::{LIMIT, assert_encrypted, kinds, with_key};
use crate::kernel_host::{fio_verifies, restarts_under_load, verify};

const NEEDS: &[Need] = &[
    KERNEL_HOST,
    Need::Forebay,
    HOST_TLS[0],
    HOST_TLS[1],
    HOST_TLS[2],
    HOST_TLS[3],
    HOST_TLS[4],
    HOST_TLS[5],
];
const FIO_NEEDS: &[Need] = &[
    KERNEL_HOST,
    Need::Forebay,
    FIO,
    HOST_TLS[0],
    HOST_TLS[1],
    HOST_TLS[2],
    HOST_TLS[3],
    HOST_TLS[4],
    HOST_TLS[5],
];
const AUTHENTICATION_NEEDS: &[Need] = &[
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

pub(crate) const CASES: &[Case] = &[
    Case::new("tls::kernel_host_reads_what_it_wrote", reads_what_it_wrote)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::kernel_hosts_fio_verifies_with_digests", fio).needs(FIO_NEEDS).limit(LIMIT),
    Case::new("tls::kernel_host_reconnects_to_our_target_that_was_killed", reconnects)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_target_refuses_a_kernel_host_with_another_key", refuses_other_keys)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_target_refuses_a_kernel_host_without_tls", refuses_plain)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::our_target_without_tls_is_refused_by_a_kernel_host", plain_target)
        .needs(NEEDS)
        .limit(LIMIT),
    Case::new("tls::nvme_cli_connects_to_our_target", nvme_cli).needs(NEEDS).limit(LIMIT),
    Case::new("tls::kernel_host_and_our_target_prove_themselves_too", authenticated)
        .needs(AUTHENTICATION_NEEDS)
        .limit(LIMIT),
];

/// Our target with one namespace of so many MiB, for the kernel's host with this key alone.
fn target(mebibytes: u64, key: &TlsKey, more: &[&str]) -> OurTarget {
    let keys = format!("--tls-keys={}", key.path().display());
    let arguments = [&[&*keys, "--tls=required"], more].concat();
    OurTarget::start_with(&[&format!("memory:{mebibytes}MiB")], &arguments)
}

/// What [`target`] and a kernel's host that may connect to it need.
fn encrypted(mebibytes: u64) -> (HandshakeDaemon, OurTarget) {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    (daemon, target(mebibytes, &key, &[]))
}

fn reads_what_it_wrote() {
    let daemon = HandshakeDaemon::start();
    for (seed, (hash, version)) in kinds().enumerate() {
        let key = TlsKey::new("host", hash, HOST_NQN);
        key.insert(HOST_NQN, SUBSYSTEM, version);
        let target = target(16, &key, &[]);
        let connection = Connection::open(SUBSYSTEM, target.port(), &["tls"]);
        assert_encrypted(&connection);
        verify(&connection.namespace(1), 100 + seed as u64, 200);
        connection.close();
        assert!(target.stop().success());
        forget_keys();
    }
    drop(daemon);
}

fn fio() {
    let (daemon, target) = encrypted(32);
    let options = ["tls", "hdr_digest", "data_digest"];
    let connection = Connection::open(SUBSYSTEM, target.port(), &options);
    fio_verifies(&connection.namespace(1));
    connection.close();
    assert!(target.stop().success());
    drop(daemon);
}

fn reconnects() {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    let path = forebay_vm::scene::our_target::file("disk", 16 << 20);
    let keys = format!("--tls-keys={}", key.path().display());
    let namespace = format!("file:{}", path.display());
    let mut target = OurTarget::start_with(&[&namespace], &[&keys, "--tls=required"]);
    let options = ["tls", "reconnect_delay=1", "ctrl_loss_tmo=100", "keep_alive_tmo=2"];
    let connection = Connection::open(SUBSYSTEM, target.port(), &options);
    restarts_under_load(&mut target, &connection, 2);
    assert_encrypted(&connection);
    connection.close();
    assert!(target.stop().success());
    std::fs::remove_file(path).expect("it was there");
    drop(daemon);
}

/// Another key is, by version 1, an unknown identity, and by version 0 a wrong key.
fn refuses_other_keys() {
    let daemon = HandshakeDaemon::start();
    let (key, other) =
        (TlsKey::new("host", Hash::Sha256, HOST_NQN), TlsKey::new("other", Hash::Sha256, HOST_NQN));
    let target = target(16, &key, &[]);
    for version in [1, 0] {
        other.insert(HOST_NQN, SUBSYSTEM, version);
        let opened = Connection::try_open(SUBSYSTEM, target.port(), &["tls"]);
        assert!(opened.is_err(), "a host with another key got in, by version {version}");
        forget_keys();
    }
    // It serves the host that has it.
    key.insert(HOST_NQN, SUBSYSTEM, 1);
    Connection::open(SUBSYSTEM, target.port(), &["tls"]).close();
    assert!(target.stop().success());
    drop(daemon);
}

fn refuses_plain() {
    let (daemon, target) = encrypted(16);
    let opened = Connection::try_open(SUBSYSTEM, target.port(), &[]);
    assert!(opened.is_err(), "a host without TLS got in");
    Connection::open(SUBSYSTEM, target.port(), &["tls"]).close();
    assert!(target.stop().success());
    drop(daemon);
}

fn plain_target() {
    let (daemon, _key) = with_key(HOST_NQN, SUBSYSTEM);
    let target = OurTarget::start(&["memory:16MiB"]);
    let opened = Connection::try_open(SUBSYSTEM, target.port(), &["tls"]);
    assert!(opened.is_err(), "a target without TLS was believed");
    Connection::open(SUBSYSTEM, target.port(), &[]).close();
    assert!(target.stop().success());
    drop(daemon);
}

/// As people do it; the nvme-cli of stable derives other keys than the newer one.
fn nvme_cli() {
    let daemon = HandshakeDaemon::start();
    let key = TlsKey::new("host", Hash::Sha256, HOST_NQN);
    for release in [Release::Trixie, Release::Forky] {
        // The load expects zeroes: each has a namespace of its own.
        let target = target(16, &key, &[]);
        key.insert_by(release, HOST_NQN, SUBSYSTEM, 1);
        nvme_connects(release, &target, &["--tls"]);
        let connection = Connection::made(SUBSYSTEM);
        assert_encrypted(&connection);
        verify(&connection.namespace(1), 120, 50);
        connection.close();
        forget_keys();
        assert!(target.stop().success());
    }
    drop(daemon);
}

/// `nvme connect`, with these options too.
#[track_caller]
pub(super) fn nvme_connects(release: Release, target: &OurTarget, options: &[&str]) {
    let port = format!("--trsvcid={}", target.port());
    let (subsystem, host) = (format!("--nqn={SUBSYSTEM}"), format!("--hostnqn={HOST_NQN}"));
    let id = format!("--hostid={HOST_ID}");
    let words = ["connect", "--transport=tcp", "--traddr=127.0.0.1", &port, &subsystem, &host, &id];
    release.run("nvme", &[&words[..], options].concat());
}

/// DH-HMAC-CHAP inside of TLS.
fn authenticated() {
    let (daemon, key) = with_key(HOST_NQN, SUBSYSTEM);
    let (host, controller) = (Secret::new("host", "sha256"), Secret::new("controller", "sha256"));
    let target = target(
        16,
        &key,
        &[
            &format!("--host-secret={HOST_NQN}={}", host.path().display()),
            &format!("--controller-secret={HOST_NQN}={}", controller.path().display()),
            "--require-authentication",
        ],
    );
    let opened = Connection::try_open(SUBSYSTEM, target.port(), &["tls"]);
    assert!(opened.is_err(), "a host without its secret got in");
    let secrets = [
        format!("dhchap_secret={}", host.text()),
        format!("dhchap_ctrl_secret={}", controller.text()),
    ];
    let options = ["tls", &secrets[0], &secrets[1]];
    let connection = Connection::open(SUBSYSTEM, target.port(), &options);
    assert_encrypted(&connection);
    let reactor = load::reactor();
    let namespace = connection.namespace(1);
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(110, namespace.capacity());
    assert_eq!(load.run(&reactor, &mut queue, 100), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connection.close();
    assert!(target.stop().success());
    drop(daemon);
}
