//! `forebay nvme discover`: what discovery services tell, once or each change.

use std::time::Duration;

use block_io::reactor::{Reactor, ReactorConfig, Wait};
use cache_engine::backend::address::{DISCOVERY_PORT, PskIdentity};
use cache_engine::backend::tls_keys;
use nvme_fabric::driver::{DiscoverOptions, DiscoveryWatch, WatchEvent, discover as ask};
use nvme_fabric::host::discovery::{Difference, Findings, WalkLimits, route};
use nvme_fabric::spec::log_page::{
    AddressFamily, DiscoveryEntry, SubsystemKind, TRANSPORT_TCP, entry_flag,
};
use serde_json::{Map, Value};

use super::arguments::DiscoverArguments;
use super::nearby;
use crate::arguments::Format;
use crate::failure::Failure;
use crate::mdns::Found;
use crate::output::{self, json, table};
use crate::signals::Signals;

/// Asks, and shows what is answered.
///
/// # Errors
/// When the service cannot be reached or does not answer as it should. One that it refers to and
/// that does not answer is a notice.
pub(super) fn run(arguments: &DiscoverArguments) -> Result<(), Failure> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let identity = arguments.host.identity()?;
    // Where services are found by listening, each has an address of its own.
    let endpoint = arguments.endpoint.clone();
    let (host, port) = endpoint.map(|place| (place.host, place.port)).unwrap_or_default();
    let mut options = DiscoverOptions::new(host, identity.nqn, identity.id);
    options.port = port.unwrap_or(DISCOVERY_PORT);
    if let Some(nqn) = &arguments.nqn {
        options.subsystem = nqn.clone();
    }
    if let Some(file) = &arguments.tls_key {
        options.tls = Some(tls_keys::host_tls(file, PskIdentity::Both, &options.host_nqn)?);
    }
    if arguments.no_referrals {
        options.limits = WalkLimits { depth_max: 0, ..options.limits };
    }
    let format = arguments.form.format();
    if arguments.mdns {
        let time = Duration::from_secs(arguments.mdns_time.into());
        let (found, findings) = nearby::ask_all(&reactor, &options, time)?;
        return show(findings, &found, format, arguments.no_referrals);
    }
    match arguments.persistent {
        true => watch(&reactor, &options, format),
        false => once(&reactor, &options, format, arguments.no_referrals),
    }
}

fn once(
    reactor: &Reactor,
    options: &DiscoverOptions,
    format: Format,
    no_referrals: bool,
) -> Result<(), Failure> {
    let mut findings = ask(reactor, options)?;
    let is_first = |visit: usize| visit == 0;
    if let Some(place) = findings.failures.iter().position(|(visit, _)| is_first(visit.number)) {
        return Err(Failure::new(findings.failures.swap_remove(place).1));
    }
    show(findings, &[], format, no_referrals)
}

/// Shows what services answered; `found` are those that announced themselves.
fn show(
    mut findings: Findings,
    found: &[Found],
    format: Format,
    no_referrals: bool,
) -> Result<(), Failure> {
    if no_referrals {
        findings.unfollowed.clear();
    }
    for (visit, error) in &findings.failures {
        let place = visit.route.address;
        output::notice(table::printable(&format!("the referral to {place}: {error}")));
    }
    for one in &findings.unfollowed {
        let (place, reason) = (&one.entry.address, &one.reason);
        output::notice(table::printable(&format!(
            "the referral to \"{place}\" was not followed: {reason}"
        )));
    }
    match format {
        Format::Json => output::print(findings_json(&findings, found)),
        Format::Table => output::print(findings_table(&findings)),
    }
}

fn findings_table(findings: &Findings) -> String {
    let header =
        ["subsystem", "kind", "transport", "address", "port", "security", "flags", "told by"];
    let mut shown = table::new(&header, 8);
    for answer in &findings.answers {
        for entry in &answer.log.entries {
            shown.add_row([
                table::printable(&entry.subsystem),
                kind_of(entry.kind),
                transport_of(entry),
                table::printable(&entry.address),
                table::printable(&entry.service),
                security_of(entry.security),
                flags_of(entry.flags).join(", "),
                answer.visit.route.address.to_string(),
            ]);
        }
    }
    shown.to_string()
}

