//! nvme-cli's commands on a controller that the kernel's host has of `forebay target`: what users
//! ask and send without a file system between.

use std::path::Path;

use forebay_tests::program::Program;
use forebay_vm::case::{KERNEL_HOST, NVME_CLI};
use forebay_vm::scene::kernel_host::Connection;
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM, file};
use forebay_vm::{Case, Need};

const NEEDS: &[Need] = &[KERNEL_HOST, Need::Forebay, NVME_CLI];

/// Bytes of the namespace, and its blocks.
const SIZE: u64 = 16 << 20;
const BLOCKS: u64 = SIZE / 512;

pub(crate) const CASES: &[Case] = &[
    Case::new("nvme_cli::reads_what_controller_and_namespace_say", says).needs(NEEDS),
    Case::new("nvme_cli::reads_and_writes_any_number_of_blocks", moves).needs(NEEDS),
    Case::new("nvme_cli::flushes_and_discards", flushes).needs(NEEDS),
];

/// A target with one namespace over a file, the kernel connected, and nvme-cli.
struct Scene {
    target: OurTarget,
    connection: Connection,
    controller: String,
    namespace: String,
    nvme: Program,
}

impl Scene {
    fn new() -> Self {
        let path = file("disk", SIZE);
        let target = OurTarget::start(&[&format!("file:{}", path.display())]);
        let connection = Connection::open(SUBSYSTEM, target.port(), &[]);
        let namespace = connection.namespace(1).path().display().to_string();
        let controller = connection.device().display().to_string();
        let nvme = Program::find("nvme", "nvme-cli").expect("the case needs it");
        Self { target, connection, controller, namespace, nvme }
    }

    fn finish(self) {
        self.connection.close();
        assert!(self.target.stop().success());
        std::fs::remove_file("/tmp/disk").expect("it was there");
    }
}

fn says() {
    let scene = Scene::new();
    let (nvme, controller, namespace) = (&scene.nvme, &*scene.controller, &*scene.namespace);
    for (arguments, expected) in [
        (&["list"][..], namespace),
        (&["list-subsys"], SUBSYSTEM),
        (&["list-ns", controller], "0x1"),
        (&["smart-log", namespace], "available_spare"),
        (&["error-log", controller], "error_count"),
        (&["fw-log", controller], "frs1"),
        // Write is supported, and changes blocks.
        (&["effects-log", controller, "--csi=0"], "00000003"),
        (&["ns-descs", namespace], "uuid"),
    ] {
        let said = nvme.run(arguments);
        assert!(said.contains(expected), "nvme {arguments:?} says {said}, not {expected}");
    }
    nvme.run(&["ns-rescan", controller]);
    nvme.run(&["reset", controller]);
    scene.connection.wait_for_state("live");
    assert!(Path::new(namespace).exists(), "a reset leaves the device");
    scene.finish();
}

/// Each length at each start, through nvme-cli's own buffers.
fn moves() {
    let scene = Scene::new();
    let nvme = &scene.nvme;
    let (written, read) = ("/tmp/written", "/tmp/read");
    for (start, blocks) in [(1, 512), (1, 511), (1, 513), (511, 1024), (511, 1023), (511, 1025)] {
        let bytes: Vec<u8> =
            (0..blocks * 512_u64).map(|at| (at / 512 * 7 + at + start) as u8).collect();
        std::fs::write(written, &bytes).expect("room");
        let block = |data: &str| {
            [
                format!("--start-block={start}"),
                format!("--block-count={}", blocks - 1),
                format!("--data-size={}", blocks * 512),
                format!("--data={data}"),
            ]
        };
        // nvme-cli leaves what is behind the end of its own as it was.
        let _ = std::fs::remove_file(read);
        for (verb, data) in [("write", written), ("read", read)] {
            let options = block(data);
            let mut arguments = vec![verb, &*scene.namespace];
            arguments.extend(options.iter().map(String::as_str));
            nvme.run(&arguments);
        }
        assert!(std::fs::read(read).expect("it is there") == bytes, "{blocks} blocks from {start}");
    }
    // Behind the end.
    let beyond = format!("--start-block={BLOCKS}");
    let arguments = ["read", &scene.namespace, &beyond, "--block-count=0", "--data-size=512"];
    let refused = std::process::Command::new("nvme").args(arguments).output().expect("it runs");
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said).to_uppercase();
    assert!(!refused.status.success() && said.contains("OUT OF RANGE"), "{said}");
    for path in [written, read] {
        std::fs::remove_file(path).expect("it was there");
    }
    scene.finish();
}

fn flushes() {
    let scene = Scene::new();
    let nvme = &scene.nvme;
    nvme.run(&["flush", &scene.namespace, "--namespace-id=1"]);
    let namespace = &*scene.namespace;
    let starts = "--slbs=100,200,300,400,500,600,700,800,900,1000";
    let lengths = "--blocks=10,10,10,10,10,10,10,10,10,10";
    nvme.run(&["dsm", namespace, "--namespace-id=1", "--ad", starts, lengths]);
    let blocks = ["--start-block=8", "--block-count=7"];
    nvme.run(&[&["write-zeroes", namespace, "--namespace-id=1"], &blocks[..]].concat());
    nvme.run(&[&["verify", namespace, "--namespace-id=1"], &blocks[..]].concat());
    scene.finish();
}
