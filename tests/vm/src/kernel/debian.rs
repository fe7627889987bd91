//! A kernel as Debian has it: an image and its modules, in a folder that `cargo xtask vm` has
//! unpacked packages into; and what QEMU runs it on.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::Configuration;

/// Says what QEMU runs kernels on, where the choice is wrong: `kvm` or `tcg`.
pub(crate) const ACCELERATOR: &str = "FOREBAY_VM_ACCELERATOR";

/// An image and its modules.
#[derive(Clone, Debug)]
pub struct Debian {
    /// `…/lib/modules/VERSION`, with `vmlinuz`, `config` and `modules.dep` in it.
    pub modules: PathBuf,
    /// The kernel's own version, which its modules' folder is called.
    pub version: String,
}

impl Debian {
    /// The kernel in `folder`, if there is one.
    pub(super) fn in_folder(folder: &Path) -> Result<Option<Self>, String> {
        let Ok(entries) = std::fs::read_dir(folder.join("lib/modules")) else { return Ok(None) };
        let with_image = |entry: std::fs::DirEntry| {
            let version = entry.file_name().to_str()?.to_owned();
            let modules = entry.path();
            modules.join("vmlinuz").is_file().then_some(Self { modules, version })
        };
        let mut found: Vec<_> = entries.flatten().filter_map(with_image).collect();
        match found.len() {
            0 | 1 => Ok(found.pop()),
            count => Err(format!("lib/modules: {count} kernels with an image; one is expected")),
        }
    }

    /// What it was built with.
    pub(super) fn configuration(&self) -> Result<Configuration, String> {
        let path = self.modules.join("config");
        let text = std::fs::read_to_string(path).map_err(|error| format!("config: {error}"))?;
        Ok(Configuration::of_text(&text))
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.modules.join("vmlinuz")
    }

    /// The files of the modules called `names` and of those that they use, each behind what it
    /// uses. Names that are none are built in.
    ///
    /// # Errors
    /// When the list of modules cannot be read.
    pub fn module_files(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let path = self.modules.join("modules.dep");
        let list = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error} (depmod writes it)", path.display()))?;
        let files = in_order(&list, names);
        Ok(files.into_iter().map(|file| self.modules.join(file)).collect())
    }
}

/// What `modules.dep` says of `names`: a line has a file and what it uses, and of that what others
/// use comes last. kmod man/modules.dep.5
fn in_order<'a>(list: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut order = Vec::new();
    for name in names {
        let line = list.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| {
            let last = file.rsplit('/').next().unwrap_or(file);
            last.split('.').next().is_some_and(|it| it.replace('-', "_") == *name)
        });
        let Some((file, used)) = line else { continue };
        for file in used.split_whitespace().rev().chain([file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    order
}

/// What QEMU runs a kernel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// This machine's processor.
    Kvm,
    /// A translator of instructions.
    Emulation,
}

impl Accelerator {
    /// The one that [`ACCELERATOR`] names, or else this machine's processor where that has what KVM
    /// takes and KVM may be used.
    ///
    /// # Errors
    /// When the variable has another value.
    pub(crate) fn choose() -> Result<Self, String> {
        let named = std::env::var(ACCELERATOR).unwrap_or_default();
        Self::choose_from(&named, || {
            // A device that is there says little: inside of some machines it starts what it cannot
            // run.
            let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let has = about.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
            has && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
        })
    }

    fn choose_from(named: &str, has_kvm: impl FnOnce() -> bool) -> Result<Self, String> {
        match named {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Emulation),
            "" => Ok(if has_kvm() { Self::Kvm } else { Self::Emulation }),
            other => Err(format!("{ACCELERATOR}={other}: neither kvm nor tcg")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_uses() {
        let list = "kernel/net/9p/9pnet.ko.xz:\n\
            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
            kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
            kernel/fs/netfs/netfs.ko.xz:\n\
            kernel/drivers/nvme/host/nvme-tcp.ko.xz: kernel/x/a.ko.xz kernel/x/b.ko.xz\n";
        let files = in_order(list, &["9pnet_virtio", "built_in", "9p"]);
        let names: Vec<_> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["9pnet.ko.xz", "9pnet_virtio.ko.xz", "netfs.ko.xz", "9p.ko.xz"]);
        let nvme = in_order(list, &["nvme_tcp"]);
        assert_eq!(nvme[..2], ["kernel/x/b.ko.xz", "kernel/x/a.ko.xz"]);
    }

    #[test]
    fn what_runs_a_kernel_can_be_said() {
        let choose = |named, has_kvm| Accelerator::choose_from(named, || has_kvm);
        assert_eq!(choose("", true), Ok(Accelerator::Kvm));
        assert_eq!(choose("", false), Ok(Accelerator::Emulation));
        assert_eq!(choose("kvm", false), Ok(Accelerator::Kvm));
        assert_eq!(choose("tcg", true), Ok(Accelerator::Emulation));
        assert!(choose("hvf", true).unwrap_err().contains("hvf: neither kvm nor tcg"));
    }
}
