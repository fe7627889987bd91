//! A volume of the service with its exports, and as the control socket sees it.

use block_io::device::shared::SharedQueue;
use block_io::{
    BlockQueue, Completion, DeviceError, Geometry, IoError, Request, RequestId, Timestamp,
};
use cache_engine::cache::metadata::OriginIdentity;
use cache_engine::cache::{Statistics, VolumeId};
use cache_engine::control::executor::ServedVolume;
use cache_engine::volume::attach::Left;
use nvme_fabric::driver::Association;
use nvme_fabric::host::paths::Settings as PathSettings;

use crate::output;
use crate::run::VolumeSummary;
use crate::run::plan::VolumePlan;
use crate::volume::{Cached, Volume};

/// A volume with its exports.
pub(crate) struct ExportedVolume {
    /// What it was asked for as: its name, origin and exports.
    pub(crate) plan: VolumePlan,
    /// What its origin is known by.
    pub(crate) identity: OriginIdentity,
    /// Whether clients are served from it.
    pub(crate) is_exported: bool,
    queue: SharedQueue<Volume>,
    /// Whether the last that was told of its origin is that it is lost.
    fault_told: bool,
    /// How its last flush ended, once it has.
    flushed: Option<Result<(), IoError>>,
    /// Whether all that was written is on the origin.
    in_order: bool,
    /// The counters when its last client was gone.
    at_close: Option<Statistics>,
}

impl ExportedVolume {
    /// A volume that nobody is served from yet.
    pub(crate) fn new(plan: VolumePlan, identity: OriginIdentity, volume: Volume) -> Self {
        Self {
            plan,
            identity,
            is_exported: false,
            queue: SharedQueue::new(volume),
            fault_told: false,
            flushed: None,
            in_order: true,
            at_close: None,
        }
    }

    /// Another way to it, for clients: from now on there may be writes.
    pub(crate) fn serve(&mut self) -> SharedQueue<Volume> {
        (self.is_exported, self.in_order) = (true, false);
        self.queue.another()
    }

    /// Another way to it, for the control socket.
    pub(crate) fn served(&self) -> Box<Served> {
        Box::new(Served(self.queue.another()))
    }

    /// The queue that all share.
    pub(crate) fn queue(&self) -> &SharedQueue<Volume> {
        &self.queue
    }

    /// Looks at or changes the volume.
    pub(crate) fn with<Value>(&self, function: impl FnOnce(&mut Volume) -> Value) -> Value {
        self.queue.with_queue(function)
    }

    /// Its number in the cache; none for an origin alone.
    pub(crate) fn id(&self) -> Option<VolumeId> {
        self.with(|volume| volume.id())
    }

    /// Requests in flight, whoever's.
    pub(crate) fn in_flight(&self) -> usize {
        self.with(|volume| volume.in_flight())
    }

    /// What clients asked for, not the service's own last flush.
    pub(crate) fn statistics(&self) -> Statistics {
        let now = self.with(|volume| volume.statistics());
        match self.at_close {
            Some(Statistics { flushes, origin_errors, .. }) => {
                Statistics { flushes, origin_errors, ..now }
            }
            None => now,
        }
    }

    /// What is told of it at the end.
    pub(crate) fn summary(&self) -> VolumeSummary {
        let cached = |cached: &Cached| (cached.mode(), cached.cold_reason());
        VolumeSummary {
            name: self.plan.name.clone(),
            origin: self.plan.origin.to_string(),
            capacity: self.queue.geometry().capacity,
            cached: self.with(|volume| volume.as_cached().map(cached)),
            statistics: self.statistics(),
        }
    }

    /// Tells that its origin is lost, and that it is back, once each time.
    pub(crate) fn tell_fault(&mut self) {
        let fault = self.with(|volume| volume.fault());
        let name = &self.plan.name;
        match &fault {
            Some(fault) if !self.fault_told => output::notice(format_args!(
                "volume '{name}': the origin is lost, its requests fail: {fault}"
            )),
            None if self.fault_told => output::notice(format_args!(
                "volume '{name}': the origin is back, its requests are carried out again"
            )),
            _ => {}
        }
        self.fault_told = fault.is_some();
    }

    /// Begins the last flush, after the last client is gone. False where it has no room.
    pub(crate) fn begin_flush(&mut self) -> bool {
        self.at_close = Some(self.statistics());
        self.flushed = None;
        if self.in_order || self.queue.geometry().read_only {
            self.flushed = Some(Ok(()));
            self.in_order = true;
            return true;
        }
        self.with(|volume| volume.hold(false));
        self.queue.submit(Request::flush(RequestId(0))).is_ok()
    }

    /// Moves it on, beside what its clients do. Returns whether anything happened.
    pub(crate) fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = self.queue.poll(now, completions);
        for completion in completions.drain(..) {
            self.in_order = completion.result.is_ok();
            if let Err(error) = completion.result {
                let name = &self.plan.name;
                output::notice(format_args!("volume '{name}': the last flush failed: {error}"));
            }
            self.flushed = Some(completion.result);
        }
        progress
    }

    /// Whether the last flush has ended, well or not.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.is_some()
    }

    /// How it is left in the cache; none for an origin alone.
    pub(crate) fn left(&self) -> Option<(VolumeId, Left)> {
        self.with(|volume| {
            let cached = volume.as_cached()?;
            Some((cached.id(), cached.left(volume.origin(), self.in_order)))
        })
    }
}

/// A volume that clients are served from at the same time.
pub(crate) struct Served(SharedQueue<Volume>);

impl ServedVolume for Served {
    fn queue(&mut self) -> &mut dyn BlockQueue {
        &mut self.0
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn in_flight(&self) -> usize {
        self.0.with_queue(|volume| volume.in_flight())
    }

    fn statistics(&self) -> Statistics {
        self.0.with_queue(|volume| volume.statistics())
    }

    fn fault(&self) -> Option<String> {
        self.0.with_queue(|volume| volume.fault())
    }

    fn association(&self) -> Option<Association> {
        self.0.with_queue(|volume| volume.origin().association())
    }

    fn path_settings(&self) -> Option<PathSettings> {
        self.0.with_queue(|volume| Some(volume.origin().namespace()?.settings()))
    }

    fn set_path_settings(&mut self, settings: PathSettings) {
        self.0.with_queue(|volume| {
            if let Some(namespace) = volume.origin().namespace() {
                namespace.set_settings(settings);
            }
        });
    }

    fn told_size(&self) -> Option<u64> {
        self.0.with_queue(|volume| volume.origin().told_size())
    }

    fn origin_size(&self) -> Result<u64, DeviceError> {
        self.0.with_queue(|volume| volume.origin_size())
    }

    fn hold(&mut self, is_held: bool) {
        self.0.with_queue(|volume| volume.hold(is_held));
    }
}
