//! The small root that a kernel of Debian's starts with: this program, the libraries that it uses,
//! and the modules without which no other root can be had.
//!
//! Absent: compression, which the kernel would undo at a tenth of the speed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpio::newc;

use crate::guest::early;
use crate::kernel::Debian;

/// Modules that mount this machine's root, as that of another.
const MODULES: &[&str] = &["9pnet_virtio", "9p", "overlay"];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes it to `path`. `init` becomes its first program.
///
/// # Errors
/// What could not be read or written.
pub(super) fn write(path: &Path, init: &Path, kernel: &Debian) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut archive = Archive {
        output: BufWriter::new(File::create(path).map_err(failed)?),
        folders: BTreeSet::new(),
    };
    // Without it the first process has no standard error.
    let console = newc::Builder::new("dev/console").mode(CHARACTER_DEVICE).rdev_major(5);
    archive.folder(Path::new("dev")).map_err(failed)?;
    archive.add(console.rdev_minor(1), &[]).map_err(failed)?;
    archive.file(Path::new("/init"), init)?;
    for library in libraries(init)? {
        archive.file(&library, &library)?;
    }
    for (number, module) in kernel.module_files(MODULES)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        // They are loaded in the order of their names.
        archive
            .file(&Path::new(early::BOOT_MODULES).join(format!("{number:02}-{name}")), module)?;
    }
    let mut output = newc::trailer(archive.output).map_err(failed)?;
    output.flush().map_err(failed)
}

struct Archive<Output: Write> {
    output: Output,
    folders: BTreeSet<PathBuf>,
}

impl<Output: Write> Archive<Output> {
    /// Adds the file `source` as `place`.
    fn file(&mut self, place: &Path, source: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", source.display());
        let bytes = std::fs::read(source).map_err(failed)?;
        let place = place.strip_prefix("/").unwrap_or(place);
        self.folder(place.parent().unwrap_or(Path::new(""))).map_err(failed)?;
        let name = place.to_string_lossy();
        self.add(newc::Builder::new(&name).mode(PROGRAM), &bytes).map_err(failed)
    }

    /// Adds `folder` and those above it, where they are not there yet.
    fn folder(&mut self, folder: &Path) -> std::io::Result<()> {
        let above: Vec<_> = folder.ancestors().filter(|it| *it != Path::new("")).collect();
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.to_owned()) {
                self.add(newc::Builder::new(&folder.to_string_lossy()).mode(FOLDER), &[])?;
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: newc::Builder, bytes: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let mut writer = entry.write(&mut self.output, length);
        writer.write_all(bytes)?;
        writer.finish().map(drop)
    }
}

/// The libraries that `program` is started with, and what loads them, as it names them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |what: &str| format!("ldd {}: {what}", program.display());
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(libraries_of(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`.
fn libraries_of(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    };
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_what_loads_them_are_found() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f8c)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f8d)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries_of(said), expected.map(PathBuf::from));
    }

    #[test]
    fn folders_stand_before_what_is_in_them() {
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&source, "bytes").unwrap();
        let mut archive = Archive { output: Vec::new(), folders: BTreeSet::new() };
        archive.file(Path::new("/lib/x/y"), source.path()).unwrap();
        archive.file(Path::new("/lib/z"), source.path()).unwrap();
        let bytes = newc::trailer(archive.output).unwrap();
        let (mut input, mut names) = (&bytes[..], Vec::new());
        loop {
            let reader = newc::Reader::new(input).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().file_size()));
            input = reader.finish().unwrap();
        }
        let names: Vec<_> = names.iter().map(|(name, size)| (&**name, *size)).collect();
        assert_eq!(names, [("lib", 0), ("lib/x", 0), ("lib/x/y", 5), ("lib/z", 5)]);
    }
}
