//! `forebay target --config`: a target whose namespaces and access groups are changed while it
//! runs. Several can serve one subsystem.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use forebay_tests::server::ForebayCommand;

use super::our_target::SUBSYSTEM;
use super::{eventually, free_port};

/// A target of [`SUBSYSTEM`] with a folder of its own, which can be killed and started again.
pub struct ManagedTarget {
    folder: PathBuf,
    port: u16,
    command: Option<ForebayCommand>,
}

impl ManagedTarget {
    /// Starts number `number` of the targets of the subsystem. `subsystem` is what the
    /// configuration says of it beside its names: access groups and namespaces.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start(number: u16, subsystem: &str) -> Self {
        let folder = PathBuf::from(format!("/tmp/target-{number}"));
        std::fs::create_dir_all(folder.join("volumes")).expect("room");
        let (port, shown) = (free_port(), folder.display());
        let configuration = format!(
            "listen = ['127.0.0.1:{port}']\ncontrol = '{shown}/control'\n\
             controller-id-first = {}\nport-id-first = {}\n\
             [volumes]\nfolder = '{shown}/volumes'\nstate = '{shown}/state'\n\
             nqn-prefix = 'nqn.2026-01.io.forebay'\n\
             [[subsystem]]\nnqn = '{SUBSYSTEM}'\nserial = 'S1'\n{subsystem}",
            1 + 1000 * number,
            1 + 100 * number,
        );
        std::fs::write(folder.join("target.toml"), configuration).expect("room");
        let mut target = Self { folder, port, command: None };
        target.start_again();
        target
    }

    /// Starts it again after it was [killed](Self::kill).
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.command.is_none(), "it runs");
        let path = ForebayCommand::program().expect("the case needs it");
        let configuration = self.folder.join("target.toml").display().to_string();
        self.command = Some(ForebayCommand::start(&path, &["target", "--config", &configuration]));
        let status = || self.verb(&["status"]).ok();
        eventually("the target answers", status);
    }

    /// Tells it something; what it answers.
    ///
    /// # Panics
    /// When it refuses.
    #[track_caller]
    pub fn tell(&self, arguments: &[&str]) -> String {
        match self.verb(arguments) {
            Ok(said) => said,
            Err(said) => panic!("forebay target {arguments:?}: {said}"),
        }
    }

    fn verb(&self, arguments: &[&str]) -> Result<String, String> {
        let path = ForebayCommand::program().expect("the case needs it");
        let mut command = Command::new(path);
        command.arg("target").args(arguments).stdin(Stdio::null());
        let output = command.env("FOREBAY_SOCKET", self.folder.join("control")).output();
        let output = output.expect("the command starts");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        self.command = None;
    }

    /// Ends it in order, and takes its folder away; how it ended.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(mut self) -> ExitStatus {
        let status = self.command.take().expect("it runs").stop().0;
        std::fs::remove_dir_all(&self.folder).expect("it was there");
        status
    }

    /// Where the subsystem is served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
