//! A namespace that grows, is formatted, goes and comes back while it is in use.

use std::sync::{Arc, Mutex};

use block_io::{Extent, IoError, Request, RequestId};
use nvme_fabric::host::Controller;
use nvme_fabric::host::commands::{Command, CommandError};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::spec::command::AdminCommand;
use nvme_fabric::spec::feature::Event;
use nvme_fabric::spec::identify::{
    self, BlockFormat, ControllerKind, IdentifyNamespace, NamespaceDescriptors,
    encode_namespace_list,
};
use nvme_fabric::spec::log_page;
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::spec::status::Status;

use crate::against_script::Pair;
use crate::scripted::{Heard, Peer, Say};

/// What the controller has under identifier 1.
#[derive(Clone)]
struct Namespace {
    blocks: u64,
    shift: u8,
    uuid: HostId,
    /// Refuses Identify, rather than telling a namespace of no blocks.
    refuses: bool,
    /// The changed namespace list.
    changed: Vec<u32>,
}

struct Scene {
    pair: Pair<Controller>,
    namespace: Arc<Mutex<Namespace>>,
    queue: u16,
}

fn identified(namespace: &Namespace, structure: u8) -> Option<Say> {
    let mut bytes = [0; identify::LENGTH];
    match structure {
        identify::ACTIVE_NAMESPACES => encode_namespace_list([1, 2], &mut bytes),
        identify::NAMESPACE if namespace.refuses => {
            return Some(Say::Fail(Status::INVALID_NAMESPACE.do_not_retry(), 0));
        }
        identify::NAMESPACE => IdentifyNamespace {
            size: namespace.blocks,
            capacity: namespace.blocks,
            format: BlockFormat { data_size_log2: namespace.shift, ..BlockFormat::default() },
            ..IdentifyNamespace::default()
        }
        .encode(&mut bytes),
        identify::NAMESPACE_DESCRIPTORS => {
            let uuid = Some(namespace.uuid);
            NamespaceDescriptors { uuid, ..NamespaceDescriptors::default() }.encode(&mut bytes);
        }
        _ => return None,
    }
    Some(Say::Data(bytes.to_vec()))
}

impl Scene {
    fn new() -> Self {
        let namespace = Namespace {
            blocks: 2048,
            shift: 9,
            uuid: HostId([3; 16]),
            refuses: false,
            changed: Vec::new(),
        };
        let namespace = Arc::new(Mutex::new(namespace));
        let told = namespace.clone();
        let mut peer = Peer::new(move |heard| {
            let mut told = told.lock().expect("no panic");
            match *heard {
                Heard::Admin(AdminCommand::Identify { structure, .. }) => {
                    identified(&told, structure)
                }
                Heard::Admin(AdminCommand::GetLogPage {
                    page: log_page::CHANGED_NAMESPACES,
                    retain_event,
                    ..
                }) => {
                    assert!(!retain_event, "reading it re-arms the event");
                    let mut bytes: Vec<u8> =
                        told.changed.drain(..).flat_map(u32::to_le_bytes).collect();
                    bytes.resize(4096, 0);
                    Some(Say::Data(bytes))
                }
                _ => None,
            }
        });
        peer.kind = ControllerKind::InputOutput;
        let mut pair = Pair::new(peer, |pool, options, now| {
            Controller::new(pool, options, Purpose::Namespace(1), now).expect("options are right")
        });
        pair.settle();
        assert!(pair.host.is_up(), "{:?}", pair.host.error());
        let queue = pair.host.open_queue(4).expect("an I/O queue");
        Self { pair, namespace, queue }
    }

    /// Changes the namespace and tells so, naming these; the commands that this led to.
    fn change(&mut self, listed: &[u32], change: impl FnOnce(&mut Namespace)) -> Vec<Heard> {
        {
            let mut namespace = self.namespace.lock().expect("no panic");
            change(&mut namespace);
            namespace.changed = listed.to_vec();
        }
        self.pair.peer.heard.clear();
        assert!(self.pair.peer.raise(Event::NAMESPACE_CHANGED), "an event is awaited");
        self.pair.settle();
        assert_eq!(self.pair.peer.parked(), 1, "the next event is awaited");
        std::mem::take(&mut self.pair.peer.heard)
    }

    fn write(&mut self, offset: u64, length: usize) -> Result<(), IoError> {
        let buffer = block_io::BufferPool::heap().allocate(length);
        let request = Request::write(RequestId(1), offset, buffer);
        self.pair.host.submit(self.queue, request).expect("room");
        self.pair.settle();
        let mut completions = Vec::new();
        self.pair.host.take_completions(self.queue, &mut completions);
        assert_eq!(completions.len(), 1);
        completions[0].result
    }

