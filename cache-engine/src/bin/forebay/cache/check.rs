//! `forebay cache check`: whether what a cache device records is whole, and true of an origin.

use std::time::{Duration, Instant};

use block_io::device::file::{FileDevice, OpenOptions};
use block_io::reactor::Reactor;
use block_io::{BlockDevice, DeviceError};
use cache_engine::backend::address::OriginAddress;
use cache_engine::backend::key_source::KeySource;
use cache_engine::backend::{Backend, origin_identity};
use cache_engine::cache::cipher::LineCipher;
use cache_engine::cache::metadata::{IdentityKind, Superblock, VolumeRecord};
use cache_engine::volume::cache_check::{self, Findings, Original, Report};
use cache_engine::volume::exchange::Exchange;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{OpenDevice, turn};
use crate::arguments::CheckArguments;
use crate::failure::Failure;
use crate::output::{self, json, table};

/// Checks the device and tells what there is.
///
/// # Errors
/// When the device is in use, is no cache, fails, or is damaged, or the origin is not the volume's.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), Failure> {
    let mut device = OpenDevice::open(&arguments.device, None)?;
    let superblock = device.superblock()?;
    let reactor = &device.reactor;
    let mut exchange = Exchange::new(&mut device.queue, reactor.pool(), || turn(reactor));
    let mut progress = Progress::new();
    let mut show = |share| progress.show(share);
    let report = match &arguments.origin {
        None => cache_check::check(&mut exchange, &superblock, None, &mut show)?,
        Some(address) => {
            let volume = volume_of(&superblock, arguments.volume.as_deref())?;
            let cipher = cipher_of(arguments, &superblock, volume)?;
            let origin = open_origin(address, reactor, volume)?;
            let mut queue = origin.open_queue(reactor, 1)?;
            let mut origin_exchange = Exchange::new(&mut queue, reactor.pool(), || turn(reactor));
            let mut read =
                |offset, length| origin_exchange.read("reading the origin", offset, length);
            let original = Original { volume, cipher: cipher.as_ref(), read: &mut read };
            let report = cache_check::check(&mut exchange, &superblock, Some(original), &mut show)?;
            origin.close(reactor)?;
            report
        }
    };
    progress.bar.finish_and_clear();
    if arguments.json {
        output::print(json_of(&report))?;
    } else {
        print_report(&report)?;
    }
    match report.damage.count {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{}: damaged in {count} places; a start drops what is not whole, or format it anew",
            device.name
        ))),
    }
}

/// The volume of that name, or the only one.
fn volume_of<'cache>(
    superblock: &'cache Superblock,
    name: Option<&str>,
) -> Result<&'cache VolumeRecord, Failure> {
    let names = || {
        let names: Vec<_> =
            superblock.volumes().iter().map(|volume| table::printable(&volume.name)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    match (name, superblock.volumes()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::Usage(format!(
            "--volume: must name one of the cache's volumes: {}",
            names()
        ))),
        (Some(name), _) => superblock.volume_named(name).ok_or_else(|| {
            Failure::new(format!("--volume {name}: the cache's volumes are: {}", names()))
        }),
    }
}

/// What decrypts the volume's lines; none where they are not encrypted, or no key is given.
fn cipher_of(
    arguments: &CheckArguments,
    superblock: &Superblock,
    volume: &VolumeRecord,
) -> Result<Option<LineCipher>, Failure> {
    let is_encrypted = volume.flags & VolumeRecord::ENCRYPTED != 0;
    let name = table::printable(&volume.name);
    let Some(address) = &arguments.encryption_key else {
        if is_encrypted {
            output::notice(format_args!(
                "volume '{name}' is encrypted: without --encryption-key its checksums are \
                 compared, not its content"
            ));
        }
        return Ok(None);
    };
    let usage = |error| Failure::Usage(format!("--encryption-key: {error}"));
    let source: KeySource = address.parse().map_err(|error: DeviceError| usage(error))?;
    if !is_encrypted {
        return Err(Failure::new(format!(
            "--encryption-key {source}: volume '{name}' is not encrypted; leave the key out"
        )));
    }
    let key = source.read()?;
    let cipher = LineCipher::new(&key.for_volume(&superblock.format_id.0, volume.id.0));
    if cipher.key_check() != volume.key_check {
        return Err(Failure::new(format!(
            "--encryption-key {source}: volume '{name}' was encrypted with another key"
        )));
    }
    Ok(Some(cipher))
}

