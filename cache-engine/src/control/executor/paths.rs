//! Times and policy of the paths to an origin, changed while they are in use.

use std::collections::BTreeMap;

use block_io::BlockQueue;

use super::Executor;
use crate::backend::address::nvme_paths::PathChoices;
use crate::control::model::Answer;
use crate::control::report;

impl<Origin: BlockQueue, CacheDevice: BlockQueue, Reply> Executor<Origin, CacheDevice, Reply> {
    /// All changes or none.
    pub(super) fn set_paths(
        &mut self,
        name: &str,
        changes: &BTreeMap<String, String>,
    ) -> Result<Answer, String> {
        let at = self.find(name)?;
        let volume = &mut self.volumes[at].volume;
        let before = volume.path_settings().ok_or_else(|| {
            format!(
                "volume '{name}': its origin is on this machine; only one that is reached over \
                 NVMe/TCP has paths"
            )
        })?;
        if changes.is_empty() {
            return Err(format!("volume '{name}': no setting is named"));
        }
        let mut choices = PathChoices::default();
        for (key, value) in changes {
            choices.choose(key, value).map_err(|error| format!("volume '{name}': {error}"))?;
        }
        let settings = choices.settings(before);
        volume.set_path_settings(settings);
        Ok(Answer::Paths(report::path_times(&settings)))
    }
}