fn findings_json(findings: &Findings, found: &[Found]) -> Value {
    let first = findings.answers.first();
    let mut records = Vec::new();
    let mut services = Vec::new();
    for answer in &findings.answers {
        let told_by = answer.visit.route.address.to_string();
        let unique = answer.unique_name.as_ref().map(ToString::to_string);
        services.push(json::object([
            ("address", Value::from(told_by.as_str())),
            ("subnqn", answer.visit.route.subsystem.as_str().into()),
            ("unique_subnqn", unique.map_or(Value::Null, Value::from)),
            ("genctr", answer.log.generation.into()),
            ("referrals", answer.visit.depth.into()),
        ]));
        for entry in &answer.log.entries {
            let mut record = record(entry);
            record.insert("told_by".to_owned(), told_by.as_str().into());
            records.push(Value::Object(record));
        }
    }
    let failed = |(visit, error): &(nvme_fabric::host::discovery::walk::Visit, String)| {
        json::object([
            ("address", Value::from(visit.route.address.to_string())),
            ("subnqn", visit.route.subsystem.as_str().into()),
            ("error", error.as_str().into()),
        ])
    };
    let unfollowed = |one: &nvme_fabric::host::discovery::walk::Unfollowed| {
        json::object([
            ("referral", Value::Object(record(&one.entry))),
            ("reason", one.reason.as_str().into()),
        ])
    };
    let announced = |one: &Found| {
        json::object([
            ("instance", Value::from(one.instance.as_str())),
            ("addresses", one.addresses.clone().into()),
            ("port", one.port.into()),
            ("subnqn", one.subsystem.as_str().into()),
        ])
    };
    json::object([
        ("announced", found.iter().map(announced).collect()),
        ("genctr", first.map_or(Value::Null, |answer| answer.log.generation.into())),
        ("records", records.into()),
        ("services", services.into()),
        ("failures", findings.failures.iter().map(failed).collect()),
        ("unfollowed", findings.unfollowed.iter().map(unfollowed).collect()),
    ])
}

/// Tells each change until a signal arrives.
fn watch(reactor: &Reactor, options: &DiscoverOptions, format: Format) -> Result<(), Failure> {
    let mut watch = DiscoveryWatch::new(reactor, options)?;
    let signals = Signals::new()?.watch(reactor);
    let mut is_ending = false;
    while !watch.is_closed() {
        let now = reactor.now();
        let mut progress = watch.poll(now);
        while let Some(event) = watch.next_event() {
            told(&event, format)?;
            progress = true;
        }
        if signals.arrived(now) && !is_ending {
            watch.shut_down();
            (is_ending, progress) = (true, true);
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent })?;
    }
    Ok(())
}

fn told(event: &WatchEvent, format: Format) -> Result<(), Failure> {
    match (event, format) {
        (WatchEvent::Lost(error, pause), _) => {
            let error = table::printable(error);
            output::notice(format_args!("{error}; asked again in {} s", pause.as_secs()));
            Ok(())
        }
        (WatchEvent::Changed(difference), format) => changes(difference, format),
    }
}

fn changes(difference: &Difference, format: Format) -> Result<(), Failure> {
    let Difference { appeared, gone, changed } = difference;
    let words = gone.iter().map(|entry| ("gone", entry));
    let words = words.chain(appeared.iter().map(|entry| ("appeared", entry)));
    let words = words.chain(changed.iter().map(|(_, now)| ("changed", now)));
    for (word, entry) in words {
        match format {
            Format::Json => {
                let mut record = record(entry);
                record.insert("event".to_owned(), word.into());
                output::print(Value::Object(record))?;
            }
            Format::Table => output::print(format_args!(
                "{word:<9}{} {} at {} {}",
                kind_of(entry.kind),
                table::printable(&entry.subsystem),
                transport_of(entry),
                table::printable(&format!("{} port {}", entry.address, entry.service)),
            ))?,
        }
    }
    Ok(())
}

