//! What the controller and the namespace say of themselves, judged: whether this host can work
//! with them, and what they are as a block device.

use block_io::Geometry;

use super::bring_up::Step;
use super::{Controller, Purpose, TRANSFER_MAX};
use crate::error::ConnectionError;
use crate::host::requests::Limits;
use crate::spec::feature::{self, event};
use crate::spec::identify::{
    self, ControllerKind, IdentifyController, IdentifyNamespace, NamespaceDescriptors, optional,
    parse_namespace_list,
};

/// SQEs have 64 bytes; IOCCSZ counts 16. NVMe Base 2.1 §5.1.13.2.1
const CAPSULE_LEAST: u32 = 4;

impl Controller {
    pub(super) fn take_controller(&mut self) -> Result<(), ConnectionError> {
        self.identity.controller = IdentifyController::parse(&self.page_bytes());
        let controller = &self.identity.controller;
        if self.purpose.is_discovery() {
            if !matches!(controller.kind, ControllerKind::Discovery | ControllerKind::NotReported) {
                let kind = controller.kind;
                return Err(self.incompatible(format!(
                    "CNTRLTYPE is {kind:?}: a discovery controller is needed"
                )));
            }
            return self.take_discovery_controller();
        }
        let fault = match controller {
            IdentifyController { kind: ControllerKind::Discovery, .. } => {
                Some("CNTRLTYPE is 2, a discovery controller: an I/O controller is needed".into())
            }
            IdentifyController { kind: ControllerKind::Administrative, .. } => {
                Some("CNTRLTYPE is 3, without I/O: an I/O controller is needed".into())
            }
            IdentifyController { command_capsule_size: size @ 0..CAPSULE_LEAST, .. } => {
                Some(format!("IOCCSZ is {size}: must be at least {CAPSULE_LEAST}"))
            }
            IdentifyController { in_capsule_data_offset: offset @ 1.., .. } => {
                Some(format!("ICDOFF is {offset}: must be 0 over TCP"))
            }
            controller if !controller.sgl_support.is_supported() => {
                Some(format!("SGLS is {:#x}: SGLs are needed", controller.sgl_support.0))
            }
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(self.incompatible(fault));
        }
        let events = self.event_configuration();
        self.set_feature(Step::Events, feature::ASYNCHRONOUS_EVENTS, events);
        Ok(())
    }

    /// A discovery controller that is asked once is up; one that is to tell of changes has to be
    /// able to.
    fn take_discovery_controller(&mut self) -> Result<(), ConnectionError> {
        if self.purpose == Purpose::Discovery {
            self.step = Step::Up;
            return Ok(());
        }
        let events = self.identity.controller.events;
        if events & optional::EVENT_DISCOVERY_LOG == 0 {
            return Err(self.incompatible(format!(
                "OAES is {events:#010x}: must have bit 31, as changes of the discovery log are to \
                 be told"
            )));
        }
        self.set_feature(Step::Events, feature::ASYNCHRONOUS_EVENTS, event::DISCOVERY_LOG);
        Ok(())
    }

    pub(super) fn take_active_namespaces(&mut self) -> Result<(), ConnectionError> {
        let Purpose::Namespace(wanted) = self.purpose else {
            return Ok(());
        };
        let active: Vec<u32> = parse_namespace_list(&self.page_bytes()).collect();
        let complete = active.len() < identify::NAMESPACE_LIST_MAX;
        if complete && !active.contains(&wanted) {
            let subsystem = &self.options.subsystem;
            let list: Vec<String> = active.iter().take(16).map(u32::to_string).collect();
            let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            return Err(self.incompatible(format!(
                "subsystem {subsystem} has no namespace {wanted}; active are: {list}"
            )));
        }
        self.identity.namespaces = active;
        self.identify(Step::Namespace, identify::NAMESPACE, wanted);
        Ok(())
    }

    pub(super) fn take_namespace(&mut self) -> Result<(), ConnectionError> {
        let namespace = IdentifyNamespace::parse(&self.page_bytes());
        self.identity.geometry = Some(self.geometry_of(&namespace)?);
        self.identity.namespace = namespace;
        self.identify(Step::CommandSet, identify::CONTROLLER_OF_COMMAND_SET, 0);
        Ok(())
    }

