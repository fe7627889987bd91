//! The kernel's NVMe target, through its configuration files (Linux
//! drivers/nvme/target/configfs.c).

use std::path::{Path, PathBuf};

use super::set_attribute;

const ROOT: &str = "/sys/kernel/config/nvmet";

/// A subsystem of the kernel's, served over TCP. Dropping it takes it away again.
#[derive(Debug)]
pub struct KernelTarget {
    nqn: String,
    port: u16,
    namespaces: Vec<u32>,
    hosts: Vec<String>,
    is_listening: bool,
}

impl KernelTarget {
    /// A subsystem without namespaces, which any host may connect to, at `port` of this machine.
    /// Nobody can until it [listens](Self::listen).
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn new(nqn: &str, port: u16) -> Self {
        let (namespaces, hosts) = (Vec::new(), Vec::new());
        let target = Self { nqn: nqn.to_owned(), port, namespaces, hosts, is_listening: false };
        create(&target.subsystem());
        target.set("attr_allow_any_host", "1");
        let folder = target.port_folder();
        create(&folder);
        for (name, value) in [
            ("addr_trtype", "tcp"),
            ("addr_adrfam", "ipv4"),
            ("addr_traddr", "127.0.0.1"),
            ("addr_trsvcid", &port.to_string()),
        ] {
            set_attribute(folder.join(name), value);
        }
        target
    }

    /// Adds a namespace over a block device, or a file.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn add_namespace(&mut self, id: u32, device: &Path) {
        let folder = self.namespace(id);
        create(&folder);
        self.namespaces.push(id);
        set_attribute(folder.join("device_path"), &device.display().to_string());
        set_attribute(folder.join("enable"), "1");
    }

    /// Allows a host, and from then on only hosts that were allowed. `attributes` are files of the
    /// host's folder and what is written to them: `dhchap_key`, `dhchap_ctrl_key`, `dhchap_hash`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn allow_host(&mut self, nqn: &str, attributes: &[(&str, &str)]) {
        if self.hosts.is_empty() {
            self.set("attr_allow_any_host", "0");
        }
        let folder = host_folder(nqn);
        create(&folder);
        for (name, value) in attributes {
            set_attribute(folder.join(name), value);
        }
        std::os::unix::fs::symlink(&folder, self.allowed(nqn)).expect("the kernel allows it");
        self.hosts.push(nqn.to_owned());
    }

    /// Sets what the folder of an allowed host has under `name`: `dhchap_hash`, `dhchap_dhgroup`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn set_host(&self, nqn: &str, name: &str, value: &str) {
        set_attribute(host_folder(nqn).join(name), value);
    }

    /// Sets what the subsystem's folder has under `name`: `attr_serial`, `attr_qid_max`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        set_attribute(self.subsystem().join(name), value);
    }

    /// Sets what a namespace's folder has under `name`: `revalidate_size`, `ana_grpid`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn set_namespace(&self, id: u32, name: &str, value: &str) {
        set_attribute(self.namespace(id).join(name), value);
    }

    /// Sets what the port's folder has under `name`, which takes most only before it
    /// [listens](Self::listen): `addr_tsas`, `ana_groups/1/ana_state`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn set_port(&self, name: &str, value: &str) {
        set_attribute(self.port_folder().join(name), value);
    }

    /// Has it serve hosts with TLS only, once it listens.
    ///
    /// # Panics
    /// When the kernel refuses to.
    #[track_caller]
    pub fn require_tls(&mut self) {
        self.set_port("addr_tsas", "tls1.3");
        self.set_port("addr_treq", "required");
    }

    /// Has it serve hosts with TLS too, once it listens.
    ///
    /// # Panics
    /// When the kernel refuses to.
    #[track_caller]
    pub fn offer_tls(&mut self) {
        self.set_port("addr_tsas", "tls1.3");
        self.set_port("addr_treq", "not required");
    }

    /// Begins to serve hosts.
    ///
    /// # Panics
    /// When the kernel refuses to.
    #[track_caller]
    pub fn listen(&mut self) {
        std::os::unix::fs::symlink(self.subsystem(), self.link()).expect("the kernel listens");
        self.is_listening = true;
    }

    /// Ends all associations and serves nobody until it [listens](Self::listen) again.
    ///
    /// # Panics
    /// When the kernel refuses to.
    #[track_caller]
    pub fn stop(&mut self) {
        std::fs::remove_file(self.link()).expect("the kernel stops");
        self.is_listening = false;
    }

    /// The subsystem's name.
    pub fn nqn(&self) -> &str {
        &self.nqn
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn subsystem(&self) -> PathBuf {
        Path::new(ROOT).join("subsystems").join(&self.nqn)
    }

    fn namespace(&self, id: u32) -> PathBuf {
        self.subsystem().join("namespaces").join(id.to_string())
    }

    fn allowed(&self, host: &str) -> PathBuf {
        self.subsystem().join("allowed_hosts").join(host)
    }

    fn port_folder(&self) -> PathBuf {
        Path::new(ROOT).join("ports").join(self.port.to_string())
    }

    fn link(&self) -> PathBuf {
        self.port_folder().join("subsystems").join(&self.nqn)
    }
}

impl Drop for KernelTarget {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.is_listening {
            self.stop();
        }
        for host in &self.hosts {
            std::fs::remove_file(self.allowed(host)).expect("the kernel forbids the host");
            std::fs::remove_dir(host_folder(host)).expect("the kernel forgets the host");
        }
        for id in &self.namespaces {
            std::fs::remove_dir(self.namespace(*id)).expect("the kernel removes the namespace");
        }
        std::fs::remove_dir(self.port_folder()).expect("the kernel removes the port");
        std::fs::remove_dir(self.subsystem()).expect("the kernel removes the subsystem");
    }
}

fn host_folder(nqn: &str) -> PathBuf {
    Path::new(ROOT).join("hosts").join(nqn)
}

#[track_caller]
fn create(folder: &Path) {
    if let Err(error) = std::fs::create_dir(folder) {
        panic!("{}: {error}", folder.display());
    }
}
