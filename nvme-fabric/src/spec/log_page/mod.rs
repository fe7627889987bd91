//! Log pages: the discovery log, asymmetric access, and those that every controller has.

mod ana;
mod discovery;
mod effects;
mod health;

pub use ana::{
    ACCESS_DESCRIPTOR_LENGTH, ACCESS_GROUPS_ONLY, ACCESS_HEADER_LENGTH, AccessGroup, AccessLog,
    AccessLogCut, AccessState,
};
pub use discovery::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH, SECURITY_NONE,
    SECURITY_TLS_1_3, SubsystemKind, TRANSPORT_TCP, entry_flag,
};
pub use effects::{EFFECT_CONTENT, EFFECT_SUPPORTED, EFFECTS_LENGTH, encode_effects};
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
/// LID 05h: commands supported and effects. Base §5.16.1.6.
pub const COMMAND_EFFECTS: u8 = 0x05;
/// LID 0Ch: asymmetric namespace access. Base §5.16.1.13.
pub const ASYMMETRIC_ACCESS: u8 = 0x0c;
/// LID 70h: discovery.
pub const DISCOVERY: u8 = 0x70;
/// LID 80h: reservation notification, see [`crate::spec::reservation::ReservationNotification`].
pub const RESERVATION_NOTIFICATION: u8 = 0x80;

/// Bytes of the changed namespace list.
pub const CHANGED_NAMESPACES_LENGTH: usize = 4096;
