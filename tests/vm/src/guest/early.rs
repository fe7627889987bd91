//! The first program of a machine under QEMU: from the small root that it is started in to the
//! starter's, which it mounts read-only below what this machine writes.
//!
//! ```text
//!   modules ──▶ 9p: the starter's root ─┐
//!                                       ├─▶ overlay ──▶ / ──▶ this program again
//!   tmpfs: what is written here ────────┘
//! ```

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount, mount_bind, mount_move};

/// Names the program to go on with, in the starter's root.
pub(crate) const PROGRAM: &str = "FOREBAY_VM_PROGRAM";

/// Names the folder with the kernel's modules, in the starter's root.
pub(crate) const MODULES: &str = "FOREBAY_VM_MODULES";

/// Where the modules are that have to be loaded first.
pub(crate) const BOOT_MODULES: &str = "/modules";

/// What the starter's root is called.
pub(crate) const TAG: &str = "forebay-root";

/// How it is mounted: nobody changes it meanwhile, and large requests are few.
const ROOT_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";

/// The file is compressed, and the kernel is to undo that. Linux include/uapi/linux/module.h,
/// `MODULE_INIT_COMPRESSED_FILE`
const COMPRESSED_FILE: i32 = 4;

/// Mounts the starter's root and goes on there with `program`.
///
/// # Errors
/// What could not be done.
pub(super) fn enter(program: &Path) -> Result<Infallible, String> {
    load_modules(Path::new(BOOT_MODULES))?;
    for folder in ["/below", "/above", "/root"] {
        create(Path::new(folder))?;
    }
    mount_at("/below", TAG, "9p", MountFlags::RDONLY, ROOT_OPTIONS)?;
    mount_at("/above", "tmpfs", "tmpfs", MountFlags::empty(), "mode=755")?;
    create(Path::new("/above/files"))?;
    create(Path::new("/above/work"))?;
    let layers = "lowerdir=/below,upperdir=/above/files,workdir=/above/work";
    mount_at("/root", "overlay", "overlay", MountFlags::empty(), layers)?;
    provide_modules()?;
    // What the small root holds is memory.
    for path in ["/init", BOOT_MODULES, "/lib", "/lib64", "/usr"] {
        let path = Path::new(path);
        // Some are not there, and what stays is only memory.
        let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
    }
    change_root().map_err(|error| format!("changing the root: {error}"))?;
    let error = Command::new(program).env_remove(PROGRAM).exec();
    Err(format!("{}: {error}", program.display()))
}

fn load_modules(folder: &Path) -> Result<(), String> {
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        let is_compressed = path.extension().is_some_and(|extension| extension != "ko");
        let flags = if is_compressed { COMPRESSED_FILE } else { 0 };
        rustix::system::finit_module(&file, c"", flags)
            .map_err(|error| failed(&path, error.into()))?;
    }
    Ok(())
}

/// Has the kernel's modules where those of this root's own kernel are.
fn provide_modules() -> Result<(), String> {
    let Some(modules) = std::env::var_os(MODULES) else { return Ok(()) };
    let modules = Path::new(&modules);
    let below = Path::new("/below").join(modules.strip_prefix("/").unwrap_or(modules));
    let place = Path::new("/root/lib/modules").join(modules.file_name().unwrap_or_default());
    create(&place)?;
    mount_bind(&below, &place)
        .map_err(|error| format!("{} at {}: {error}", below.display(), place.display()))
}

fn change_root() -> rustix::io::Result<()> {
    rustix::process::chdir("/root")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

fn create(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn mount_at(
    place: &str,
    source: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("mounting {kind} at {place}: {error}");
    let options = CString::new(options).map_err(|error| failed(&error))?;
    mount(source, place, kind, flags, Some(&*options)).map_err(|error| failed(&error))
}
