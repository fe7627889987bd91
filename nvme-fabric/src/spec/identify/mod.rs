//! Identify structures: 4096 bytes each.
//!
//! Absent: NVM sets, endurance groups, domains, zoned and key-value structures.

mod controller;
mod lists;
mod namespace;

pub use controller::{
    ControllerKind, IdentifyController, IdentifyControllerNvm, SglSupport, optional,
};
pub use lists::{
    NAMESPACE_LIST_MAX, NamespaceDescriptors, encode_namespace_list, parse_namespace_list,
};
pub use namespace::{BlockFormat, IdentifyNamespace, IndependentNamespace};

/// Bytes of every identify structure. Base §5.17.
pub const LENGTH: usize = 4096;

/// The bytes of a structure.
pub type Structure = [u8; LENGTH];

/// CNS 00h: namespace, of the NVM command set. Base §5.17.1.
pub const NAMESPACE: u8 = 0x00;
/// CNS 01h: controller.
pub const CONTROLLER: u8 = 0x01;
/// CNS 02h: active namespace list.
pub const ACTIVE_NAMESPACES: u8 = 0x02;
/// CNS 03h: namespace identification descriptors.
pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
/// CNS 05h: namespace, specific to a command set.
pub const NAMESPACE_OF_COMMAND_SET: u8 = 0x05;
/// CNS 06h: controller, specific to a command set.
pub const CONTROLLER_OF_COMMAND_SET: u8 = 0x06;
/// CNS 07h: active namespace list, specific to a command set.
pub const ACTIVE_NAMESPACES_OF_COMMAND_SET: u8 = 0x07;
/// CNS 08h: namespace, whatever its command set.
pub const NAMESPACE_INDEPENDENT: u8 = 0x08;

/// CSI 00h: the NVM command set. Base §5.17.1.
pub const COMMAND_SET_NVM: u8 = 0x00;
