//! Programs of newer Debian releases than this machine's, unpacked where `FOREBAY_DEBIAN_TREES`
//! says (`cargo xtask vm` does it), with the libraries that they were built for.
//!
//! A program is started by its release's own dynamic linker, which is told where the libraries are.

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::program::Program;

/// Names the folder with a tree for each release.
pub const TREES: &str = "FOREBAY_DEBIAN_TREES";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 13, stable.
    Trixie,
    /// Testing, Debian 14 to be.
    Forky,
}

impl Release {
    /// Its name, which is its tree's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// The command that starts `name` with its libraries, or why it is not there.
    ///
    /// # Errors
    /// What is missing.
    pub fn command(self, name: &str) -> Result<Command, String> {
        let (linker, arguments) = self.words(name)?;
        let mut command = Command::new(linker);
        command.args(arguments);
        Ok(command)
    }

    /// Runs `name` to its end, and returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it is not there, does not start, fails, or runs for more than five minutes.
    #[track_caller]
    pub fn run(self, name: &str, arguments: &[&str]) -> String {
        let (linker, words) = self.words(name).unwrap_or_else(|missing| panic!("{missing}"));
        let words = words.iter().map(String::as_str).chain(arguments.iter().copied());
        Program::at(&linker).run(&words.collect::<Vec<_>>())
    }

    /// The dynamic linker, and what it is told.
    fn words(self, name: &str) -> Result<(PathBuf, Vec<String>), String> {
        let trees = std::env::var_os(TREES).filter(|folder| !folder.is_empty());
        let trees =
            trees.ok_or_else(|| format!("{TREES} names no folder (cargo xtask vm does)"))?;
        self.words_in(Path::new(&trees), name)
    }

    fn words_in(self, trees: &Path, name: &str) -> Result<(PathBuf, Vec<String>), String> {
        let tree = trees.join(self.name()).join("usr");
        let program = ["sbin", "bin"].map(|folder| tree.join(folder).join(name));
        let program = program.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            format!("{TREES}: {} has no {name} (cargo xtask vm unpacks it)", tree.display())
        })?;
        let library = tree.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let systemd = library.join("systemd");
        let path = format!("{}:{}", library.display(), systemd.display());
        let linker = library.join("ld-linux-x86-64.so.2");
        Ok((linker, vec!["--library-path".to_owned(), path, program.display().to_string()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_unpacked_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Release::Trixie.words_in(folder.path(), "tlshd").unwrap_err();
        assert!(error.ends_with("trixie/usr has no tlshd (cargo xtask vm unpacks it)"), "{error}");
        let programs = folder.path().join("forky/usr/sbin");
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::write(programs.join("tlshd"), "").unwrap();
        let (_, words) = Release::Forky.words_in(folder.path(), "tlshd").unwrap();
        assert_eq!(words[2], programs.join("tlshd").display().to_string());
    }
}
