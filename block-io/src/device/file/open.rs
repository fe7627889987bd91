//! Opening the target: what it is, how large, whether it does direct I/O, and that nobody else
//! uses it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, StatxFlags};

use super::{Alignment, Direct, Opened};
use crate::{BUFFER_ALIGNMENT, DeviceError, Geometry, SECTOR_SIZE};

/// How to open a file device.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Refuse writes, and open the target for reading only.
    pub read_only: bool,
    /// Make a sparse regular file of this many bytes if there is none at the path, or an empty one;
    /// any other target is opened as it is. A file gets its size when it is locked, so that two
    /// processes never give it one each.
    pub create_size: Option<u64>,
    /// Use the page cache even where direct I/O would work.
    pub buffered: bool,
}

/// `STATX_DIOALIGN` (Linux 6.1, `include/uapi/linux/stat.h`).
const STATX_DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Block,
}

/// An error about the target, the path in front.
fn failed(path: &Path, what: &str, error: impl Into<io::Error>) -> DeviceError {
    DeviceError::with_source(format!("{}: {what}", path.display()), error.into())
}

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Opened, DeviceError> {
    let mut is_made = false;
    let kind = match std::fs::metadata(path) {
        Ok(metadata) => check_kind(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match options.create_size {
            Some(size) => {
                create(path, size, options.read_only)?;
                is_made = true;
                Kind::Regular
            }
            None => return Err(failed(path, "must be an existing file or block device", error)),
        },
        Err(error) => return Err(failed(path, "looking at the file", error)),
    };
    let file = open_exclusively(path, kind, options)?;
    let metadata = file.metadata().map_err(|error| failed(path, "looking at the file", error))?;
    if check_kind(path, &metadata)? != kind {
        return Err(DeviceError::new(format!("{}: was replaced while opening", path.display())));
    }
    if kind == Kind::Block && !options.read_only && block_attribute(&metadata, "ro") == Some(1) {
        let path = path.display();
        return Err(DeviceError::new(format!(
            "{path}: the block device is read-only; change that (blockdev --setrw), or open it \
             read-only"
        )));
    }
    let mut notice = lock(path, kind, options, &file)?;
    if let (Kind::Regular, false, Some(size)) = (kind, options.read_only, options.create_size) {
        fill(path, &file, size, is_made)?;
    }
    let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
        .map_err(|error| failed(path, "asking for the size", error))?;
    check_size(path, size)?;
    let direct = match options.buffered {
        true => None,
        false => match open_direct(path, kind, options, &file, size) {
            Ok(direct) => Some(direct),
            Err(reason) => {
                let shown = path.display();
                notice = Some(format!(
                    "{shown}: no direct I/O ({reason}); requests go through the page cache"
                ));
                None
            }
        },
    };
    let zeroing = !options.read_only && can_zero(kind, &metadata, &file, size);
    let block = direct.as_ref().map_or(0, |direct| direct.alignment.offset as u32);
    let geometry = Geometry {
        capacity: size,
        preferred_block_size: block.max(4096),
        read_only: options.read_only,
        volatile_cache: !options.read_only,
        discard: zeroing,
        write_zeroes: zeroing,
        ..Geometry::new(size)
    };
    Ok(Opened {
        path: path.to_path_buf(),
        buffered: file.into(),
        direct,
        geometry,
        capacity: AtomicU64::new(size),
        found: metadata,
        notice,
        sole_queue: AtomicBool::new(false),
    })
}

fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> Result<Kind, DeviceError> {
    let file_type = metadata.file_type();
    let found = if file_type.is_file() {
        return Ok(Kind::Regular);
    } else if file_type.is_block_device() {
        return Ok(Kind::Block);
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_char_device() {
        "a character device"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "something else"
    };
    let path = path.display();
    Err(DeviceError::new(format!("{path}: is {found}; must be a regular file or a block device")))
}

fn check_size(path: &Path, size: u64) -> Result<(), DeviceError> {
    if size > 0 && size.is_multiple_of(u64::from(SECTOR_SIZE)) && i64::try_from(size).is_ok() {
        return Ok(());
    }
    let path = path.display();
    Err(DeviceError::new(format!(
        "{path}: size {size}: must be a positive multiple of {SECTOR_SIZE} bytes"
    )))
}

/// Makes an empty file.
fn create(path: &Path, size: u64, read_only: bool) -> Result<(), DeviceError> {
    check_size(path, size)?;
    if read_only {
        let path = path.display();
        return Err(DeviceError::new(format!("{path}: there is no file to open read-only")));
    }
    // Another process may have made it meanwhile: then it is that one's, which the lock tells.
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(path, "creating the file", error))?;
    Ok(())
}

/// Gives a file that is empty its size, all holes. It is locked. One that was made for this and
/// cannot get its size is not left behind.
fn fill(path: &Path, file: &File, size: u64, is_made: bool) -> Result<(), DeviceError> {
    let found = file.metadata().map_err(|error| failed(path, "looking at the file", error))?;
    if found.len() > 0 {
        return Ok(());
    }
    check_size(path, size)?;
    file.set_len(size).map_err(|error| {
        if is_made {
            // The failure to be told is the first one.
            let _ = std::fs::remove_file(path);
        }
        failed(path, &format!("giving the new file {size} bytes"), error)
    })
}

/// Opens without ever hanging, should the path have become a pipe, but for blocking use: the ring
/// fails what would block on an `O_NONBLOCK` file.
fn open_file(path: &Path, write: bool, flags: i32) -> io::Result<File> {
    let flags_opening = flags | libc::O_NONBLOCK;
    let file = File::options().read(true).write(write).custom_flags(flags_opening).open(path)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags.difference(rustix::fs::OFlags::NONBLOCK))?;
    Ok(file)
}

