//! `forebay target` as a process of the machine.

use std::path::PathBuf;
use std::process::ExitStatus;

use forebay_tests::server::ForebayCommand;

use super::free_port;

/// The subsystem that it serves.
pub const SUBSYSTEM: &str = "nqn.2026-01.io.forebay:disks";

/// A target over files, which can be killed and started again at the same address.
pub struct OurTarget {
    arguments: Vec<String>,
    port: u16,
    discovery_port: u16,
    command: Option<ForebayCommand>,
}

impl OurTarget {
    /// Starts a target with these namespaces, as the command takes them.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start(namespaces: &[&str]) -> Self {
        Self::start_with(namespaces, &[])
    }

    /// The same with further arguments, `--name=value` or `--name`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[track_caller]
    pub fn start_with(namespaces: &[&str], more: &[&str]) -> Self {
        let (port, discovery_port) = (free_port(), free_port());
        let mut arguments = vec![
            "target".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--discovery=127.0.0.1:{discovery_port}"),
            format!("--subsystem={SUBSYSTEM}"),
        ];
        arguments.extend(namespaces.iter().map(|uri| format!("--namespace={uri}")));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut target = Self { arguments, port, discovery_port, command: None };
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
        // Listeners are told from other arguments by being words of their own.
        let words: Vec<_> = self
            .arguments
            .iter()
            .flat_map(|argument| argument.split_once('=').map_or(vec![&**argument], pair))
            .collect();
        self.command = Some(ForebayCommand::start(&path, &words));
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        self.command = None;
    }

    /// Ends it in order; how it ended.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(mut self) -> ExitStatus {
        self.command.take().expect("it runs").stop().0
    }

    /// Where the subsystem is served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where discovery is served.
    pub fn discovery_port(&self) -> u16 {
        self.discovery_port
    }
}

fn pair<'a>((name, value): (&'a str, &'a str)) -> Vec<&'a str> {
    vec![name, value]
}

/// A new file of `size` bytes in the machine's memory, as a namespace.
///
/// # Panics
/// When there is no room.
pub fn file(name: &str, size: u64) -> PathBuf {
    let path = PathBuf::from("/tmp").join(name);
    let file = std::fs::File::create_new(&path).expect("a new file");
    file.set_len(size).expect("room");
    path
}
