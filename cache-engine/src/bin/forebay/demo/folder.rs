//! A private folder that goes with everything in it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Removed with its content when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// How many names to try: only somebody who makes them on purpose could have taken one.
const ATTEMPTS: u32 = 100;

impl Folder {
    /// A new folder where temporary files go, for this user only.
    ///
    /// # Errors
    /// When it cannot be made there.
    pub(super) fn new() -> Result<Self, Failure> {
        let parent = std::env::temp_dir();
        for attempt in 0..ATTEMPTS {
            let path = parent.join(format!("forebay-demo-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let what = format!("making the folder {} (see TMPDIR)", path.display());
                    return Err(Failure::because(what, error));
                }
            }
        }
        let parent = parent.display();
        Err(Failure::new(format!("{parent}: no free name for a folder; clear it up or set TMPDIR")))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub(super) fn remove(self) -> Result<(), Failure> {
        std::fs::remove_dir_all(&self.path)
            .map_err(|error| Failure::because(format!("removing {}", self.path.display()), error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only on the way out of a failure, or a second time: there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_and_goes_with_its_content() {
        let (one, other) = (Folder::new().expect("made"), Folder::new().expect("made"));
        assert_ne!(one.path(), other.path());
        let mode = std::fs::metadata(one.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let paths = [one.path().to_owned(), other.path().to_owned()];
        std::fs::write(paths[0].join("file"), "x").expect("written");
        drop(one);
        other.remove().expect("removed");
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
