//! Hit ratios of this cache on traces of real block devices, beside S3-FIFO over the whole cache,
//! LRU, and what knowing the future would give. Lines are of 4 KiB, sizes shares of the footprint.
//!
//! The traces are not ours to ship: `FOREBAY_TRACES` names a folder that has them, and without it
//! the suite says that it is skipped. Nothing here depends on the machine or on chance; one run is
//! enough, and a row that changes means that eviction does.

use std::path::{Path, PathBuf};

use cache_engine::advice::simulate::{self, Policy, Settings};
use cache_engine::advice::touches::{Touches, Trace};
use cache_engine::advice::trace::{self, TraceOptions};
use cache_engine::cache::LineSize;

use crate::results::Results;
use crate::{Failure, Plan};

/// The traces of the ARC paper (Megiddo and Modha, FAST 2003) that the means are of.
const TRACES: [(&str, &str); 3] =
    [("oltp", "OLTP.lis.zst"), ("p3", "P3.lis.zst"), ("p6", "P6.lis.zst")];

/// Cache sizes in per cent of the footprint.
const SIZES: [u64; 2] = [1, 10];

/// Runs the suite, or says why not.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let names = Policy::ALL.map(mean_name);
    let is_wanted = TRACES.iter().any(|(name, _)| plan.wants(&format!("trace.{name}")))
        || names.iter().any(|name| plan.wants(name));
    if !is_wanted {
        return Ok(());
    }
    let Some(folder) = std::env::var_os("FOREBAY_TRACES").map(PathBuf::from) else {
        let reason = format!("FOREBAY_TRACES names no folder with {}", file_names());
        results.skip("trace", &reason);
        return Ok(());
    };
    let mut ratios = Policy::ALL.map(|_| Vec::new());
    for (name, file) in TRACES {
        let touches = load(&folder.join(file))?;
        for percent in SIZES {
            for (policy, ratios) in Policy::ALL.into_iter().zip(&mut ratios) {
                let ratio = hit_percent(&touches, policy, percent)?;
                ratios.push(ratio);
                let name = format!("trace.{name}_{percent}pct.{}", name_of(policy));
                if plan.wants(&name) {
                    results.record(&name, "%", &[ratio]);
                }
            }
        }
    }
    for (ratios, name) in ratios.iter().zip(&names) {
        if plan.wants(name) {
            results.record(name, "%", &[ratios.iter().sum::<f64>() / ratios.len() as f64]);
        }
    }
    Ok(())
}

fn file_names() -> String {
    TRACES.map(|(_, file)| file).join(", ")
}

fn mean_name(policy: Policy) -> String {
    format!("trace.mean.{}", name_of(policy))
}

fn name_of(policy: Policy) -> String {
    policy.to_string().replace('-', "_")
}

fn load(path: &Path) -> Result<Touches, Failure> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut requests = Trace::default();
    let mut source = std::io::BufReader::new(file);
    let mut sink = |access| requests.push(access);
    trace::read(&mut source, &TraceOptions::default(), &mut sink)
        .map_err(|error| failed(&error))?;
    requests.touches(LineSize::ALL[0])
}

fn hit_percent(touches: &Touches, policy: Policy, percent: u64) -> Result<f64, Failure> {
    let lines = (touches.lines() * percent / 100).max(1);
    let settings = Settings {
        policy,
        size_bytes: lines * touches.line_size().bytes(),
        writes_are_cached: true,
        whole_lines: false,
    };
    simulate::run(touches, settings).map(|outcome| outcome.block_hit_ratio() * 100.0)
}
