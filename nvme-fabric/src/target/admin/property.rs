//! Property Get and Set: the controller's registers.

use super::{Answer, INVALID_FIELD};
use crate::spec::property::{
    Capabilities, Configuration, OFFSET_CAPABILITIES, OFFSET_CONFIGURATION, OFFSET_STATUS,
    OFFSET_VERSION, SIZE_4, SIZE_8, VERSION_1_4,
};
use crate::spec::status::Status;
use crate::target::controller::Controller;

/// What VS and VER say: every mandatory command and log page of 1.4 is here, of 2.0 not.
pub(super) const VERSION: u32 = VERSION_1_4;

/// CAP.TO in 500 ms: 7.5 s, though enabling takes no time here.
const ENABLE_TIMEOUT: u8 = 15;

/// CAP.CSS bit 0: the NVM command set.
const COMMAND_SET_NVM: u8 = 1 << 0;

pub(super) fn get(
    controller: &Controller,
    queue_entries_max: u16,
    size: u8,
    offset: u32,
) -> Result<Answer, Status> {
    let value = match (offset, size) {
        (OFFSET_CAPABILITIES, SIZE_8) => Capabilities {
            queue_entries_max: queue_entries_max - 1,
            contiguous_queues: true,
            timeout: ENABLE_TIMEOUT,
            command_sets: COMMAND_SET_NVM,
            page_size_min: 0,
            page_size_max: 0,
        }
        .encode(),
        (OFFSET_VERSION, SIZE_4) => VERSION.into(),
        (OFFSET_CONFIGURATION, SIZE_4) => controller.configuration.encode().into(),
        (OFFSET_STATUS, SIZE_4) => controller.status.encode().into(),
        // An unknown property, or the wrong size for it. Base §6.5.
        _ => return Err(INVALID_FIELD),
    };
    Ok(Answer::Done(value))
}

pub(super) fn set(
    controller: &mut Controller,
    size: u8,
    offset: u32,
    value: u64,
) -> Result<Answer, Status> {
    // The only property here that a host may write. Base §3.1.3.
    if (offset, size) != (OFFSET_CONFIGURATION, SIZE_4) {
        return Err(INVALID_FIELD);
    }
    controller.configure(Configuration::parse(value as u32));
    Ok(Answer::Done(0))
}
