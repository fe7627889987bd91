//! What each call does to a target that runs.
//!
//! ```text
//!   create    file ─▶ namespace ─▶ state ─▶ answer
//!   delete    state (begun) ─▶ namespace away ─▶ idle ─▶ file away ─▶ state ─▶ answer
//!   others    target ─▶ state ─▶ answer
//! ```
//! In these orders a crash leaves nothing that a repeated call or the next start does not finish: a
//! file without a volume is empty, and a volume without a file is being deleted
//! ([`super::restore`]).

use std::path::PathBuf;

use block_io::{BlockDevice, DeviceError};
use cache_engine::backend::Backend;
use cache_engine::backend::address::OriginAddress;
use cache_engine::control::model::Answer;
use cache_engine::control::target_model::{TargetCall, TargetVolume};
use nvme_fabric::driver::reservation_files::ReservationFiles;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Hosts, NamespaceKey};
use uuid::Uuid;

use super::configuration::access_of_word;
use super::files;
use super::managed::{Exposed, ManagedTarget, NAME_MAX, Step, Store};
use super::service::serial_number;
use super::state::{ServedState, VolumeState};

/// Sizes of volumes are multiples of this.
const SIZE_UNIT: u64 = 4096;

/// What a volume is made as.
struct NewVolume {
    name: String,
    from: Option<String>,
    subsystem: Nqn,
    access_group: u32,
}

impl ManagedTarget {
    /// Begins a call.
    pub(super) fn call(&mut self, call: TargetCall) -> Result<Step, DeviceError> {
        match call {
            TargetCall::Status {} => {
                Ok(Step::Answer(Answer::TargetStatus(Box::new(self.status()))))
            }
            TargetCall::Create { name, size_bytes, from, subsystem, access_group } => {
                self.create(name, size_bytes, from, subsystem, access_group)
            }
            TargetCall::Resize { name, size_bytes } => self.resize(name, size_bytes),
            TargetCall::Delete { name } => self.delete(name),
            TargetCall::Snapshot { volume, name } => self.snapshot(volume, name),
            TargetCall::Allow { subject, host } => self.change_host(&subject, &host, true),
            TargetCall::Forbid { subject, host } => self.change_host(&subject, &host, false),
            TargetCall::SetAccess { subject, group, state } => {
                self.set_access(&subject, group, &state)
            }
        }
    }

    fn create(
        &mut self,
        name: String,
        size: Option<u64>,
        from: Option<String>,
        subsystem: Option<String>,
        access_group: Option<u32>,
    ) -> Result<Step, DeviceError> {
        check_name(&name)?;
        let store = self.store()?;
        let nqn = subsystem.unwrap_or_else(|| format!("{}:{name}", store.plan.nqn_prefix));
        let nqn: Nqn = nqn.parse().map_err(|why| wrong("subsystem", &nqn, &why))?;
        if let Some(volume) = store.state.volumes.get(&name) {
            let served = volume.served.as_ref().filter(|_| !volume.is_deleted);
            let same_place = served.is_some_and(|served| served.subsystem == nqn.as_str());
            let found = self.volume(&name);
            if same_place && volume.from == from && size.is_none_or(|size| size == found.size_bytes)
            {
                return self.remember(Answer::TargetVolume(found));
            }
            return Err(DeviceError::new(format!(
                "volume '{name}': there is one of that name already, of {} bytes; must be asked \
                 for as it is, or have another name",
                found.size_bytes
            )));
        }
        let least = match &from {
            Some(source) => self.source(source)?.1,
            None => SIZE_UNIT,
        };
        let size = match (size, &from) {
            (Some(size), _) => size,
            (None, Some(_)) => least,
            (None, None) => {
                return Err(DeviceError::new(format!("volume '{name}': size: must be given")));
            }
        };
        check_size(&name, size, least)?;
        let access_group = access_group.unwrap_or(0);
        self.check_group(&nqn, access_group)?;
        let volume = NewVolume { name, from, subsystem: nqn, access_group };
        let path = self.path(&volume.name)?;
        let source = volume.from.as_ref().map(|source| self.path(source)).transpose()?;
        let job = move || match source {
            Some(source) => files::clone(&source, &path, size),
            None => files::create(&path, size),
        };
        let then = move |target: &mut Self, made: Result<(), DeviceError>| {
            made?;
            target.serve_new(volume)
        };
        Ok(Step::Job(Box::new(job), Box::new(then)))
    }

