//! Cases that go wrong, each in a way that the harness has to notice.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use forebay_vm::case::{KERNEL_HOST, KERNEL_TARGET, RAM_DISK};
use forebay_vm::scene::kernel_host::Connection;
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM};
use forebay_vm::scene::{attribute, eventually};
use forebay_vm::{Case, Need};

pub(crate) const CASES: &[Case] = &[
    Case::new("harness::a_case_runs_in_the_kernel", runs_in_the_kernel).quick(),
    Case::new("harness::a_panic_fails_the_case", panics).must_fail_with("seven is not eight"),
    Case::new("harness::a_warning_of_the_kernel_fails_the_case", kernel_warns)
        .quick()
        .must_fail_with("the kernel said: WARNING: a case wrote this"),
    Case::new("harness::a_kernel_that_dies_fails_the_case", kernel_dies)
        .quick()
        .needs(&[Need::OwnKernel])
        .must_fail_with("Kernel panic"),
    Case::new("harness::a_case_that_hangs_is_ended", hangs)
        .quick()
        .limit(Duration::from_secs(2))
        .must_fail_with("it had not ended after 2s"),
    Case::new("harness::what_a_case_starts_ends_with_it", leaves_a_process)
        .must_fail_with("left behind, and ended: sh (process"),
    Case::new("harness::a_process_that_cannot_be_ended_fails_the_case", leaves_a_stuck_process)
        .needs(&[KERNEL_HOST, Need::Forebay, Need::OwnKernel])
        .must_fail_with("processes that cannot be ended are left: dd (process"),
    Case::new("harness::cases_run_on_a_machines_own_kernel", on_own_kernel).needs(&[
        KERNEL_TARGET,
        RAM_DISK,
        Need::Kernel("PID_NS"),
        Need::OwnKernel,
    ]),
    Case::new("harness::a_case_exits_by_itself", exits).must_fail_with("exit status: 3"),
];

fn runs_in_the_kernel() {
    assert_eq!(std::os::unix::process::parent_id(), 1, "not started by the first process");
    // What is written goes nowhere, or stays in the machine's memory.
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the kernel says what is mounted");
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/"));
    let is_above = root.expect("a root").starts_with("overlay ");
    let written = std::fs::write("/etc/forebay-vm", "x");
    assert_eq!(written.is_ok(), is_above, "{root:?}");
    std::fs::write("/tmp/forebay-vm", "x").expect("/tmp can be written to");
    std::net::TcpListener::bind("127.0.0.1:4420").expect("loopback is up");
}

fn panics() {
    assert_eq!(7, 8, "seven is not eight");
}

fn kernel_warns() {
    let mut log = std::fs::OpenOptions::new().write(true).open("/dev/kmsg").expect("a log");
    log.write_all(b"<4>WARNING: a case wrote this\n").expect("can be written");
}

fn kernel_dies() {
    std::fs::write("/proc/sysrq-trigger", "c").expect("may be asked to");
}

fn hangs() {
    std::thread::park();
}

fn leaves_a_process() {
    // `trap` and all: only SIGKILL ends it.
    let script = "trap '' TERM HUP; while :; do sleep 1000; done";
    let child = Command::new("sh").args(["-c", script]).spawn().expect("starts");
    // Not waited for: that is the point. The failure shows what was found.
    std::mem::forget(child);
    panic!("a process is left");
}

/// It reads from a target that is gone, which the kernel will wait for.
fn leaves_a_stuck_process() {
    let mut target = OurTarget::start(&["memory:16MiB"]);
    let options = ["reconnect_delay=1", "ctrl_loss_tmo=-1"];
    let connection = Connection::open(SUBSYSTEM, target.port(), &options);
    let namespace = connection.namespace(1);
    target.kill();
    connection.wait_for_state("connecting");
    let input = format!("if={}", namespace.path().display());
    let child = Command::new("dd").args([&*input, "of=/dev/null", "iflag=direct"]).spawn();
    let child = child.expect("starts");
    let stat = format!("/proc/{}/stat", child.id());
    eventually("it waits in the kernel", || {
        attribute(&stat).filter(|stat| stat.contains(") D ")).map(drop)
    });
    std::mem::forget((child, connection));
}

/// This machine is the host of another run, which finds its drivers and loads them, and leaves out
/// what could kill it.
fn on_own_kernel() {
    let run = |case: &str| {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", case, "--test-threads=1"]).env_remove("FOREBAY_VM_CASE");
        let output = command.env("FOREBAY_VM_HOST", "1").output().expect("starts");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    };
    let said = run("host::our_host::sees_a_namespace_grow");
    assert!(said.contains("1 passed; 0 failed; 0 ignored"), "{said}");
    let said = run("host::harness::a_kernel_that_dies_fails_the_case");
    assert!(said.contains("skipped: could kill this machine's kernel"), "{said}");
    assert!(said.contains("0 passed; 0 failed; 1 ignored"), "{said}");
}

fn exits() {
    std::process::exit(3);
}
