//! Taking a device into use as a cache: an unused one is formatted, one of ours is opened,
//! anybody else's is left untouched.

use block_io::{
    BlockQueue, BufferPool, Completion, DeviceError, IoError, Request, RequestId, Timestamp,
};

use crate::cache::superblock::{
    DATA_OFFSET, PROBE_LENGTH, Probe, SUPERBLOCK_SIZE, Superblock, probe,
};
use crate::cache::{CacheSpace, LineSize};

/// How a device is taken into use.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Line size to record.
    pub line_size: LineSize,
    /// Overwrite whatever the device holds.
    pub force_format: bool,
    /// Identity to record when it is formatted; random, from the caller.
    pub identity: [u8; 16],
}

/// What was found, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was unused and is formatted now.
    Unused,
    /// It was one of ours. Nothing of what it holds is used.
    Ours,
    /// It was somebody else's, and formatting was forced.
    Forced,
}

/// Reads the start of the device and makes it a cache if it may be one. `turn` lets the device's
/// runtime move on (a reactor's turn) and returns the time.
///
/// # Errors
/// When the device is too small, fails, or holds foreign data and `force_format` is not set; it
/// has not been written to then.
pub fn prepare<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    options: PrepareOptions,
    mut turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<(CacheSpace, Found), DeviceError> {
    let geometry = queue.geometry();
    let capacity = geometry.capacity;
    let length = Superblock::data_length(capacity)?;
    if geometry.read_only {
        return Err(DeviceError::new("cache device: it is read-only; a cache needs to write"));
    }
    let probed = pool.allocate(PROBE_LENGTH.min(capacity) as usize);
    let chunk = (geometry.transfer_max as usize).min(probed.len());
    for offset in (0..probed.len()).step_by(chunk) {
        let part = probed.slice(offset, chunk.min(probed.len() - offset));
        let read = Request::read(RequestId(0), offset as u64, part);
        exchange(queue, read, &mut turn).map_err(|error| failed("reading its start", error))?;
    }
    let found = match probe(&probed.to_vec()) {
        Probe::Zeroed => Found::Unused,
        Probe::Ours(_) => Found::Ours,
        Probe::Foreign(_) if options.force_format => Found::Forced,
        Probe::Foreign(what) => {
            return Err(DeviceError::new(format!(
                "cache device: it holds {what}; use another one, or --force-format to overwrite it"
            )));
        }
    };
    let superblock =
        Superblock { line_size: options.line_size, capacity, identity: options.identity };
    let block = pool.allocate(SUPERBLOCK_SIZE);
    block.copy_from_slice(&superblock.encode());
    let write = Request::write(RequestId(0), 0, block).with_force_unit_access(true);
    exchange(queue, write, &mut turn).map_err(|error| failed("writing its superblock", error))?;
    let transfer_max = geometry.transfer_max;
    Ok((CacheSpace { data_offset: DATA_OFFSET, length, transfer_max }, found))
}

fn failed(doing: &str, error: IoError) -> DeviceError {
    DeviceError::with_source(format!("cache device: {doing} failed"), error)
}

/// Sends one request to an otherwise idle queue and waits for its answer.
fn exchange<Queue: BlockQueue>(
    queue: &mut Queue,
    request: Request,
    turn: &mut impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<(), IoError> {
    queue.submit(request).map_err(|_| IoError::OutOfMemory)?;
    let mut completions: Vec<Completion> = Vec::new();
    let mut now = Timestamp::default();
    loop {
        queue.poll(now, &mut completions);
        if let Some(completion) = completions.pop() {
            return completion.result;
        }
        now = turn().map_err(|_| IoError::Media)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::device::memory::MemoryDevice;
    use block_io::{BlockDevice, Extent};

    fn attempt(device: &MemoryDevice, force_format: bool) -> Result<Found, String> {
        let mut queue = BlockDevice::<()>::open_queue(device, &(), 4).expect("opens");
        let options =
            PrepareOptions { line_size: LineSize::default(), force_format, identity: [1; 16] };
        prepare(&mut queue, &BufferPool::heap(), options, || Ok(Timestamp(0)))
            .map(|(_, found)| found)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn unused_is_formatted_ours_opened_and_others_refused() {
        let device = MemoryDevice::new(4 << 20).expect("size");
        assert_eq!(attempt(&device, false), Ok(Found::Unused));
        assert_eq!(attempt(&device, false), Ok(Found::Ours));
        device.overwrite(1080, &[0x53, 0xEF]);
        device.overwrite(0, &[0; 512]);
        let before = device.content(Extent::new(0, 1 << 20));
        let refusal = attempt(&device, false).expect_err("an ext4 superblock");
        assert!(refusal.contains("--force-format"), "{refusal}");
        assert_eq!(device.content(Extent::new(0, 1 << 20)), before, "refused, and untouched");
        assert_eq!(attempt(&device, true), Ok(Found::Forced));
        assert_eq!(attempt(&device, false), Ok(Found::Ours));
    }

    #[test]
    fn a_device_that_is_too_small_is_refused() {
        let device = MemoryDevice::new(64 << 10).expect("size");
        assert!(attempt(&device, false).expect_err("too small").contains("65536"));
    }
}
