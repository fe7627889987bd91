//! The NBD server over a cache in memory, beside nbdkit's memory plugin: the same fio jobs on both,
//! in turn. The cache holds all that is asked for, so that reads are hits. Jobs of several
//! connections run on a server with two reactors, too (`.two_reactors`, and `.two_to_one`, its
//! ratio to one).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::results::Results;
use crate::service::{Service, forebay};
use crate::{Failure, Plan};

/// Bytes of both disks.
const DISK: &str = "512M";
/// Bytes that the jobs touch; all of them fit into the cache.
const WORKING_SET: &str = "256M";

/// One fio job.
struct Job {
    name: &'static str,
    read_write: &'static str,
    block_size: &'static str,
    depth: u32,
    /// Connections, each with so many requests in flight.
    connections: u32,
}

const JOBS: &[Job] = &[
    Job::one("read_4k_qd1", "randread", "4k", 1),
    Job::one("read_4k_qd32", "randread", "4k", 32),
    Job::one("write_4k_qd32", "randwrite", "4k", 32),
    Job::one("read_128k_qd8", "randread", "128k", 8),
    Job { connections: 4, ..Job::one("read_4k_qd8_x4", "randread", "4k", 8) },
    Job { connections: 4, ..Job::one("write_4k_qd8_x4", "randwrite", "4k", 8) },
];

impl Job {
    const fn one(
        name: &'static str,
        read_write: &'static str,
        block_size: &'static str,
        depth: u32,
    ) -> Self {
        Self { name, read_write, block_size, depth, connections: 1 }
    }
}

/// What fio says of one run.
struct Measured {
    requests_per_second: f64,
    /// Microseconds that 99 of 100 requests stayed under.
    percentile_99: f64,
}

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let wanted: Vec<&Job> =
        JOBS.iter().filter(|job| plan.wants(&format!("nbd.{}", job.name))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
    let ours = folder.path().join("forebay.sock");
    let theirs = folder.path().join("nbdkit.sock");
    let two = folder.path().join("two.sock");
    let _forebay = start_forebay(&ours, 1)?;
    let _nbdkit = start_nbdkit(&theirs)?;
    let any_two = wanted.iter().any(|job| job.connections > 1);
    let _two = any_two.then(|| start_forebay(&two, 2)).transpose()?;
    let (ours, theirs, two) = (uri("volume", &ours), uri("", &theirs), uri("volume", &two));
    for target in [&ours, &theirs].into_iter().chain(any_two.then_some(&two)) {
        // Writes every byte of the working set: cached here, allocated there.
        fio(target, &Job::one("warm", "write", "128k", 8), None)?;
    }
    for job in wanted {
        compare(job, plan, [&ours, &theirs, &two], results)?;
    }
    Ok(())
}

fn compare(
    job: &Job,
    plan: &Plan,
    [ours, theirs, two]: [&String; 3],
    results: &mut Results,
) -> Result<(), Failure> {
    let (mut forebay, mut nbdkit, mut two_reactors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        forebay.push(fio(ours, job, Some(plan))?);
        nbdkit.push(fio(theirs, job, Some(plan))?);
        if job.connections > 1 {
            two_reactors.push(fio(two, job, Some(plan))?);
        }
    }
    let rates = |runs: &[Measured]| -> Vec<f64> {
        runs.iter().map(|run| run.requests_per_second).collect()
    };
    let tails =
        |runs: &[Measured]| -> Vec<f64> { runs.iter().map(|run| run.percentile_99).collect() };
    let (our_rates, their_rates) = (rates(&forebay), rates(&nbdkit));
    let (our_tails, their_tails) = (tails(&forebay), tails(&nbdkit));
    let name = |side: &str, what: &str| format!("nbd.{}.{side}{what}", job.name);
    results.record(&name("forebay", ""), "IOPS", &our_rates);
    results.record(&name("nbdkit", ""), "IOPS", &their_rates);
    results.record(&name("forebay", ".p99"), "us", &our_tails);
    results.record(&name("nbdkit", ".p99"), "us", &their_tails);
    let ratios: Vec<f64> = our_rates.iter().zip(&their_rates).map(|(a, b)| a / b).collect();
    results.record(&name("ratio", ""), "x", &ratios);
    if job.connections > 1 {
        let rates = rates(&two_reactors);
        results.record(&name("two_reactors", ""), "IOPS", &rates);
        results.record(&name("two_reactors", ".p99"), "us", &tails(&two_reactors));
        let ratios: Vec<f64> = rates.iter().zip(&our_rates).map(|(a, b)| a / b).collect();
        results.record(&name("two_to_one", ""), "x", &ratios);
    }
    Ok(())
}

