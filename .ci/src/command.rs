//! Starting other programs: announced, timed, and with an error that can be repeated by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{StepResult, report};

/// A program to run as one named step, in the workspace's root.
pub(crate) struct Step {
    name: String,
    command: Command,
}

impl Step {
    /// A step that runs `program` with `arguments` in `root`.
    pub(crate) fn new(name: &str, root: &Path, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root).stdin(Stdio::null());
        Self { name: name.to_owned(), command }
    }

    /// A step that runs the cargo which started this tool.
    pub(crate) fn cargo(name: &str, root: &Path, arguments: &[&str]) -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        Self::new(name, root, &cargo, arguments)
    }

    /// Adds arguments.
    pub(crate) fn arguments(mut self, arguments: &[String]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable of the program.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, with this terminal as its own.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed.
    pub(crate) fn run(mut self) -> StepResult {
        let start = Instant::now();
        self.run_to_end()?;
        report::done(&self.name, start.elapsed());
        Ok(())
    }

    /// The same, with nothing said after the program's own last words when it succeeds.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn run_last(mut self) -> StepResult {
        self.run_to_end()
    }

    fn run_to_end(&mut self) -> StepResult {
        let line = self.line();
        report::step(&self.name, &line);
        let status = self.command.status();
        let name = &self.name;
        match status {
            Err(error) => Err(format!("{name}: `{line}` could not be started: {error}")),
            Ok(status) if !status.success() => Err(format!("{name}: `{line}` ended with {status}")),
            Ok(_) => Ok(()),
        }
    }

    /// The command as one could type it.
    pub(crate) fn line(&self) -> String {
        let program = Path::new(self.command.get_program());
        let program = program.file_name().unwrap_or(program.as_os_str());
        std::iter::once(program)
            .chain(self.command.get_args())
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The command, for whoever needs more than its status.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// Where `program` is: on `PATH`, or in the folders of the system's own tools, which an ordinary
/// user's `PATH` leaves out on Debian.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_an_error_that_names_its_command() {
        let error = Step::new("probe", Path::new("/"), "false", &["a", "b"]).run().unwrap_err();
        assert!(error.contains("probe: `false a b` ended with exit status: 1"), "{error}");
        let error = Step::new("probe", Path::new("/"), "no-such-program", &[]).run().unwrap_err();
        assert!(error.contains("could not be started"), "{error}");
    }

    #[test]
    fn programs_are_found_on_the_path_only() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program").is_none());
    }
}
