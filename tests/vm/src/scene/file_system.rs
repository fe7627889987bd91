//! File systems on a block device: made, mounted, filled, and checked.

use std::path::{Path, PathBuf};

use block_io::sim::Random;
use forebay_tests::program::Program;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::case::Need;

/// A kind of file system, and the programs that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    name: &'static str,
    package: &'static str,
    make: (&'static str, &'static [&'static str]),
    check: (&'static str, &'static [&'static str]),
}

/// ext4.
pub const EXT4: Kind = Kind {
    name: "ext4",
    package: "e2fsprogs",
    make: ("mkfs.ext4", &["-q"]),
    check: ("e2fsck", &["-f", "-n"]),
};

/// XFS.
pub const XFS: Kind = Kind {
    name: "xfs",
    package: "xfsprogs",
    make: ("mkfs.xfs", &["-q"]),
    check: ("xfs_repair", &["-n"]),
};

/// What a case with [`EXT4`] needs of the machine.
pub const EXT4_NEEDS: [Need; 3] = needs("EXT4_FS", EXT4);
/// What a case with [`XFS`] needs of the machine.
pub const XFS_NEEDS: [Need; 3] = needs("XFS_FS", XFS);

const fn needs(option: &'static str, kind: Kind) -> [Need; 3] {
    let Kind { package, make, check, .. } = kind;
    [
        Need::Kernel(option),
        Need::Program { name: make.0, package },
        Need::Program { name: check.0, package },
    ]
}

/// Makes a file system on `device`, fills it through a mount, and compares and checks everything
/// after another one. Bytes and names follow from `seed`.
///
/// # Panics
/// When anything is wrong.
#[track_caller]
pub fn use_one(kind: Kind, device: &Path, seed: u64) {
    make(kind, device);
    let mounted = Mounted::new(kind, device);
    let files = fill(mounted.path(), seed);
    mounted.unmount();
    check(kind, device);
    let mounted = Mounted::new(kind, device);
    for (name, content) in &files {
        let found = std::fs::read(mounted.path().join(name)).expect("the file is there");
        assert!(found == *content, "seed {seed}: {name} has other bytes than were written");
    }
    for (name, _) in files.iter().step_by(2) {
        std::fs::remove_file(mounted.path().join(name)).expect("a file goes");
    }
    mounted.unmount();
    check(kind, device);
}

/// Makes a file system.
///
/// # Panics
/// When the program fails.
#[track_caller]
pub fn make(kind: Kind, device: &Path) {
    run(kind, kind.make, device);
}

/// Checks one that is not mounted.
///
/// # Panics
/// When something is wrong with it.
#[track_caller]
pub fn check(kind: Kind, device: &Path) {
    run(kind, kind.check, device);
}

#[track_caller]
fn run(kind: Kind, (name, arguments): (&str, &[&str]), device: &Path) {
    let program = Program::find(name, kind.package).expect("the case needs it");
    let device = device.display().to_string();
    program.run(&[arguments, &[&*device]].concat());
}

/// Writes files of many sizes, synced; their names and bytes.
fn fill(folder: &Path, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut random = Random::new(seed);
    let files: Vec<_> = (0..40)
        .map(|number| {
            let length = *random.choose(&[0, 1, 511, 4096, 70_000, 1 << 20]);
            let content = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
            (format!("file {number}"), content.flatten().take(length).collect::<Vec<_>>())
        })
        .collect();
    for (name, content) in &files {
        std::fs::write(folder.join(name), content).expect("room");
    }
    rustix::fs::sync();
    files
}

/// A mounted file system.
struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    #[track_caller]
    fn new(kind: Kind, device: &Path) -> Self {
        let folder = PathBuf::from("/run/mounted");
        std::fs::create_dir_all(&folder).expect("a folder");
        mount(device, &folder, kind.name, MountFlags::empty(), None::<&std::ffi::CStr>)
            .expect("the file system mounts");
        Self { folder }
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    #[track_caller]
    fn unmount(self) {
        unmount(&self.folder, UnmountFlags::empty()).expect("nobody uses it");
    }
}
