//! Reads a trace from a file, with progress.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use cache_engine::advice::touches::Trace;
use cache_engine::advice::trace::{self, Format, TraceOptions};

use super::progress::Progress;
use crate::failure::Failure;

/// A trace in memory.
pub(super) struct Recorded {
    /// The file's name.
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) trace: Trace,
}

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

pub(super) fn load(
    path: &Path,
    options: &TraceOptions,
    progress: &Progress,
) -> Result<Recorded, Failure> {
    let failed = |error: io::Error| Failure::because(path.display().to_string(), error);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    progress.begin(format!("reading {name}"));
    let file = File::open(path).map_err(failed)?;
    // A pipe has no length, and no progress then.
    let length = file.metadata().map_err(failed)?.len();
    let read = Cell::new(0);
    let mut source = BufReader::with_capacity(CHUNK, Counted { file, read: &read });
    let mut trace = Trace::default();
    let mut sink = |access| {
        trace.push(access);
        if trace.requests().is_multiple_of(1 << 16) {
            progress.show(read.get() as f64 / length.max(1) as f64);
        }
    };
    let format = trace::read(&mut source, options, &mut sink)
        .map_err(|error| Failure::because(path.display().to_string(), error))?;
    Ok(Recorded { name, format, trace })
}

/// A file that counts what was read of it.
struct Counted<'count> {
    file: File,
    read: &'count Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}
