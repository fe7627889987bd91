//! Where a target's reservations outlive it: a file for each namespace.
//!
//! ```text
//!   <folder>/<UUID>.reservation      as `crate::target::ReservationImage` writes it
//! ```
//! A file is replaced as a whole, and durable before the command that changed it completes. That
//! blocks the reactor for as long as the folder's disk takes to make a page durable; registering
//! with persistence is rare enough for that.
//!
//! Absent: removing the files of namespaces that are gone.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use block_io::{DeviceError, IoError};

use crate::spec::nqn::HostId;
use crate::target::{ReservationImage, Target};

/// A folder of images.
#[derive(Clone, Debug)]
pub struct ReservationFiles {
    folder: PathBuf,
}

impl ReservationFiles {
    /// Images in `folder`, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made: the folder and why.
    pub fn new(folder: &Path) -> Result<Self, DeviceError> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, "made", &error))?;
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
        assert_eq!(
            fs::read_dir(&folder).expect("a folder").count(),
            1,
            "nothing is left beside it"
        );
        fs::remove_dir_all(&folder).expect("removed");
    }
}