    pub(super) fn take_descriptors(&mut self) -> Result<(), ConnectionError> {
        self.identity.descriptors = NamespaceDescriptors::parse(&self.page_bytes());
        if !self.identity.descriptors.is_nvm() {
            let set = self.identity.descriptors.command_set.unwrap_or_default();
            return Err(self.incompatible(format!(
                "the namespace's command set is {set:#04x}: must be 0, the NVM command set"
            )));
        }
        Ok(())
    }

    /// The namespace as a block device.
    pub(super) fn geometry_of(
        &self,
        namespace: &IdentifyNamespace,
    ) -> Result<Geometry, ConnectionError> {
        let shift = u32::from(namespace.format.data_size_log2);
        // 512 bytes at least, as everywhere here; 64 KiB at most, the cache's largest line.
        if !(9..=16).contains(&shift) {
            return Err(self.incompatible(format!("LBADS is {shift}: must be 9 to 16")));
        }
        if namespace.format.metadata != 0 {
            let bytes = namespace.format.metadata;
            return Err(self.incompatible(format!("MS is {bytes}: must be 0, no metadata")));
        }
        let block_size = 1_u32 << shift;
        let capacity = namespace.size.checked_mul(u64::from(block_size)).filter(|size| *size > 0);
        let Some(capacity) = capacity else {
            let blocks = namespace.size;
            return Err(self.incompatible(format!("NSZE is {blocks} blocks: must be 1 to 2^64 B")));
        };
        let preferred = u32::from(namespace.write_granularity) + 1;
        let has_preference = namespace.features & IdentifyNamespace::FEATURE_PREFERRED_SIZES != 0;
        let preferred_block_size = if has_preference && preferred.is_power_of_two() {
            preferred.saturating_mul(block_size)
        } else {
            block_size.max(4096)
        };
        let controller = &self.identity.controller;
        Ok(Geometry {
            capacity,
            block_size,
            preferred_block_size,
            read_only: namespace.attributes & IdentifyNamespace::WRITE_PROTECTED != 0,
            volatile_cache: controller.volatile_write_cache & optional::CACHE_PRESENT != 0,
            discard: controller.nvm_commands & optional::COMMAND_DATASET_MANAGEMENT != 0,
            write_zeroes: controller.nvm_commands & optional::COMMAND_WRITE_ZEROES != 0,
            ..Geometry::new(capacity)
        })
    }

    /// Most bytes of one command's data: MDTS is a power of two of the smallest page, 0 for no
    /// limit. NVMe Base 2.1 §5.1.13.2.1
    pub(super) fn data_max(&self) -> u32 {
        let controller = &self.identity.controller;
        let page_shift =
            12 + self.identity.capabilities.map_or(0, |it| u32::from(it.page_size_min));
        match u32::from(controller.data_transfer_size_max) {
            0 => TRANSFER_MAX,
            power if power + page_shift >= 20 => TRANSFER_MAX,
            power => 1 << (power + page_shift),
        }
    }

    pub(crate) fn limits(&self, geometry: &Geometry) -> Limits {
        let block_shift = geometry.block_size.trailing_zeros();
        let page_shift =
            12 + self.identity.capabilities.map_or(0, |it| u32::from(it.page_size_min));
        let set = &self.identity.command_set;
        let blocks = |count: u64| match count {
            0 => u64::MAX,
            count => count.checked_shl(block_shift).unwrap_or(u64::MAX),
        };
        Limits {
            namespace_id: match self.purpose {
                Purpose::Namespace(id) => id,
                Purpose::Discovery | Purpose::PersistentDiscovery => 0,
            },
            block_shift,
            data_max: self.data_max(),
            // Both at least a block, for a page is. Zero is no limit. NVM §4.1.5.4
            zeroes_max: match u32::from(set.write_zeroes_size_max) {
                0 => u64::MAX,
                power => 1_u64.checked_shl(power + page_shift).unwrap_or(u64::MAX),
            }
            .max(1 << block_shift),
            discard_max: blocks(set.discard_range_blocks_max.into())
                .min(blocks(set.discard_blocks_max)),
            boundary: u64::from(self.identity.namespace.optimal_boundary) << block_shift,
            timeout: self.options.command_timeout,
        }
    }
}
