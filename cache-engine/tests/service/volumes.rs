//! Volumes side by side, and volumes that come and go.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use super::load::Load;
use super::{BLOCK, LINES, Machine, content};

#[test]
fn three_volumes_have_their_own_bytes_and_statistics() {
    let names = ["a", "b", "c"];
    let machine = Machine::new(&names);
    let service = machine.start(&(machine.head("cache") + &machine.volumes(&names, "")));
    let ready: Vec<_> =
        names.iter().map(|name| format!("ready {name} {}", machine.export(name))).collect();
    assert_eq!(service.ready, ready);
    names.iter().for_each(|name| service.fill(name, &content(name)));
    let loads = names.map(|name| Load::new(content(name)));
    let models: Vec<_> = std::thread::scope(|scope| {
        let begun: Vec<_> = names
            .iter()
            .zip(&loads)
            .map(|(name, load)| {
                let client = service.client(name);
                scope.spawn(move || load.run(client, u64::from(name.as_bytes()[0])))
            })
            .collect();
        let stops = loads.each_ref().map(Load::stop);
        loads.iter().for_each(|load| load.let_it_go_on(300));
        drop(stops);
        begun.into_iter().map(|load| load.join().expect("never wrong")).collect()
    });
    for (name, model) in names.iter().zip(&models) {
        service.hits(name, model);
    }
    let table = service.told(&["status"]);
    assert!(names.iter().all(|name| table.contains(&format!("│ {name} "))), "{table}");
    let (statistics, _) = service.stop();
    for (index, name) in names.iter().enumerate() {
        assert!(std::fs::read(machine.path(name)).expect("there") == models[index], "{name}");
        let volume = &statistics["volumes"][index];
        assert_eq!((&volume["name"], &volume["start"]), (&(*name).into(), &"cold".into()));
        assert_eq!(volume["writes"], loads[index].rounds.load(Ordering::Acquire));
        assert_eq!(volume["origin_errors"], 0);
    }
    assert_eq!(statistics["cache"]["line_size"], super::LINE);
}

