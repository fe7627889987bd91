//! What an origin offers to be known by: which one it is, and whether somebody else wrote to it.
//!
//! ```text
//!   regular file     device and inode number               time of the last change
//!   block device     wwid, serial number, partition        –
//!   loop device      its file, and where in it it begins   –
//!   NVMe namespace   NGUID, UUID, EUI-64, serial number    –
//!   memory, null     –                                     –
//! ```
//! A partition is told by its disk and where it begins, for a copied disk has the same partition
//! UUIDs; those are used where the disk has no number of its own. Times of change are as fine as
//! the file system keeps them, so they prove something only when taken while nobody writes.
//!
//! Absent: what follows from it ([`crate::cache::metadata::identity`]).

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use block_io::DeviceError;
use nvme_fabric::host::Identity;
use uuid::Uuid;

use super::Backend;
use crate::cache::metadata::identity::GenerationSource;
use crate::cache::metadata::volume_record::IDENTITY_MAX;
use crate::cache::metadata::{Generation, IdentityKind, OriginIdentity};

/// What an origin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which origin it is.
    pub identity: OriginIdentity,
    /// What it changes when it is written to; taken now.
    pub generation: GenerationSource,
}

impl Offer {
    /// From an origin that cannot be known again.
    fn nothing() -> Self {
        Self::of(OriginIdentity::unknown())
    }

    const fn of(identity: OriginIdentity) -> Self {
        Self { identity, generation: GenerationSource::None }
    }
}

/// What the origin can be known by, with its generation as it was before it was opened.
pub fn offer(origin: &Backend) -> Offer {
    match origin {
        Backend::File(device) => {
            let metadata = device.metadata_when_opened();
            if metadata.file_type().is_block_device() {
                let device = metadata.rdev();
                let number = (rustix::fs::major(device), rustix::fs::minor(device));
                of_block_device(Path::new("/sys"), Path::new("/dev"), number)
            } else {
                Offer {
                    identity: identity_of_file(metadata),
                    generation: generation_of_file(metadata),
                }
            }
        }
        Backend::NvmeTcp(device) => of_namespace(&device.identity(), device.namespace_id()),
        Backend::Delayed(device) => offer(device.inner()),
        Backend::Memory(_) | Backend::Null(_) => Offer::nothing(),
    }
}

/// What tells a device that is served to others from every other of this machine, for as long as
/// it can have the same bytes: its identity, and of a file also when it was made, for numbers of
/// inodes are used again. What goes with the process is another device each time. `name` is for
/// what cannot be told otherwise.
pub fn of_served(device: &Backend, name: &str) -> String {
    match device {
        Backend::File(file) if file.metadata_when_opened().is_file() => {
            let metadata = file.metadata_when_opened();
            let made = metadata.created().ok().map(|made| made.duration_since(UNIX_EPOCH));
            let made = made.map_or("unknown".to_owned(), |made| {
                made.map_or_else(
                    |before| format!("-{:?}", before.duration()),
                    |it| format!("{it:?}"),
                )
            });
            format!("{} made {made}", identity_of_file(metadata))
        }
        Backend::Memory(_) => format!("memory {}", Uuid::new_v4()),
        Backend::Delayed(device) => of_served(device.inner(), name),
        Backend::File(_) | Backend::Null(_) | Backend::NvmeTcp(_) => match offer(device).identity {
            unknown if unknown.kind() == IdentityKind::Unknown => name.to_owned(),
            known => known.to_string(),
        },
    }
}

/// The origin's generation now. It holds for as long as nobody writes: take it after the last write
/// has been answered and flushed.
///
/// # Errors
/// When its file cannot be looked at.
pub fn generation_now(origin: &Backend) -> Result<GenerationSource, DeviceError> {
    match origin {
        Backend::File(device) => {
            let metadata = device.metadata()?;
            let is_file = metadata.is_file();
            Ok(if is_file { generation_of_file(&metadata) } else { GenerationSource::None })
        }
        Backend::Delayed(device) => generation_now(device.inner()),
        Backend::Memory(_) | Backend::Null(_) | Backend::NvmeTcp(_) => Ok(GenerationSource::None),
    }
}

fn identity_of_file(metadata: &Metadata) -> OriginIdentity {
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = format!("device {major}:{minor} inode {}", metadata.ino());
    identity(IdentityKind::File, &text)
}

