//! Thin files, which volumes are made of: made, grown, cloned and removed, durably. Every function
//! here may block, so none is called on a reactor.
//!
//! Absent: what they are for, and who knows of them ([`super::managed`]).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use block_io::DeviceError;
use rustix::io::Errno;

/// Makes a file of `size` bytes that takes no room yet. One that an interrupted call has left
/// there, in which nothing was written, is taken.
///
/// # Errors
/// When something else is there, or the file system has no room or does not allow it.
pub(super) fn create(path: &Path, size: u64) -> Result<(), DeviceError> {
    let failed = |error| failure(path, "making it", error);
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => empty_file(path)?,
        opened => opened.map_err(failed)?,
    };
    let sized = file.set_len(size).and_then(|()| file.sync_all());
    sized.and_then(|()| sync_folder(path)).map_err(failed)
}

/// A file that takes no room, so that nothing is in it.
fn empty_file(path: &Path) -> Result<File, DeviceError> {
    let failed = |error| failure(path, "opening it", error);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.blocks() == 0 {
        return Ok(file);
    }
    Err(DeviceError::new(format!(
        "{}: something that no volume is known to have is there; must be moved away first",
        path.display()
    )))
}

/// Makes a file larger.
///
/// # Errors
/// When the file system has no room or does not allow it.
pub(super) fn grow(path: &Path, size: u64) -> Result<(), DeviceError> {
    let failed = |error| failure(path, "making it larger", error);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    // Never smaller, whatever happened since it was asked for.
    if file.metadata().map_err(failed)?.len() < size {
        file.set_len(size).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

/// Makes a file with the content of `source`, sharing its blocks, and of `size` bytes if that is
/// more. The file system does it at one moment: what was acknowledged before is in it.
///
/// # Errors
/// When something is there, or the file system cannot share blocks.
pub(super) fn clone(source: &Path, path: &Path, size: u64) -> Result<(), DeviceError> {
    let from = File::open(source).map_err(|error| failure(source, "opening it", error))?;
    let failed = |error| failure(path, "making it", error);
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => empty_file(path)?,
        opened => opened.map_err(failed)?,
    };
    // One that was taken may have a size of its own.
    file.set_len(0).map_err(failed)?;
    let made = match rustix::fs::ioctl_ficlone(&file, &from) {
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
            Err(DeviceError::new(format!(
                "{}: its file system cannot share blocks between files; must be one with reflinks, \
                 such as XFS (reflink=1) or Btrfs",
                path.display()
            )))
        }
        Err(error) => Err(failed(error.into())),
        Ok(()) => finish_clone(&file, path, size).map_err(failed),
    };
    if made.is_err() {
        // The failure to be told is the first one; an empty file is taken by the next attempt.
        let _ = std::fs::remove_file(path);
    }
    made
}

fn finish_clone(file: &File, path: &Path, size: u64) -> io::Result<()> {
    if file.metadata()?.len() < size {
        file.set_len(size)?;
    }
    file.sync_all()?;
    sync_folder(path)
}

/// Removes a file; one that is not there is no failure.
///
/// # Errors
/// When the file system does not allow it.
pub(super) fn remove(path: &Path) -> Result<(), DeviceError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed
            .and_then(|()| sync_folder(path))
            .map_err(|error| failure(path, "removing it", error)),
    }
}

/// Replaces the file at `path` by one with `text`, as a whole and durably. Only its owner may read
/// it.
///
/// # Errors
/// When the file system has no room or does not allow it; the old one is there then.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), DeviceError> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = Path::new(&new);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)
        .and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(new, path));
    if written.is_err() {
        // The failure to be told is the first one.
        let _ = std::fs::remove_file(new);
    }
    let written = written.and_then(|()| sync_folder(path));
    written.map_err(|error| failure(path, "writing it", error))
}

/// Makes what happened in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn failure(path: &Path, doing: &str, error: io::Error) -> DeviceError {
    DeviceError::with_source(format!("{}: {doing}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thin_file_takes_no_room_grows_and_is_not_mistaken_for_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        create(&path, 1 << 30).expect("made");
        let found = std::fs::metadata(&path).expect("there");
        assert_eq!((found.len(), found.blocks(), found.mode() & 0o777), (1 << 30, 0, 0o600));
        create(&path, 1 << 20).expect("nothing is in it");
        grow(&path, 2 << 20).expect("larger");
        grow(&path, 1 << 20).expect("never smaller");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 2 << 20);
        std::fs::write(&path, [1; 4096]).expect("written");
        let error = create(&path, 1 << 20).expect_err("somebody's").to_string();
        assert!(error.contains("must be moved away"), "{error}");
        remove(&path).expect("removed");
        remove(&path).expect("twice is once");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        replace(&path, "one").expect("written");
        replace(&path, "two").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("there").count(),
            1,
            "nothing left over"
        );
        let nowhere = folder.path().join("no/state");
        assert!(replace(&nowhere, "x").expect_err("no folder").to_string().contains("no/state"));
    }

    /// Shares blocks where the file system can, and says so where it cannot, leaving nothing.
    #[test]
    fn a_clone_is_a_file_of_its_own_or_refused() {
        let given = std::env::var_os("FOREBAY_REFLINK_FOLDER");
        let folder = match &given {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a folder");
        let (source, path) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&source, [7; 8192]).expect("written");
        match clone(&source, &path, 16384) {
            Ok(()) => {
                std::fs::write(&source, [9; 8192]).expect("written");
                let cloned = std::fs::read(&path).expect("there");
                assert_eq!((cloned.len(), &cloned[..8192]), (16384, &[7; 8192][..]));
                let error = clone(&source, &path, 0).expect_err("taken").to_string();
                assert!(error.contains("must be moved away"), "{error}");
            }
            Err(error) => {
                assert!(given.is_none(), "{error}");
                assert!(error.to_string().contains("cannot share blocks"), "{error}");
                assert!(!path.exists());
            }
        }
    }
}