    fn check_group(&self, nqn: &Nqn, group: u32) -> Result<(), DeviceError> {
        let target = self.task.target();
        let place = target.find_subsystem(nqn);
        let groups: Vec<u32> = place.map_or_else(Vec::new, |place| {
            target.subsystems()[place].access_groups().map(|(id, _)| id).collect()
        });
        if group == 0 || groups.contains(&group) {
            return Ok(());
        }
        Err(DeviceError::new(format!(
            "access group {group}: must be one of subsystem {nqn}, which has {groups:?}"
        )))
    }

    /// The file is there: serves it, or removes it when that does not work.
    fn serve_new(&mut self, volume: NewVolume) -> Result<Step, DeviceError> {
        let NewVolume { name, from, subsystem, access_group } = volume;
        let uuid = Uuid::new_v4();
        let is_made = self.task.target().find_subsystem(&subsystem).is_none();
        let served =
            self.serve_file(&name, &subsystem, None, HostId(uuid.into_bytes()), access_group);
        let key = match served {
            Ok(key) => key,
            Err(error) => {
                self.remove_made_subsystem(&subsystem, is_made);
                let path = self.path(&name)?;
                let then = move |_: &mut Self, _| Err(error);
                return Ok(Step::Job(Box::new(move || files::remove(&path)), Box::new(then)));
            }
        };
        let place = &self.task.target().subsystems()[key.subsystem];
        let next = place.next_namespace_id();
        let group = place.namespaces()[key.namespace].access_group();
        let state = &mut self.store_mut()?.state;
        let subsystem_state = state.subsystem(subsystem.as_str());
        subsystem_state.next_namespace_id = next;
        if is_made {
            subsystem_state.is_made = true;
            subsystem_state.hosts = Some(Vec::new());
        }
        let served = ServedState {
            subsystem: subsystem.to_string(),
            namespace_id: key.namespace as u32 + 1,
            uuid: uuid.to_string(),
            access_group: group,
        };
        let entry = VolumeState { served: Some(served), from, is_deleted: false };
        state.volumes.insert(name.clone(), entry);
        self.remember(Answer::TargetVolume(self.volume(&name)))
    }

    /// Serves the file of a volume; makes its subsystem, for no host, where there is none.
    pub(super) fn serve_file(
        &mut self,
        name: &str,
        nqn: &Nqn,
        namespace_id: Option<u32>,
        uuid: HostId,
        access_group: u32,
    ) -> Result<NamespaceKey, DeviceError> {
        let place = match self.task.target().find_subsystem(nqn) {
            Some(place) => place,
            None => {
                let serial = serial_number(&self.machine, nqn);
                self.add_subsystem(nqn, &serial, Hosts::Listed(Vec::new()), &[])?
            }
        };
        let address = OriginAddress::File(self.path(name)?);
        let backend = Backend::open(&address, &self.reactor)?;
        let address = address.to_string();
        let volume = Some(name.to_owned());
        let namespace = self.namespace(&backend, uuid, access_group, true)?;
        self.expose(place, namespace_id, namespace, address, backend, volume)
    }

    fn remove_made_subsystem(&mut self, nqn: &Nqn, is_made: bool) {
        let place = self.task.target().find_subsystem(nqn).filter(|_| is_made);
        if let Some(place) = place
            && self.task.target().subsystems()[place].namespaces().is_empty()
        {
            // It was just found.
            let _ = self.task.remove_subsystem(place);
        }
    }

    fn resize(&mut self, name: String, size: u64) -> Result<Step, DeviceError> {
        let exposed = self.exposed_volume(&name)?;
        let least = exposed.backend.geometry().capacity;
        if size == least {
            return Ok(Step::Answer(Answer::TargetVolume(self.volume(&name))));
        }
        check_size(&name, size, least)?;
        let path = self.path(&name)?;
        let then = move |target: &mut Self, grown: Result<(), DeviceError>| {
            grown?;
            let exposed = target.exposed_volume(&name)?;
            if let Backend::File(file) = &exposed.backend {
                file.take_growth()?;
            }
            let (key, geometry) = (exposed.key, exposed.backend.geometry());
            target.task.target_mut().resize(key, geometry)?;
            Ok(Step::Answer(Answer::TargetVolume(target.volume(&name))))
        };
        Ok(Step::Job(Box::new(move || files::grow(&path, size)), Box::new(then)))
    }