/// When a file was last changed. Its size is part of every claim anyway.
fn generation_of_file(metadata: &Metadata) -> GenerationSource {
    let text = format!(
        "mtime {}.{:09} ctime {}.{:09}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    );
    // Years of more digits than fit prove nothing.
    Generation::new(text).map_or(GenerationSource::None, GenerationSource::Origin)
}

/// A block device, by what `sysfs` tells of it.
fn of_block_device(sysfs: &Path, dev: &Path, (major, minor): (u32, u32)) -> Offer {
    let own = sysfs.join(format!("dev/block/{major}:{minor}"));
    let Ok(folder) = own.canonicalize() else { return Offer::nothing() };
    let text = match (attribute(&folder, "partition"), folder.parent().and_then(disk_number)) {
        (Some(partition), Some(disk)) => attribute(&folder, "start")
            .map(|start| format!("{disk} partition {partition} from sector {start}")),
        (Some(_), None) => partition_uuid(&folder, dev).map(|uuid| format!("partition {uuid}")),
        (None, _) => disk_number(&folder),
    };
    text.map_or_else(Offer::nothing, |text| Offer::of(identity(IdentityKind::BlockDevice, &text)))
}

/// What tells a whole disk from others, whatever it is called today.
fn disk_number(folder: &Path) -> Option<String> {
    let sources = [
        ("wwid", "wwid"),
        ("device/wwid", "wwid"),
        ("dm/uuid", "device-mapper"),
        ("md/uuid", "md"),
        ("serial", "serial"),
        ("device/serial", "serial"),
    ];
    let number = sources.into_iter().find_map(|(file, name)| {
        attribute(folder, file).filter(|text| is_telling(text)).map(|text| format!("{name} {text}"))
    });
    number.or_else(|| file_of_loop(folder))
}

/// What a loop device is made of. A file that was deleted has another name there, and is unknown.
fn file_of_loop(folder: &Path) -> Option<String> {
    let offset = attribute(folder, "loop/offset")?;
    let path = std::fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    let metadata = std::fs::metadata(path.strip_suffix('\n').unwrap_or(&path)).ok()?;
    let file = metadata.is_file().then(|| identity_of_file(&metadata))?;
    Some(format!("loop over {} from byte {offset}", file.text()))
}

/// The partition's UUID, from the kernel or else from where udev links it.
fn partition_uuid(folder: &Path, dev: &Path) -> Option<String> {
    let event = std::fs::read_to_string(folder.join("uevent")).ok()?;
    let value = |name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let linked = || {
        let node: PathBuf = dev.join(value("DEVNAME")?);
        let links = std::fs::read_dir(dev.join("disk/by-partuuid")).ok()?;
        links.flatten().find_map(|link| {
            let leads_there = link.path().canonicalize().ok()? == node.canonicalize().ok()?;
            leads_there.then(|| link.file_name().into_string().ok())?
        })
    };
    value("PARTUUID").or_else(linked).filter(|uuid| is_telling(uuid))
}

/// A file of sysfs, without the white space around it.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(name)).ok()?;
    let text: Vec<&str> = text.split_whitespace().collect();
    Some(text.join(" ")).filter(|text| !text.is_empty())
}

/// Whether a number says anything: some devices fill in zeroes or a word of the driver's.
fn is_telling(text: &str) -> bool {
    let number = ["eui.", "naa.", "uuid."].into_iter().find_map(|prefix| text.strip_prefix(prefix));
    let blank = number.unwrap_or(text).chars().all(|c| matches!(c, '0' | '-' | ' '));
    !blank && !text.eq_ignore_ascii_case("none") && !text.eq_ignore_ascii_case("unknown")
}

fn of_namespace(found: &Identity, id: u32) -> Offer {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (descriptors, namespace) = (&found.descriptors, &found.namespace);
    let nguid = descriptors.nguid.unwrap_or(namespace.nguid);
    let eui64 = descriptors.eui64.unwrap_or(namespace.eui64);
    let controller = &found.controller;
    let text = if nguid != [0; 16] {
        format!("nguid {}", hex(&nguid))
    } else if let Some(uuid) = descriptors.uuid.filter(|uuid| !uuid.is_zero()) {
        format!("uuid {uuid}")
    } else if eui64 != [0; 8] {
        format!("eui64 {}", hex(&eui64))
    } else if is_telling(controller.serial_number.trim()) {
        // A serial number is unique among its maker's controllers: NVMe Base 2.1 §5.1.13.2.1
        let (serial, model) = (controller.serial_number.trim(), controller.model_number.trim());
        format!("serial {serial} of {model}, namespace {id}")
    } else {
        return Offer::nothing();
    };
    Offer::of(identity(IdentityKind::NvmeNamespace, &text))
}

