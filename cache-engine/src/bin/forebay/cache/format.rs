//! `forebay cache format`: an empty cache, whatever of ours was there before.

use cache_engine::cache::metadata::FormatId;
use cache_engine::volume::cache_device::{self, FormatOptions};

use super::{OpenDevice, inspect, turn};
use crate::arguments::FormatArguments;
use crate::failure::Failure;
use crate::output;
use crate::volume::random_identity;

/// Formats the device, and shows what it is now.
///
/// # Errors
/// When the device is in use, too small, fails, or holds something else and this is not forced.
pub(super) fn run(arguments: &FormatArguments) -> Result<(), Failure> {
    let mut device = OpenDevice::open(&arguments.device, arguments.size)?;
    let options = FormatOptions {
        line_size: arguments.line_size,
        force_format: arguments.force_format,
        format_id: FormatId(random_identity()?),
    };
    let reactor = &device.reactor;
    let superblock =
        cache_device::format(&mut device.queue, reactor.pool(), options, || turn(reactor))
            .map_err(|error| Failure::because(device.name.clone(), error))?;
    output::print(inspect::layout_table(&superblock))
}
