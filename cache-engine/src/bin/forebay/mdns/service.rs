//! What the announcement of a discovery controller says, read and written.
//!
//! The TXT record has `p`, the transport, and `nqn`; keys in any case, as nvme-stas and SPDK read
//! and write them. TP8009, and RFC 6763 §6.4 for keys.

use std::net::IpAddr;

use nvme_fabric::spec::nqn::Nqn;

use super::Found;

/// The kind of service. TP8009
pub(super) const SERVICE_TYPE: &str = "_nvme-disc._tcp.local.";

/// TXT key of the transport.
pub(super) const TXT_TRANSPORT: &str = "p";
/// Its value for NVMe/TCP.
pub(super) const TRANSPORT_TCP: &str = "tcp";
/// TXT key of the service's name.
pub(super) const TXT_NAME: &str = "nqn";

/// Addresses of one service that are tried.
const ADDRESSES_MAX: usize = 4;

/// An announcement as it came from a stranger.
pub(super) struct Announced<'a> {
    pub(super) instance: &'a str,
    /// Each with the interface that a link-local one is to be reached over.
    pub(super) addresses: Vec<(IpAddr, Option<String>)>,
    pub(super) port: u16,
    pub(super) transport: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

impl Announced<'_> {
    /// The controller that it announces.
    ///
    /// # Errors
    /// The field that is wrong, its value, and what would be right.
    pub(super) fn read(self) -> Result<Found, String> {
        let transport = self.transport.unwrap_or_default();
        // SPDK's own example has more words behind the transport.
        let first = transport.split_ascii_whitespace().next().unwrap_or_default();
        if !first.eq_ignore_ascii_case(TRANSPORT_TCP) {
            return Err(format!(
                "TXT key {TXT_TRANSPORT} is '{}': must be {TRANSPORT_TCP}",
                transport.escape_debug()
            ));
        }
        if self.port == 0 {
            return Err("the port is 0: must be 1 at least".to_owned());
        }
        let subsystem = match self.name.map(str::trim) {
            None | Some("") => Nqn::discovery(),
            Some(name) => name
                .parse()
                .map_err(|why| format!("TXT key {TXT_NAME} is '{}': {why}", name.escape_debug()))?,
        };
        let mut addresses = self.addresses;
        addresses.sort_by_key(|(address, scope)| (order(address), *address, scope.clone()));
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err("it has no address".to_owned());
        }
        let addresses = addresses.into_iter().map(|(address, scope)| match scope {
            Some(scope) if is_link_local(&address) => format!("{address}%{scope}"),
            _ => address.to_string(),
        });
        Ok(Found {
            instance: self.instance.to_owned(),
            addresses: addresses.collect(),
            port: self.port,
            subsystem,
        })
    }
}

/// IPv4 first, then what needs no interface; what is this machine's own last.
fn order(address: &IpAddr) -> u8 {
    match (address, is_link_local(address)) {
        _ if address.is_loopback() => 3,
        (IpAddr::V4(_), _) => 0,
        (IpAddr::V6(_), false) => 1,
        (IpAddr::V6(_), true) => 2,
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The instance without the type behind it, and its dots without their escapes.
pub(super) fn instance_of(full_name: &str) -> String {
    let name = full_name.strip_suffix(SERVICE_TYPE).unwrap_or(full_name);
    name.trim_end_matches('.').replace("\\.", ".").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "nqn.2014-08.org.example:discovery";

    fn announced<'a>(transport: Option<&'a str>, name: Option<&'a str>) -> Announced<'a> {
        Announced {
            instance: "array",
            addresses: vec![
                ("127.0.0.1".parse().expect("one"), None),
                ("fe80::1".parse().expect("one"), Some("eth0".to_owned())),
                ("2001:db8::1".parse().expect("one"), Some("eth0".to_owned())),
                ("192.0.2.7".parse().expect("one"), None),
            ],
            port: 8009,
            transport,
            name,
        }
    }

    #[test]
    fn an_announcement_is_read_with_its_addresses_in_order() {
        let found = announced(Some("tcp"), Some(NAME)).read().expect("right");
        let expected = ["192.0.2.7", "2001:db8::1", "fe80::1%eth0", "127.0.0.1"];
        assert_eq!(found.addresses, expected);
        assert_eq!((found.port, found.subsystem.as_str()), (8009, NAME));
        // As SPDK has it in a comment, and without a name, which nvme-stas takes as well.
        let found = announced(Some("TCP foo"), None).read().expect("right");
        assert_eq!(found.subsystem, Nqn::discovery());
    }

    #[test]
    fn what_is_wrong_is_told_by_field_and_value() {
        for (transport, name, expected) in [
            (None, Some(NAME), "TXT key p is '': must be tcp"),
            (Some("roce\u{1b}"), None, "TXT key p is 'roce\\u{1b}': must be tcp"),
            (Some("tcp"), Some("x"), "TXT key nqn is 'x': "),
        ] {
            let error = announced(transport, name).read().expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
        let none = Announced { addresses: Vec::new(), ..announced(Some("tcp"), None) };
        assert_eq!(none.read().expect_err("none"), "it has no address");
        let zero = Announced { port: 0, ..announced(Some("tcp"), None) };
        assert!(zero.read().expect_err("0").starts_with("the port is 0"));
    }

    #[test]
    fn of_many_addresses_a_few_are_tried() {
        let many = (1..=200).map(|last| (IpAddr::from([192, 0, 2, last]), None)).collect();
        let found = Announced { addresses: many, ..announced(Some("tcp"), None) }.read();
        assert_eq!(found.expect("right").addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn an_instance_is_shown_without_its_type() {
        assert_eq!(instance_of("Forebay a\\.b._nvme-disc._tcp.local."), "Forebay a.b");
        assert_eq!(instance_of("x"), "x");
    }
}
