//! The owner's commands beside block requests, on the I/O queues. See [`crate::host::commands`].

use super::bring_up::Step;
use super::{Controller, Purpose, QueueIndex};
use crate::host::commands::{Answer, Command, CommandError, CommandLimits, Commands};
use crate::spec::identify::{self, IdentifyControllerNvm};

impl Controller {
    /// What the controller and the namespace take in one command. Absent until the association is
    /// up.
    pub fn command_limits(&self) -> Option<CommandLimits> {
        let Purpose::Namespace(namespace_id) = self.purpose else { return None };
        self.identity.geometry?;
        let page_shift =
            12 + self.identity.capabilities.map_or(0, |it| u32::from(it.page_size_min));
        Some(CommandLimits::new(
            namespace_id,
            &self.identity.namespace,
            &self.identity.controller,
            &self.identity.command_set,
            self.data_max(),
            page_shift,
        ))
    }

    /// Takes a command for an I/O queue, which its owner calls `token`.
    ///
    /// # Errors
    /// When the controller does not offer it, it is out of its limits, the association is not up,
    /// the namespace is gone or another, or the queue has as many as it takes.
    pub fn submit_command(
        &mut self,
        queue: QueueIndex,
        token: u64,
        command: Command,
    ) -> Result<(), CommandError> {
        let limits = self.command_limits().filter(|_| self.is_up() && queue > 0);
        let limits = limits.ok_or(CommandError::Lost)?;
        if let Some(fault) = self.namespace_fault() {
            return Err(CommandError::Invalid(fault.to_owned()));
        }
        let capacity = self.identity.geometry.map_or(0, |geometry| geometry.capacity);
        let timeout = self.options.command_timeout;
        let place = self.queues.get_mut(usize::from(queue)).ok_or(CommandError::Lost)?;
        let commands = place.commands.get_or_insert_with(|| Commands::new(limits, timeout));
        commands.set_limits(limits);
        commands.submit(token, command, capacity)
    }

    /// Takes how a command of this queue ended: its owner's token, and the answer.
    pub fn next_answer(
        &mut self,
        queue: QueueIndex,
    ) -> Option<(u64, Result<Answer, CommandError>)> {
        self.queues.get_mut(usize::from(queue))?.commands.as_mut()?.take()
    }

    /// The command set's limits (CNS 06h), which old controllers do not tell.
    pub(super) fn take_command_set(&mut self, is_told: bool) {
        if is_told {
            self.identity.command_set = IdentifyControllerNvm::parse(&self.page_bytes());
        }
        if let Purpose::Namespace(id) = self.purpose {
            self.identify(Step::Descriptors, identify::NAMESPACE_DESCRIPTORS, id);
        }
    }
}
