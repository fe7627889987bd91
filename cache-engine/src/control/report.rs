//! A cache and its volumes in the words of the model.

use super::executor::Named;
use super::model::{
    AssociationStatus, CacheStatus, ClassStatus, Counters, LeaseStatus, Loading, Memory,
    PathReport, PathTimes, Status, VolumeStatus,
};
use crate::cache::policy::{Budget, Occupancy, PolicyStatistics};
use crate::cache::{Cache, LeaseStanding, VolumeId};
use block_io::Timestamp;
use nvme_fabric::driver::Association;
use nvme_fabric::host::paths::{PathStatus, Settings as PathSettings};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn status(cache: Option<&Cache>, volumes: &[Named], now: Timestamp) -> Status {
    Status {
        cache: cache.map(cache_status),
        volumes: volumes.iter().map(|named| volume_status(cache, named, now)).collect(),
    }
}

/// Policy settings in force, as they are set.
pub(super) fn settings(cache: &Cache) -> BTreeMap<String, String> {
    let entries = cache.policy().entries();
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn cache_status(cache: &Cache) -> CacheStatus {
    let line = cache.line_size().bytes();
    let (sets_loaded, sets) = cache.loading();
    let policy = cache.policy_statistics();
    let persistence = cache.persistence_statistics();
    CacheStatus {
        line_size: line,
        capacity_bytes: cache.capacity(),
        occupied_bytes: cache.lines_in_use() * line,
        degraded: cache.is_degraded(),
        persistent: cache.superblock().is_some(),
        cold_reason: cache.cold_reason().map(|reason| reason.to_string()),
        loading: Loading { sets_loaded: sets_loaded.into(), sets: sets.into() },
        in_flight: cache.in_flight() as u64,
        fills_in_flight: cache.fills_in_flight() as u64,
        settings: settings(cache),
        unknown_volumes: cache.unknown_names().to_vec(),
        endurance_budget: budget(policy.budget).to_owned(),
        policy_statistics: policy_counters(&policy),
        persistence_statistics: persistence.map(|counted| counters(counted.named())),
        memory: Memory {
            index_bytes: cache.index_memory_bytes(),
            policy_bytes: policy.memory_bytes,
            miss_ratio_bytes: cache.miss_ratio_memory_bytes(),
        },
        classes: cache.class_occupancies().map(|held| class_status(held, line)).collect(),
    }
}

fn class_status(held: Occupancy, line: u64) -> ClassStatus {
    ClassStatus {
        name: held.class,
        occupied_bytes: held.lines * line,
        minimum_bytes: held.minimum * line,
        maximum_bytes: held.maximum * line,
    }
}

fn volume_status(cache: Option<&Cache>, named: &Named, now: Timestamp) -> VolumeStatus {
    let place: Option<(&Cache, VolumeId)> = cache.zip(named.id);
    let volume = &named.volume;
    let statistics = volume.statistics();
    let held = place.and_then(|(cache, id)| cache.occupancy(id)).map_or(0, |held| held.lines);
    VolumeStatus {
        name: named.name.clone(),
        size_bytes: volume.geometry().capacity,
        mode: place.and_then(|(cache, id)| cache.mode(id)).map(|mode| mode.to_string()),
        occupied_bytes: held * cache.map_or(0, |cache| cache.line_size().bytes()),
        lease: place.and_then(|(cache, id)| lease(cache, id)),
        in_doubt: place.is_some_and(|(cache, id)| cache.is_in_doubt(id)),
        fault: volume.fault(),
        association: volume
            .association()
            .zip(volume.path_settings())
            .map(|(one, settings)| association_status(one, &settings, now)),
        in_flight: volume.in_flight() as u64,
        hit_ratio: place.and_then(|_| statistics.hit_ratio()),
        statistics: counters(statistics.named()),
    }
}

/// Times and policy of paths.
pub(super) fn path_times(settings: &PathSettings) -> PathTimes {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    PathTimes {
        iopolicy: settings.policy.name().to_owned(),
        ctrl_loss_ms: settings.controller_loss.map(ms),
        fast_io_fail_ms: settings.fast_io_fail.map(ms),
        reconnect_delay_min_ms: ms(settings.reconnect_delay_min),
        reconnect_delay_max_ms: ms(settings.reconnect_delay_max),
        keep_alive_ms: ms(settings.keep_alive),
    }
}

fn association_status(
    one: Association,
    settings: &PathSettings,
    now: Timestamp,
) -> AssociationStatus {
    AssociationStatus {
        transport: "tcp".to_owned(),
        address: one.address,
        subsystem: one.subsystem.to_string(),
        host: one.host.to_string(),
        host_id: one.host_id.to_string(),
        namespace_id: one.namespace_id,
        controller_id: one.controller_id,
        state: one.state.to_string(),
        fault: one.fault,
        io_queues: one.io_queues,
        queue_entries: one.queue_entries,
        keep_alive_ms: u64::try_from(one.keep_alive.as_millis()).unwrap_or(u64::MAX),
        settings: path_times(settings),
        live_seconds: one.live_since.map(|since| now.since(since).as_secs_f64()),
        events_heard: one.events_heard,
        namespace_changes: one.namespace_changes,
        without_path_seconds: one.paths.without_path_for.map(|time| time.as_secs_f64()),
        paths: one.paths.paths.into_iter().map(path_report).collect(),
    }
}

fn path_report(one: PathStatus) -> PathReport {
    let latency = Some(one.latency).filter(|latency| !latency.is_zero());
    PathReport {
        address: one.address,
        state: one.state.name().to_owned(),
        state_seconds: one.since.as_secs_f64(),
        reason: one.reason,
        access: one.access.map(|access| access.name().to_owned()),
        is_used: one.is_used,
        losses: one.losses,
        failures: one.failures,
        next_attempt_seconds: one.next_attempt_in.map(|time| time.as_secs_f64()),
        controller_id: one.controller_id,
        io_queues: one.io_queues,
        in_flight: one.in_flight,
        latency_ns: latency.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
    }
}

/// How it stands with a volume's lease, by the cache's last reading of the clock.
pub(super) fn lease(cache: &Cache, id: VolumeId) -> Option<LeaseStatus> {
    let state = match cache.lease(id)? {
        LeaseStanding::Unlimited => "unlimited",
        LeaseStanding::Held(_) => "held",
        LeaseStanding::Waiting(_) => "waiting",
        LeaseStanding::Over => "over",
    };
    let seconds_left = cache.lease_left(id).map(|left| left.as_secs_f64());
    Some(LeaseStatus { state: state.to_owned(), seconds_left })
}

fn counters<const N: usize>(named: [(&'static str, u64); N]) -> Counters {
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn budget(budget: Budget) -> &'static str {
    match budget {
        Budget::Unlimited => "unlimited",
        Budget::Plenty => "plenty",
        Budget::Scarce => "scarce",
        Budget::Spent => "spent",
    }
}

fn policy_counters(counted: &PolicyStatistics) -> Counters {
    counters([
        ("bypassed_requests", counted.bypassed_requests),
        ("bypassed_bytes", counted.bypassed_bytes),
        ("admitted", counted.admitted),
        ("admitted_bytes", counted.admitted_bytes),
        ("admitted_pinned", counted.admitted_pinned),
        ("refused_never", counted.refused_never),
        ("refused_first_miss", counted.refused_first_miss),
        ("refused_scarce", counted.refused_scarce),
        ("refused_spent", counted.refused_spent),
        ("refused_maximum", counted.refused_maximum),
        ("extra_read_bytes", counted.extra_read_bytes),
        ("purged", counted.purged),
        ("budget_bytes", counted.budget_bytes),
    ])
}