    fn snapshot(&mut self, volume: String, name: String) -> Result<Step, DeviceError> {
        check_name(&name)?;
        let (source, _) = self.source(&volume)?;
        if let Some(found) = self.store()?.state.volumes.get(&name) {
            if found.served.is_none() && found.from.as_ref() == Some(&volume) && !found.is_deleted {
                return self.remember(Answer::TargetVolume(self.volume(&name)));
            }
            return Err(DeviceError::new(format!(
                "snapshot '{name}': there is something of that name already; must have another name"
            )));
        }
        let path = self.path(&name)?;
        let then = move |target: &mut Self, cloned: Result<(), DeviceError>| {
            cloned?;
            let entry = VolumeState { served: None, from: Some(volume), is_deleted: false };
            target.store_mut()?.state.volumes.insert(name.clone(), entry);
            target.remember(Answer::TargetVolume(target.volume(&name)))
        };
        Ok(Step::Job(Box::new(move || files::clone(&source, &path, 0)), Box::new(then)))
    }

    fn delete(&mut self, name: String) -> Result<Step, DeviceError> {
        check_name(&name)?;
        match self.store_mut()?.state.volumes.get_mut(&name) {
            None => return self.remember(Answer::Done {}),
            Some(volume) => volume.is_deleted = true,
        }
        let (job, then) = self.writing(move |target| target.take_away(name))?;
        Ok(Step::Job(job, then))
    }

    /// It is written that the volume is to go.
    fn take_away(&mut self, name: String) -> Result<Step, DeviceError> {
        let found = self.exposed.iter().position(|exposed| exposed.volume.as_ref() == Some(&name));
        let Some(index) = found else { return self.remove_file(name) };
        let key = self.exposed[index].key;
        self.task.remove_namespace(key)?;
        let then = move |target: &mut Self, _| {
            // Nothing touches the device any more; this lets go of its file.
            target.exposed.retain(|exposed| exposed.key != key);
            target.remove_file(name)
        };
        Ok(Step::Idle(key, Box::new(then)))
    }

    fn remove_file(&mut self, name: String) -> Result<Step, DeviceError> {
        let path = self.path(&name)?;
        let reservation = self.kept_reservation(&name);
        let then = move |target: &mut Self, removed: Result<(), DeviceError>| {
            removed?;
            target.forget(&name)?;
            target.remember(Answer::Done {})
        };
        let job = move || {
            files::remove(&path)?;
            reservation.map_or(Ok(()), |(files, uuid)| files.forget(uuid))
        };
        Ok(Step::Job(Box::new(job), Box::new(then)))
    }

    /// Where the reservation of a volume may be kept.
    pub(super) fn kept_reservation(&self, name: &str) -> Option<(ReservationFiles, HostId)> {
        let volume = self.store.as_ref()?.state.volumes.get(name)?;
        let uuid = volume.served.as_ref()?.uuid.parse().ok()?;
        Some((self.reservations.clone()?, uuid))
    }

