//! Clients that one server accepts and another one serves.

use super::*;
use crate::frontend::nbd::HelperAddress;
use block_io::reactor::{Descriptor, Wait};
use std::sync::mpsc;

fn reactor() -> Reactor {
    let pool =
        PoolLayout { classes: [(4096, 8), (16384, 0), (65536, 8), (1 << 18, 0), (1 << 20, 0)] };
    Reactor::new(ReactorConfig { pool, ..ReactorConfig::default() }).expect("io_uring")
}

fn server(
    reactor: &Reactor,
    device: &MemoryDevice,
    options: ServerOptions,
) -> NbdServer<MemoryQueue> {
    let queue = BlockDevice::<()>::open_queue(device, &(), 32).expect("opens");
    let mut server = NbdServer::new(reactor, options);
    server.add_export("disk", "", SharedQueue::new(queue)).expect("a free name");
    server
}

/// A server until its sender is gone.
struct UntilTold {
    server: NbdServer<MemoryQueue>,
    stop: Mailbox<()>,
}

impl Task for UntilTold {
    fn poll(&mut self, now: Timestamp) -> bool {
        if self.stop.is_closed() {
            self.server.shutdown();
        }
        self.server.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.server.is_finished()
    }
}

/// Runs a server with an inbox, and gives what it counted.
fn help(
    device: &MemoryDevice,
    ready: &mpsc::Sender<(HelperAddress, MailSender<()>)>,
) -> ServerStatistics {
    let reactor = reactor();
    let mut server = server(&reactor, device, ServerOptions::default());
    let address = server.open_inbox().expect("a mailbox");
    let (stopper, stop) = reactor.mailbox(1).expect("a mailbox");
    ready.send((address, stopper)).expect("the owner waits");
    let mut task = UntilTold { server, stop };
    reactor.run(&mut task).expect("runs");
    task.server.statistics()
}

/// Runs `clients` against an owner with one helper; gives what each of the two counted.
fn with_helper(
    options: ServerOptions,
    clients: impl FnOnce(&Transport) + Send,
) -> [ServerStatistics; 2] {
    let (_folder, transport) = unix("s");
    let device = MemoryDevice::new(SIZE).expect("a sound size");
    let owners_reactor = reactor();
    let mut owner = server(&owners_reactor, &device, options);
    owner.listen(&transport).expect("listens");
    let (ready, helper_is_ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let helper = scope.spawn(move || help(&device, &ready));
        let (address, stop_helper) = helper_is_ready.recv().expect("it is set up");
        owner.add_helper(address).expect("room");
        let (stopper, stop) = owners_reactor.mailbox(1).expect("a mailbox");
        scope.spawn(|| {
            // Goes with the thread, so that a panic of a client's ends the servers too.
            let _stoppers = (stopper, stop_helper);
            clients(&transport);
        });
        let mut task = UntilTold { server: owner, stop };
        owners_reactor.run(&mut task).expect("runs");
        let helpers = helper.join().expect("does not panic");
        [task.server.statistics(), helpers]
    })
}

#[test]
fn clients_are_spread_and_see_one_disk() {
    let [all, helpers] = with_helper(ServerOptions::default(), |transport| {
        let mut peers: Vec<_> = (0..4).map(|_| Peer::enter(transport)).collect();
        for (cookie, peer) in (0..).zip(&mut peers) {
            peer.write(&write_request(cookie, cookie * 4096, &[7 + cookie as u8; 4096]));
            assert_eq!(peer.read(16), simple(0, cookie));
        }
        for (cookie, peer) in (0..).zip(peers.iter_mut().rev()) {
            peer.write(&request(0, 0, cookie, cookie * 4096, 4096));
            assert_eq!(peer.read(16), simple(0, cookie));
            assert_eq!(peer.read(4096), [7 + cookie as u8; 4096]);
        }
    });
    assert_eq!((all.connections_total, helpers.connections_total), (4, 2));
    assert_eq!((all.connections, helpers.connections), (0, 0));
}

