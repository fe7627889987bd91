//! Cases that go wrong, each in a way that the harness has to notice.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use forebay_vm::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("harness::a_case_runs_in_the_kernel", runs_in_the_kernel),
    Case::new("harness::a_panic_fails_the_case", panics).must_fail_with("seven is not eight"),
    Case::new("harness::a_warning_of_the_kernel_fails_the_case", kernel_warns)
        .must_fail_with("the kernel said: WARNING: a case wrote this"),
    Case::new("harness::a_kernel_that_dies_fails_the_case", kernel_dies)
        .must_fail_with("Kernel panic"),
    Case::new("harness::a_case_that_hangs_is_ended", hangs)
        .limit(Duration::from_secs(2))
        .must_fail_with("it had not ended after 2s"),
    Case::new("harness::what_a_case_starts_ends_with_it", leaves_a_process),
    Case::new("harness::a_case_exits_by_itself", exits).must_fail_with("exit status: 3"),
];

fn runs_in_the_kernel() {
    let version = std::fs::read_to_string("/proc/version").expect("the kernel says its version");
    assert!(version.contains("-umltest"), "{version}");
    assert!(std::fs::write("/etc/forebay-vm", "x").is_err(), "root can be written to");
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
    // Not waited for: that is the point.
    std::mem::forget(child);
}

fn exits() {
    std::process::exit(3);
}
