//! Origins that grow while they are served.

use std::fs::File;

use super::load::{Load, read, write};
use super::{Machine, SIZE, content};

fn grow(machine: &Machine, name: &str, size: u64) {
    let file = File::options().write(true).open(machine.path(name)).expect("there");
    file.set_len(size).expect("longer");
}

#[test]
fn a_volume_grows_under_load_even_beyond_its_room_in_the_cache() {
    let machine = Machine::new(&["a"]);
    let service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    let load = Load::new(content("a"));
    let client = service.client("a");
    std::thread::scope(|scope| {
        let stop = load.stop();
        let running = scope.spawn(|| load.run(client, 5));
        // A volume has room for 64 MiB at least.
        for size in [2 * SIZE, 96 << 20] {
            grow(&machine, "a", size);
            let before = service.client("a");
            load.let_it_go_on(50);
            let told = service.told(&["volume", "resize", "a"]);
            assert!(told.contains("MiB now, "), "{told}");
            let mut after = service.client("a");
            assert_eq!(after.capacity(), size);
            assert!(before.capacity() < size, "clients keep what they were told");
            write(&mut after, size - 4096, &[9; 4096]);
            assert_eq!(read(&mut after, size - 8192, 8192), [[0; 4096], [9; 4096]].concat());
            before.disconnect().expect("sent");
            after.disconnect().expect("sent");
        }
        load.let_it_go_on(50);
        drop(stop);
        let model = running.join().expect("no request failed");
        let origin = std::fs::read(machine.path("a")).expect("there");
        assert!(origin[..model.len()] == model);
        assert_eq!(origin[origin.len() - 4096..], [9; 4096]);
    });
    service.fill("a", &std::fs::read(machine.path("a")).expect("there")[..SIZE as usize]);
    service.stop();
    // What is recorded is the new size: it is warm.
    let mut service = machine.start(&(machine.head("cache") + &machine.volumes(&["a"], "")));
    service.wait_until_it_says("the cache is warm");
    service.stop();
}

#[test]
fn an_origin_without_a_cache_grows_and_does_not_shrink() {
    let machine = Machine::new(&["a"]);
    let control = format!("control = '{}'\n", machine.text("control"));
    let service = machine.start(&(control + &machine.volumes(&["a"], "")));
    grow(&machine, "a", 2 * SIZE);
    service.told(&["volume", "resize", "a"]);
    let mut client = service.client("a");
    assert_eq!(client.capacity(), 2 * SIZE);
    write(&mut client, 2 * SIZE - 4096, &[9; 4096]);
    client.disconnect().expect("sent");
    grow(&machine, "a", 2 * SIZE + 100);
    service.refused(&["volume", "resize", "a"], "must be a positive multiple of");
    grow(&machine, "a", SIZE);
    service.refused(&["volume", "resize", "a"], "has shrunk");
    assert_eq!(service.volume("a")["size_bytes"], 2 * SIZE);
    service.stop();
}
