//! Why a trace could not be read, and where.

use std::fmt;

/// Where in the trace; what is decompressed is counted, not the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A line, from 1.
    Line(u64),
    /// A byte, from 0.
    Byte(u64),
    /// The trace itself.
    Whole,
}

/// Why a trace could not be read: the place, the value and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    place: Place,
    message: String,
}

impl TraceError {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }

    pub(super) fn reading(error: &std::io::Error) -> Self {
        Self::new(Place::Whole, format!("reading: {error}"))
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Line(line) => write!(f, "line {line}: ")?,
            Place::Byte(byte) => write!(f, "byte {byte}: ")?,
            Place::Whole => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for TraceError {}
