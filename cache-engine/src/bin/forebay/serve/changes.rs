//! Volumes come and go, and the cache device is replaced, while everybody else is served.
//!
//! ```text
//!   add      check ─▶ open the origin ─▶ attach, warm where that is proved ─▶ export
//!   remove   withdraw the exports ─▶ clients end ─▶ last flush ─▶ leave ─▶ (forget) ─▶ close
//!   replace  check ─▶ open ─▶ format ─▶ change over ─▶ record all volumes ─▶ the old one is closed
//! ```
//! Each step that waits takes turns that serve ([`VolumeService::serve_until`]); what this host
//! notes of an attachment is a small file, written and synchronized between two turns. When the
//! service is told to end meanwhile a change is given up where it stands, and the end takes care of
//! the rest.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use block_io::{BlockDevice, DeviceError};
use cache_engine::backend::Backend;
use cache_engine::backend::address::{CacheAddress, OriginAddress, Size};
use cache_engine::backend::key_source::KeySource;
use cache_engine::backend::origin_identity::{self, Offer, offer};
use cache_engine::cache::cipher::VolumeKey;
use cache_engine::cache::metadata::identity::GenerationSource;
use cache_engine::cache::metadata::{IdentityKind, OriginIdentity};
use cache_engine::control::executor::Change;
use cache_engine::control::model::{Added, Answer, NewVolume};
use cache_engine::frontend::nbd::{ExportAddress, Transport};
use cache_engine::frontend::nvme::NvmeTcpExport;
use cache_engine::volume::attach::{self, AttachOptions, ReplaceOptions, VolumeStart};

use super::{FLUSH_GRACE, VolumeService};
use crate::failure::Failure;
use crate::output;
use crate::run::export::{ExportPlace, ExportUri};
use crate::run::plan::{VolumePlan, is_same_path};
use crate::served::ExportedVolume;
use crate::volume::{Cached, DEVICE_DEPTH, ServiceCache, Volume, fresh_ids};

/// How long clients of a volume that is removed may take to receive their last answers.
const CLIENTS_GRACE: Duration = Duration::from_secs(5);

impl VolumeService {
    /// Does the next thing that is asked for and takes a while. Returns whether there was one.
    pub(super) fn change(&mut self) -> bool {
        let Some((change, reply)) = self.desk.as_mut().and_then(|desk| desk.next_change()) else {
            return false;
        };
        let outcome = match change {
            Change::AddVolume(words) => self.add_and_export(&words).map(Answer::Added),
            Change::RemoveVolume { volume, forget } => {
                self.remove_volume(&volume, forget).map(|()| Answer::Done {})
            }
            Change::ReplaceCache { device, size, force_format } => {
                let size = size.map(Size::from_bytes);
                self.replace_cache(&device, size, force_format).map(|()| Answer::Done {})
            }
        };
        if let Some(desk) = &mut self.desk {
            desk.answer(reply, outcome.unwrap_or_else(|error| Answer::error(error.to_string())));
        }
        true
    }

    fn changing<Value>(&mut self, change: impl FnOnce(&mut Self) -> Value) -> Value {
        self.is_changing = true;
        let value = change(self);
        self.is_changing = false;
        value
    }

    fn add_and_export(&mut self, words: &NewVolume) -> Result<Added, DeviceError> {
        let plan = VolumePlan::of_words(words).map_err(DeviceError::new)?;
        let name = &plan.name;
        if let Some(KeySource::Descriptor(_)) = plan.key {
            return Err(DeviceError::new(format!(
                "volume '{name}': encryption-key: must be file:PATH, which the service reads; \
                 descriptors are its own"
            )));
        }
        let unused = words.mode.is_some()
            || words.generation.is_some()
            || plan.key.is_some()
            || plan.lease.is_some();
        if self.cache.is_none() && unused {
            return Err(DeviceError::new(format!(
                "volume '{name}': mode, generation, encryption-key and lease mean nothing without \
                 a cache"
            )));
        }
        let cache = self.cache.as_ref().map(|cache| cache.address());
        let others = self.volumes.iter().map(|volume| &volume.plan);
        plan.check(cache, others).map_err(DeviceError::new)?;
        self.add_volume(&plan)?;
        let exports = match self.export(name) {
            Ok(exports) => exports,
            Err(error) => {
                self.remove_volume(name, false)?;
                return Err(error);
            }
        };
        let volume = self.volumes.last().expect("just added");
        if let Some(desk) = &mut self.desk {
            desk.add_volume(name, volume.id(), volume.served())?;
        }
        let start = |cached: &Cached| {
            let start = if cached.start == VolumeStart::Warm { "warm" } else { "cold" };
            (Some(start.to_owned()), cached.cold_reason())
        };
        let start = volume.with(|volume| volume.as_cached().map(start));
        let (start, cold_reason) = start.unwrap_or_default();
        Ok(Added { exports, start, cold_reason })
    }

