//! TLS of the kernel's: `tlshd`, which makes the handshakes that the kernel asks for, and the keys
//! that it finds in the keyring `.nvme`.
//!
//! Debian's testing has the `tlshd` and nvme-cli that are run; a kernel too old for that `tlshd`
//! gets stable's.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nvme_fabric::tls::ConfiguredPsk;

use super::debian::Release;
use super::{attribute, eventually, kernel_version};

/// What it says, and what the kernel's ends say of handshakes.
const LOG: &str = "/run/tlshd.log";

/// The keyring that the kernel keeps for NVMe.
const KEYRING: &str = "%:.nvme";

/// `tlshd`, until it is dropped; then the keyring is empty, too.
pub struct HandshakeDaemon {
    child: Child,
}

impl HandshakeDaemon {
    /// Starts it, and waits until the kernel knows that somebody makes handshakes.
    ///
    /// # Panics
    /// When that does not happen in a minute.
    #[track_caller]
    pub fn start() -> Self {
        let configuration = "/run/tlshd.conf";
        let text = "[debug]\nloglevel=1\ntls=0\nnl=0\n[authenticate]\nkeyrings=.nvme\n";
        std::fs::write(configuration, text).expect("can be written");
        let mut command = release().command("tlshd").expect("the case needs it");
        let log = File::create(LOG).expect("can be written");
        command.args(["--stderr", "--config", configuration]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("starts");
        let daemon = Self { child };
        eventually("tlshd listens to the kernel", || listens().then_some(()));
        daemon
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(LOG).unwrap_or_default()
    }
}

impl Drop for HandshakeDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Shown with what the case wrote.
            forebay_tests::program::say(&self.log());
            return;
        }
        // It may have ended by itself; then it has nothing more to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Release::Forky.run("keyctl", &["clear", KEYRING]);
    }
}

/// Whose `tlshd` this kernel can do with: that of testing (1.4) sets the size of records, which
/// Linux has known since 6.19, and gives a session up when it cannot.
fn release() -> Release {
    if kernel_version() < (6, 19) { Release::Trixie } else { Release::Forky }
}

/// The hashes that keys may have here: the `tlshd` of stable (1.0) proves that it has a key by
/// SHA-256, whatever the key's is.
pub fn hashes() -> &'static [Hash] {
    match release() {
        Release::Trixie => &[Hash::Sha256],
        Release::Forky => &[Hash::Sha256, Hash::Sha384],
    }
}

/// Whether some socket of generic netlink's (16) is in a group: the kernel's log of sockets has
/// protocol and groups in its second and fourth column. Linux net/netlink/af_netlink.c
fn listens() -> bool {
    let sockets = attribute("/proc/net/netlink").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let protocol = columns.next();
        let groups = columns.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
        protocol == Some("16") && groups.is_some_and(|groups| groups != 0)
    })
}

/// The hash of a key, as nvme-cli numbers them.
#[derive(Clone, Copy, Debug)]
pub enum Hash {
    /// 32 bytes, AES-128-GCM.
    Sha256 = 1,
    /// 48 bytes, AES-256-GCM.
    Sha384 = 2,
}

/// A key that `nvme gen-tls-key` has made, in a file for our target.
pub struct TlsKey {
    text: String,
    path: PathBuf,
}

impl TlsKey {
    /// A new key, in a file of that name for host `host`.
    ///
    /// # Panics
    /// When nvme-cli makes none.
    #[track_caller]
    pub fn new(name: &str, hash: Hash, host: &str) -> Self {
        let hmac = format!("--hmac={}", hash as u8);
        let text = Release::Forky.run("nvme", &["gen-tls-key", &hmac]).trim().to_owned();
        let path = Path::new("/run").join(format!("{name}.keys"));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let line = format!("{host} {text}\n");
        std::io::Write::write_all(&mut file.expect("a file"), line.as_bytes()).expect("room");
        Self { text, path }
    }

    /// The file with the host's name and the key, for `--tls-keys`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As our host takes it.
    ///
    /// # Panics
    /// When our host does not understand what nvme-cli wrote.
    #[track_caller]
    pub fn ours(&self) -> ConfiguredPsk {
        ConfiguredPsk::parse(&self.text).expect("well formed")
    }

    /// Has nvme-cli derive the key of `host` and `subsystem` and put it into the kernel's keyring,
    /// by an identity of this version.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn insert(&self, host: &str, subsystem: &str, version: u8) {
        self.insert_by(Release::Forky, host, subsystem, version);
    }

    /// The same by the nvme-cli of a release.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn insert_by(&self, release: Release, host: &str, subsystem: &str, version: u8) {
        release.run(
            "nvme",
            &[
                "check-tls-key",
                &format!("--hostnqn={host}"),
                &format!("--subsysnqn={subsystem}"),
                &format!("--identity={version}"),
                &format!("--keydata={}", self.text),
                "--insert",
            ],
        );
    }
}

/// Takes every key out of the kernel's keyring.
///
/// # Panics
/// When the kernel refuses.
#[track_caller]
pub fn forget_keys() {
    Release::Forky.run("keyctl", &["clear", KEYRING]);
}