#[test]
fn a_fault_at_a_helper_is_counted_and_its_place_given_back() {
    // Nothing but the place that was given back wakes the owner.
    let negotiation_timeout = Duration::from_secs(3600);
    let options =
        ServerOptions { connections_max: 2, negotiation_timeout, ..ServerOptions::default() };
    let [all, helpers] = with_helper(options, |transport| {
        let _owners = Peer::enter(transport);
        let mut helpers = Peer::enter(transport);
        let Transport::Unix(path) = transport else { panic!("a Unix socket") };
        let mut third = UnixStream::connect(path).expect("the backlog takes it");
        third.set_nonblocking(true).expect("a socket");
        let nothing = third.read(&mut [0]).expect_err("both places are taken");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        helpers.write(&[0; 28]);
        helpers.rest();
        third.set_nonblocking(false).expect("a socket");
        // Instead of waiting for ever.
        third.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        third
            .read_exact(&mut [0; 18])
            .expect("the greeting, now that the owner knows of the place");
    });
    assert_eq!((all.connections_total, all.connections_at_fault), (3, 1));
    assert_eq!((helpers.connections_total, helpers.connections_at_fault), (2, 1));
}

#[test]
fn who_can_not_be_sent_is_served_here_and_who_is_on_the_way_is_let_go() {
    let (_folder, transport) = unix("s");
    let device = MemoryDevice::new(SIZE).expect("a sound size");
    let reactor = reactor();
    let options = ServerOptions { connections_max: 200, ..ServerOptions::default() };
    let mut owner = server(&reactor, &device, options);
    owner.listen(&transport).expect("listens");
    // Nobody ever looks into this inbox.
    let mut helper = server(&reactor, &device, options);
    owner.add_helper(helper.open_inbox().expect("a mailbox")).expect("room");
    let (stopper, stop) = reactor.mailbox(1).expect("a mailbox");
    let mut task = UntilTold { server: owner, stop };
    std::thread::scope(|scope| {
        let (transport, stopper) = (&transport, stopper);
        let Transport::Unix(path) = transport else { panic!("a Unix socket") };
        let (waiting, seen) = mpsc::channel();
        let clients = scope.spawn(move || {
            let _stopper = stopper;
            let mut sockets: Vec<_> =
                (0..150).map(|_| UnixStream::connect(path).expect("connects")).collect();
            let mut greeted = 0;
            for socket in &mut sockets {
                // Those in the inbox hear nothing until it is gone; the others are greeted.
                greeted += usize::from(socket.read_exact(&mut [0; 18]).is_ok());
            }
            waiting.send(greeted).expect("the test waits");
        });
        while task.server.statistics().connections < 150 {
            task.poll(reactor.now());
            reactor.turn(Wait::No).expect("turns");
        }
        assert_eq!(task.server.clients.len(), 150 - 64, "the inbox has room for 64");
        helper.shutdown();
        reactor.run(&mut task).expect("runs");
        assert_eq!(seen.recv().expect("they are done"), 150 - 64);
        clients.join().expect("does not panic");
    });
    assert_eq!(task.server.statistics().connections, 0, "every place was given back");
    let mut later = server(&reactor, &device, options);
    later.add_helper(helper_that_is_gone(&reactor, &device)).expect("room");
    let (one, _other) = UnixStream::pair().expect("a pair");
    let socket = Descriptor::from(std::os::fd::OwnedFd::from(one));
    assert!(later.helpers.place(socket, 5).is_some(), "though it has fewer");
    assert_eq!(later.statistics().connections, 0);
}

/// The address of a server that has ended.
fn helper_that_is_gone(reactor: &Reactor, device: &MemoryDevice) -> HelperAddress {
    server(reactor, device, ServerOptions::default()).open_inbox().expect("a mailbox")
}