    /// Opens and attaches a volume; nobody is served from it yet.
    ///
    /// # Errors
    /// When its origin can't be opened or is in use already, or it can't be added to the cache.
    pub(crate) fn add_volume(&mut self, plan: &VolumePlan) -> Result<(), DeviceError> {
        let name = &plan.name;
        let failed = |error| DeviceError::with_source(format!("volume '{name}'"), error);
        let volume = self.changing(|service| {
            let (origin, key) =
                service.open_origin(&plan.origin, plan.key.clone()).map_err(failed)?;
            origin.notice().into_iter().for_each(output::notice);
            match service.attach(plan, &origin, key) {
                Ok(volume) => Ok(volume),
                Err(error) => {
                    // The failure to be told is the first one.
                    let _ = origin.close_with(&mut |wait| service.serve_for(wait));
                    Err(failed(error))
                }
            }
        })?;
        self.volumes.push(volume);
        Ok(())
    }

    /// Takes a volume in that is open, beside what a service is asked for.
    pub(crate) fn attach(
        &mut self,
        plan: &VolumePlan,
        origin: &Backend,
        key: Option<VolumeKey>,
    ) -> Result<ExportedVolume, DeviceError> {
        let Offer { identity, generation } = offer(origin);
        self.check_identity(plan, &identity)?;
        let queue = origin.open_queue(&self.reactor, DEVICE_DEPTH)?;
        let Some(cache) = self.cache.as_ref().filter(|_| plan.is_cached) else {
            let volume = Volume::plain(origin.clone(), queue);
            return Ok(ExportedVolume::new(plan.clone(), identity, volume));
        };
        let (engine, state) = (cache.engine().clone(), cache.state().clone());
        let place = cache.address().clone();
        let caller = plan.generation.clone().map(GenerationSource::Caller);
        let generation = caller.unwrap_or(generation);
        let options = AttachOptions {
            name: plan.name.clone(),
            mode: plan.mode,
            identity: identity.clone(),
            generation: generation.clone(),
            state: &state,
            key: key.as_ref(),
        };
        let turn = &mut |deadline| self.serve_until(deadline);
        let (volume, start) = attach::attach_leased(&engine, queue, options, plan.lease, turn)?;
        match &start {
            VolumeStart::Warm if self.control.is_none() => {
                self.cache.iter_mut().for_each(|cache| cache.expect_warmth());
            }
            VolumeStart::Warm => {}
            VolumeStart::Cold(why) => {
                let name = &plan.name;
                output::notice(format_args!(
                    "{place}: volume '{name}': the cache starts cold: {why}"
                ));
            }
        }
        let cached = Cached { volume, start, generation, key: key.map(Rc::new) };
        let volume = Volume::cached(origin.clone(), cached);
        Ok(ExportedVolume::new(plan.clone(), identity, volume))
    }

    /// Two addresses may lead to one origin.
    fn check_identity(
        &self,
        plan: &VolumePlan,
        identity: &OriginIdentity,
    ) -> Result<(), DeviceError> {
        let is_known = identity.kind() != IdentityKind::Unknown;
        let same = |volume: &&ExportedVolume| {
            let is_alike = volume.plan.is_cached == plan.is_cached;
            is_known && is_alike && volume.identity == *identity
        };
        match self.volumes.iter().find(same) {
            None => Ok(()),
            Some(other) => Err(DeviceError::new(format!(
                "origin {identity}: is that of volume '{}' already; export that one under more \
                 names instead",
                other.plan.name
            ))),
        }
    }

    /// Serves a volume at its exports, and returns where they are.
    ///
    /// # Errors
    /// When one of them can't be listened at.
    pub(crate) fn export(&mut self, name: &str) -> Result<Vec<String>, DeviceError> {
        let at = self.find(name)?;
        let exports = self.volumes[at].plan.exports.clone();
        let mut places = Vec::new();
        for (index, export) in exports.iter().enumerate() {
            let failed = |error| {
                DeviceError::with_source(format!("volume '{name}': export {export}"), error)
            };
            let place = match export.place() {
                ExportPlace::Nbd(address) => {
                    let names = exports[..index].iter().filter_map(ExportUri::as_nbd);
                    let is_new = names.into_iter().all(|(other, _)| other != address.name);
                    self.export_nbd(at, address, is_new).map(|bound| export.at(&bound))
                }
                ExportPlace::NvmeTcp(address) => {
                    self.export_nvme_tcp(at, address).map(|bound| export.at_address(bound))
                }
            };
            places.push(place.map_err(failed)?);
        }
        Ok(places)
    }

