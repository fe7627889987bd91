//! The kernel of this machine, and what it was built with.

use std::path::Path;

use super::{Configuration, Kernel, Kind};

/// The kernel that runs.
///
/// # Errors
/// When it says nowhere what it was built with.
pub(super) fn this() -> Result<Kernel, String> {
    let version = rustix::system::uname().release().to_string_lossy().into_owned();
    let configuration = configuration(&version, Path::new("/"))?;
    Ok(Kernel { name: "host".to_owned(), kind: Kind::Host, configuration })
}

fn configuration(version: &str, root: &Path) -> Result<Configuration, String> {
    let modules = root.join("lib/modules").join(version);
    let texts = [root.join("boot").join(format!("config-{version}")), modules.join("config")];
    let compressed = root.join("proc/config.gz");
    let text = texts.iter().find_map(|path| std::fs::read_to_string(path).ok());
    let configuration = match (text, std::fs::read(&compressed)) {
        (Some(text), _) => Configuration::of_text(&text),
        (None, Ok(bytes)) => Configuration::of_compressed(&bytes)?,
        (None, Err(_)) => {
            let looked: Vec<_> = texts.iter().chain([&compressed]).map(|it| it.display()).collect();
            return Err(format!("host: Linux {version} says in none of {looked:?} what it has"));
        }
    };
    // What is a module, and not on this machine, is a driver that is absent.
    let has_modules = modules.join("modules.dep").is_file();
    Ok(if has_modules { configuration } else { configuration.without_modules() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_are_not_installed_are_not_there() {
        let root = tempfile::tempdir().unwrap();
        let error = configuration("6.1", root.path()).unwrap_err();
        assert!(error.contains("boot/config-6.1"), "{error}");
        std::fs::create_dir_all(root.path().join("boot")).unwrap();
        std::fs::create_dir_all(root.path().join("lib/modules/6.1")).unwrap();
        let text = "CONFIG_NVME_TCP=m\nCONFIG_TLS=y\n";
        std::fs::write(root.path().join("boot/config-6.1"), text).unwrap();
        let found = configuration("6.1", root.path()).unwrap();
        assert!(found.has("TLS") && !found.has("NVME_TCP"));
        std::fs::write(root.path().join("lib/modules/6.1/modules.dep"), "").unwrap();
        assert!(configuration("6.1", root.path()).unwrap().has("NVME_TCP"));
    }
}