fn record(entry: &DiscoveryEntry) -> Map<String, Value> {
    let family = match entry.family {
        AddressFamily::Ipv4 => "ipv4".to_owned(),
        AddressFamily::Ipv6 => "ipv6".to_owned(),
        AddressFamily::Other(other) => format!("family {other}"),
    };
    let unreachable = route(entry).err().map_or(Value::Null, Value::from);
    let pairs = [
        ("trtype", Value::from(transport_of(entry))),
        ("adrfam", family.into()),
        ("subtype", kind_of(entry.kind).into()),
        ("treq", entry.requirements.into()),
        ("portid", entry.port_id.into()),
        ("cntlid", entry.controller_id.into()),
        ("asqsz", entry.admin_queue_size.into()),
        ("eflags", entry.flags.into()),
        ("eflags_names", flags_of(entry.flags).into()),
        ("trsvcid", entry.service.as_str().into()),
        ("subnqn", entry.subsystem.as_str().into()),
        ("traddr", entry.address.as_str().into()),
        ("sectype", security_of(entry.security).into()),
        ("unusable", unreachable),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// TRTYPE. NVMe Base 2.1 §5.1.12.3.1
fn transport_of(entry: &DiscoveryEntry) -> String {
    match entry.transport {
        1 => "rdma".to_owned(),
        2 => "fc".to_owned(),
        TRANSPORT_TCP => "tcp".to_owned(),
        254 => "loop".to_owned(),
        other => format!("transport {other}"),
    }
}

fn kind_of(kind: SubsystemKind) -> String {
    match kind {
        SubsystemKind::Referral => "discovery referral".to_owned(),
        SubsystemKind::Nvm => "nvme subsystem".to_owned(),
        SubsystemKind::CurrentDiscovery => "current discovery subsystem".to_owned(),
        SubsystemKind::Other(other) => format!("kind {other}"),
    }
}

fn flags_of(flags: u16) -> Vec<&'static str> {
    [
        (entry_flag::DUPLICATE, "returns the same information"),
        (entry_flag::PERSISTENT_CONNECTION, "persistent connections"),
        (entry_flag::NOT_CONNECTED, "not connected to the CDC"),
    ]
    .into_iter()
    .filter_map(|(flag, name)| (flags & flag != 0).then_some(name))
    .collect()
}

/// NVMe/TCP Transport 1.1, "Transport Specific Address Subtype": SECTYPE.
fn security_of(security: u8) -> String {
    match security {
        0 => "none".to_owned(),
        1 => "TLS 1.2".to_owned(),
        2 => "TLS 1.3".to_owned(),
        other => format!("type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> DiscoveryEntry {
        DiscoveryEntry {
            transport: TRANSPORT_TCP,
            family: AddressFamily::Ipv6,
            kind: SubsystemKind::Nvm,
            requirements: 0,
            port_id: 1,
            controller_id: 0xffff,
            admin_queue_size: 32,
            flags: 0,
            service: "4420".into(),
            subsystem: "nqn.2014-08.x".into(),
            address: "::1".into(),
            security: 0,
        }
    }

    #[test]
    fn a_record_has_the_names_that_scripts_know() {
        let value = record(&entry());
        for (name, expected) in [
            ("trtype", "tcp"),
            ("adrfam", "ipv6"),
            ("subtype", "nvme subsystem"),
            ("trsvcid", "4420"),
            ("subnqn", "nqn.2014-08.x"),
            ("traddr", "::1"),
            ("sectype", "none"),
        ] {
            assert_eq!(value[name], expected);
        }
        assert_eq!(value["unusable"], Value::Null);
    }

    #[test]
    fn what_cannot_be_connected_to_is_shown_with_why() {
        let foreign = DiscoveryEntry { transport: 9, flags: 0b111, ..entry() };
        let value = record(&foreign);
        assert_eq!(value["trtype"], "transport 9");
        assert_eq!(value["unusable"], "TRTYPE is 9: must be 3, TCP");
        assert_eq!(value["eflags_names"].as_array().map(Vec::len), Some(3));
        assert_eq!(flags_of(0b100), ["not connected to the CDC"]);
    }
}
