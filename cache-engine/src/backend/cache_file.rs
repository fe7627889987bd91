//! The file or block device that holds a cache's lines: made where it is absent, never resized.

use std::io::{self, Read};
use std::path::Path;

use block_io::device::file::{FileDevice, OpenOptions};
use block_io::{BlockDevice, DeviceError, SECTOR_SIZE};

use super::address::Size;
use crate::cache::metadata::probe::{PROBE_LENGTH, Probe, probe};

/// Opens `path` for a cache. See [`super::Backend::open_cache`].
pub(super) fn open(path: &Path, size: Option<Size>) -> Result<FileDevice, DeviceError> {
    let shown = path.display();
    if let Some(size) = size
        && (size.bytes() == 0 || !size.bytes().is_multiple_of(u64::from(SECTOR_SIZE)))
    {
        return Err(DeviceError::new(format!(
            "cache size {}: must be a positive multiple of {SECTOR_SIZE} bytes",
            size.bytes()
        )));
    }
    if size.is_none() {
        check_there(path)?;
    }
    // From here on it is locked: nobody else gives an empty file a size, or formats it.
    let options = OpenOptions { create_size: size.map(Size::bytes), ..OpenOptions::default() };
    let device = FileDevice::open(path, options)
        .map_err(|error| DeviceError::with_source("cache", error))?;
    let found = device.geometry().capacity;
    match size {
        // A cache that is there keeps its size, whatever is asked for.
        Some(size) if size.bytes() != found && !is_cache(path) => Err(DeviceError::new(format!(
            "cache {shown}: its size is {} ({found} bytes), --cache-size says {size}; leave \
             --cache-size out, or use another file",
            Size::from_bytes(found)
        ))),
        _ => Ok(device),
    }
}

/// Without a size there has to be something.
fn check_there(path: &Path) -> Result<(), DeviceError> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DeviceError::new(format!(
            "cache {shown}: there is no such file; give --cache-size to make it"
        ))),
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Err(DeviceError::new(
            format!("cache {shown}: the file is empty; give --cache-size to make it that large"),
        )),
        // Whatever else is wrong, opening it says best.
        _ => Ok(()),
    }
}

/// Whether a cache of ours is there; not if it can't be read, which opening it says best.
fn is_cache(path: &Path) -> bool {
    let mut start = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(PROBE_LENGTH).read_to_end(&mut start));
    read.is_ok() && matches!(probe(&start), Probe::Ours(_) | Probe::Older { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<Size> {
        Some(text.parse().expect("a good size"))
    }

    fn refusal(path: &Path, size: Option<Size>) -> String {
        open(path, size).expect_err("refused").to_string()
    }

    #[test]
    fn an_absent_or_empty_file_is_made_and_a_present_one_keeps_its_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache");
        assert!(refusal(&path, None).contains("give --cache-size"));
        let device = open(&path, size("1M")).expect("made");
        assert_eq!(device.geometry().capacity, 1 << 20);
        drop(device);
        assert_eq!(open(&path, None).expect("opened").geometry().capacity, 1 << 20);
        assert_eq!(open(&path, size("1M")).expect("opened").geometry().capacity, 1 << 20);
        let text = refusal(&path, size("2M"));
        assert!(text.contains("its size is 1MiB") && text.contains("says 2MiB"), "{text}");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, []).expect("written");
        assert!(refusal(&empty, None).contains("the file is empty"));
        assert_eq!(open(&empty, size("64k")).expect("opened").geometry().capacity, 64 << 10);
    }

    #[test]
    fn an_empty_file_that_somebody_has_locked_gets_no_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache");
        let other = std::fs::File::create(&path).expect("made");
        rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        let text = format!("{:?}", open(&path, size("1M")).expect_err("in use"));
        assert!(text.contains("in use") && text.contains("process "), "{text}");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
        drop(other);
        open(&path, size("1M")).expect("free");
    }

    #[test]
    fn odd_sizes_and_kinds_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache");
        for odd in ["0", "1000"] {
            assert!(refusal(&path, size(odd)).contains("multiple of 512"), "{odd}");
        }
        assert!(!path.exists(), "refused before anything is made");
        assert!(refusal(folder.path(), None).contains("directory"));
    }
}
