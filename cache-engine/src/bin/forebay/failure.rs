//! Why a verb ended without success, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use block_io::DeviceError;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not make sense together. Exit code 2, as for a wrong grammar.
    Usage(String),
    /// What was asked for could not be done. Exit code 1.
    Device(DeviceError),
    /// Standard output is gone. Exit code 1.
    Output(io::Error),
}

impl Failure {
    /// A failure that `message` tells whole.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Device(DeviceError::new(message))
    }

    /// A failure of `what`, for the reason `source`.
    pub(crate) fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Device(DeviceError::with_source(what, source))
    }

    /// What the process exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Device(_) | Self::Output(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => write!(f, "{message}\n\nFor more, try `forebay --help`."),
            Self::Device(error) => error.fmt(f),
            Self::Output(error) => write!(f, "writing to standard output: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}
