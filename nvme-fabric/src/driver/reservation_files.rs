//! Where a target's reservations outlive it: a file for each namespace.
//!
//! ```text
//!   <folder>/<UUID>.reservation      as `crate::target::ReservationImage` writes it
//! ```
//! A file is replaced as a whole, and durable before the command that changed it completes. That
//! blocks the reactor for as long as the folder's disk takes to make a page durable; registering
//! with persistence is rare enough for that.
//!
//! Absent: keeping two processes from one folder; each namespace must be served by one alone.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use block_io::{DeviceError, IoError};

use crate::spec::nqn::HostId;
use crate::target::{Namespace, ReservationImage, Target};

/// A folder of images.
#[derive(Clone, Debug)]
pub struct ReservationFiles {
    folder: PathBuf,
}

impl ReservationFiles {
    /// Images in `folder`, which is made if need be, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be made: the folder and why.
    pub fn new(folder: &Path) -> Result<Self, DeviceError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(folder, "made", &error))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The image of the namespace with this UUID, for
    /// [`Namespace::with_kept_reservations`](crate::target::Namespace::with_kept_reservations);
    /// none when there has never been one.
    ///
    /// # Errors
    /// When there is one that cannot be read. To go on without it would let hosts write that the
    /// reservation keeps out.
    pub fn read(&self, uuid: HostId) -> Result<Option<String>, DeviceError> {
        let path = self.path(uuid);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "read", &error)),
        }
    }

    /// The namespace with what was kept of its reservations, and whose reservations are kept from
    /// now on.
    ///
    /// # Errors
    /// As [`read`](Self::read); when the file is cut short or another namespace's: its name, the
    /// line and what would be right.
    pub fn restore(&self, namespace: Namespace) -> Result<Namespace, DeviceError> {
        let uuid = namespace.uuid();
        let image = self.read(uuid)?;
        namespace
            .with_kept_reservations(image.as_deref())
            .map_err(|error| DeviceError::with_source(self.path(uuid).display().to_string(), error))
    }

    /// Removes the image of a namespace that is gone for good; that there is none is no failure.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, uuid: HostId) -> Result<(), DeviceError> {
        let path = self.path(uuid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed(&path, "removed", &error))
            }
            _ => Ok(()),
        }
    }

    /// Makes durable what the target has to keep; whether there was anything.
    pub(super) fn keep(&self, target: &mut Target) -> bool {
        let mut progress = false;
        while let Some(image) = target.next_reservation_image() {
            progress = true;
            let written = self
                .write(&image)
                .map_err(|error| error.raw_os_error().map_or(IoError::Media, IoError::from_errno));
            target.reservation_kept(image.namespace, image.version, written);
        }
        progress
    }

    fn write(&self, image: &ReservationImage) -> Result<(), std::io::Error> {
        let path = self.path(image.uuid);
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(image.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        // The new name, too.
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, uuid: HostId) -> PathBuf {
        self.folder.join(format!("{uuid}.reservation"))
    }
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> DeviceError {
    DeviceError::new(format!("{} could not be {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::NamespaceKey;

    #[test]
    fn an_image_is_there_after_it_was_written_and_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("reservations-{}", std::process::id()));
        let files = ReservationFiles::new(&folder).expect("a folder");
        let uuid = HostId([5; 16]);
        assert_eq!(files.read(uuid).expect("nothing yet"), None);
        let namespace = NamespaceKey { subsystem: 0, namespace: 0 };
        for text in ["a long first image", "second"] {
            let image = ReservationImage { namespace, uuid, version: 1, text: text.to_owned() };
            files.write(&image).expect("written");
            assert_eq!(files.read(uuid).expect("read").as_deref(), Some(text));
        }
        let other = Namespace::new(block_io::Geometry::new(1 << 20), uuid).expect("good");
        let error = files.restore(other).expect_err("no image").to_string();
        assert!(error.contains(&format!("{uuid}.reservation")), "{error}");
        assert_eq!(
            fs::read_dir(&folder).expect("a folder").count(),
            1,
            "nothing is left beside it"
        );
        files.forget(uuid).expect("removed");
        files.forget(uuid).expect("twice is once");
        assert_eq!(files.read(uuid).expect("nothing any more"), None);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
