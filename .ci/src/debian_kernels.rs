//! Debian's kernels for cases, as `tests/vm/kernels.toml` pins them: fetched once, compared with
//! their sums and unpacked into a cache. Nothing is installed.
//!
//! ```text
//!   mirror, else snapshot ──curl──▶ *.deb ──SHA-256, dpkg-deb -x, depmod──▶ CACHE/NAME_VERSION
//! ```
//! The cache is `forebay/kernels` in `XDG_CACHE_HOME`, or in `~/.cache`, or else in cargo's target
//! folder. What is there stays there: several checkouts may use several versions.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::StepResult;
use crate::command::{Step, find_program};
use crate::test::target_folder;

/// The pins, from the workspace's root.
const PINS: &str = "tests/vm/kernels.toml";

const MIRROR: &str = "http://deb.debian.org/debian";
const SNAPSHOT: &str = "https://snapshot.debian.org/archive/debian";

/// The programs that this takes, and the Debian package of each.
const PROGRAMS: [(&str, &str); 3] = [("curl", "curl"), ("dpkg-deb", "dpkg"), ("depmod", "kmod")];

/// What takes most of the room, and of the time to list it, and has no device in any machine.
const UNUSED: [&str; 6] = [
    "sound",
    "drivers/gpu",
    "drivers/iio",
    "drivers/media",
    "drivers/net/ethernet",
    "drivers/net/wireless",
];

/// Every kernel that is pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    /// When the second source had all of them.
    snapshot: String,
    kernel: Vec<Kernel>,
}

/// A kernel, which is some packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernel {
    name: String,
    suite: String,
    version: String,
    /// What it calls itself, and the folder of its modules.
    release: String,
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    /// Below a mirror's root.
    path: String,
    /// In bytes.
    size: u64,
    sha256: String,
}

impl Pins {
    /// Reads the pins.
    ///
    /// # Errors
    /// When the file is not as it should be.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join(PINS));
        let text = text.map_err(|error| format!("{PINS}: {error}"))?;
        toml::from_str(&text).map_err(|error| format!("{PINS}: {error}"))
    }

    /// The kernels' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.kernel.iter().map(|kernel| &*kernel.name)
    }

    /// The folder of the kernel called `name`, which is made if there is none.
    ///
    /// # Errors
    /// When there is no such kernel, a package cannot be had or is not what was pinned, or a
    /// program is missing.
    pub(crate) fn provide(&self, root: &Path, name: &str) -> Result<PathBuf, String> {
        let kernel = self.kernel.iter().find(|kernel| kernel.name == name);
        let kernel = kernel.ok_or_else(|| format!("{PINS}: has no kernel called {name}"))?;
        let cache = cache(root);
        let folder = cache.join(format!("{}_{}", kernel.name, kernel.version));
        if folder.is_dir() {
            return Ok(folder);
        }
        for (program, package) in PROGRAMS {
            if find_program(program).is_none() {
                return Err(format!("{name}: `{program}` is missing (apt-get install {package})"));
            }
        }
        // Beside it, and under its name only once it is whole.
        let partial = cache.join(format!(".{name}.{}", std::process::id()));
        let made = self.make(root, kernel, &partial).and_then(|()| {
            let renamed = std::fs::rename(&partial, &folder);
            // Another run may have been quicker.
            renamed
                .or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })
                .map_err(|error| format!("{} to {}: {error}", partial.display(), folder.display()))
        });
        // It is gone if all went well.
        let _ = std::fs::remove_dir_all(&partial);
        made.map(|()| folder).map_err(|error| format!("{name}: {error}"))
    }

    fn make(&self, root: &Path, kernel: &Kernel, folder: &Path) -> StepResult {
        let failed = |error| format!("{}: {error}", folder.display());
        let unpacked = folder.join("unpacked");
        std::fs::create_dir_all(&unpacked).map_err(failed)?;
        for package in &kernel.package {
            let archive = folder.join("archive.deb");
            self.fetch(root, kernel, package, &archive)?;
            let words = [archive.display().to_string(), unpacked.display().to_string()];
            Step::new("unpack", root, "dpkg-deb", &["-x"]).arguments(&words).run()?;
            std::fs::remove_file(&archive).map_err(failed)?;
        }
        arrange(&kernel.release, &unpacked, folder).map_err(failed)?;
        std::fs::remove_dir_all(&unpacked).map_err(failed)?;
        let words = ["-b".to_owned(), folder.display().to_string(), kernel.release.clone()];
        let depmod = find_program("depmod").unwrap_or_else(|| "depmod".into());
        Step::new("list of modules", root, &depmod.to_string_lossy(), &[]).arguments(&words).run()
    }

    fn fetch(&self, root: &Path, kernel: &Kernel, package: &Package, to: &Path) -> StepResult {
        let path = package.path.replace('+', "%2b");
        let sources = [format!("{MIRROR}/{path}"), format!("{SNAPSHOT}/{}/{path}", self.snapshot)];
        let mut errors = Vec::new();
        for source in &sources {
            match curl(root, source, package.size, to) {
                Ok(()) => return compare(package, to),
                Err(error) => errors.push(error),
            }
        }
        let Kernel { suite, version, .. } = kernel;
        Err(format!(
            "version {version} cannot be had: {}. Debian takes a version away once there is a \
             newer one: pin that one in {PINS}, from \
             {MIRROR}/dists/{suite}/main/binary-amd64/Packages.xz",
            errors.join("; ")
        ))
    }
}

