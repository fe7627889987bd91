//! A subsystem: a name, and the namespaces that every host connected to it sees. What hosts must
//! prove is `secrets`' part.

use block_io::{DeviceError, SECTOR_SIZE};

use super::access::{Groups, HOSTS_MAX, Hosts};
use super::io::ATOMIC_MAX;
use super::secrets::HostSecrets;
use super::{NAMESPACE_ID_MAX, NAMESPACES_MAX, Namespace, Numbered, PAGE_SIZE, TRANSFER_MAX};
use crate::spec::command::nvm::BLOCKS_MAX;
use crate::spec::log_page::{AccessState, HealthLog};
use crate::spec::nqn::Nqn;

/// Name, identity and namespaces of a subsystem.
#[derive(Clone, Debug)]
pub struct Subsystem {
    nqn: Nqn,
    serial_number: String,
    model_number: String,
    pub(super) namespaces: Numbered<Namespace>,
    pub(super) groups: Groups,
    allowed: Hosts,
    pub(super) traffic: Traffic,
    pub(super) secrets: HostSecrets,
}

/// What all hosts have read and written, for the SMART log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl Subsystem {
    /// A subsystem without namespaces, called "Forebay", for any host.
    ///
    /// # Errors
    /// When the serial number is not 1 to 20 printable ASCII characters (SN, Base §5.17.2.1).
    pub fn new(nqn: Nqn, serial_number: &str) -> Result<Self, DeviceError> {
        check_text("serial number", serial_number, 20)?;
        Ok(Self {
            nqn,
            serial_number: serial_number.to_owned(),
            model_number: "Forebay".to_owned(),
            namespaces: Numbered::default(),
            groups: Groups::default(),
            allowed: Hosts::Any,
            traffic: Traffic::default(),
            secrets: HostSecrets::default(),
        })
    }

    /// The same with another model number.
    ///
    /// # Errors
    /// When it is not 1 to 40 printable ASCII characters (MN, Base §5.17.2.1).
    pub fn with_model_number(self, model_number: &str) -> Result<Self, DeviceError> {
        check_text("model number", model_number, 40)?;
        Ok(Self { model_number: model_number.to_owned(), ..self })
    }

    /// The same with access groups: each with its id (1 to [`super::ACCESS_GROUPS_MAX`]) and its
    /// state at first. Without groups, asymmetric access is not reported.
    ///
    /// # Errors
    /// When an id or a state makes no sense, or there are namespaces already.
    pub fn with_access_groups(
        mut self,
        groups: &[(u32, AccessState)],
    ) -> Result<Self, DeviceError> {
        if !self.namespaces.is_empty() {
            let nqn = &self.nqn;
            return Err(DeviceError::new(format!(
                "subsystem {nqn} has namespaces: access groups must be there before"
            )));
        }
        for (id, state) in groups {
            self.groups.add(*id, *state)?;
        }
        Ok(self)
    }

    /// The same for these hosts only.
    ///
    /// # Errors
    /// When more than [`HOSTS_MAX`] are listed.
    pub fn with_hosts(mut self, hosts: Hosts) -> Result<Self, DeviceError> {
        self.set_hosts(hosts)?;
        Ok(self)
    }

    /// Adds a namespace and returns its place, [`super::NamespaceKey::namespace`]. Its NSID is one
    /// more: the next that no namespace of the subsystem has had.
    ///
    /// # Errors
    /// When there are 1024 of them, one has its UUID, its access group is not the subsystem's, or
    /// all NSIDs were given out.
    pub fn add_namespace(&mut self, namespace: Namespace) -> Result<usize, DeviceError> {
        self.add_namespace_as(self.next_namespace_id(), namespace)
    }

    /// Adds a namespace with an NSID that the caller chooses, so that it is the same after a
    /// restart; returns its place.
    ///
    /// # Errors
    /// As [`add_namespace`](Self::add_namespace), and when the NSID is not above those that were
    /// given out: hosts that know one must not meet another namespace there.
    pub fn add_namespace_as(
        &mut self,
        namespace_id: u32,
        mut namespace: Namespace,
    ) -> Result<usize, DeviceError> {
        let nqn = &self.nqn;
        let wrong = |what: String| Err(DeviceError::new(what));
        if self.namespaces.len() == NAMESPACES_MAX {
            return wrong(format!(
                "subsystem {nqn} has {NAMESPACES_MAX} namespaces: must have no more"
            ));
        }
        if self.namespaces.values().any(|other| other.uuid() == namespace.uuid()) {
            let uuid = namespace.uuid();
            return wrong(format!("the namespace UUID {uuid} is taken in subsystem {nqn}"));
        }
        let next = self.next_namespace_id();
        if !(next..=NAMESPACE_ID_MAX).contains(&namespace_id) {
            return wrong(format!(
                "the NSID in subsystem {nqn} is {namespace_id}: must be {next} to \
                 {NAMESPACE_ID_MAX}, for none is given out twice"
            ));
        }
        if namespace.access_group() == 0 {
            namespace = namespace.with_access_group(self.groups.first().unwrap_or(0));
        }
        let group = namespace.access_group();
        if self.groups.state(group).is_none() && !(group == 0 && self.groups.is_empty()) {
            let ids: Vec<u32> = self.groups.states().map(|(id, _)| id).collect();
            return wrong(format!(
                "the namespace's access group is {group}: must be one of subsystem {nqn}, {ids:?}"
            ));
        }
        self.groups.members_changed(group);
        self.namespaces.skip_to(namespace_id as usize - 1);
        Ok(self.namespaces.push(namespace))
    }

    /// NSIDs below this one are not given out again. To be kept across a restart, with
    /// [`skip_namespace_ids`](Self::skip_namespace_ids).
    pub fn next_namespace_id(&self) -> u32 {
        // At most one above the largest, which add_namespace_as sees to.
        self.namespaces.next_number() as u32 + 1
    }

    /// NSIDs below `next` were given out before: they are not given out again.
    ///
    /// # Errors
    /// When that is more than one above the largest NSID.
    pub fn skip_namespace_ids(&mut self, next: u32) -> Result<(), DeviceError> {
        if !(1..=NAMESPACE_ID_MAX + 1).contains(&next) {
            return Err(DeviceError::new(format!(
                "the next NSID of subsystem {} is {next}: must be 1 to {}",
                self.nqn,
                NAMESPACE_ID_MAX + 1
            )));
        }
        self.namespaces.skip_to(next as usize - 1);
        Ok(())
    }

    pub(super) fn remove_namespace(&mut self, place: usize) -> Option<Namespace> {
        let namespace = self.namespaces.remove(place)?;
        self.groups.members_changed(namespace.access_group());
        Some(namespace)
    }

    pub(super) fn set_hosts(&mut self, hosts: Hosts) -> Result<(), DeviceError> {
        if let Hosts::Listed(listed) = &hosts
            && listed.len() > HOSTS_MAX
        {
            return Err(DeviceError::new(format!(
                "the hosts of subsystem {} are {}: must be at most {HOSTS_MAX}",
                self.nqn,
                listed.len()
            )));
        }
        self.allowed = hosts;
        Ok(())
    }

    /// Which hosts may connect.
    pub fn hosts(&self) -> &Hosts {
        &self.allowed
    }

    /// Access groups with their states, ascending; none when asymmetric access is not reported.
    pub fn access_groups(&self) -> impl Iterator<Item = (u32, AccessState)> {
        self.groups.states()
    }

    /// Its name.
    pub fn nqn(&self) -> &Nqn {
        &self.nqn
    }

    /// SN.
    pub fn serial_number(&self) -> &str {
        &self.serial_number
    }

    /// MN.
    pub fn model_number(&self) -> &str {
        &self.model_number
    }

    /// The namespaces; NSIDs are numbers plus one.
    pub fn namespaces(&self) -> &Numbered<Namespace> {
        &self.namespaces
    }

    /// The place and the namespace with this NSID.
    pub(super) fn find(&self, namespace_id: u32) -> Option<(usize, &Namespace)> {
        let place = usize::try_from(namespace_id).ok()?.checked_sub(1)?;
        Some((place, self.namespaces.get(place)?))
    }

    /// MDTS: the most data of one command that every namespace takes, as a power of two pages.
    pub(super) fn data_transfer_size_max(&self) -> u8 {
        let smallest = self.namespaces.values().map(|namespace| namespace.geometry().transfer_max);
        let bytes = smallest.fold(TRANSFER_MAX, u32::min);
        // At least two pages, which a namespace's check sees to.
        (bytes / PAGE_SIZE).ilog2() as u8
    }

    /// WZSL: the most that one write zeroes covers, as a power of two pages: as many blocks as the
    /// command can name, of the smallest block size.
    pub(super) fn write_zeroes_size_max(&self) -> u8 {
        let sizes = self.namespaces.values().map(|namespace| namespace.geometry().block_size);
        let block_size = sizes.min().unwrap_or(SECTOR_SIZE);
        (block_size * (BLOCKS_MAX / PAGE_SIZE)).ilog2() as u8
    }

    /// VSL: the most that one verify covers, as a power of two pages: as write zeroes.
    pub(super) fn verify_size_max(&self) -> u8 {
        self.write_zeroes_size_max()
    }

    /// ACWU: blocks of an atomic compare and write, 0's based, on every namespace.
    pub(super) fn atomic_compare_write_unit(&self) -> u16 {
        let sizes = self.namespaces.values().map(|namespace| namespace.geometry().block_size);
        let block_size = sizes.max().unwrap_or(SECTOR_SIZE);
        (self.atomic_max() / block_size - 1) as u16
    }

    /// The same in bytes.
    pub(super) fn atomic_max(&self) -> u32 {
        ATOMIC_MAX.min(self.transfer_max())
    }

    /// The most data of one command, in bytes.
    pub(super) fn transfer_max(&self) -> u32 {
        PAGE_SIZE << self.data_transfer_size_max()
    }

    pub(super) fn health(&self) -> HealthLog {
        // Data units are 512,000 bytes, rounded up. Base §5.16.1.3.
        let units = |bytes: u64| u128::from(bytes.div_ceil(512_000));
        HealthLog {
            temperature: 0,
            spare: 100,
            spare_threshold: 0,
            units_written: units(self.traffic.bytes_written),
            units_read: units(self.traffic.bytes_read),
            reads: self.traffic.reads.into(),
            writes: self.traffic.writes.into(),
        }
    }
}

fn check_text(field: &str, text: &str, length_max: usize) -> Result<(), DeviceError> {
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if printable && !text.is_empty() && text.len() <= length_max {
        return Ok(());
    }
    Err(DeviceError::new(format!(
        "the {field} is {text:?}: must be 1 to {length_max} printable ASCII characters"
    )))
}