fn open_exclusively(path: &Path, kind: Kind, options: &OpenOptions) -> Result<File, DeviceError> {
    let write = !options.read_only;
    // On a block device O_EXCL keeps out mounts and other exclusive users (open(2)).
    let flags = if kind == Kind::Block && write { libc::O_EXCL } else { 0 };
    let opened = open_file(path, write, flags);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let what = "in use: mounted, or part of another device (see lsblk), or another \
                        process has it open exclusively (see fuser); free it or choose another";
            failed(path, what, error)
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if write => {
            let what = "may not be written by this user; change that, or open it read-only";
            failed(path, what, error)
        }
        _ => failed(path, "opening", error),
    })
}

/// Takes the lock that keeps a second daemon out. Returns a notice where files cannot be locked.
fn lock(
    path: &Path,
    kind: Kind,
    options: &OpenOptions,
    file: &File,
) -> Result<Option<String>, DeviceError> {
    if kind == Kind::Block {
        // O_EXCL did it for a writer; a lock here would be in the way of udev's probing.
        return Ok(None);
    }
    let operation = if options.read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(None),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            let who = holder(file).unwrap_or_else(|| {
                "here (see lslocks), or on another machine that has the same file system".to_owned()
            });
            let what = format!(
                "in use: another process holds a lock on it: {who}; stop that process, or open the \
                 file read-only in both"
            );
            Err(failed(path, &what, error))
        }
        Err(error) => {
            let path = path.display();
            Ok(Some(format!("{path}: no lock ({error}); nothing keeps other processes out")))
        }
    }
}

/// The process of this machine that holds a lock on the file, as far as the kernel tells.
fn holder(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let place = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // proc_locks(5): number, kind, ADVISORY, READ or WRITE, process, place; `->` stands before
        // the kind of one that waits.
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, process, at, ..] = fields[..] else { return None };
        let process: u32 = process.parse().ok().filter(|_| at == place)?;
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(format!("process {process} ({})", name.trim()))
    })
}