#[test]
fn a_volume_is_added_and_removed_under_load_and_is_warm_when_it_comes_back() {
    let machine = Machine::new(&["a", "b"]);
    let mut service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    let (a, b) = (Load::new(content("a")), Load::new(content("b")));
    std::thread::scope(|scope| {
        let _stop = a.stop();
        let client = service.client("a");
        let of_a = scope.spawn(|| a.run(client, 1));
        let added = service.add("b");
        assert_eq!(added["added"]["start"], serde_json::Value::Null, "no envelope: {added}");
        assert_eq!(
            (&added["start"], &added["exports"][0]),
            (&"cold".into(), &machine.export("b").into())
        );
        a.let_it_go_on(50);
        service.fill("b", &content("b"));
        let (client, idle) = (service.client("b"), service.client("b"));
        let of_b = scope.spawn(|| b.run_until_cut(client, 2));
        b.let_it_go_on(50);
        assert_eq!(service.json(&["volume", "remove", "b"])["done"], serde_json::json!({}));
        drop(idle);
        let (model, unanswered) = of_b.join().expect("answered in order until its end");
        assert!(!machine.path("b").as_os_str().is_empty());
        let origin = std::fs::read(machine.path("b")).expect("there");
        let differs = |block: &usize| {
            let place = block * BLOCK..(block + 1) * BLOCK;
            origin[place.clone()] != model[place]
        };
        let differing: Vec<_> = (0..model.len() / BLOCK).filter(differs).collect();
        assert!(differing.iter().all(|block| Some(*block) == unanswered), "{differing:?}");
        service.refused(&["volume", "remove", "b"], "volume 'b': must be one of a");
        service.refused(&["volume", "flush", "b"], "volume 'b': must be one of a");
        // What was written while nothing else was cached is cached too: all of it is warm.
        let added = service.add("b");
        assert_eq!(
            (&added["start"], &added["cold_reason"]),
            (&"warm".into(), &serde_json::Value::Null)
        );
        assert!(service.hits("b", &origin) > LINES * 9 / 10);
        service.told(&["volume", "remove", "b", "--forget"]);
        let added = service.add("b");
        assert_eq!(added["start"], "cold");
        assert_eq!(added["cold_reason"], "nothing of this volume was cached before");
        assert_eq!(service.hits("b", &origin), 0);
        a.let_it_go_on(50);
        drop(_stop);
        let model = of_a.join().expect("never wrong");
        assert!(std::fs::read(machine.path("a")).expect("there") == model);
    });
    service.wait_until_it_says("volume 'b': the cache starts cold");
    let (statistics, _) = service.stop();
    assert_eq!(statistics["volumes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_service_may_start_with_nothing_and_end_so() {
    let machine = Machine::new(&["a"]);
    let service = machine.start(&machine.head("cache"));
    assert_eq!(service.ready, [format!("ready control {}", machine.text("control"))]);
    service.refused(&["volume", "flush", "a"], "volume 'a': there is none");
    let told = service.add("a");
    assert_eq!(told["exports"][0], machine.export("a"));
    service.fill("a", &content("a"));
    let told = service.told(&["volume", "remove", "a"]);
    assert!(told.contains("a: is served no more"), "{told}");
    assert!(!machine.path("nbd").exists(), "nobody listens at its address any more");
    assert_eq!(service.json(&["volume", "list"]), serde_json::json!([]));
    service.stop();
    // Its record outlives the service too.
    let service = machine.start(&machine.head("cache"));
    assert_eq!(service.add("a")["start"], "warm");
    service.stop();
}

#[test]
fn what_can_not_be_added_is_refused_and_changes_nothing() {
    let machine = Machine::new(&["a", "b"]);
    let service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    let add = |name: &str, origin: &str, export: &str, more: &[&str], expected: &str| {
        let arguments = ["volume", "add", name, "--origin", origin, "--export", export];
        service.refused(&[&arguments[..], more].concat(), expected);
    };
    let (a, b, export) = (machine.origin("a"), machine.origin("b"), machine.export("b"));
    add("a", &b, &export, &[], "volume 'a': there is one of that name");
    add("b", &a, &export, &[], "is that of volume 'a' already");
    add("b", &b, &machine.export("a"), &[], "the export name 'a' is that of volume 'a' already");
    add("b", &machine.origin("cache"), &export, &[], "is the origin of volume 'b' itself");
    add("b", &machine.origin("none"), &export, &[], &machine.text("none"));
    add("b", "b", &export, &[], "volume 'b': origin 'b': ");
    add("b", &b, "nbd://nowhere.invalid/b", &[], "nowhere.invalid");
    add("b", &b, &export, &["--generation", ""], "generation ''");
    add("b", &b, &export, &["--encryption-key", "fd:3"], "must be file:PATH");
    add("b", &b, &export, &["--encryption-key", &machine.origin("key")], &machine.text("key"));
    let key = service.verb(&[
        "volume",
        "add",
        "b",
        "--origin",
        &b,
        "--export",
        &export,
        "--encryption-key",
        "5ec2e7",
    ]);
    let said = String::from_utf8_lossy(&key.stderr).into_owned();
    assert!(!key.status.success() && !said.contains("5ec2e7"), "{said}");
    assert_eq!(service.json(&["volume", "list"]).as_array().map(Vec::len), Some(1));
    service.add("b");
    service.hits("a", &content("a"));
    service.stop();
}

#[test]
fn a_change_that_hangs_does_not_keep_the_service_from_ending() {
    let machine = Machine::new(&["a"]);
    let service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    service.fill("a", &content("a"));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let origin =
        format!("nvme+tcp://{address}/nqn.2014-08.org.example:silent?hostnqn=nqn.2014-08.me");
    let export = machine.export("x");
    let adding = service.begin(&["volume", "add", "x", "--origin", &origin, "--export", &export]);
    let (_connection, _) = silent.accept().expect("it connects");
    service.stop();
    let output = adding.wait_with_output().expect("it ends");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the service ends"), "{output:?}");
    let mut service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    service.wait_until_it_says("the cache is warm");
    assert_eq!(service.hits("a", &content("a")), LINES);
    service.stop();
}

#[test]
fn an_origin_that_does_not_answer_stalls_nobody() {
    let machine = Machine::new(&["a"]);
    let service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let origin =
        format!("nvme+tcp://{address}/nqn.2014-08.org.example:silent?hostnqn=nqn.2014-08.me");
    let export = machine.export("x");
    let adding = service.begin(&["volume", "add", "x", "--origin", &origin, "--export", &export]);
    let (connection, _) = silent.accept().expect("it connects");
    let load = Load::new(content("a"));
    let client = service.client("a");
    let mut adding = std::thread::scope(|scope| {
        let _stop = load.stop();
        scope.spawn(|| load.run(client, 3));
        load.let_it_go_on(200);
        let status = service.json(&["status"]);
        assert_eq!(status["volumes"].as_array().map(Vec::len), Some(1), "{status}");
        let mut adding = adding;
        assert_eq!(adding.try_wait().expect("a child"), None, "it is still being connected");
        adding
    });
    drop((connection, silent));
    assert!(!adding.wait().expect("it ends").success());
    service.hits("a", &std::fs::read(machine.path("a")).expect("there"));
    service.stop();
}
