//! A namespace: a device as hosts see it.
//!
//! Absent: the device itself, which whoever drives the target has.

use block_io::{DeviceError, Extent, Geometry};

use super::PAGE_SIZE;
use super::io::{self, Extents};
use super::reservation::Reservation;
use crate::spec::identify::{
    BlockFormat, COMMAND_SET_NVM, IdentifyNamespace, IndependentNamespace, NamespaceDescriptors,
};
use crate::spec::nqn::HostId;

/// DLFEAT bits 2:0 = 000b: what a deallocated block reads as is not said. NVM §4.1.5.1.
const DEALLOCATED_READS_NOT_REPORTED: u8 = 0;

/// Size, identity and limits of a namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    geometry: Geometry,
    uuid: HostId,
    /// ANAGRPID; 0 where the subsystem has no groups.
    access_group: u32,
    /// What commands are at the device for.
    pub(super) extents: Extents,
    pub(super) reservation: Reservation,
}

impl Namespace {
    /// A namespace of a device with `geometry`, which hosts recognise by `uuid`.
    ///
    /// # Errors
    /// When hosts could not work with the geometry: the field, the value and what would be right.
    pub fn new(geometry: Geometry, uuid: HostId) -> Result<Self, DeviceError> {
        if uuid.is_zero() {
            return Err(DeviceError::new("the namespace's UUID is zero: must be a UUID"));
        }
        check(&geometry)?;
        let (extents, reservation) = (Extents::default(), Reservation::default());
        Ok(Self { geometry, uuid, access_group: 0, extents, reservation })
    }

    /// The same, whose reservation can persist through power loss, because the owner of the target
    /// keeps what [`Target::next_reservation_image`](super::Target::next_reservation_image) gives.
    /// `image` is the text of the last one, when there is one.
    ///
    /// # Errors
    /// When the image is cut short or another namespace's: the line and what would be right.
    pub fn with_kept_reservations(self, image: Option<&str>) -> Result<Self, DeviceError> {
        let reservation = Reservation::kept(image, self.uuid)?;
        Ok(Self { reservation, ..self })
    }

    /// The same as a member of an access group, which its subsystem must have. Without that it
    /// becomes one of the subsystem's first group.
    #[must_use]
    pub fn with_access_group(self, access_group: u32) -> Self {
        Self { access_group, ..self }
    }

    /// Its access group: 0 where the subsystem has none.
    pub fn access_group(&self) -> u32 {
        self.access_group
    }

    /// The device's geometry.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What hosts recognise it by.
    pub fn uuid(&self) -> HostId {
        self.uuid
    }

    /// The text of its reservation, as
    /// [`Target::next_reservation_image`](super::Target::next_reservation_image) gives it.
    pub fn reservation_image(&self) -> String {
        self.reservation.image(self.uuid)
    }

    /// Commands of all connections that are at its blocks, or wait to be.
    pub fn commands_under_way(&self) -> usize {
        self.extents.len()
    }

    pub(super) fn set_geometry(&mut self, geometry: Geometry) -> Result<(), DeviceError> {
        check(&geometry)?;
        if geometry.block_size != self.geometry.block_size {
            return Err(DeviceError::new(format!(
                "the block size is {}: must stay {}",
                geometry.block_size, self.geometry.block_size
            )));
        }
        self.geometry = geometry;
        Ok(())
    }

    /// The bytes of `blocks` logical blocks from `start`, when all are on the device.
    pub(super) fn extent(&self, start: u64, blocks: u64) -> Option<Extent> {
        let block_size = u64::from(self.geometry.block_size);
        let extent = Extent::new(start.checked_mul(block_size)?, blocks.checked_mul(block_size)?);
        let end = extent.offset.checked_add(extent.length)?;
        (end <= self.geometry.capacity).then_some(extent)
    }

