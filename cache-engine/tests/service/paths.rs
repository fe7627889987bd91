//! Volumes whose origin is reached over two paths, of which targets go away and come back.

use std::net::SocketAddr;

use serde_json::Value;

use super::load::{read, write};
use super::namespace::{Running, SUBSYSTEM};
use super::{Machine, Service};

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
