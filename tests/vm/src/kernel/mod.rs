//! The kernels that cases run in, found where `FOREBAY_TEST_KERNELS` says.
//!
//! ```text
//!   a folder ──▶ linux-7.2.uml                           user-mode Linux, a program
//!            └─▶ debian-6.12_6.12.95-1/lib/modules/V/…   Debian's own, with its modules
//!   FOREBAY_VM_HOST=1 ──▶ the kernel of this machine
//! ```
//! `cargo xtask vm` fetches Debian's and sets both variables.

mod configuration;
pub(crate) mod debian;
mod host;

use std::path::{Path, PathBuf};

pub use configuration::Configuration;
pub use debian::Debian;

/// Names the folders with the kernels, or kernels themselves, with `:` between them.
pub const KERNELS: &str = "FOREBAY_TEST_KERNELS";

/// Set to `1`, cases run on the kernel of this machine too, which they change.
pub const HOST: &str = "FOREBAY_VM_HOST";

/// A kernel to run cases in.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `linux-7.2`, `debian-6.12`, `host`: what its cases' names begin with.
    pub name: String,
    /// How it is started.
    pub kind: Kind,
    /// What it was built with.
    pub configuration: Configuration,
}

/// How a kernel is started.
#[derive(Clone, Debug)]
pub enum Kind {
    /// As a program: Linux built for user mode.
    UserMode(PathBuf),
    /// Under QEMU.
    Debian(Debian),
    /// It runs already.
    Host,
}

impl Kernel {
    /// Whether a case may kill it, or leave it with something that only its end takes away.
    pub fn is_expendable(&self) -> bool {
        !matches!(self.kind, Kind::Host)
    }

    /// Whether its instructions are emulated, some ten times as slowly as others: then one machine
    /// of them runs at a time.
    ///
    /// # Errors
    /// As [`debian::Accelerator::choose`].
    pub fn is_emulated(&self) -> Result<bool, String> {
        match self.kind {
            Kind::Debian(_) => Ok(debian::Accelerator::choose()? == debian::Accelerator::Emulation),
            Kind::UserMode(_) | Kind::Host => Ok(false),
        }
    }
}

/// The kernels that the variables name, by name; or why there are none.
///
/// # Errors
/// When neither variable is set; when one is, and there is nothing to be used.
pub fn find() -> Result<Vec<Kernel>, Missing> {
    let places = std::env::var_os(KERNELS).unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&places).filter(|it| *it != Path::new("")).collect();
    let is_host_wanted = std::env::var_os(HOST).is_some_and(|value| value == "1");
    if places.is_empty() && !is_host_wanted {
        return Err(Missing::NotAskedFor(format!("{KERNELS} names no folder with kernels")));
    }
    let mut kernels = Vec::new();
    for place in places {
        kernels.extend(at(&place).map_err(Missing::Unusable)?);
    }
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    if is_host_wanted {
        kernels.push(host::this().map_err(Missing::Unusable)?);
    }
    Ok(kernels)
}

/// Why there are no kernels.
#[derive(Debug)]
pub enum Missing {
    /// Nobody said that there are any: cases are skipped.
    NotAskedFor(String),
    /// Somebody did: cases fail.
    Unusable(String),
}

/// The kernel that `place` is, or those that are in it.
fn at(place: &Path) -> Result<Vec<Kernel>, String> {
    if let Some(kernel) = one(place)? {
        return Ok(vec![kernel]);
    }
    let failed = |error| format!("{KERNELS}: {}: {error}", place.display());
    let mut kernels = Vec::new();
    for entry in std::fs::read_dir(place).map_err(failed)? {
        kernels.extend(one(&entry.map_err(failed)?.path())?);
    }
    if kernels.is_empty() {
        let what = "has neither *.uml nor a folder with lib/modules/VERSION/vmlinuz";
        return Err(format!("{KERNELS}: {}: {what}", place.display()));
    }
    Ok(kernels)
}

/// The kernel that `path` is, if it is one.
fn one(path: &Path) -> Result<Option<Kernel>, String> {
    let failed = |error: String| format!("{}: {error}", path.display());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(name) = name.strip_suffix(".uml") {
        let program = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let configuration = Configuration::of_program(&program).map_err(failed)?;
        let kind = Kind::UserMode(path.to_owned());
        return Ok(Some(Kernel { name: name.to_owned(), kind, configuration }));
    }
    let Some(debian) = Debian::in_folder(path).map_err(failed)? else { return Ok(None) };
    let configuration = debian.configuration().map_err(failed)?;
    // Behind the underscore stands the package's version.
    let name = name.split('_').next().unwrap_or(name).to_owned();
    Ok(Some(Kernel { name, kind: Kind::Debian(debian), configuration }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_kernels_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = at(folder.path()).unwrap_err();
        assert!(error.contains("has neither *.uml nor"), "{error}");
        std::fs::write(folder.path().join("linux-1.uml"), "no program").unwrap();
        let error = at(folder.path()).unwrap_err();
        assert!(error.contains("linux-1.uml: says nothing of its configuration"), "{error}");
    }

    #[test]
    fn a_kernel_of_debian_is_a_folder_named_without_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("debian-6.12_6.12.95-1~bpo12+1");
        let modules = kernel.join("lib/modules/6.12.95+deb12-amd64");
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::write(modules.join("vmlinuz"), "an image").unwrap();
        let error = at(folder.path()).unwrap_err();
        assert!(error.contains("config: No such file"), "{error}");
        std::fs::write(modules.join("config"), "CONFIG_NVME_TCP=m\nCONFIG_A=y\n").unwrap();
        for place in [folder.path(), &kernel] {
            let [found] = &at(place).unwrap()[..] else { panic!("one") };
            assert_eq!(found.name, "debian-6.12");
            assert!(found.configuration.is_module("NVME_TCP"));
            assert!(found.configuration.has("A") && !found.configuration.is_module("A"));
        }
    }
}