    fn export_nbd(
        &mut self,
        at: usize,
        export: &ExportAddress,
        is_new: bool,
    ) -> Result<Transport, DeviceError> {
        let address = self.resolve_export(&export.transport)?;
        if is_new {
            let queue = self.volumes[at].serve();
            self.server.add_export(&export.name, "", queue)?;
            let device = self.cache.as_ref().and_then(ServiceCache::device);
            let name = &self.volumes[at].plan.name;
            self.reactors.invite(name, self.volumes[at].queue(), device)?;
            self.reactors.export(name, &export.name);
        }
        self.server.listen_at(&export.transport, address)
    }

    fn export_nvme_tcp(
        &mut self,
        at: usize,
        export: &NvmeTcpExport,
    ) -> Result<SocketAddr, DeviceError> {
        let address = self.resolve_endpoint(&export.endpoint, export.port())?;
        let volume = &mut self.volumes[at];
        let name = volume.plan.name.clone();
        let told_by = volume.with(|inner| origin_identity::of_served(inner.origin(), &name));
        self.nvme.add(export, address, &name, &told_by, volume.serve())
    }

    fn find(&self, name: &str) -> Result<usize, DeviceError> {
        self.volumes.iter().position(|volume| volume.plan.name == name).ok_or_else(|| {
            let names = self.volumes.iter().map(|volume| volume.plan.name.as_str());
            let names: Vec<_> = names.collect();
            DeviceError::new(match names.is_empty() {
                true => format!("volume '{name}': there is none"),
                false => format!("volume '{name}': must be one of {}", names.join(", ")),
            })
        })
    }

    /// Serves a volume no more.
    ///
    /// # Errors
    /// When there is none of that name, or its requests do not end: it can be removed again then.
    fn remove_volume(&mut self, name: &str, forget: bool) -> Result<(), DeviceError> {
        let at = self.find(name)?;
        let failed = |error| DeviceError::with_source(format!("volume '{name}'"), error);
        self.changing(|service| service.try_remove(at, forget)).map_err(failed)
    }

    fn try_remove(&mut self, at: usize, forget: bool) -> Result<(), DeviceError> {
        self.withdraw(at);
        let have_left = |service: &Self| {
            let name = &service.volumes[at].plan.name;
            service.server.leaving() == 0
                && service.nvme.have_left(name)
                && service.reactors.have_left(name)
        };
        if !self.wait_for(CLIENTS_GRACE, have_left)? {
            self.server.drop_leaving();
            self.reactors.abandon_leaving();
        }
        self.wait_until_idle(at)?;
        while !self.volumes[at].begin_flush() {
            self.wait_until_idle(at)?;
        }
        if !self.wait_for(FLUSH_GRACE, |service| service.volumes[at].is_flushed())? {
            return Err(self.stuck("its last flush"));
        }
        self.reactors.forget(&self.volumes[at].plan.name);
        let engine = self.cache.as_ref().map(|cache| cache.engine().clone());
        let cached = engine.zip(self.volumes[at].left());
        if let Some((engine, (id, left))) = &cached {
            let state = self.cache.as_ref().map(|cache| cache.state().clone());
            let state = state.expect("there is a cache");
            let turn = &mut |deadline| self.serve_until(deadline);
            attach::leave(engine, &state, &[(*id, left.clone())], turn)?;
            // Flushes of the cache's own may still be under way.
            let end = self.reactor.now() + FLUSH_GRACE;
            while let Err(error) = engine.remove_volume(*id) {
                if self.serve_until(Some(end))? >= end {
                    return Err(error);
                }
            }
        }
        // From here on nothing may poll it.
        let volume = self.volumes.remove(at);
        if let Some(desk) = &mut self.desk {
            desk.remove_volume(&volume.plan.name);
        }
        let origin = volume.with(|volume| volume.origin().clone());
        drop(volume);
        if let Some((engine, (id, _))) = cached.filter(|_| forget) {
            let is_recorded = engine
                .cache()
                .superblock()
                .is_some_and(|superblock| superblock.volume(id).is_some());
            if is_recorded {
                attach::forget(&engine, id, &mut |deadline| self.serve_until(deadline))?;
            }
        }
        origin.close_with(&mut |wait| self.serve_for(wait))
    }

    /// Takes a volume's exports away: its clients are answered and end, no new ones come.
    fn withdraw(&mut self, at: usize) {
        self.volumes[at].is_exported = false;
        self.nvme.withdraw(&self.volumes[at].plan.name);
        self.reactors.withdraw(&self.volumes[at].plan.name);
        for (name, transport) in self.volumes[at].plan.exports.iter().filter_map(ExportUri::as_nbd)
        {
            self.server.remove_export(name);
            let mut others = self.volumes.iter().enumerate().filter(|(other, _)| *other != at);
            let is_used = others.any(|(_, other)| {
                let mut exports = other.plan.exports.iter().filter_map(ExportUri::as_nbd);
                exports.any(|(_, one)| one == transport)
            });
            if !is_used {
                self.server.stop_listening(transport);
            }
        }
    }