/// Opens the origin for reading, and makes sure that it is the volume's.
fn open_origin(
    address: &OriginAddress,
    reactor: &Reactor,
    volume: &VolumeRecord,
) -> Result<Backend, Failure> {
    let origin = match address {
        OriginAddress::File(path) => {
            // A shared lock: refused while a cache has the file, which locks it for itself.
            let options = OpenOptions { read_only: true, ..OpenOptions::default() };
            let device = FileDevice::open(path, options)?;
            if !device.metadata_when_opened().is_file() {
                output::notice(format_args!(
                    "--origin {address}: a block device can't be locked for reading: nothing keeps \
                     others from writing to it meanwhile, which would be told as damage"
                ));
            }
            Backend::File(device)
        }
        other => Backend::open(other, reactor)?,
    };
    let found = origin_identity::offer(&origin).identity;
    if found != volume.identity && volume.identity.kind() != IdentityKind::Assigned {
        return Err(Failure::new(format!(
            "--origin {address}: is {found}, but the volume was cached from {}",
            volume.identity
        )));
    }
    let size = origin.geometry().capacity;
    if size != volume.size {
        return Err(Failure::new(format!(
            "--origin {address}: has {size} bytes, but the volume had {} when it was cached",
            volume.size
        )));
    }
    Ok(origin)
}

fn print_report(report: &Report) -> Result<(), Failure> {
    let rows = [
        ("active extents", report.extents),
        ("journal blocks not folded", report.journal_blocks),
        ("journal records", report.journal_records),
        ("line table pages, valid", report.pages_valid),
        ("line table pages, never written", report.pages_void),
        ("lines recorded", report.lines),
        ("lines of active extents", report.lines_active),
        ("blocks valid", report.blocks),
        ("blocks compared with their checksums", report.checksums),
        ("blocks compared with the origin", report.compared),
        ("left by a crash", report.leftovers.count),
        ("damaged", report.damage.count),
    ];
    let mut shown = table::new(&["what", "number"], 1);
    for (name, number) in rows {
        shown.add_row([name.to_owned(), table::grouped(number)]);
    }
    output::print(shown)?;
    for (kind, findings) in [("left by a crash", &report.leftovers), ("damaged", &report.damage)] {
        for text in &findings.texts {
            output::print(format_args!("{kind}: {}", table::printable(text)))?;
        }
        let more = findings.count - findings.texts.len() as u64;
        if more > 0 {
            output::print(format_args!("{kind}: {more} more"))?;
        }
    }
    Ok(())
}

fn json_of(report: &Report) -> Value {
    let findings = |findings: &Findings| {
        let texts = findings.texts.iter().map(String::as_str).collect();
        json::object([("count", Value::from(findings.count)), ("first", texts)])
    };
    json::object([
        ("active_extents", Value::from(report.extents)),
        ("journal_blocks_used", report.journal_blocks.into()),
        ("journal_records", report.journal_records.into()),
        ("table_pages_valid", report.pages_valid.into()),
        ("table_pages_void", report.pages_void.into()),
        ("lines", report.lines.into()),
        ("lines_active", report.lines_active.into()),
        ("blocks_valid", report.blocks.into()),
        ("checksums_compared", report.checksums.into()),
        ("blocks_compared", report.compared.into()),
        ("leftovers", findings(&report.leftovers)),
        ("damage", findings(&report.damage)),
    ])
}

/// What takes no longer than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the check is, for people: a bar on standard error once it takes a while, nothing where
/// that is no terminal.
struct Progress {
    started: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// Steps of the bar.
    const STEPS: f64 = 1000.0;

    fn new() -> Self {
        let target = ProgressDrawTarget::hidden();
        let bar = ProgressBar::with_draw_target(Some(Self::STEPS as u64), target);
        let style =
            ProgressStyle::with_template("checking {wide_bar:.cyan/dim} {percent:>3} % {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
        Self { started: Instant::now(), bar }
    }

    fn show(&mut self, share: f64) {
        if self.bar.is_hidden() && self.started.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position((Self::STEPS * share) as u64);
    }
}
