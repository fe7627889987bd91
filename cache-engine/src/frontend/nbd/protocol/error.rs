//! Three kinds of failure: a request's (an NBD error number on its reply), the peer's (the
//! connection ends, [`PeerFault`] says why), and an option's (an option reply, see `option`).

use std::fmt;

use block_io::IoError;

/// Error numbers on the wire. //= NBD proto.md "Error values"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum WireError {
    NotPermitted = 1,
    InputOutput = 5,
    OutOfMemory = 12,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    Unsupported = 95,
    Shutdown = 108,
}

/// The number on the wire for a device's error. `writes` says whether the request was one that
/// stores bytes: only those may answer NBD_ENOSPC.
pub(super) const fn wire_error(error: IoError, writes: bool) -> WireError {
    match error {
        IoError::InvalidArgument => WireError::Invalid,
        IoError::OutOfRange if writes => WireError::NoSpace,
        IoError::OutOfRange => WireError::Invalid,
        IoError::ReadOnly => WireError::NotPermitted,
        IoError::NoSpace => WireError::NoSpace,
        IoError::Unsupported => WireError::Unsupported,
        IoError::Cancelled => WireError::Shutdown,
        IoError::OutOfMemory => WireError::OutOfMemory,
        IoError::Other(number) if number == WireError::Overflow as i32 => WireError::Overflow,
        IoError::Media
        | IoError::TimedOut
        | IoError::ConnectionLost
        | IoError::Gone
        | IoError::DeviceChanged
        | IoError::Other(_) => WireError::InputOutput,
    }
}

/// What a client did that leaves no way to go on; its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFault {
    /// Client flags other than the two that were offered.
    ClientFlags(u32),
    /// An option that does not begin with IHAVEOPT.
    OptionMagic(u64),
    /// An option other than EXPORT_NAME from a client without fixed newstyle: it would not
    /// understand the answer.
    OptionWithoutFixedNewstyle(u32),
    /// More option data than the server is ready to skip.
    OptionLength(u32),
    /// More options than the server is ready to answer on one connection.
    OptionCount(u32),
    /// EXPORT_NAME, which cannot be refused otherwise, for an export that is not here.
    UnknownExport,
    /// A request that does not begin with the request magic.
    RequestMagic(u32),
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientFlags(flags) => {
                write!(f, "client flags {flags:#x}: only 0x1 and 0x2 were offered")
            }
            Self::OptionMagic(magic) => {
                write!(f, "option magic {magic:#018x}: must be 0x49484156454f5054")
            }
            Self::OptionWithoutFixedNewstyle(option) => {
                write!(
                    f,
                    "option {option} without fixed newstyle: only EXPORT_NAME (1) is possible"
                )
            }
            Self::OptionLength(length) => {
                write!(f, "option length {length}: at most {} bytes", super::OPTION_SKIPPED_MAX)
            }
            Self::OptionCount(count) => {
                write!(f, "{count} options: at most {}", super::OPTIONS_MAX)
            }
            Self::UnknownExport => f.write_str("EXPORT_NAME names an export that is not here"),
            Self::RequestMagic(magic) => {
                write!(f, "request magic {magic:#010x}: must be 0x25609513")
            }
        }
    }
}

impl std::error::Error for PeerFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_error_has_its_number_on_the_wire() {
        for (error, writes, expected) in [
            (IoError::InvalidArgument, true, 22),
            (IoError::OutOfRange, true, 28),
            (IoError::OutOfRange, false, 22),
            (IoError::ReadOnly, true, 1),
            (IoError::NoSpace, true, 28),
            (IoError::Unsupported, true, 95),
            (IoError::Media, false, 5),
            (IoError::TimedOut, true, 5),
            (IoError::ConnectionLost, true, 5),
            (IoError::Cancelled, true, 108),
            (IoError::Gone, true, 5),
            (IoError::DeviceChanged, false, 5),
            (IoError::OutOfMemory, true, 12),
            (IoError::Other(75), false, 75),
            (IoError::Other(61), false, 5),
        ] {
            assert_eq!(wire_error(error, writes) as u32, expected, "{error:?}");
        }
    }
}
