//! `forebay nvme discover --mdns`: the discovery controllers that announce themselves, each asked.
//!
//! Progress is told on standard error: what is listened for, who is heard, who does not answer.
//! Absent: staying connected to them.

use std::time::Duration;

use block_io::reactor::Reactor;
use nvme_fabric::driver::{DiscoverOptions, discover as ask};
use nvme_fabric::host::discovery::Findings;

use crate::failure::Failure;
use crate::mdns::{self, Found};
use crate::output::{self, table};

/// Listens for `time`, and asks everybody who was heard, each with `options` at its own address.
/// One who does not answer is a notice.
///
/// # Errors
/// When nobody is heard, or nobody answers.
pub(super) fn ask_all(
    reactor: &Reactor,
    options: &DiscoverOptions,
    time: Duration,
) -> Result<(Vec<Found>, Findings), Failure> {
    let seconds = time.as_secs();
    output::notice(format_args!("listening for discovery controllers (mDNS) for {seconds} s"));
    let found = mdns::find(time, |one| output::notice(table::printable(&heard(one))))?;
    if found.is_empty() {
        return Err(Failure::new(format!(
            "no discovery controller announced itself within {seconds} s (mDNS, \
             _nvme-disc._tcp.local): --mdns-time gives them longer, HOST[:PORT] asks one by address"
        )));
    }
    let mut all = Findings::default();
    for one in &found {
        match ask_one(reactor, options, one) {
            Ok(mut findings) => {
                all.answers.append(&mut findings.answers);
                all.failures.append(&mut findings.failures);
                all.unfollowed.append(&mut findings.unfollowed);
            }
            Err(reason) => {
                let notice = format!("\"{}\" does not answer: {reason}", one.instance);
                output::notice(table::printable(&notice));
            }
        }
    }
    if all.answers.is_empty() {
        return Err(Failure::new(format!("none of the {} that were heard answers", found.len())));
    }
    Ok((found, all))
}

/// Asks at each address in turn until there is an answer.
fn ask_one(reactor: &Reactor, options: &DiscoverOptions, one: &Found) -> Result<Findings, String> {
    let mut reasons = Vec::with_capacity(one.addresses.len());
    for address in &one.addresses {
        let options = DiscoverOptions {
            host: address.clone(),
            port: one.port,
            subsystem: one.subsystem.clone(),
            ..options.clone()
        };
        match ask(reactor, &options) {
            Err(error) => reasons.push(error.to_string()),
            Ok(mut findings) => {
                let first = findings.failures.iter().position(|(visit, _)| visit.number == 0);
                match first {
                    None => return Ok(findings),
                    Some(place) => reasons.push(findings.failures.swap_remove(place).1),
                }
            }
        }
    }
    Err(reasons.join("; "))
}

fn heard(one: &Found) -> String {
    let Found { instance, addresses, port, subsystem } = one;
    format!("heard \"{instance}\" at {} port {port}, {subsystem}", addresses.join(", "))
}