    fn wait_until_idle(&mut self, at: usize) -> Result<(), DeviceError> {
        let is_idle = |service: &Self| {
            let volume = &service.volumes[at];
            volume.in_flight() == 0 && service.reactors.have_left(&volume.plan.name)
        };
        match self.wait_for(FLUSH_GRACE, is_idle)? {
            true => Ok(()),
            false => Err(self.stuck("requests in flight")),
        }
    }

    fn stuck(&self, what: &str) -> DeviceError {
        DeviceError::new(format!(
            "{what}: did not end within {} s, and nobody is served from it any more; remove it \
             again when its origin answers",
            FLUSH_GRACE.as_secs()
        ))
    }

    /// Serves until `is_done`, for so long at the most; returns whether it is.
    pub(super) fn wait_for(
        &mut self,
        time: Duration,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<bool, DeviceError> {
        let end = self.reactor.now() + time;
        while !is_done(self) {
            if self.serve_until(Some(end))? >= end {
                return Ok(is_done(self));
            }
        }
        Ok(true)
    }

    /// Uses another cache device.
    fn replace_cache(
        &mut self,
        device: &str,
        size: Option<Size>,
        force_format: bool,
    ) -> Result<(), DeviceError> {
        let address = CacheAddress::File(device.into());
        self.check_cache_device(Path::new(device))?;
        let failed = |error| DeviceError::with_source(format!("cache {address}"), error);
        self.changing(|service| {
            let backend = service.open_cache_device(&address, size)?;
            backend.notice().into_iter().for_each(output::notice);
            service.change_over(&address, &backend, force_format).map_err(failed)
        })
    }

    fn check_cache_device(&self, device: &Path) -> Result<(), DeviceError> {
        let shown = device.display();
        let cache = self.cache.as_ref().ok_or_else(|| {
            DeviceError::new("there is no cache in front of the origins; start with --cache")
        })?;
        if let CacheAddress::File(path) = cache.address()
            && is_same_path(path, device)
        {
            return Err(DeviceError::new(format!(
                "cache {shown}: is the device in use; another one is needed to replace it"
            )));
        }
        for volume in &self.volumes {
            if let OriginAddress::File(path) = &volume.plan.origin
                && is_same_path(path, device)
            {
                let name = &volume.plan.name;
                return Err(DeviceError::new(format!(
                    "cache {shown}: is the origin of volume '{name}'; a cache needs a device of \
                     its own"
                )));
            }
        }
        Ok(())
    }

    fn change_over(
        &mut self,
        address: &CacheAddress,
        backend: &Backend,
        force_format: bool,
    ) -> Result<(), DeviceError> {
        let fresh =
            fresh_ids().map_err(|failure: Failure| DeviceError::new(failure.to_string()))?;
        let queue = backend.open_queue(&self.reactor, DEVICE_DEPTH)?;
        let Some(cache) = &mut self.cache else { return Ok(()) };
        let (engine, state) = (cache.engine().clone(), cache.state().clone());
        cache.begin_replacing();
        // The keys are shared, for the volumes are served meanwhile.
        let attached = |volume: &ExportedVolume| {
            volume.with(|inner| {
                let cached = inner.as_cached()?;
                let (generation, key) = (cached.generation.clone(), cached.key.clone());
                let name = volume.plan.name.clone();
                Some((cached.id(), name, volume.identity.clone(), cached.mode(), generation, key))
            })
        };
        let volumes: Vec<_> = self.volumes.iter().filter_map(attached).collect();
        let options: Vec<_> = volumes
            .iter()
            .map(|(id, name, identity, mode, generation, key)| {
                let options = AttachOptions {
                    name: name.clone(),
                    mode: *mode,
                    identity: identity.clone(),
                    generation: generation.clone(),
                    state: &state,
                    key: key.as_deref(),
                };
                (*id, options)
            })
            .collect();
        let pool = self.reactor.pool().clone();
        let replace = ReplaceOptions { force_format, fresh };
        let turn = &mut |deadline| self.serve_until(deadline);
        let outcome = attach::replace(&engine, queue, &pool, replace, &options, turn);
        let in_use = engine.cache().superblock().map(|superblock| superblock.format_id);
        let is_new = in_use == Some(fresh.cold_start);
        if let Some(cache) = &mut self.cache {
            cache.end_replacing(is_new.then(|| (address.clone(), backend)));
        }
        if is_new {
            self.reactors.renew(self.cache.as_ref().and_then(ServiceCache::device))?;
        }
        outcome
    }
}