/// The identity of that text, which may come from a stranger: what is too long is cut and gets a
/// digest of the whole, what cannot be shown becomes a dot.
fn identity(kind: IdentityKind, text: &str) -> OriginIdentity {
    let is_plain = text.len() <= IDENTITY_MAX && text.chars().all(|c| matches!(c, ' '..='~'));
    let shown = if is_plain {
        text.to_owned()
    } else {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
        let front: String =
            text.chars().take(50).map(|c| if matches!(c, ' '..='~') { c } else { '.' }).collect();
        format!("{front} {digest}")
    };
    OriginIdentity::new(kind, shown).unwrap_or_else(|_| OriginIdentity::unknown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::device::file::{FileDevice, OpenOptions};
    use block_io::device::memory::MemoryDevice;
    use nvme_fabric::spec::nqn::HostId;

    #[test]
    fn a_file_is_known_by_its_inode_whatever_it_is_called_and_changes_when_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, [1; 4096]).expect("written");
        std::fs::write(&other, [1; 4096]).expect("written");
        let open = |path: &Path| {
            FileDevice::open(path, OpenOptions::default()).map(Backend::File).expect("opens")
        };
        let device = open(&path);
        let before = offer(&device);
        // Opening may have changed the times, but not behind our back.
        let left = generation_now(&device).expect("it is there");
        drop(device);
        let renamed = folder.path().join("c");
        std::fs::rename(&path, &renamed).expect("renamed");
        let device = open(&renamed);
        assert_eq!(offer(&device).identity, before.identity);
        assert_ne!(offer(&open(&other)).identity, before.identity);
        let left_then = generation_now(&device).expect("it is there");
        drop(device);
        assert_eq!(offer(&open(&renamed)).generation, left_then);
        assert_ne!(left_then, left, "a renaming is a change of the inode");
        let file = std::fs::File::options().write(true).open(&renamed).expect("opens");
        let left = file.metadata().map(|metadata| generation_of_file(&metadata)).expect("there");
        file.set_modified(std::time::UNIX_EPOCH).expect("set");
        drop(file);
        assert_ne!(offer(&open(&renamed)).generation, left, "with an mtime of the writer's choice");
    }

    #[test]
    fn what_keeps_nothing_is_nobody() {
        let memory = Backend::Memory(MemoryDevice::new(4096).expect("size"));
        assert_eq!(offer(&memory), Offer::nothing());
        assert_eq!(generation_now(&memory).expect("no file"), GenerationSource::None);
    }

    #[test]
    fn what_is_served_is_the_same_for_as_long_as_it_can_have_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let told = || {
            let device = FileDevice::open(&path, OpenOptions::default()).expect("opens");
            of_served(&Backend::File(device), "a")
        };
        std::fs::write(&path, [1; 4096]).expect("written");
        let first = told();
        std::fs::write(&path, [2; 8192]).expect("written");
        assert_eq!(told(), first, "written to and grown");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, [1; 4096]).expect("written");
        assert_ne!(told(), first, "another file, whatever its inode's number");
        let memory = Backend::Memory(MemoryDevice::new(4096).expect("size"));
        assert_ne!(of_served(&memory, "m"), of_served(&memory, "m"));
    }

    /// Names and what is in them.
    type Files = &'static [(&'static str, &'static str)];

    /// A folder as sysfs is, with a disk 8:0 and its first partition.
    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let disk = root.path().join("devices/pci/sda");
        for folder in ["devices/pci/sda/device", "devices/pci/sda/sda1", "dev/block"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("made");
        }
        for (name, target) in [("8:0", "sda"), ("8:1", "sda/sda1")] {
            let link = root.path().join("dev/block").join(name);
            std::os::unix::fs::symlink(format!("../../devices/pci/{target}"), link).expect("made");
        }
        let partition = [("sda1/partition", "1\n"), ("sda1/start", "2048\n")];
        for (name, text) in partition.iter().chain(files) {
            std::fs::write(disk.join(name), text).expect("written");
        }
        root
    }

    #[test]
    fn block_devices_are_known_by_what_sysfs_says() {
        const UUID: &str = "DEVNAME=sda1\nPARTUUID=0123-01\n";
        let cases: [(Files, u32, &str); 9] = [
            (&[("device/wwid", "naa.5000c500a1b2c3d4\n")], 0, "wwid naa.5000c500a1b2c3d4"),
            (&[("serial", "overlay  7\n")], 0, "serial overlay 7"),
            (&[("wwid", "eui.0000000000000000\n"), ("serial", "x")], 0, "serial x"),
            (&[("serial", "0000\n")], 0, "unknown"),
            (&[], 0, "unknown"),
            (&[("serial", "7\n")], 1, "serial 7 partition 1 from sector 2048"),
            (&[("serial", "7"), ("sda1/uevent", UUID)], 1, "serial 7 partition 1 from sector 2048"),
            (&[("sda1/uevent", UUID)], 1, "partition 0123-01"),
            (&[("sda1/uevent", "DEVNAME=sda1\n")], 1, "unknown"),
        ];
        for (files, minor, text) in cases {
            let root = sysfs(files);
            let offered = of_block_device(root.path(), Path::new("/nowhere"), (8, minor));
            assert_eq!(offered.identity.text(), text, "{files:?}");
            assert_eq!(offered.generation, GenerationSource::None);
        }
        let root = sysfs(&[]);
        let absent = of_block_device(root.path(), Path::new("/nowhere"), (9, 9));
        assert_eq!(absent, Offer::nothing());
    }

    #[test]
    fn loop_devices_are_known_by_their_file_while_it_is_there() {
        let root = sysfs(&[]);
        let disk = root.path().join("devices/pci/sda");
        let file = root.path().join("the file");
        std::fs::create_dir(disk.join("loop")).expect("made");
        std::fs::write(disk.join("loop/offset"), "512\n").expect("written");
        std::fs::write(disk.join("loop/backing_file"), format!("{}\n", file.display()))
            .expect("written");
        let told = |minor| {
            let offered = of_block_device(root.path(), Path::new("/nowhere"), (8, minor));
            offered.identity.text().to_owned()
        };
        assert_eq!(told(0), "unknown", "there is no such file");
        std::fs::write(&file, "x").expect("written");
        let metadata = std::fs::metadata(&file).expect("there");
        let of_file = identity_of_file(&metadata);
        assert_eq!(told(0), format!("loop over {} from byte 512", of_file.text()));
        assert!(told(1).ends_with("from byte 512 partition 1 from sector 2048"), "{}", told(1));
    }

    #[test]
    fn partition_uuids_are_found_where_udev_links_them() {
        let (root, dev) = (sysfs(&[("sda1/uevent", "DEVNAME=sda1\n")]), tempfile::tempdir());
        let dev = dev.expect("a folder");
        std::fs::create_dir_all(dev.path().join("disk/by-partuuid")).expect("made");
        std::fs::write(dev.path().join("sda1"), []).expect("written");
        let link = dev.path().join("disk/by-partuuid/0123-01");
        std::os::unix::fs::symlink("../../sda1", link).expect("made");
        let offered = of_block_device(root.path(), dev.path(), (8, 1));
        assert_eq!(offered.identity.text(), "partition 0123-01");
    }

    #[test]
    fn namespaces_are_known_by_their_best_identifier() {
        let mut found = Identity::default();
        let text = |found: &Identity| of_namespace(found, 3).identity.text().to_owned();
        assert_eq!(text(&found), "unknown");
        found.controller.serial_number = "S1".into();
        found.controller.model_number = "M".into();
        assert_eq!(text(&found), "serial S1 of M, namespace 3");
        found.namespace.eui64 = [1; 8];
        assert_eq!(text(&found), "eui64 0101010101010101");
        found.descriptors.uuid = Some(HostId([2; 16]));
        assert_eq!(text(&found), "uuid 02020202-0202-0202-0202-020202020202");
        found.descriptors.nguid = Some([3; 16]);
        assert_eq!(text(&found), "nguid 03030303030303030303030303030303");
    }

    #[test]
    fn strange_texts_become_identities_that_differ_as_they_do() {
        let long = |end: &str| identity(IdentityKind::BlockDevice, &("x".repeat(200) + end));
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
        let odd = identity(IdentityKind::BlockDevice, "a\u{1b}[2J");
        assert!(odd.text().starts_with("a.[2J "), "{odd}");
        assert_ne!(odd, identity(IdentityKind::BlockDevice, "a\u{1c}[2J"));
    }
}
