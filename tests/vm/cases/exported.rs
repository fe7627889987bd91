//! The kernel's host and volumes of `forebay run`, and reservations that outlive `forebay target`.

use block_io::reactor::Wait;
use block_io::{BlockDevice, BlockQueue, Request, RequestId};
use forebay_tests::program::Program;
use forebay_tests::server::ForebayCommand;
use forebay_vm::case::{KERNEL_HOST, NVME_CLI};
use forebay_vm::scene::kernel_host::Connection;
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM, file};
use forebay_vm::scene::{free_port, our_host};
use forebay_vm::{Case, Need};

/// Bytes of the volume.
const SIZE: u64 = 16 << 20;

pub(crate) const CASES: &[Case] = &[
    Case::new("exported::kernel_host_has_a_cached_volume_that_is_killed", cached_volume)
        .needs(&[KERNEL_HOST, Need::Forebay]),
    Case::new("exported::kernel_host_keeps_a_reservation_over_a_kill", reservation).needs(&[
        KERNEL_HOST,
        NVME_CLI,
        Need::Forebay,
    ]),
];

/// Load by the kernel's host on a cached volume, whose service is killed and comes back warm.
fn cached_volume() {
    let origin = format!("file:{}", file("disk", SIZE).display());
    let program = ForebayCommand::program().expect("the case needs it");
    let port = free_port();
    let export = format!("nvme+tcp://127.0.0.1:{port}/{SUBSYSTEM}?nsid=1");
    let start = || {
        ForebayCommand::start(
            &program,
            &[
                ["run", "--stats=json"],
                ["--origin", &origin],
                ["--export", &export],
                ["--cache", "file:/tmp/cache"],
                ["--cache-size", "64M"],
                ["--state-dir", "/tmp/forebay-state"],
                ["--generation", "1"],
            ]
            .concat(),
        )
    };
    let service = start();
    let connection = Connection::open(SUBSYSTEM, port, &["reconnect_delay=1"]);
    let namespace = connection.namespace(1);
    assert_eq!(namespace.capacity(), SIZE);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(3, SIZE);
    assert_eq!(load.run(&reactor, &mut queue, 400), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(service);
    let service = start();
    assert_eq!(load.read_back(&reactor, &mut queue), 0, "the kernel waits for it");
    assert_eq!(load.run(&reactor, &mut queue, 200), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connection.close();
    let (status, said) = service.stop();
    assert!(status.success(), "forebay run: {status}");
    let statistics: serde_json::Value =
        serde_json::from_str(said.lines().last().expect("statistics")).expect("JSON");
    let hits = statistics["volumes"][0]["read_hits"].as_u64();
    assert!(hits.is_some_and(|hits| hits > 0), "{statistics:#}");
    for path in ["/tmp/disk", "/tmp/cache"] {
        std::fs::remove_file(path).expect("it was there");
    }
}

/// The kernel's host asks for its reservation to persist (PTPL); the target is killed and started
/// again, and our host still may not write.
fn reservation() {
    let disk = format!("file:{}", file("disk", SIZE).display());
    let mut target = OurTarget::start_with(&[&disk], &["--reservations=/tmp/reservations"]);
    let connection = Connection::open(SUBSYSTEM, target.port(), &["reconnect_delay=1"]);
    let device = connection.namespace(1).path().display().to_string();
    let nvme = Program::find("nvme", "nvme-cli").expect("the case needs it");
    nvme.run(&["resv-register", &device, "--nrkey=0xabcd", "--rrega=0", "--cptpl=3"]);
    nvme.run(&["resv-acquire", &device, "--crkey=0xabcd", "--rtype=1", "--racqa=0"]);
    target.kill();
    target.start_again();
    let reactor = load::reactor();
    let ours = our_host::connect(&reactor, &our_host::options(SUBSYSTEM, target.port()));
    let ours = ours.expect("connects");
    let mut queue = ours.open_queue(&reactor, 8).expect("a queue");
    let mut write = |id| {
        let buffer = reactor.pool().allocate(4096);
        queue.submit(Request::write(RequestId(id), 0, buffer)).expect("room");
        let mut completions = Vec::new();
        loop {
            let progress = queue.poll(reactor.now(), &mut completions);
            if let Some(completion) = completions.pop() {
                return completion.result;
            }
            reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
        }
    };
    assert!(write(1).is_err(), "it is reserved");
    connection.wait_for_state("live");
    let report = nvme.run(&["resv-report", &device, "--eds", "--output-format=json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
    assert_eq!((&report["rtype"], &report["ptpls"]), (&1.into(), &1.into()), "{report:#}");
    nvme.run(&["resv-release", &device, "--crkey=0xabcd", "--rtype=1", "--rrela=0"]);
    assert!(write(2).is_ok(), "it is released");
    drop(queue);
    ours.shut_down(&reactor).expect("shuts down");
    connection.close();
    assert!(target.stop().success());
    std::fs::remove_file("/tmp/disk").expect("it was there");
}
