//! CapsuleCmd and CapsuleResp: a submission queue entry with or without data, and a completion.
//!
//! Absent: what the entries say.

/// Bytes of a submission queue entry. NVMe Base 2.1 §3.3.3.1
pub const COMMAND_LENGTH: usize = 64;
/// Bytes of a completion queue entry. NVMe Base 2.1 §3.3.3.2
pub const COMPLETION_LENGTH: usize = 16;

/// CapsuleCmd. NVMe/TCP Transport 1.1 §3.6.2.6
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandCapsule {
    /// The submission queue entry.
    pub command: [u8; COMMAND_LENGTH],
    /// Bytes of data in the capsule.
    pub data_length: u32,
}

impl CommandCapsule {
    pub(super) fn parse(header: &[u8], data_length: u32) -> Self {
        let mut command = [0; COMMAND_LENGTH];
        command.copy_from_slice(&header[8..8 + COMMAND_LENGTH]);
        Self { command, data_length }
    }
}

/// The completion queue entry in a CapsuleResp. NVMe/TCP Transport 1.1 §3.6.2.7
pub(super) fn parse_response(header: &[u8]) -> [u8; COMPLETION_LENGTH] {
    let mut completion = [0; COMPLETION_LENGTH];
    completion.copy_from_slice(&header[8..8 + COMPLETION_LENGTH]);
    completion
}