    /// Drops a volume from what is remembered, and its subsystem if it was made for it.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), DeviceError> {
        let state = &mut self.store_mut()?.state;
        let Some(volume) = state.volumes.remove(name) else { return Ok(()) };
        let Some(served) = volume.served else { return Ok(()) };
        let nqn = served.subsystem;
        let is_last = !state
            .volumes
            .values()
            .any(|other| other.served.as_ref().is_some_and(|served| served.subsystem == nqn));
        if is_last && state.subsystems.get(&nqn).is_some_and(|found| found.is_made) {
            state.subsystems.remove(&nqn);
            if let Ok(nqn) = nqn.parse() {
                self.remove_made_subsystem(&nqn, true);
            }
        }
        Ok(())
    }

    fn change_host(
        &mut self,
        subject: &str,
        host: &str,
        is_allowed: bool,
    ) -> Result<Step, DeviceError> {
        self.store()?;
        let place = self.subject(subject)?;
        let host: Nqn = host.parse().map_err(|why| wrong("host", host, &why))?;
        let target = self.task.target_mut();
        if is_allowed {
            target.allow_host(place, &host)?;
        } else {
            let is_listed = match target.subsystems()[place].hosts() {
                Hosts::Listed(hosts) => hosts.contains(&host),
                Hosts::Any => true,
            };
            // One that may not connect anyway is what is asked for.
            if is_listed {
                target.forbid_host(place, &host)?;
            }
        }
        let subsystem = &self.task.target().subsystems()[place];
        let nqn = subsystem.nqn().to_string();
        if let Hosts::Listed(hosts) = subsystem.hosts() {
            let hosts = hosts.iter().map(Nqn::to_string).collect();
            self.store_mut()?.state.subsystem(&nqn).hosts = Some(hosts);
        }
        self.remember(Answer::Done {})
    }

    fn set_access(&mut self, subject: &str, group: u32, word: &str) -> Result<Step, DeviceError> {
        self.store()?;
        let place = self.subject(subject)?;
        let state = access_of_word(word).map_err(DeviceError::new)?;
        self.task.target_mut().set_access_state(place, group, state)?;
        let nqn = self.task.target().subsystems()[place].nqn().to_string();
        let subsystem = self.store_mut()?.state.subsystem(&nqn);
        subsystem.access.insert(group, state.name().to_owned());
        self.remember(Answer::Done {})
    }

    /// Writes the state and then answers.
    fn remember(&mut self, answer: Answer) -> Result<Step, DeviceError> {
        let (job, then) = self.writing(move |_| Ok(Step::Answer(answer)))?;
        Ok(Step::Job(job, then))
    }

    /// Writes the state, and goes on if that worked.
    fn writing(
        &mut self,
        go_on: impl FnOnce(&mut Self) -> Result<Step, DeviceError> + 'static,
    ) -> Result<(super::managed::Job, super::managed::Then), DeviceError> {
        let store = self.store_mut()?;
        let (path, text) = (store.plan.state.clone(), store.state.text()?);
        store.is_remembered = false;
        let then = move |target: &mut Self, written: Result<(), DeviceError>| {
            written.map_err(|error| {
                let what = "the target has changed, but the state file has not: ask again, or a \
                            restart will not know of it";
                DeviceError::with_source(what, error)
            })?;
            target.store_mut()?.is_remembered = true;
            go_on(target)
        };
        Ok((Box::new(move || files::replace(&path, &text)), Box::new(then)))
    }

    pub(super) fn store(&self) -> Result<&Store, DeviceError> {
        self.store.as_ref().ok_or_else(no_volumes)
    }

    pub(super) fn store_mut(&mut self) -> Result<&mut Store, DeviceError> {
        self.store.as_mut().ok_or_else(no_volumes)
    }

    /// The file of a volume, whose name was checked.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, DeviceError> {
        Ok(self.store()?.plan.folder.join(format!("{name}.volume")))
    }

    /// The file and the size of a volume or snapshot.
    fn source(&self, name: &str) -> Result<(PathBuf, u64), DeviceError> {
        let volume = self.store()?.state.volumes.get(name);
        if volume.is_none_or(|volume| volume.is_deleted) {
            return Err(no_volume(name));
        }
        Ok((self.path(name)?, self.volume(name).size_bytes))
    }

    pub(super) fn exposed_volume(&self, name: &str) -> Result<&Exposed, DeviceError> {
        let found = self.exposed.iter().find(|found| found.volume.as_deref() == Some(name));
        found.ok_or_else(|| no_volume(name))
    }

    /// The place of the subsystem with this NQN, or of this volume.
    fn subject(&self, subject: &str) -> Result<usize, DeviceError> {
        if let Ok(exposed) = self.exposed_volume(subject) {
            return Ok(exposed.key.subsystem);
        }
        let nqn = subject.parse::<Nqn>().ok();
        let place = nqn.and_then(|nqn| self.task.target().find_subsystem(&nqn));
        place.ok_or_else(|| {
            wrong("subject", subject, &"must be the NQN of a subsystem or the name of a volume")
        })
    }

    /// How a volume or snapshot is.
    pub(super) fn volume(&self, name: &str) -> TargetVolume {
        super::status::volume(self, name)
    }
}

fn no_volumes() -> DeviceError {
    DeviceError::new("the target has no [volumes]: must be configured with some for calls")
}

fn no_volume(name: &str) -> DeviceError {
    wrong(
        "volume",
        name,
        &"must be one that is there and served; `forebay target status` lists them",
    )
}

pub(super) fn wrong(field: &str, value: &str, why: &dyn std::fmt::Display) -> DeviceError {
    DeviceError::new(format!("{field} '{}': {why}", value.escape_debug()))
}

/// A name that makes a file's name and the end of an NQN.
pub(super) fn check_name(name: &str) -> Result<(), DeviceError> {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if is_plain && begins && name.len() <= NAME_MAX {
        return Ok(());
    }
    let right =
        "must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit";
    Err(wrong("name", name, &right))
}

fn check_size(name: &str, size: u64, least: u64) -> Result<(), DeviceError> {
    if size >= least && size.is_multiple_of(SIZE_UNIT) && i64::try_from(size).is_ok() {
        return Ok(());
    }
    Err(DeviceError::new(format!(
        "volume '{name}': size {size}: must be a multiple of {SIZE_UNIT} and at least {least} \
         bytes; volumes do not shrink"
    )))
}