fn curl(root: &Path, source: &str, size: u64, to: &Path) -> StepResult {
    let progress = if std::io::stderr().is_terminal() { "--progress-bar" } else { "--silent" };
    let size_max = size.to_string();
    let words = [
        "--fail",
        "--location",
        "--show-error",
        progress,
        "--connect-timeout",
        "20",
        "--retry",
        "2",
        "--max-filesize",
        &size_max,
        "--output",
        &to.to_string_lossy(),
        source,
    ];
    let name = format!("{} MB from Debian", size.div_ceil(1_000_000));
    Step::new(&name, root, "curl", &words).run()
}

/// Whether the package is the one that was pinned.
fn compare(package: &Package, path: &Path) -> StepResult {
    let failed = |error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        if length == 0 {
            break;
        }
        digest.update(&piece[..length]);
    }
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == package.sha256 {
        return Ok(());
    }
    Err(format!("{}: SHA-256 is {found}; {PINS} says {}", package.path, package.sha256))
}

/// Moves everything that is used to `lib/modules/RELEASE`: newer packages have it in `usr`, and
/// older ones the image in `boot`.
fn arrange(release: &str, unpacked: &Path, folder: &Path) -> std::io::Result<()> {
    let modules = folder.join("lib/modules");
    std::fs::create_dir_all(&modules)?;
    let modules = modules.join(release);
    let in_usr = unpacked.join("usr/lib/modules").join(release);
    let is_in_usr = in_usr.is_dir();
    let from = if is_in_usr { in_usr } else { unpacked.join("lib/modules").join(release) };
    std::fs::rename(from, &modules)?;
    for part in UNUSED.map(|part| modules.join("kernel").join(part)) {
        if part.is_dir() {
            std::fs::remove_dir_all(part)?;
        }
    }
    for name in ["vmlinuz", "config"] {
        if !modules.join(name).is_file() {
            let boot = unpacked.join("boot").join(format!("{name}-{release}"));
            std::fs::rename(boot, modules.join(name))?;
        }
    }
    Ok(())
}

fn cache(root: &Path) -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    cache.map_or_else(|| target_folder(root), |cache| cache.join("forebay")).join("kernels")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("forebay-xtask-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn pins_are_whole() {
        let root = crate::workspace_root();
        let pins = Pins::read(&root).unwrap();
        assert_eq!(pins.names().collect::<Vec<_>>(), ["debian-6.12", "debian-newest"]);
        for package in pins.kernel.iter().flat_map(|kernel| &kernel.package) {
            assert!(package.sha256.len() == 64 && package.path.starts_with("pool/"), "{package:?}");
        }
        let error = pins.provide(&root, "debian-5").unwrap_err();
        assert_eq!(error, "tests/vm/kernels.toml: has no kernel called debian-5");
    }

    #[test]
    fn a_package_that_is_not_the_pinned_one_is_refused_by_name() {
        let folder = scratch("sum");
        let path = folder.join("a.deb");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2 appendix B.1
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let package = |sha256: &str| Package {
            path: "pool/a.deb".to_owned(),
            size: 3,
            sha256: sha256.to_owned(),
        };
        compare(&package(sum), &path).unwrap();
        let error = compare(&package(&sum.replace('b', "c")), &path).unwrap_err();
        assert!(error.starts_with("pool/a.deb: SHA-256 is ba7816bf"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn older_and_newer_packages_are_arranged_alike() {
        for (name, modules, image) in [
            ("older", "lib/modules/6.1", "boot/vmlinuz-6.1"),
            ("newer", "usr/lib/modules/6.1", "usr/lib/modules/6.1/vmlinuz"),
        ] {
            let folder = scratch(name);
            let unpacked = folder.join("unpacked");
            let config = image.replace("vmlinuz", "config");
            let module = |name| format!("{modules}/kernel/{name}.ko.xz");
            for file in [image, &config, &module("nbd"), &module("sound/core/snd")] {
                let path = unpacked.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, file).unwrap();
            }
            arrange("6.1", &unpacked, &folder).unwrap();
            for file in ["vmlinuz", "config", "kernel/nbd.ko.xz"] {
                assert!(folder.join("lib/modules/6.1").join(file).is_file(), "{name}: {file}");
            }
            assert!(!folder.join("lib/modules/6.1/kernel/sound").exists());
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
