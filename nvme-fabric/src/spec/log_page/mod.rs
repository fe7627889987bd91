//! Log pages: the discovery log, and those that every controller has.

mod discovery;
mod health;

pub use discovery::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH, SECURITY_NONE,
    SECURITY_TLS_1_3, SubsystemKind, TRANSPORT_TCP, entry_flag,
};
pub use health::{ERROR_ENTRY_LENGTH, FIRMWARE_LENGTH, HealthLog, encode_firmware_log};

/// LID 01h: error information. Base §5.16.1.
pub const ERROR_INFORMATION: u8 = 0x01;
/// LID 02h: SMART / health information.
pub const HEALTH_INFORMATION: u8 = 0x02;
/// LID 03h: firmware slot information.
pub const FIRMWARE_SLOTS: u8 = 0x03;
/// LID 04h: changed namespace list: up to 1024 ids, the first FFFFFFFFh when there are more. Base
/// §5.16.1.5.
pub const CHANGED_NAMESPACES: u8 = 0x04;
/// LID 70h: discovery.
pub const DISCOVERY: u8 = 0x70;

/// Bytes of the changed namespace list.
pub const CHANGED_NAMESPACES_LENGTH: usize = 4096;