    fn capacity(&mut self) -> u64 {
        let requests = self.pair.host.requests(self.queue).expect("open");
        requests.geometry().capacity
    }

    fn fault(&self) -> String {
        self.pair.host.namespace_fault().unwrap_or_default().to_owned()
    }
}

#[test]
fn only_a_change_of_this_namespace_leads_to_questions() {
    let mut scene = Scene::new();
    let asks = |heard: &[Heard]| {
        let is_identify =
            |heard: &&Heard| matches!(heard, Heard::Admin(AdminCommand::Identify { .. }));
        heard.iter().filter(is_identify).count()
    };
    assert_eq!(asks(&scene.change(&[2, 7], |_| {})), 0);
    assert_eq!(asks(&scene.change(&[], |_| {})), 0);
    assert_eq!(asks(&scene.change(&[1, 2], |_| {})), 2);
    assert_eq!(scene.pair.host.namespace_changes(), 0, "it is as it was");
    // More than can be listed: any may have changed.
    let heard = scene.change(&[u32::MAX], |namespace| namespace.blocks = 4096);
    assert_eq!((asks(&heard), scene.capacity()), (2, 2 << 20));
    assert_eq!(scene.pair.host.namespace_changes(), 1);
}

#[test]
fn a_namespace_grows_and_shrinks() {
    let mut scene = Scene::new();
    assert_eq!(scene.write(1 << 20, 512), Err(IoError::OutOfRange));
    scene.change(&[1], |namespace| namespace.blocks = 4096);
    assert_eq!((scene.capacity(), scene.write(1 << 20, 512)), (2 << 20, Ok(())));
    scene.change(&[1], |namespace| namespace.blocks = 1024);
    assert_eq!(scene.write(512 << 10, 512), Err(IoError::OutOfRange));
    assert_eq!((scene.write(0, 512), scene.fault()), (Ok(()), String::new()));
    assert_eq!(scene.pair.host.namespace_changes(), 2);
}

#[test]
fn a_namespace_that_is_gone_says_so_and_may_come_back() {
    for refuses in [false, true] {
        let mut scene = Scene::new();
        scene.change(&[1], |namespace| (namespace.blocks, namespace.refuses) = (0, refuses));
        assert_eq!(scene.write(0, 512), Err(IoError::Gone));
        assert!(scene.fault().contains("namespace 1 of nqn.2014-08.com.example:volume is gone"));
        assert!(scene.pair.host.is_up(), "the association is not to blame");
        scene.change(&[1], |namespace| (namespace.blocks, namespace.refuses) = (2048, false));
        assert_eq!((scene.write(0, 512), scene.fault()), (Ok(()), String::new()));
        // Gone and back under one event, as another.
        scene.change(&[1], |namespace| namespace.uuid = HostId([4; 16]));
        assert_eq!(scene.write(0, 512), Err(IoError::DeviceChanged));
        let (now, before) = (HostId([4; 16]), HostId([3; 16]));
        let expected = format!("it is UUID {now} now and was UUID {before}");
        assert!(scene.fault().contains(&expected), "{}", scene.fault());
        let late = scene.pair.host.open_queue(1).map(|_| ());
        assert!(late.is_err(), "there is one queue");
    }
}

#[test]
fn a_formatted_namespace_is_not_written_to_with_the_old_blocks() {
    let mut scene = Scene::new();
    scene.change(&[1], |namespace| (namespace.blocks, namespace.shift) = (256, 12));
    assert_eq!(scene.write(0, 4096), Err(IoError::DeviceChanged));
    let fault = scene.fault();
    assert!(fault.contains("its blocks have 4096 bytes, 512 when it was opened"), "{fault}");
    assert_eq!(scene.capacity(), 1 << 20, "the geometry stays what it was opened with");
    // A queue that is opened now refuses too.
    scene.pair.host.close_queue(scene.queue);
    scene.pair.settle();
    scene.queue = scene.pair.host.open_queue(4).expect("free again");
    assert_eq!(scene.write(0, 4096), Err(IoError::DeviceChanged));
    let verify = Command::Verify { extent: Extent::new(0, 4096) };
    let refused = scene.pair.host.submit_command(scene.queue, 1, verify);
    assert_eq!(refused, Err(CommandError::Invalid(fault)));
    // A format that nobody here can use.
    scene.change(&[1], |namespace| namespace.shift = 20);
    assert!(scene.fault().contains("LBADS is 20: must be 9 to 16"), "{}", scene.fault());
    scene.change(&[1], |namespace| (namespace.blocks, namespace.shift) = (2048, 9));
    assert_eq!((scene.write(0, 4096), scene.fault()), (Ok(()), String::new()));
}
