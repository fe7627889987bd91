//! The status of a completion: code, type, and whether to try again.
//!
//! `Display` says it as people do: "Invalid Field in Command (0x002), do not retry".

use std::fmt;

/// The status field without its phase bit. Base §3.3.3.2.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// Bit 14 of [`Status`]: DNR, bit 15 of the field.
const DO_NOT_RETRY: u16 = 1 << 14;
/// Bit 13 of [`Status`]: More, bit 14 of the field.
const MORE: u16 = 1 << 13;

macro_rules! statuses {
    ($($(#[$meta:meta])* $name:ident = $code:literal $text:literal;)*) => {
        impl Status {
            $($(#[$meta])* #[doc = $text] pub const $name: Self = Self($code);)*
        }

        /// What the specification calls the status with this type and code.
        fn name(code: u16) -> Option<&'static str> {
            match code {
                $($code => Some($text),)*
                _ => None,
            }
        }
    };
}

// SCT 0 generic, 1 command specific, 2 media, 3 path related. Base §3.3.3.2.1.
statuses! {
    SUCCESS = 0x000 "Successful Completion";
    INVALID_OPCODE = 0x001 "Invalid Command Opcode";
    INVALID_FIELD = 0x002 "Invalid Field in Command";
    COMMAND_ID_CONFLICT = 0x003 "Command ID Conflict";
    DATA_TRANSFER_ERROR = 0x004 "Data Transfer Error";
    INTERNAL_ERROR = 0x006 "Internal Error";
    ABORT_REQUESTED = 0x007 "Command Abort Requested";
    ABORTED_QUEUE_DELETED = 0x008 "Command Aborted due to SQ Deletion";
    ABORTED_FAILED_FUSED = 0x009 "Command Aborted due to Failed Fused Command";
    ABORTED_MISSING_FUSED = 0x00a "Command Aborted due to Missing Fused Command";
    INVALID_NAMESPACE = 0x00b "Invalid Namespace or Format";
    COMMAND_SEQUENCE_ERROR = 0x00c "Command Sequence Error";
    INVALID_SGL_COUNT = 0x00e "Invalid Number of SGL Descriptors";
    DATA_SGL_LENGTH_INVALID = 0x00f "Data SGL Length Invalid";
    SGL_TYPE_INVALID = 0x011 "SGL Descriptor Type Invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x014 "Atomic Write Unit Exceeded";
    OPERATION_DENIED = 0x015 "Operation Denied";
    SGL_OFFSET_INVALID = 0x016 "SGL Offset Invalid";
    HOST_ID_INCONSISTENT = 0x018 "Host Identifier Inconsistent Format";
    KEEP_ALIVE_EXPIRED = 0x019 "Keep Alive Timer Expired";
    KEEP_ALIVE_INVALID = 0x01a "Keep Alive Timeout Invalid";
    NAMESPACE_WRITE_PROTECTED = 0x020 "Namespace is Write Protected";
    COMMAND_INTERRUPTED = 0x021 "Command Interrupted";
    TRANSIENT_TRANSPORT_ERROR = 0x022 "Transient Transport Error";
    LBA_OUT_OF_RANGE = 0x080 "LBA Out of Range";
    CAPACITY_EXCEEDED = 0x081 "Capacity Exceeded";
    NAMESPACE_NOT_READY = 0x082 "Namespace Not Ready";
    RESERVATION_CONFLICT = 0x083 "Reservation Conflict";
    INVALID_QUEUE_ID = 0x101 "Invalid Queue Identifier";
    INVALID_QUEUE_SIZE = 0x102 "Invalid Queue Size";
    ABORT_LIMIT_EXCEEDED = 0x103 "Abort Command Limit Exceeded";
    EVENT_REQUEST_LIMIT_EXCEEDED = 0x105 "Asynchronous Event Request Limit Exceeded";
    INVALID_LOG_PAGE = 0x109 "Invalid Log Page";
    FEATURE_NOT_SAVEABLE = 0x10d "Feature Identifier Not Saveable";
    FEATURE_NOT_CHANGEABLE = 0x10e "Feature Not Changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10f "Feature Not Namespace Specific";
    CONNECT_INCOMPATIBLE_FORMAT = 0x180 "Connect Incompatible Format";
    CONNECT_CONTROLLER_BUSY = 0x181 "Connect Controller Busy";
    CONNECT_INVALID_PARAMETERS = 0x182 "Connect Invalid Parameters";
    CONNECT_RESTART_DISCOVERY = 0x183 "Connect Restart Discovery or Command Size Limit Exceeded";
    CONNECT_INVALID_HOST = 0x184 "Connect Invalid Host";
    DISCOVERY_RESTART = 0x190 "Discovery Restart";
    AUTHENTICATION_REQUIRED = 0x191 "Authentication Required";
    WRITE_FAULT = 0x280 "Write Fault";
    UNRECOVERED_READ_ERROR = 0x281 "Unrecovered Read Error";
    COMPARE_FAILURE = 0x285 "Compare Failure";
    ACCESS_DENIED = 0x286 "Access Denied";
    UNWRITTEN_BLOCK = 0x287 "Deallocated or Unwritten Logical Block";
    INTERNAL_PATH_ERROR = 0x300 "Internal Path Error";
    ANA_PERSISTENT_LOSS = 0x301 "Asymmetric Access Persistent Loss";
    ANA_INACCESSIBLE = 0x302 "Asymmetric Access Inaccessible";
    ANA_TRANSITION = 0x303 "Asymmetric Access Transition";
    CONTROLLER_PATHING_ERROR = 0x360 "Controller Pathing Error";
    HOST_PATHING_ERROR = 0x370 "Host Pathing Error";
    ABORTED_BY_HOST = 0x371 "Command Aborted By Host";
}

impl Status {
    /// Of a copy: more or longer ranges than the namespace takes. Of Connect the same code is
    /// [`CONNECT_RESTART_DISCOVERY`](Self::CONNECT_RESTART_DISCOVERY). NVM §3.2.2.
    pub const COMMAND_SIZE_LIMIT_EXCEEDED: Self = Self(0x183);

    /// The status of completion bytes 14-15; the phase bit 0 means nothing over fabrics.
    pub const fn from_field(field: u16) -> Self {
        Self(field >> 1)
    }

    /// Completion bytes 14-15.
    pub const fn field(self) -> u16 {
        self.0 << 1
    }

    /// Type and code: SCT in bits 10:8, SC in bits 7:0, as in `0x181`.
    pub const fn code(self) -> u16 {
        self.0 & 0x7ff
    }

    /// Whether the type and code are the other's, whatever the retry bits say.
    pub const fn is(self, other: Self) -> bool {
        self.code() == other.code()
    }

    /// Whether the way to the namespace is at fault, not the command (SCT 3h).
    pub const fn is_path_related(self) -> bool {
        self.code() >> 8 == 3
    }

    /// Whether the command succeeded.
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }

    /// DNR: the same command would fail again.
    pub const fn forbids_retry(self) -> bool {
        self.0 & DO_NOT_RETRY != 0
    }

    /// The same with DNR set.
    #[must_use]
    pub const fn do_not_retry(self) -> Self {
        Self(self.0 | DO_NOT_RETRY)
    }

    /// More: the error log tells more.
    pub const fn has_more(self) -> bool {
        self.0 & MORE != 0
    }

    /// CRD: which of the controller's retry delays to wait; 0 for none, 1 to 3.
    pub const fn retry_delay(self) -> u8 {
        (self.0 >> 11) as u8 & 0b11
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.code() >> 8 {
            0 => "generic status",
            1 => "command specific status",
            2 => "media error",
            3 => "path error",
            7 => "vendor specific status",
            _ => "reserved status type",
        };
        f.write_str(name(self.code()).unwrap_or(kind))?;
        write!(f, " ({:#05x})", self.code())?;
        if self.forbids_retry() { f.write_str(", do not retry") } else { Ok(()) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_shifted_by_the_phase() {
        assert_eq!(Status::INVALID_FIELD.field(), 0x0004);
        assert_eq!(Status::CONNECT_INVALID_PARAMETERS.do_not_retry().field(), 0x8304);
        let status = Status::from_field(0x8305);
        assert!(status.is(Status::CONNECT_INVALID_PARAMETERS) && status.forbids_retry());
        assert_eq!(status.code(), 0x182);
        assert!(!Status::from_field(0x2000 | 2).is_success());
        assert_eq!(Status::from_field(0x2000 | 2).retry_delay(), 2);
        assert!(Status::from_field(0x4000 | 2).has_more());
    }

    #[test]
    fn it_speaks() {
        assert_eq!(
            Status::INVALID_FIELD.do_not_retry().to_string(),
            "Invalid Field in Command (0x002), do not retry"
        );
        assert_eq!(Status::from_field(0x1fe << 1).to_string(), "command specific status (0x1fe)");
    }
}
