//! Tables of good and bad addresses.

use super::*;

fn origin(text: &str) -> OriginAddress {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn nvme(text: &str) -> NvmeTcpAddress {
    match origin(text) {
        OriginAddress::NvmeTcp(address) => address,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn good_origins_and_back() {
    let file = |path: &str| OriginAddress::File(PathBuf::from(path));
    for (text, address, shown) in [
        ("file:disk.img", file("disk.img"), "file:disk.img"),
        ("file:./a b", file("./a b"), "file:./a%20b"),
        ("file:/dev/nvme0n1", file("/dev/nvme0n1"), "file:/dev/nvme0n1"),
        ("file:///abs/path", file("/abs/path"), "file:/abs/path"),
        ("file://localhost/abs", file("/abs"), "file:/abs"),
        ("file:////odd", file("//odd"), "file:////odd"),
        ("file:/a%20b%25%3f", file("/a b%?"), "file:/a%20b%25%3F"),
        ("file:/zahradě", file("/zahradě"), "file:/zahrad%C4%9B"),
        ("memory:1GiB", OriginAddress::Memory(Size::from_bytes(1 << 30)), "memory:1GiB"),
        ("null:512", OriginAddress::Null(Size::from_bytes(512)), "null:512"),
    ] {
        assert_eq!(origin(text), address, "{text}");
        assert_eq!(address.to_string(), shown, "{text}");
        assert_eq!(origin(shown), address, "what is shown parses back");
    }
}

#[test]
fn a_path_that_is_no_utf_8_comes_back() {
    let address = origin("file:/tmp/%FF%fe");
    let OriginAddress::File(path) = &address else { panic!("{address:?}") };
    assert_eq!(path.as_os_str().as_bytes(), b"/tmp/\xFF\xFE");
    assert_eq!(address.to_string(), "file:/tmp/%FF%FE");
}

#[test]
fn good_nvme_addresses_and_back() {
    let plain = nvme("nvme+tcp://10.0.0.5/nqn.2014-08.org.example:v1");
    assert_eq!(plain.endpoint.to_string(), "10.0.0.5");
    assert_eq!(plain.subsystem.as_str(), "nqn.2014-08.org.example:v1");
    assert_eq!((plain.namespace, plain.header_digest, plain.data_digest), (1, false, false));
    for (text, shown) in [
        ("nvme+tcp://h/nqn.2014-08.x", "nvme+tcp://h/nqn.2014-08.x?nsid=1"),
        ("nvme+tcp://h:4420/nqn.2014-08.x?", "nvme+tcp://h:4420/nqn.2014-08.x?nsid=1"),
        ("nvme+tcp://[::1]:9/nqn.2014-08.x?nsid=7", "nvme+tcp://[::1]:9/nqn.2014-08.x?nsid=7"),
        (
            "nvme+tcp://h/nqn.2014-08.x?ddgst=1&hdgst=true&hostnqn=nqn.2014-08.me&nsid=2&\
             hostid=11111111222233334444555555555555",
            "nvme+tcp://h/nqn.2014-08.x?nsid=2&hdgst=on&ddgst=on&hostnqn=nqn.2014-08.me&\
             hostid=11111111-2222-3333-4444-555555555555",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?pskid=0&pskfile=%2Fetc/a%20key",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&pskfile=/etc/a%20key&pskid=0",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?keep-alive-tmo=0&path=g&reconnect-delay=2&path=[fe80::1]:9&\
             fast-io-fail-tmo=0&ctrl-loss-tmo=-1&path=h:4421&iopolicy=queue-depth",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&path=g&path=[fe80::1]:9&path=h:4421&\
             iopolicy=queue-depth&ctrl-loss-tmo=-1&fast-io-fail-tmo=0&reconnect-delay=2&\
             keep-alive-tmo=0",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?path=[fe80::1%25eth0]",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&path=[fe80::1%25eth0]",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=/etc/a%26b",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&dhchap-secret-file=/etc/a%26b",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?concat=1&dhchap-repeat=60&dhchap-ctrl-secret-file=/c&\
             dhchap-secret-file=h",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&dhchap-secret-file=h&dhchap-ctrl-secret-file=/c&\
             dhchap-repeat=60&concat=on",
        ),
        (
            "nvme+tcp://h/nqn.2014-08.x?pskid=1&pskfile=/k",
            "nvme+tcp://h/nqn.2014-08.x?nsid=1&pskfile=/k&pskid=1",
        ),
        ("nvme+tcp://h/nqn.2014-08.a%2Fb?hdgst=off", "nvme+tcp://h/nqn.2014-08.a%2Fb?nsid=1"),
    ] {
        let address = nvme(text);
        assert_eq!(address.to_string(), shown);
        assert_eq!(nvme(shown), address);
    }
    assert_eq!(nvme("nvme+tcp://h/nqn.2014-08.a%2Fb").subsystem.as_str(), "nqn.2014-08.a/b");
}

#[test]
fn bad_origins_are_told_what_would_be_right() {
    let long = format!("nvme+tcp://h/nqn.2014-08.{}", "x".repeat(220));
    for (text, expected) in [
        ("", "must be one of file:PATH"),
        ("/dev/sda", "did you mean file:/dev/sda"),
        ("disk", "must be one of file:PATH"),
        ("http://x/", "unknown scheme `http`"),
        ("File:x", "unknown scheme `File`"),
        ("file:", "the path is missing"),
        ("file://", "the path is missing"),
        ("file://server/x", "host `server`"),
        ("file:x?cache=1", "takes no query"),
        ("file:100%", "%25"),
        ("file:%00", "%00"),
        ("memory:", "whole number"),
        ("memory:0", "positive multiple of 512"),
        ("memory:1000", "positive multiple of 512"),
        ("null:10MB", "write MiB"),
        ("nvme+tcp:h/nqn.2014-08.x", "`//HOST` is missing"),
        ("nvme+tcp://h", "NQN is missing"),
        ("nvme+tcp://h/", "starts with \"nqn.\""),
        ("nvme+tcp://h/nqn.", "comes a date"),
        ("nvme+tcp://h/volume", "subsystem NQN \"volume\": an NQN starts with"),
        ("nvme+tcp:///nqn.2014-08.x", "host is missing"),
        ("nvme+tcp://::1/nqn.2014-08.x", "in brackets"),
        ("nvme+tcp://h:0/nqn.2014-08.x", "port 0"),
        ("nvme+tcp://h:99999/nqn.2014-08.x", "port `99999`"),
        ("nvme+tcp://h/nqn.2014-08.%FF", "must be UTF-8"),
        ("nvme+tcp://h/nqn.2014-08.a%20b", "no spaces"),
        (&long, "at most 223 bytes"),
    ] {
        let error = text.parse::<OriginAddress>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn bad_queries_of_namespaces_are_told_what_would_be_right() {
    for (text, expected) in [
        ("nvme+tcp://h/nqn.2014-08.x?nsid=0", "from 1 to 4294967294"),
        ("nvme+tcp://h/nqn.2014-08.x?nsid=4294967295", "from 1 to 4294967294"),
        ("nvme+tcp://h/nqn.2014-08.x?nsid", "must be KEY=VALUE"),
        ("nvme+tcp://h/nqn.2014-08.x?nsid=1&nsid=1", "given twice"),
        (
            "nvme+tcp://h/nqn.2014-08.x?queue=4",
            "known are nsid, hdgst, ddgst, hostnqn, hostid, pskfile, pskid",
        ),
        ("nvme+tcp://h/nqn.2014-08.x?hdgst=maybe", "must be on or off"),
        ("nvme+tcp://h/nqn.2014-08.x?hostnqn=me", "hostnqn \"me\""),
        ("nvme+tcp://h/nqn.2014-08.x?pskfile=key", "never the key"),
        ("nvme+tcp://h/nqn.2014-08.x?pskfile=/k&pskid=2", "must be 0, 1 or both"),
        ("nvme+tcp://h/nqn.2014-08.x?pskid=1", "pskfile, which holds it, is missing"),
        ("nvme+tcp://h/nqn.2014-08.x?hostid=1", "hostid \"1\""),
        (
            "nvme+tcp://h/nqn.2014-08.x?hostid=00000000000000000000000000000000",
            "hostid must not be zero",
        ),
        ("nvme+tcp://h/nqn.2014-08.x?path=", "the host is missing"),
        ("nvme+tcp://h/nqn.2014-08.x?path=g:0", "path `g:0`: port 0"),
        ("nvme+tcp://h/nqn.2014-08.x?path=::1", "path `::1`: an IPv6 address must be in brackets"),
        ("nvme+tcp://h/nqn.2014-08.x?path=g&path=g:4420", "path `g:4420` is an address that"),
        ("nvme+tcp://h:4420/nqn.2014-08.x?path=h", "path `h` is an address that"),
        ("nvme+tcp://h/nqn.2014-08.x?ctrl-loss-tmo=-2", "ctrl-loss-tmo `-2`: must be a number"),
        ("nvme+tcp://h/nqn.2014-08.x?fast-io-fail-tmo=1s", "seconds, or -1 for never"),
        ("nvme+tcp://h/nqn.2014-08.x?reconnect-delay=0", "reconnect-delay `0`: must be a number"),
        ("nvme+tcp://h/nqn.2014-08.x?keep-alive-tmo=4294968", "seconds from 0 to 4294967"),
        ("nvme+tcp://h/nqn.2014-08.x?iopolicy=numa", "must be round-robin or queue-depth or lat"),
        ("nvme+tcp://h/nqn.2014-08.x?fast_io_fail_tmo=1", "fast-io-fail-tmo, reconnect-delay"),
        ("nvme+tcp://h/nqn.2014-08.x?iopolicy=latency&iopolicy=latency", "given twice"),
        ("nvme+tcp://h/nqn.2014-08.x?pskfile=", "never the key"),
        ("nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=", "is empty: must be a path"),
        ("nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=/k&dhchap-repeat=0", "seconds, from 1"),
        ("nvme+tcp://h/nqn.2014-08.x?dhchap-repeat=5", "needs `dhchap-secret-file`"),
        ("nvme+tcp://h/nqn.2014-08.x?dhchap-ctrl-secret-file=/c", "needs `dhchap-secret-file`"),
        ("nvme+tcp://h/nqn.2014-08.x?concat=on", "needs `dhchap-secret-file`"),
        ("nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=/k&concat=2", "must be on or off"),
        (
            "nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=/k&concat=on&pskfile=/p",
            "must be one of them",
        ),
    ] {
        let error = text.parse::<OriginAddress>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn there_are_as_many_paths_as_the_host_can_have() {
    let with = |more: usize| {
        let paths: String = (0..more).map(|number| format!("&path=h{number}")).collect();
        format!("nvme+tcp://h/nqn.2014-08.x?nsid=1{paths}").parse::<OriginAddress>()
    };
    assert!(with(31).is_ok());
    let error = with(32).expect_err("one too many").to_string();
    assert!(error.contains("path is given 32 times: must be at most 31"), "{error}");
}

#[test]
fn caches_are_files_or_memory() {
    for text in ["file:/dev/nvme0n1", "file:cache.img", "memory:"] {
        let address: CacheAddress = text.parse().expect("good");
        assert_eq!(address.to_string(), text);
    }
    for (text, expected) in [
        ("memory", "must be one of file:PATH or memory:"),
        ("memory:1G", "--cache-size"),
        ("null:1G", "unknown scheme `null`"),
        ("file:", "the path is missing"),
    ] {
        let error = text.parse::<CacheAddress>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_key_put_where_its_file_belongs_is_not_repeated() {
    for text in [
        "nvme+tcp://h/nqn.2014-08.x?pskfile=NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3:",
        "nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=DHHC-1:00:VRLbtnN9AQb2WXW3:",
        "nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=/k&dhchap-ctrl-secret-file=DHHC-1:00:VRL:",
        // Another key before it does not have it repeated either.
        "nvme+tcp://h/nqn.2014-08.x?dhchap-secret-file=%44HHC-1:00:VRLbtnN9AQb2WXW3:&nsid=0",
    ] {
        let error = text.parse::<OriginAddress>().expect_err("refused").to_string();
        assert!(!error.contains("VRL"), "{error}");
    }
}