/// Opens the same target for direct I/O, or says why that cannot be.
fn open_direct(
    path: &Path,
    kind: Kind,
    options: &OpenOptions,
    buffered: &File,
    size: u64,
) -> Result<Direct, String> {
    let file = open_file(path, !options.read_only, libc::O_DIRECT).map_err(|error| match error
        .raw_os_error()
    {
        Some(libc::EINVAL) => "the filesystem refuses O_DIRECT".to_string(),
        _ => error.to_string(),
    })?;
    let identity = |file: &File| file.metadata().map(|data| (data.dev(), data.ino(), data.rdev()));
    match (identity(buffered), identity(&file)) {
        (Ok(first), Ok(second)) if first == second => {}
        _ => return Err("the path names another file now".to_string()),
    }
    let alignment = match reported_alignment(&file)? {
        Some(alignment) => alignment,
        None => tried_alignment(kind, &file, size)?,
    };
    if !size.is_multiple_of(alignment.offset) {
        let block = alignment.offset;
        return Err(format!("size {size} is no multiple of the medium's {block}-byte blocks"));
    }
    Ok(Direct { file: OwnedFd::from(file), alignment })
}

/// What `statx` says of direct I/O on the file; absent when the kernel or filesystem does not say.
fn reported_alignment(file: &File) -> Result<Option<Alignment>, String> {
    let Ok(answer) = rustix::fs::statx(file.as_fd(), c"", AtFlags::EMPTY_PATH, STATX_DIOALIGN)
    else {
        return Ok(None);
    };
    if answer.stx_mask & STATX_DIOALIGN.bits() == 0 {
        return Ok(None);
    }
    let (memory, offset) = (answer.stx_dio_mem_align, answer.stx_dio_offset_align);
    if memory == 0 || offset == 0 {
        return Err("the filesystem has none for this file".to_string());
    }
    if !memory.is_power_of_two() || !offset.is_power_of_two() {
        return Err(format!("odd alignments, {memory} in memory and {offset} on the medium"));
    }
    Ok(Some(Alignment { memory: memory as usize, offset: u64::from(offset.max(SECTOR_SIZE)) }))
}

/// Finds the alignment by reading.
fn tried_alignment(kind: Kind, file: &File, size: u64) -> Result<Alignment, String> {
    let least = match kind {
        // The logical block size is what a block device asks for.
        Kind::Block => rustix::fs::ioctl_blksszget(file).unwrap_or(4096) as usize,
        Kind::Regular => SECTOR_SIZE as usize,
    };
    let mut memory = vec![0u8; 3 * BUFFER_ALIGNMENT];
    let aligned = memory.as_ptr().align_offset(BUFFER_ALIGNMENT);
    let mut failure = String::new();
    for step in [least, BUFFER_ALIGNMENT] {
        if step as u64 > size || !step.is_power_of_two() || step > BUFFER_ALIGNMENT {
            continue;
        }
        // Address and offset are multiples of `step`, and of nothing larger where that can be.
        let offset = if size >= 2 * step as u64 { step as u64 } else { 0 };
        match file.read_at(&mut memory[aligned + step..][..step], offset) {
            Ok(_) => return Ok(Alignment { memory: step, offset: step as u64 }),
            Err(error) => failure = error.to_string(),
        }
    }
    Err(format!("trying it failed: {failure}"))
}

/// Whether the target can give up space, so that discarding and zeroing are cheap.
fn can_zero(kind: Kind, metadata: &std::fs::Metadata, file: &File, size: u64) -> bool {
    match kind {
        // Beyond the end there is nothing to lose: this only asks whether it is supported.
        Kind::Regular => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(file, flags, size.next_multiple_of(4096), 4096).is_ok()
        }
        Kind::Block => {
            block_attribute(metadata, "queue/write_zeroes_max_bytes")
                // A partition has no queue of its own.
                .or_else(|| block_attribute(metadata, "../queue/write_zeroes_max_bytes"))
                .is_some_and(|most| most > 0)
        }
    }
}

/// A number that sysfs tells of a block device.
fn block_attribute(metadata: &std::fs::Metadata, name: &str) -> Option<u64> {
    let device = metadata.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}")).ok()?;
    text.trim().parse().ok()
}
