//! The kernel's NVMe/TCP host: connecting through `/dev/nvme-fabrics`, and what sysfs says of a
//! controller.
//!
//! Options are the kernel's own words (Linux drivers/nvme/host/fabrics.c, `opt_tokens`), so new
//! ones need nothing here: `hdr_digest`, `dhchap_secret=…`, `tls`.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::{attribute, eventually, set_attribute};

/// Where connecting is asked for.
const FABRICS: &str = "/dev/nvme-fabrics";

/// NQN of the kernel's host, and its identifier.
pub const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:4fb3c3f0-68d3-4f47-a0a5-8d3d5b8b4d4a";
/// The identifier that goes with [`HOST_NQN`].
pub const HOST_ID: &str = "4fb3c3f0-68d3-4f47-a0a5-8d3d5b8b4d4a";

/// A controller of the kernel's. Dropping it disconnects, unless the case is panicking.
#[derive(Debug)]
pub struct Connection {
    name: String,
    subsystem: String,
}

impl Connection {
    /// Connects to `subsystem` at `port` of this machine, with further options.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn open(subsystem: &str, port: u16, options: &[&str]) -> Self {
        match Self::try_open(subsystem, port, options) {
            Ok(connection) => connection,
            Err(error) => panic!("the kernel connects to {subsystem} ({options:?}): {error}"),
        }
    }

    /// The same, where a refusal is of interest.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_open(subsystem: &str, port: u16, options: &[&str]) -> std::io::Result<Self> {
        let mut words = vec![
            "transport=tcp".to_owned(),
            "traddr=127.0.0.1".to_owned(),
            format!("trsvcid={port}"),
            format!("nqn={subsystem}"),
            format!("hostnqn={HOST_NQN}"),
            format!("hostid={HOST_ID}"),
        ];
        words.extend(options.iter().map(|option| (*option).to_owned()));
        let mut fabrics = OpenOptions::new().read(true).write(true).open(FABRICS)?;
        fabrics.write_all(words.join(",").as_bytes())?;
        // instance=0,cntlid=1
        let mut answer = [0; 128];
        let length = fabrics.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        let instance = answer.split(',').find_map(|word| word.strip_prefix("instance="));
        let instance = instance.ok_or_else(|| std::io::Error::other(answer.clone()))?;
        Ok(Self { name: format!("nvme{instance}"), subsystem: subsystem.to_owned() })
    }

    /// The controller of `subsystem`, which somebody else has connected to.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn made(subsystem: &str) -> Self {
        let entries = std::fs::read_dir("/sys/class/nvme").into_iter().flatten().flatten();
        let nqn = |entry: &std::fs::DirEntry| attribute(entry.path().join("subsysnqn"));
        let found = entries.into_iter().find(|entry| nqn(entry).as_deref() == Some(subsystem));
        let name = found.and_then(|entry| entry.file_name().into_string().ok());
        Self { name: name.expect("it is connected"), subsystem: subsystem.to_owned() }
    }

    /// `nvme0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The controller's character device.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// What sysfs says of the controller under `name`: `state`, `queue_count`, `sqsize`.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(self.folder().join(name))
    }

    /// Sets what sysfs has of the controller under `name`.
    ///
    /// # Panics
    /// When the kernel does not take it.
    #[track_caller]
    pub fn set_attribute(&self, name: &str, value: &str) {
        set_attribute(self.folder().join(name), value);
    }

    /// Waits until the controller is in `state`: `live`, `connecting`.
    ///
    /// # Panics
    /// When it is not in a minute.
    #[track_caller]
    pub fn wait_for_state(&self, state: &str) {
        let is_there = || (self.attribute("state")? == state).then_some(());
        eventually(&format!("{} is {state}", self.name), is_there);
    }

    /// The block device of a namespace of the subsystem, once it is there.
    ///
    /// # Panics
    /// When there is none in a minute.
    #[track_caller]
    pub fn namespace(&self, id: u32) -> Namespace {
        let what = format!("namespace {id} of {}", self.subsystem);
        eventually(&what, || namespaces(&self.subsystem).into_iter().find(|it| it.id == id))
    }

    /// The block devices of all namespaces of the subsystem.
    pub fn namespaces(&self) -> Vec<Namespace> {
        namespaces(&self.subsystem)
    }

    /// Disconnects, and waits until the kernel has forgotten the controller.
    ///
    /// # Panics
    /// When that does not happen.
    #[track_caller]
    pub fn close(self) {
        self.disconnect();
        let is_gone = || (!self.folder().exists()).then_some(());
        eventually(&format!("{} is gone", self.name), is_gone);
    }

    fn disconnect(&self) {
        // It may have gone by itself, after its loss time-out.
        let _ = std::fs::write(self.folder().join("delete_controller"), "1");
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/class/nvme").join(&self.name)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Where a case fails its machine is not used again, and disconnecting could hang.
        if !std::thread::panicking() {
            self.disconnect();
        }
    }
}

/// A namespace's block device; with native multipath the one above all paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier in the subsystem.
    pub id: u32,
    /// `nvme0n1`.
    pub name: String,
}

impl Namespace {
    /// Its path below `/dev`.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// What sysfs says of the block device: `size`, `queue/write_cache`.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(Path::new("/sys/block").join(&self.name).join(name))
    }

    /// Its capacity in bytes.
    ///
    /// # Panics
    /// When it has gone.
    pub fn capacity(&self) -> u64 {
        let sectors = self.attribute("size").and_then(|size| size.parse::<u64>().ok());
        sectors.expect("a size") * 512
    }
}

fn namespaces(subsystem: &str) -> Vec<Namespace> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let of_subsystem = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_str()?.to_owned();
        // `nvme0c1n1` is one path of `nvme0n1`.
        let is_whole = name.strip_prefix("nvme").is_some_and(|rest| !rest.contains('c'));
        let nqn = attribute(entry.path().join("device/subsysnqn"))?;
        let id = attribute(entry.path().join("nsid"))?.parse().ok()?;
        let is_there = Path::new("/dev").join(&name).exists();
        (is_whole && nqn == subsystem && is_there).then_some(Namespace { id, name })
    };
    let mut found: Vec<_> = entries.filter_map(of_subsystem).collect();
    found.sort_by_key(|namespace| namespace.id);
    found
}