fn start_forebay(socket: &Path, reactors: u32) -> Result<Service, Failure> {
    let mut command = forebay()?;
    command
        .args(["run", "--origin", &format!("memory:{DISK}")])
        .args(["--cache", "memory:", "--cache-size", DISK])
        .args(["--reactors", &reactors.to_string(), "--oversubscribe"])
        .args(["--export", &uri("volume", socket)]);
    Service::start_ready(command, 1)
}

fn start_nbdkit(socket: &Path) -> Result<Service, Failure> {
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--unix"]).arg(socket).args(["memory", DISK]);
    Service::start_socket(command, socket)
}

fn uri(name: &str, socket: &Path) -> String {
    format!("nbd+unix:///{name}?socket={}", socket.display())
}

/// Runs one job: for the plan's time, or once over the working set.
fn fio(target: &str, job: &Job, plan: Option<&Plan>) -> Result<Measured, Failure> {
    let mut command = Command::new("fio");
    command
        .args(["--name=bench", "--ioengine=nbd", "--output-format=json", "--randrepeat=1"])
        .arg(format!("--uri={target}"))
        .arg(format!("--rw={}", job.read_write))
        .arg(format!("--bs={}", job.block_size))
        .arg(format!("--iodepth={}", job.depth))
        .arg(format!("--numjobs={}", job.connections))
        .args(["--thread", "--group_reporting"])
        .arg(format!("--size={WORKING_SET}"));
    if let Some(plan) = plan {
        let seconds = plan.time.as_secs();
        command.args(["--time_based", "--norandommap", &format!("--runtime={seconds}")]);
    }
    let output = command.output().map_err(|error| format!("fio could not be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fio on {target} ended with {}: {}", output.status, said.trim()));
    }
    measured(&String::from_utf8_lossy(&output.stdout), job.read_write.ends_with("read"))
}

fn measured(output: &str, read: bool) -> Result<Measured, Failure> {
    // fio may say something before the JSON.
    let start = output.find('{').ok_or_else(|| format!("fio said no JSON: {output}"))?;
    let json: Value =
        serde_json::from_str(&output[start..]).map_err(|error| format!("fio's JSON: {error}"))?;
    let side = &json["jobs"][0][if read { "read" } else { "write" }];
    let nanoseconds = &side["clat_ns"]["percentile"]["99.000000"];
    match (side["iops"].as_f64(), nanoseconds.as_f64()) {
        (Some(requests_per_second), Some(nanoseconds)) => {
            Ok(Measured { requests_per_second, percentile_99: nanoseconds / 1000.0 })
        }
        _ => Err("fio's JSON has no jobs[0].read or .write with iops and clat_ns".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_tails_are_read_from_what_fio_says() {
        let output = "fio: warning\n\
            {\"jobs\": [{\"read\": {\"iops\": 1234.5, \
            \"clat_ns\": {\"percentile\": {\"99.000000\": 70144}}}}]}";
        let measured = measured(output, true).unwrap();
        assert_eq!(measured.requests_per_second, 1234.5);
        assert_eq!(measured.percentile_99, 70.144);
        assert!(super::measured(output, false).is_err());
        assert!(super::measured("none", true).is_err());
    }
}
