//! The kernels that cases run in, found where `FOREBAY_TEST_KERNELS` says: Linux built as an
//! ordinary program (user-mode Linux), `linux-VERSION.uml`.
//!
//! Absent: stock kernels under an emulator, and this machine's own.

mod configuration;

use std::path::{Path, PathBuf};

pub use configuration::Configuration;

/// Names the folder with the kernels.
pub const KERNELS: &str = "FOREBAY_TEST_KERNELS";

/// A kernel to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `linux-7.2`: what its cases' names begin with.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// What it was built with.
    pub configuration: Configuration,
}

/// The kernels in the folder that [`KERNELS`] names, by name; or why there are none.
///
/// # Errors
/// When the variable is not set; when it is, and there is nothing to be used.
pub fn find() -> Result<Vec<Kernel>, Missing> {
    let Some(folder) = std::env::var_os(KERNELS).filter(|folder| !folder.is_empty()) else {
        return Err(Missing::NotAskedFor(format!("{KERNELS} names no folder with kernels")));
    };
    in_folder(Path::new(&folder)).map_err(Missing::Unusable)
}

/// Why there are no kernels.
#[derive(Debug)]
pub enum Missing {
    /// Nobody said that there are any: cases are skipped.
    NotAskedFor(String),
    /// Somebody did: cases fail.
    Unusable(String),
}

fn in_folder(folder: &Path) -> Result<Vec<Kernel>, String> {
    let failed = |error| format!("{KERNELS}: {}: {error}", folder.display());
    let mut kernels = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(name) = name.strip_suffix(".uml") {
            let program = std::fs::read(&path).map_err(failed)?;
            let configuration = Configuration::of_program(&program)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            kernels.push(Kernel { name: name.to_owned(), path, configuration });
        }
    }
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    if kernels.is_empty() {
        return Err(format!("{KERNELS}: {}: has no *.uml", folder.display()));
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_kernels_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = in_folder(folder.path()).unwrap_err();
        assert!(error.contains("has no *.uml"), "{error}");
        std::fs::write(folder.path().join("linux-1.uml"), "no program").unwrap();
        let error = in_folder(folder.path()).unwrap_err();
        assert!(error.contains("linux-1.uml: says nothing of its configuration"), "{error}");
    }
}
