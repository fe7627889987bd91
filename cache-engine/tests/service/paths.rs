//! Volumes whose origin is reached over two paths, of which targets go away and come back.

use std::net::SocketAddr;

use serde_json::Value;

use super::load::{read, write};
use super::namespace::{Running, SUBSYSTEM};
use super::{Machine, Service, refusal};

/// Asks for the list until it is as it should be.
fn listed(service: &Service<'_>, is_so: impl Fn(&[Value; 2]) -> bool) -> (Value, [Value; 2]) {
    loop {
        let volume = service.json(&["nvme", "list"])[0].clone();
        let paths = volume["paths"].as_array().expect("a list").clone();
        let paths = paths.try_into().expect("two paths");
        if is_so(&paths) {
            return (volume, paths);
        }
    }
}

fn is_live(path: &Value) -> bool {
    path["state"] == "live"
}

#[test]
fn the_list_shows_every_path_and_the_service_says_when_an_origin_is_lost_and_back() {
    let machine = Machine::new(&[]);
    let start = |address: SocketAddr| Running::start_at(address);
    let any = "127.0.0.1:0".parse().expect("an address");
    let (one, two) = (start(any), start(any));
    let places = [one.address, two.address];
    let (control, export) = (machine.text("control"), machine.export("a"));
    let mut service = machine.start(&format!(
        "control = '{control}'\n[[volume]]\nname = 'a'\nexports = ['{export}']\norigin = \
         'nvme+tcp://{}/{SUBSYSTEM}?path={}&hostnqn=nqn.2014-08.com.example:host&\
         fast-io-fail-tmo=0&reconnect-delay=1'\n",
        places[0], places[1]
    ));
    let (volume, paths) = listed(&service, |paths| paths.iter().all(is_live));
    assert_eq!((&volume["volume"], &volume["without_path_seconds"]), (&"a".into(), &Value::Null));
    for (path, place) in paths.iter().zip(places) {
        assert_eq!(
            (&path["address"], &path["access"]),
            (&place.to_string().into(), &"optimized".into())
        );
        assert_eq!((&path["is_used"], &path["losses"]), (&true.into(), &0.into()), "{path}");
        assert!(path["reason"].is_null() && path["controller_id"].is_number(), "{path}");
    }
    let text = service.told(&["nvme", "list"]);
    assert!(places.iter().all(|place| text.contains(&place.to_string())), "{text}");

    two.stop();
    let (volume, [first, second]) = listed(&service, |[_, second]| second["failures"] != 0);
    assert!(is_live(&first) && volume["fault"].is_null(), "{volume}");
    assert_eq!((&second["losses"], &second["is_used"]), (&1.into(), &false.into()), "{second}");
    assert!(second["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{second}");
    assert!(second["access"].is_null() && second["controller_id"].is_null(), "{second}");
    assert!(second["state_seconds"].is_number(), "{second}");
    let mut client = service.client("a");
    write(&mut client, 0, &[7; 4096]);
    assert_eq!(read(&mut client, 0, 4096), [7; 4096], "over the path that is left");

    one.stop();
    service.wait_until_it_says("volume 'a': the origin is lost, its requests fail");
    let (volume, _) = listed(&service, |paths| !paths.iter().any(is_live));
    assert!(volume["without_path_seconds"].is_number() && volume["fault"].is_string(), "{volume}");
    let again = start(places[1]);
    service.wait_until_it_says("volume 'a': the origin is back, its requests are carried out");
    let (volume, [first, second]) = listed(&service, |[_, second]| is_live(second));
    assert!(!is_live(&first) && volume["fault"].is_null(), "{volume}");
    assert_eq!((&second["losses"], &second["is_used"]), (&1.into(), &true.into()), "{second}");
    assert_eq!(read(&mut client, 0, 4096), [0; 4096], "of the target that came back");
    client.disconnect().expect("sent");
    let (_, said) = service.stop();
    assert_eq!(said.matches("the origin is lost").count(), 1, "{said}");
    assert_eq!(said.matches("the origin is back").count(), 1, "{said}");
    again.stop();
}

#[test]
fn times_and_policy_of_paths_change_while_the_service_runs() {
    let machine = Machine::new(&["b"]);
    let target = Running::start_at("127.0.0.1:0".parse().expect("an address"));
    let address = target.address;
    let (control, export) = (machine.text("control"), machine.export("a"));
    let mut service = machine.start(&format!(
        "control = '{control}'\n[[volume]]\nname = 'a'\nexports = ['{export}']\norigin = \
         'nvme+tcp://{address}/{SUBSYSTEM}?hostnqn=nqn.2014-08.com.example:host&\
         fast-io-fail-tmo=-1&reconnect-delay=3600'\n{}",
        machine.volume("b", "")
    ));
    let settings = |service: &Service<'_>| service.json(&["nvme", "list"])[0]["settings"].clone();
    let before = settings(&service);
    assert_eq!((&before["ctrl_loss_ms"], &before["fast_io_fail_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(before["reconnect_delay_min_ms"], 3_600_000);
    for (arguments, expected) in [
        (&["a", "iopolicy=best"][..], "iopolicy `best`: must be round-robin or queue-depth or"),
        (&["a", "ctrl-loss-tmo=30", "reconnect-delay=0"], "reconnect-delay `0`: must be a number"),
        (&["a", "path=h"], "setting 'path': must be one of iopolicy, ctrl-loss-tmo,"),
        (&["a", "hdgst=on"], "setting 'hdgst': must be one of iopolicy"),
        (&["b", "iopolicy=latency"], "volume 'b': its origin is on this machine"),
        (&["c", "iopolicy=latency"], "volume 'c': must be one of a, b"),
    ] {
        service.refused(&[&["volume", "set"], arguments].concat(), expected);
    }
    let twice = service.verb(&["volume", "set", "a", "iopolicy=latency", "iopolicy=latency"]);
    refusal(&twice, 2, &["setting 'iopolicy': is given twice"]);
    assert_eq!(settings(&service), before, "all or none");

    let changed = ["volume", "set", "a", "iopolicy=latency", "keep-alive-tmo=9"];
    let answer = service.json(&changed);
    assert_eq!((&answer["iopolicy"], &answer["keep_alive_ms"]), (&"latency".into(), &9000.into()));
    assert_eq!(answer["reconnect_delay_max_ms"], 3_600_000, "not named, not changed");
    assert_eq!(settings(&service), answer);
    assert_eq!(service.json(&["nvme", "list"])[0]["keep_alive_ms"], 5000, "of the association");
    let shown = service.told(&["nvme", "list"]);
    assert!(["latency", "never", "3600 s", "9 s"].iter().all(|it| shown.contains(it)), "{shown}");

    // Requests wait for the path, and its next attempt is in an hour.
    target.stop();
    let mut client = service.client("a");
    write_later(&mut client);
    let is_waiting = |service: &Service<'_>| {
        let path = service.json(&["nvme", "list"])[0]["paths"][0].clone();
        path["next_attempt_seconds"].as_f64().is_some_and(|seconds| seconds > 1000.0)
    };
    while !is_waiting(&service) {}
    service.told(&["volume", "set", "a", "fast-io-fail-tmo=0"]);
    assert_ne!(client.reply().expect("answered").error, 0, "it waits no more");
    service.wait_until_it_says("volume 'a': the origin is lost, its requests fail");
    let again = Running::start_at(address);
    let shown = service.told(&["volume", "set", "a", "reconnect-delay=1"]);
    assert!(shown.contains("reconnect-delay") && shown.contains("1 s"), "{shown}");
    service.wait_until_it_says("volume 'a': the origin is back");
    assert_eq!(service.json(&["nvme", "list"])[0]["keep_alive_ms"], 9000, "of the next one");
    assert_eq!(read(&mut client, 0, 4096), [0; 4096]);

    // A path that is given up is not tried again.
    service.told(&["volume", "set", "a", "ctrl-loss-tmo=0"]);
    again.stop();
    let path = loop {
        let path = service.json(&["nvme", "list"])[0]["paths"][0].clone();
        if path["state"] == "gone" {
            break path;
        }
    };
    assert!(path["next_attempt_seconds"].is_null(), "{path}");
    client.disconnect().expect("sent");
    service.stop();
}

/// Asks for something, and does not wait for the answer.
fn write_later(client: &mut super::client::Client) {
    client.write(9, 0, &[7; 4096]);
    client.send().expect("sent");
}
