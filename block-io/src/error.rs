//! Two kinds of error, kept apart.
//!
//! [`IoError`] is the data path's: small, `Copy`, one word on a completion, and it maps to an
//! errno, an NBD error or an NVMe status at the frontends. [`DeviceError`] is the control path's:
//! it names what was being done, to what, and why it failed, for a person to read.

use std::fmt;

/// Why a request failed. A completion carries it to the client unchanged in kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoError {
    /// The request itself is malformed (alignment, length, missing buffer). `EINVAL`.
    InvalidArgument,
    /// Past the end of the device. `ENOSPC` for writes and `EINVAL` for reads, by NBD custom.
    OutOfRange,
    /// A write to a read-only device. `EPERM`.
    ReadOnly,
    /// The device ran out of space (a thin file, a quota). `ENOSPC`.
    NoSpace,
    /// The device has no such operation. `EOPNOTSUPP`.
    Unsupported,
    /// The medium failed, or a checksum did. `EIO`.
    Media,
    /// No answer in time. The outcome of a write is unknown. `ETIMEDOUT`.
    TimedOut,
    /// The way to the device was lost. The outcome of a write is unknown. `ENOTCONN`.
    ConnectionLost,
    /// Given up because the device is being closed; the outcome of a write is unknown. `ESHUTDOWN`.
    Cancelled,
    /// The device is not there any more, though the way to it is. `ENODEV`.
    Gone,
    /// The device is no longer what it was opened as: other blocks, or another device in its place.
    /// `ESTALE`.
    DeviceChanged,
    /// Memory or another bounded resource is exhausted. `ENOMEM`.
    OutOfMemory,
    /// Any other errno of the kernel's.
    Other(i32),
}

/// Linux errno values, the same on every architecture that Forebay runs on
/// (`include/uapi/asm-generic/errno{-base,}.h`).
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const ENOTCONN: i32 = 107;
    pub(super) const ESHUTDOWN: i32 = 108;
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const ESTALE: i32 = 116;
    pub(super) const ECANCELED: i32 = 125;
    pub(super) const ECONNRESET: i32 = 104;
    pub(super) const EPIPE: i32 = 32;
}

impl IoError {
    /// The error for a (positive) errno of the kernel's.
    pub const fn from_errno(number: i32) -> Self {
        match number {
            errno::EPERM | errno::EROFS => Self::ReadOnly,
            errno::EIO => Self::Media,
            errno::ENOMEM => Self::OutOfMemory,
            errno::EINVAL => Self::InvalidArgument,
            errno::ENOSPC => Self::NoSpace,
            errno::EOPNOTSUPP => Self::Unsupported,
            errno::ETIMEDOUT => Self::TimedOut,
            errno::ENODEV => Self::Gone,
            errno::ESTALE => Self::DeviceChanged,
            errno::ENOTCONN | errno::ECONNRESET | errno::EPIPE => Self::ConnectionLost,
            errno::ECANCELED | errno::ESHUTDOWN => Self::Cancelled,
            other => Self::Other(other),
        }
    }

    /// The (positive) errno that says the same.
    pub const fn errno(self) -> i32 {
        match self {
            Self::InvalidArgument | Self::OutOfRange => errno::EINVAL,
            Self::ReadOnly => errno::EPERM,
            Self::NoSpace => errno::ENOSPC,
            Self::Unsupported => errno::EOPNOTSUPP,
            Self::Media => errno::EIO,
            Self::TimedOut => errno::ETIMEDOUT,
            Self::ConnectionLost => errno::ENOTCONN,
            Self::Cancelled => errno::ESHUTDOWN,
            Self::Gone => errno::ENODEV,
            Self::DeviceChanged => errno::ESTALE,
            Self::OutOfMemory => errno::ENOMEM,
            Self::Other(number) => number,
        }
    }

    /// Whether a failed write may nevertheless have reached the medium, now or later.
    pub const fn outcome_unknown(self) -> bool {
        !matches!(
            self,
            Self::InvalidArgument | Self::OutOfRange | Self::ReadOnly | Self::Unsupported
        )
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument => f.write_str("invalid request"),
            Self::OutOfRange => f.write_str("past the end of the device"),
            Self::ReadOnly => f.write_str("the device is read-only"),
            Self::NoSpace => f.write_str("no space left on the device"),
            Self::Unsupported => f.write_str("the device does not support this operation"),
            Self::Media => f.write_str("the medium failed"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::ConnectionLost => f.write_str("the connection was lost"),
            Self::Cancelled => f.write_str("the device is closing"),
            Self::Gone => f.write_str("the device is gone"),
            Self::DeviceChanged => f.write_str("the device is not what it was opened as"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Other(number) => write!(f, "{}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}

impl std::error::Error for IoError {}

impl From<&std::io::Error> for IoError {
    fn from(error: &std::io::Error) -> Self {
        error.raw_os_error().map_or(Self::Media, Self::from_errno)
    }
}

/// Why a device could not be opened or set up: what was attempted, on what, and the cause.
#[derive(Debug)]
pub struct DeviceError {
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DeviceError {
    /// An error that `message` tells whole: the field, the value, and what would be right.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error whose `message` says what was attempted and whose `source` says why it failed.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_and_back_keeps_the_kind() {
        for error in [
            IoError::InvalidArgument,
            IoError::ReadOnly,
            IoError::NoSpace,
            IoError::Unsupported,
            IoError::Media,
            IoError::TimedOut,
            IoError::ConnectionLost,
            IoError::Cancelled,
            IoError::Gone,
            IoError::DeviceChanged,
            IoError::OutOfMemory,
            IoError::Other(75),
        ] {
            assert_eq!(IoError::from_errno(error.errno()), error);
        }
    }
}
