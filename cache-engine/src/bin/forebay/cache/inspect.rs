//! `forebay cache inspect`: what a cache device says of itself, and where its parts lie.

use cache_engine::cache::metadata::layout::SUPERBLOCK_REGION;
use cache_engine::cache::metadata::superblock::VERSION;
use cache_engine::cache::metadata::{Superblock, VolumeRecord};
use cache_engine::volume::cache_check::{self, Report};
use cache_engine::volume::exchange::Exchange;
use comfy_table::Table;
use serde_json::Value;

use super::{OpenDevice, turn};
use crate::arguments::InspectArguments;
use crate::failure::Failure;
use crate::output::{self, json, table};

/// Shows the device.
///
/// # Errors
/// When the device is in use, is no cache, or fails.
pub(super) fn run(arguments: &InspectArguments) -> Result<(), Failure> {
    let mut device = OpenDevice::open(&arguments.device, None)?;
    let superblock = device.superblock()?;
    let reactor = &device.reactor;
    let mut exchange = Exchange::new(&mut device.queue, reactor.pool(), || turn(reactor));
    let usage = cache_check::usage(&mut exchange, &superblock)?;
    if arguments.json {
        return output::print(json_of(&superblock, &usage));
    }
    output::print(superblock_table(&superblock, &usage))?;
    output::print(layout_table(&superblock))?;
    match superblock.volumes() {
        [] => output::print("no volumes"),
        volumes => output::print(volume_table(volumes)),
    }
}

fn superblock_table(superblock: &Superblock, usage: &Report) -> Table {
    let layout = &superblock.layout;
    let lines = u64::from(layout.sets) * 16;
    let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let features = &superblock.features;
    let rows = [
        ("format version", VERSION.to_string()),
        ("format id", superblock.format_id.to_string()),
        ("state", superblock.state.to_string()),
        ("every line to be verified", yes_or_no(superblock.verify_all)),
        ("superblock sequence", superblock.sequence.to_string()),
        ("journal tail", superblock.journal_tail.to_string()),
        ("shard", format!("{} of {}", superblock.shard_index, superblock.shard_count)),
        (
            "features",
            format!(
                "compatible {:#x}, read-only compatible {:#x}, incompatible {:#x}",
                features.compatible, features.read_only_compatible, features.incompatible
            ),
        ),
        ("line size", layout.line_size.to_string()),
        (
            "lines",
            format!("{} in {} sets", table::grouped(lines), table::grouped(layout.sets.into())),
        ),
        ("volumes", superblock.volumes().len().to_string()),
        ("active extents", format!("{} of {}", usage.extents, layout.activity_extents())),
        (
            "journal",
            format!(
                "{} of {} blocks, {} records",
                usage.journal_blocks, layout.journal_blocks, usage.journal_records
            ),
        ),
    ];
    let mut shown = table::new(&["field", "value"], 2);
    for (name, value) in rows {
        shown.add_row([name.to_owned(), value]);
    }
    shown
}

/// Name, offset, bytes and what is in it, for each part of the device.
fn parts(superblock: &Superblock) -> [(&'static str, u64, u64, String); 5] {
    let layout = &superblock.layout;
    let part = |start: u64, end: u64| (start, end - start);
    let (activity, journal) = (layout.activity_offset, layout.journal_offset);
    let (table, data) = (layout.table_offset, layout.data_offset);
    let row = |name, (offset, length): (u64, u64), what| (name, offset, length, what);
    let pages = u64::from(layout.table_pages) * 4096;
    [
        row("superblocks", part(0, 2 * SUPERBLOCK_REGION), "2 copies".to_owned()),
        row(
            "activity pages",
            part(activity, journal),
            format!("2 × {} pages, {} extents", layout.activity_pages, layout.activity_extents()),
        ),
        row("journal", part(journal, table), format!("{} blocks", layout.journal_blocks)),
        row(
            "line table",
            (table, pages),
            format!("{} pages of {} sets", layout.table_pages, layout.sets_per_page),
        ),
        row("data", (data, layout.data_length()), format!("{} sets of 16 lines", layout.sets)),
    ]
}

/// Where the parts of the device lie.
pub(super) fn layout_table(superblock: &Superblock) -> Table {
    let mut shown = table::new(&["part", "what", "offset", "size"], 2);
    for (name, offset, length, what) in parts(superblock) {
        shown.add_row([name.to_owned(), what, table::grouped(offset), table::bytes(length)]);
    }
    shown
}

fn volume_table(volumes: &[VolumeRecord]) -> Table {
    let header =
        ["id", "name", "origin", "generation", "encrypted", "size", "base", "span", "attachment"];
    let mut shown = table::new(&header, 5);
    for volume in volumes {
        shown.add_row([
            volume.id.0.to_string(),
            table::printable(&volume.name),
            table::printable(&volume.identity.to_string()),
            volume.generation.to_string(),
            if is_encrypted(volume) { "yes" } else { "no" }.to_owned(),
            table::bytes(volume.size),
            table::bytes(volume.base),
            table::bytes(volume.span),
            volume.attach_epoch.to_string(),
        ]);
    }
    shown
}

fn is_encrypted(volume: &VolumeRecord) -> bool {
    volume.flags & VolumeRecord::ENCRYPTED != 0
}

/// What programs get; sizes in bytes.
fn json_of(superblock: &Superblock, usage: &Report) -> Value {
    let layout = parts(superblock).map(|(name, offset, length, _)| {
        let part = [("offset", Value::from(offset)), ("length", length.into())];
        (name.replace(' ', "_"), json::object(part))
    });
    let features = &superblock.features;
    let volumes = superblock.volumes().iter().map(json_of_volume).collect();
    json::object([
        ("format_version", Value::from(VERSION)),
        ("format_id", superblock.format_id.to_string().into()),
        ("state", superblock.state.to_string().into()),
        ("verify_all", superblock.verify_all.into()),
        ("sequence", superblock.sequence.into()),
        ("journal_tail", superblock.journal_tail.into()),
        ("shard_index", superblock.shard_index.into()),
        ("shard_count", superblock.shard_count.into()),
        ("features_compatible", features.compatible.into()),
        ("features_read_only_compatible", features.read_only_compatible.into()),
        ("features_incompatible", features.incompatible.into()),
        ("capacity", superblock.layout.capacity.into()),
        ("line_size", superblock.layout.line_size.bytes().into()),
        ("sets", superblock.layout.sets.into()),
        ("activity_extents", superblock.layout.activity_extents().into()),
        ("journal_blocks", superblock.layout.journal_blocks.into()),
        ("activity_extents_used", usage.extents.into()),
        ("journal_blocks_used", usage.journal_blocks.into()),
        ("journal_records", usage.journal_records.into()),
        ("layout", json::object(layout)),
        ("volumes", volumes),
    ])
}

fn json_of_volume(volume: &VolumeRecord) -> Value {
    json::object([
        ("id", Value::from(volume.id.0)),
        ("name", volume.name.as_str().into()),
        ("identity_kind", volume.identity.kind().to_string().into()),
        ("identity", volume.identity.text().into()),
        ("size", volume.size.into()),
        ("base", volume.base.into()),
        ("span", volume.span.into()),
        ("generation", volume.generation.to_string().into()),
        ("attach_epoch", volume.attach_epoch.into()),
        ("encrypted", is_encrypted(volume).into()),
    ])
}