    /// `is_accessible` says whether its group is; otherwise what is used is not told, as by Linux.
    pub(super) fn identify(&self, is_accessible: bool) -> IdentifyNamespace {
        let geometry = &self.geometry;
        let blocks = geometry.capacity / u64::from(geometry.block_size);
        let preferred = (geometry.preferred_block_size / geometry.block_size - 1) as u16;
        let thin = if geometry.discard { IdentifyNamespace::FEATURE_THIN } else { 0 };
        IdentifyNamespace {
            size: blocks,
            capacity: blocks,
            // How much is allocated is not known; all of it is the answer that promises nothing.
            used: if is_accessible { blocks } else { 0 },
            features: thin | IdentifyNamespace::FEATURE_PREFERRED_SIZES,
            multi_path: IdentifyNamespace::SHARED,
            deallocate_features: DEALLOCATED_READS_NOT_REPORTED,
            write_granularity: preferred,
            write_alignment: preferred,
            deallocate_granularity: preferred,
            deallocate_alignment: preferred,
            write_size: preferred,
            access_group: self.access_group,
            reservations: self.reservation.capabilities(),
            optimal_boundary: 0,
            copy_range_blocks_max: io::copy_range_blocks_max(geometry) as u16,
            copy_blocks_max: io::copy_blocks_max(geometry),
            copy_ranges_max: (io::COPY_RANGES_MAX - 1) as u8,
            attributes: self.attributes(),
            nguid: self.uuid.0,
            eui64: [0; 8],
            format: BlockFormat {
                metadata: 0,
                data_size_log2: geometry.block_size.trailing_zeros() as u8,
                performance: 0,
            },
        }
    }

    pub(super) fn identify_independent(&self) -> IndependentNamespace {
        IndependentNamespace {
            multi_path: IdentifyNamespace::SHARED,
            reservations: self.reservation.capabilities(),
            access_group: self.access_group,
            attributes: self.attributes(),
            ready: true,
        }
    }

    pub(super) fn descriptors(&self) -> NamespaceDescriptors {
        NamespaceDescriptors {
            eui64: None,
            nguid: Some(self.uuid.0),
            uuid: Some(self.uuid),
            command_set: Some(COMMAND_SET_NVM),
        }
    }

    fn attributes(&self) -> u8 {
        if self.geometry.read_only { IdentifyNamespace::WRITE_PROTECTED } else { 0 }
    }
}

fn check(geometry: &Geometry) -> Result<(), DeviceError> {
    let wrong = |field: &str, value: u64, right: &str| {
        Err(DeviceError::new(format!("the namespace's {field} is {value}: must be {right}")))
    };
    let block_size = geometry.block_size;
    // LBADS is a power of two of at least 512 bytes (NVM §4.1.5.1); Linux takes up to its page.
    if !block_size.is_power_of_two() || !(512..=PAGE_SIZE).contains(&block_size) {
        return wrong("block size", block_size.into(), "a power of two from 512 to 4096");
    }
    let capacity = geometry.capacity;
    if capacity == 0 || !capacity.is_multiple_of(u64::from(block_size)) {
        return wrong("capacity", capacity, "a positive multiple of the block size");
    }
    let preferred = geometry.preferred_block_size;
    let preferred_max = block_size << 15;
    if !preferred.is_power_of_two() || !(block_size..=preferred_max).contains(&preferred) {
        return wrong("preferred block size", preferred.into(), "a power of two times its block");
    }
    // MDTS counts in powers of two of pages, and 0 would mean no limit.
    if geometry.transfer_max < 2 * PAGE_SIZE {
        return wrong("largest transfer", geometry.transfer_max.into(), "at least 8192 bytes");
    }
    if geometry.zeroes_max < u64::from(block_size) {
        return wrong("largest discard", geometry.zeroes_max, "at least a block");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: HostId = HostId([1; 16]);

    #[test]
    fn geometries_that_hosts_cannot_use_are_refused_by_name() {
        let good = Geometry::new(1 << 20);
        assert!(Namespace::new(good, UUID).is_ok());
        for (geometry, field) in [
            (Geometry { block_size: 8192, ..good }, "block size"),
            (Geometry { block_size: 520, ..good }, "block size"),
            (Geometry { capacity: 0, ..good }, "capacity"),
            (Geometry { capacity: 1000, ..good }, "capacity"),
            (Geometry { preferred_block_size: 256, ..good }, "preferred block size"),
            (Geometry { transfer_max: 4096, ..good }, "largest transfer"),
            (Geometry { zeroes_max: 0, ..good }, "largest discard"),
        ] {
            let error = Namespace::new(geometry, UUID).expect_err(field).to_string();
            assert!(error.contains(field), "{error}");
        }
        assert!(Namespace::new(good, HostId::default()).is_err());
    }

    #[test]
    fn extents_of_strangers_numbers() {
        let namespace = Namespace::new(Geometry::new(1 << 20), UUID).expect("good");
        assert_eq!(namespace.extent(2047, 1), Some(Extent::new((1 << 20) - 512, 512)));
        for (start, blocks) in
            [(2047, 2), (2048, 1), (u64::MAX, 1), (1, u64::MAX), (u64::MAX / 512, 1), (1 << 55, 8)]
        {
            assert_eq!(namespace.extent(start, blocks), None, "{start}+{blocks}");
        }
    }
}
