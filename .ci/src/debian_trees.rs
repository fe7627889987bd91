//! Programs of newer Debian releases than this machine's, unpacked beside it: `tlshd`, without
//! which no kernel speaks TLS for NVMe/TCP, and the nvme-cli of the same release.
//!
//! ```text
//!   apt-get, with lists, cache and sources of its own ──▶ *.deb ──dpkg-deb -x──▶ FOLDER/trixie
//!                                                                               FOLDER/forky
//! ```
//! What is fixed is the release, and that its index is signed by a key of Debian's that this
//! machine has; apt-get compares what it fetches with the index. Versions are those of the day, and
//! stand in `versions` of each tree: a pool forgets old ones, so a fixed version could soon not be
//! had. A tree is made once; remove the folder to have newer ones.
//!
//! Absent: anything installed. The programs run from where they are, with the libraries beside
//! them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{Step, find_program};
use crate::report;
use crate::test::target_folder;

/// Names the folder with the trees, for the tests.
const TREES: &str = "FOREBAY_DEBIAN_TREES";

/// A release.
struct Release {
    name: &'static str,
    /// Testing is signed for a week, and a mirror may be older: it may be used all the same.
    may_be_old: bool,
}

/// Stable, with the programs that people have, and testing, with the newest.
const RELEASES: [Release; 2] =
    [Release { name: "trixie", may_be_old: false }, Release { name: "forky", may_be_old: true }];

/// What is unpacked, with what it depends on.
const PACKAGES: [&str; 3] = ["ktls-utils", "nvme-cli", "keyutils"];

/// What signs Debian's releases.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The programs that this takes, and the Debian package of each.
const PROGRAMS: [(&str, &str); 2] = [("apt-get", "apt"), ("dpkg-deb", "dpkg")];

/// Has the tests find the trees, which are made where there are none; says what is skipped where
/// they cannot be.
pub(crate) fn with_trees(root: &Path, step: Step) -> Step {
    let named = std::env::var_os(TREES).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = named.unwrap_or_else(|| target_folder(root).join("debian"));
    for release in &RELEASES {
        let tree = folder.join(release.name);
        if let Err(error) = provide(release, &tree) {
            let name = release.name;
            report::note(&format!(
                "no programs of Debian {name} ({error}); skipped: TLS with the kernel by them"
            ));
            continue;
        }
        let versions = std::fs::read_to_string(versions(&tree)).unwrap_or_default();
        let shown: Vec<_> = versions.lines().filter(|line| is_asked_for(line)).collect();
        report::note(&format!("from Debian {}: {}", release.name, shown.join(", ")));
    }
    step.environment(TREES, &folder.to_string_lossy())
}

fn is_asked_for(line: &str) -> bool {
    PACKAGES.iter().any(|package| line.split(' ').next() == Some(package))
}

/// Lists the packages of a tree, and is there when all of them are.
fn versions(tree: &Path) -> PathBuf {
    tree.join("versions")
}

fn is_there(tree: &Path) -> bool {
    versions(tree).is_file()
}

fn provide(release: &Release, tree: &Path) -> Result<(), String> {
    if is_there(tree) {
        return Ok(());
    }
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            return Err(format!("`{program}` is missing, apt-get install {package}"));
        }
    }
    if !Path::new(KEYS).is_file() {
        return Err(format!("{KEYS} is missing, apt-get install debian-archive-keyring"));
    }
    report::step(&format!("programs of Debian {}", release.name), &tree.display().to_string());
    let apt = Apt::new(release, &tree.with_extension("apt"))?;
    let made = apt.fetch().and_then(|archives| unpack(&archives, tree));
    // What is left of a folder that could not be removed does no harm.
    let _ = std::fs::remove_dir_all(&apt.folder);
    made
}

/// apt-get with everything it writes in one folder, and nothing installed as far as it knows.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(release: &Release, folder: &Path) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", folder.display());
        for part in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(folder.join(part)).map_err(failed)?;
        }
        let name = release.name;
        let source = format!("deb [signed-by={KEYS}] http://deb.debian.org/debian {name} main\n");
        std::fs::write(folder.join("sources.list"), source).map_err(failed)?;
        std::fs::write(folder.join("status"), "").map_err(failed)?;
        let inside = |option: &str, name: &str| format!("{option}={}", folder.join(name).display());
        let options = vec![
            "-q".to_owned(),
            inside("-oDir::Etc::SourceList", "sources.list"),
            inside("-oDir::State", ""),
            inside("-oDir::State::lists", "lists"),
            inside("-oDir::State::status", "status"),
            inside("-oDir::Cache", ""),
            inside("-oDir::Cache::archives", "archives"),
            "-oDir::Etc::SourceParts=-".to_owned(),
            "-oDir::Etc::Preferences=-".to_owned(),
            "-oDir::Etc::PreferencesParts=-".to_owned(),
            "-oAPT::Sandbox::User=".to_owned(),
            "-oAcquire::Languages=none".to_owned(),
            "-oAcquire::Retries=2".to_owned(),
            "-oAcquire::http::Timeout=30".to_owned(),
            format!("-oAcquire::Check-Valid-Until={}", !release.may_be_old),
        ];
        Ok(Self { folder: folder.to_owned(), options })
    }

    /// The packages and what they depend on, as files.
    fn fetch(&self) -> Result<Vec<PathBuf>, String> {
        self.run(&["update", "-oAPT::Update::Error-Mode=any"])?;
        let install = ["install", "--yes", "--no-install-recommends", "--download-only"];
        self.run(&[&install[..], &PACKAGES].concat())?;
        let folder = self.folder.join("archives");
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{error}"))?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
    }

    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let words = self.options.iter().map(String::as_str).chain(arguments.iter().copied());
        output("apt-get", &words.collect::<Vec<_>>()).map(drop)
    }
}

/// Unpacks everything, and then says so.
fn unpack(archives: &[PathBuf], tree: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", tree.display());
    let mut list = Vec::new();
    for archive in archives {
        let archive = archive.display().to_string();
        output("dpkg-deb", &["-x", &archive, &tree.display().to_string()])?;
        let version = output("dpkg-deb", &["-W", "--showformat=${Package} ${Version}", &archive])?;
        list.push(version);
    }
    // Half of it is manuals and translations.
    std::fs::remove_dir_all(tree.join("usr/share")).map_err(failed)?;
    list.sort_unstable();
    std::fs::write(versions(tree), list.join("\n") + "\n").map_err(failed)
}

/// What a program writes; its error is its last words.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("{program} ended with {}: {said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_were_asked_for_are_shown() {
        assert!(is_asked_for("ktls-utils 1.0.0-1"));
        assert!(!is_asked_for("ktls-utils-dbg 1.0.0-1"));
        assert!(!is_asked_for("libc6 2.41-12"));
    }

    #[test]
    fn a_tree_is_there_only_when_all_of_it_is() {
        let folder = std::env::temp_dir().join(format!("forebay-trees-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("usr/sbin")).unwrap();
        std::fs::write(folder.join("usr/sbin/tlshd"), "").unwrap();
        assert!(!is_there(&folder), "it may be half a tree");
        std::fs::write(versions(&folder), "ktls-utils 1\n").unwrap();
        assert!(is_there(&folder));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
