//! Exports and listeners that come and go while clients are there.

use std::sync::mpsc;

use block_io::reactor::Wait;

use super::*;

fn slow(size: u64, delay: fn(&Request) -> u32) -> SharedQueue<Slow> {
    let device = MemoryDevice::new(size).expect("a sound size");
    let inner = BlockDevice::<()>::open_queue(&device, &(), 32).expect("opens");
    SharedQueue::new(Slow { inner, waiting: Vec::new(), delay })
}

fn until(
    reactor: &Reactor,
    server: &mut NbdServer<Slow>,
    mut is_done: impl FnMut(&mut NbdServer<Slow>) -> bool,
) {
    while !is_done(server) {
        let progress = server.poll(reactor.now());
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
}

/// Enters `name`: the size that it is told.
fn enter(peer: &mut Peer, name: &str) -> u64 {
    peer.write(&[&3_u32.to_be_bytes()[..], &option(7, &go(name, &[]))].concat());
    let told = peer.read(32 + 34 + 20);
    // After the header of the first reply: NBD_INFO_EXPORT, then the size.
    u64::from_be_bytes(told[22..30].try_into().expect("eight bytes"))
}

#[test]
fn a_removed_export_answers_its_clients_and_nobody_gets_into_the_next_of_that_name_by_mistake() {
    let (_folder, transport) = unix("s");
    let reactor =
        Reactor::new(ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() });
    let reactor = reactor.expect("io_uring");
    let mut server = NbdServer::new(&reactor, ServerOptions::default());
    let old = slow(1 << 20, |_| 100);
    server.add_export("disk", "", old.another()).expect("a free name");
    server.add_export("other", "", slow(4 << 20, |_| 1)).expect("a free name");
    server.listen(&transport).expect("listens");
    let (said, hears) = reactor.mailbox(1).expect("a mailbox");
    let (go_on, waits) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let place = &transport;
        scope.spawn(move || {
            let mut early = Peer::connect(place);
            let (mut inside, mut other) = (Peer::connect(place), Peer::connect(place));
            assert_eq!(enter(&mut inside, "disk"), 1 << 20);
            assert_eq!(enter(&mut other, "other"), 4 << 20);
            inside.write(&write_request(1, 4096, &[7; 4096]));
            said.send(()).expect("room");
            waits.recv().expect("changed");
            assert_eq!(inside.rest(), simple(0, 1), "answered, and then the end");
            assert_eq!(enter(&mut early, "disk"), 1 << 20, "what it was offered");
            assert!(early.rest().is_empty(), "it is not there any more");
            let mut late = Peer::connect(place);
            assert_eq!(enter(&mut late, "disk"), 2 << 20);
            for peer in [&mut late, &mut other] {
                peer.write(&request(0, 3, 9, 0, 0));
                assert_eq!(peer.read(16), simple(0, 9));
            }
            said.send(()).expect("room");
            waits.recv().expect("changed");
            let Transport::Unix(path) = place else { panic!("a path") };
            assert!(UnixStream::connect(path).is_err(), "nobody listens");
            late.write(&request(0, 3, 10, 0, 0));
            assert_eq!(late.read(16), simple(0, 10), "whoever is connected stays");
            said.send(()).expect("room");
        });
        let heard = |_: &mut NbdServer<Slow>| hears.receive().is_some();
        until(&reactor, &mut server, heard);
        until(&reactor, &mut server, |_| old.with_queue(|queue| queue.in_flight()) == 1);
        server.remove_export("disk");
        assert_eq!((server.leaving(), server.exports().len()), (1, 1));
        server.add_export("disk", "", slow(2 << 20, |_| 1)).expect("a free name");
        server.refresh_exports();
        go_on.send(()).expect("it waits");
        until(&reactor, &mut server, heard);
        assert_eq!(server.leaving(), 0);
        server.stop_listening(&transport);
        go_on.send(()).expect("it waits");
        until(&reactor, &mut server, heard);
    });
}
