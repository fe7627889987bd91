//! Origins on block devices: a loop device, and a partition of one.
//!
//! They need root, `losetup` and `/dev/loop-control`; where one of them is missing the test says so
//! and is skipped.

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use super::{EXTENT_LINES, LINE, LINES, Machine, SIZE};

/// Where the partition begins, in bytes.
const START: u64 = 1 << 20;

const PROMISE: [&str; 2] = ["--generation", "1"];

/// A loop device over a file of the machine.
struct Loop(String);

impl Loop {
    /// None where this machine cannot have one; why is said.
    fn over(machine: &Machine, file: &str) -> Option<Self> {
        let skipped = |why: &str| {
            // Beside the harness's capture, so that it is seen where the tests are run.
            let _ = writeln!(std::io::stderr(), "SKIPPED: tests on loop devices: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("they need root");
        }
        if !Path::new("/dev/loop-control").exists() {
            return skipped("there is no /dev/loop-control");
        }
        let arguments = ["--find", "--show", "--partscan", &machine.text(file)];
        match Command::new("losetup").args(arguments).output() {
            Err(error) => skipped(&format!("losetup: {error}")),
            Ok(output) if !output.status.success() => {
                skipped(String::from_utf8_lossy(&output.stderr).trim())
            }
            Ok(output) => Some(Self(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        }
    }

    /// A node for its first partition, which nothing but udev would make elsewhere. The kernel is
    /// told of the partition: it may have been built without reading tables of them.
    fn partition(&self, machine: &Machine, node: &str) -> String {
        let (start, length) = (START / 512, SIZE / 512);
        let numbers = ["1".to_owned(), start.to_string(), length.to_string()];
        // It fails where the kernel knows already.
        let _ = Command::new("addpart").arg(&self.0).args(numbers).output();
        let name = self.0.strip_prefix("/dev/").expect("a device");
        let number = format!("/sys/block/{name}/{name}p1/dev");
        let number = std::fs::read_to_string(number).expect("the kernel knows of the partition");
        let (major, minor) = number.trim().split_once(':').expect("two numbers");
        let device = rustix::fs::makedev(major.parse().expect("one"), minor.parse().expect("one"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let _ = std::fs::remove_file(machine.path(node));
        let (kind, path) = (rustix::fs::FileType::BlockDevice, machine.path(node));
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).expect("made");
        format!("file:{}", machine.text(node))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Makes an image of a disk with one partition, which holds what the origin `content` has.
fn make_disk(machine: &Machine, name: &str, content: &str) {
    let mut sector = [0; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..][..4].copy_from_slice(&((START / 512) as u32).to_le_bytes());
    sector[446 + 12..][..4].copy_from_slice(&((SIZE / 512) as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    let mut image = sector.to_vec();
    image.resize(START as usize, 0);
    let mut origin = std::fs::File::open(machine.path(content)).expect("there");
    origin.read_to_end(&mut image).expect("readable");
    std::fs::write(machine.path(name), image).expect("written");
}

/// Writes through the cache, kills it, notes what the device has now as the content of `disk`.
fn write_and_die(machine: &Machine, device: &Path) {
    let mut run = machine.start("disk", "cache", &PROMISE);
    run.wait_until_it_says("the cache is warm");
    run.client().write(0, 0, &[9; LINE as usize]);
    run.exchange(0);
    run.kill();
    let content = std::fs::read(device).expect("readable");
    std::fs::write(machine.path("disk"), content).expect("written");
}

#[test]
fn a_loop_device_is_warm_after_stops_and_kills_and_cold_when_it_is_another() {
    let machine = Machine::new();
    std::fs::copy(machine.path("disk"), machine.path("image")).expect("copied");
    let Some(device) = Loop::over(&machine, "image") else { return };
    let reach = |device: &Loop| machine.reach("disk", format!("file:{}", device.0));
    reach(&device);
    machine.fill("disk", "cache", &PROMISE);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
    write_and_die(&machine, Path::new(&device.0));
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES - EXTENT_LINES);
    machine.fill("disk", "cache", &PROMISE);
    machine.assert_cold("disk", "cache", &["--generation", "2"], "somebody else wrote");
    machine.assert_cold("disk", "cache", &[], "the origin offers no generation and none was given");
    machine.fill("disk", "cache", &PROMISE);
    // Under another number it is the same.
    drop(device);
    std::fs::copy(machine.path("disk"), machine.path("another")).expect("copied");
    let another = Loop::over(&machine, "another").expect("as before");
    let device = Loop::over(&machine, "image").expect("as before");
    reach(&device);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
    // Under the same number it is another.
    reach(&another);
    let why = "the cache was filled from block device loop over device ";
    machine.assert_cold("disk", "cache", &PROMISE, why);
    machine.fill("disk", "cache", &PROMISE);
    // Nobody can say what it is once its file has no name.
    std::fs::remove_file(machine.path("another")).expect("removed");
    let why = "the origin has nothing that tells it from others";
    machine.assert_cold("disk", "cache", &PROMISE, why);
}

#[test]
fn a_partition_is_warm_after_stops_and_kills_and_cold_when_its_disk_is_another() {
    let machine = Machine::new();
    make_disk(&machine, "image", "disk");
    let Some(device) = Loop::over(&machine, "image") else { return };
    machine.reach("disk", device.partition(&machine, "node"));
    let kind = std::fs::metadata(machine.path("node")).expect("there").file_type();
    assert!(kind.is_block_device());
    machine.fill("disk", "cache", &PROMISE);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
    write_and_die(&machine, &machine.path("node"));
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES - EXTENT_LINES);
    machine.fill("disk", "cache", &PROMISE);
    drop(device);
    make_disk(&machine, "another", "disk");
    let device = Loop::over(&machine, "another").expect("as before");
    machine.reach("disk", device.partition(&machine, "node"));
    machine.assert_cold("disk", "cache", &PROMISE, "partition 1 from sector 2048");
}
