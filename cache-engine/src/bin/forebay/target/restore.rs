//! What a start does of what was remembered of calls: volumes and subsystems are served again, and
//! removals that a crash has interrupted are finished.

use block_io::DeviceError;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::Hosts;

use super::calls::{check_name, wrong};
use super::files;
use super::managed::{ManagedTarget, names};
use super::state::ServedState;
use crate::output;

impl ManagedTarget {
    /// Serves the volumes of a subsystem with NSIDs below one that is configured: NSIDs are given
    /// out in ascending order.
    pub(super) fn restore_below(&mut self, nqn: &Nqn, below: u32) -> Result<(), DeviceError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut volumes: Vec<(String, ServedState)> = Vec::new();
        for (name, volume) in &store.state.volumes {
            if let Some(served) = volume.served.as_ref().filter(|_| !volume.is_deleted)
                && served.subsystem == nqn.as_str()
                && served.namespace_id < below
                && self.exposed_volume(name).is_err()
            {
                volumes.push((name.clone(), served.clone()));
            }
        }
        volumes.sort_by_key(|(_, served)| served.namespace_id);
        volumes.iter().try_for_each(|(name, served)| self.restore_volume(name, served))
    }

    /// Serves again what calls have made, and finishes removals that a crash has interrupted.
    pub(super) fn restore(&mut self) -> Result<(), DeviceError> {
        let Some(store) = &self.store else { return Ok(()) };
        let state = store.state.clone();
        let mut volumes: Vec<_> = state.volumes.iter().collect();
        // NSIDs are given out in ascending order.
        volumes.sort_by_key(|(_, volume)| volume.served.as_ref().map(|found| found.namespace_id));
        let deleted = volumes.iter().filter(|(_, volume)| volume.is_deleted).count();
        for (name, volume) in volumes {
            check_name(name)?;
            if volume.is_deleted {
                files::remove(&self.path(name)?)?;
                if let Some((files, uuid)) = self.kept_reservation(name) {
                    files.forget(uuid)?;
                }
                self.forget(name)?;
            } else if let Some(served) = &volume.served
                && self.exposed_volume(name).is_err()
            {
                self.restore_volume(name, served)?;
            }
        }
        if deleted > 0 {
            let store = self.store()?;
            files::replace(&store.plan.state, &store.state.text()?)?;
        }
        for (nqn, subsystem) in &state.subsystems {
            self.restore_subsystem(nqn, subsystem.hosts.as_deref(), subsystem.next_namespace_id)?;
        }
        Ok(())
    }

    fn restore_volume(&mut self, name: &str, served: &ServedState) -> Result<(), DeviceError> {
        check_name(name)?;
        let of = |why: String| DeviceError::new(format!("state: volume '{name}': {why}"));
        let nqn: Nqn = served.subsystem.parse().map_err(|why| of(format!("{why}")))?;
        let uuid: HostId = served.uuid.parse().map_err(|why| of(format!("{why}")))?;
        if !self.path(name)?.exists() {
            // The others are served all the same.
            output::notice(format_args!(
                "volume '{name}': its file is gone, so it is not served; `forebay target delete` \
                 makes an end of it"
            ));
            return Ok(());
        }
        let id = Some(served.namespace_id);
        let restored = self.serve_file(name, &nqn, id, uuid, served.access_group);
        restored.map(|_| ()).map_err(|error| {
            DeviceError::with_source(format!("volume '{name}' in subsystem {nqn}"), error)
        })
    }

    fn restore_subsystem(
        &mut self,
        nqn: &str,
        hosts: Option<&[String]>,
        next_namespace_id: u32,
    ) -> Result<(), DeviceError> {
        let name: Nqn = nqn.parse().map_err(|why| wrong("state: subsystem", nqn, &why))?;
        // One that is configured no more, and that no volume needs.
        let Some(place) = self.task.target().find_subsystem(&name) else { return Ok(()) };
        let target = self.task.target_mut();
        if next_namespace_id > 0 {
            target.skip_namespace_ids(place, next_namespace_id)?;
        }
        match hosts {
            Some(hosts) => target.set_hosts(place, Hosts::Listed(names(hosts)?)),
            None => Ok(()),
        }
    }
}
