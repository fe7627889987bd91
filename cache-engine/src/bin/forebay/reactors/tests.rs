//! Helpers that break: the service ends in order, with the reason, and its clients with it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use block_io::DeviceError;
use block_io::reactor::{Reactor, ReactorConfig};
use cache_engine::control::model::NewVolume;

use crate::control::Daemon;
use crate::run::plan::VolumePlan;
use crate::serve::VolumeService;

/// How a helper breaks.
#[derive(Clone, Copy)]
pub(super) enum Breakage {
    Panic,
    Fail,
}

impl Breakage {
    pub(super) fn happen(self) -> Result<(), DeviceError> {
        match self {
            Self::Panic => panic!("as it was told"),
            Self::Fail => Err(DeviceError::new("as it was told")),
        }
    }
}

/// A client that has been greeted, by whatever reactor.
fn greeted(path: &Path) -> UnixStream {
    let mut client = UnixStream::connect(path).expect("connects");
    client.read_exact(&mut [0; 18]).expect("the greeting");
    client
}

/// Why a service ends of which a helper breaks while it has clients.
fn reason(breakage: Breakage) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd");
    let reactor = Reactor::new(ReactorConfig::default()).expect("io_uring");
    let mut service = VolumeService::new(&reactor, None);
    service.start_reactors(2).expect("threads");
    let words = NewVolume {
        name: "v".into(),
        origin: "memory:1M".into(),
        exports: vec![format!("nbd+unix:///v?socket={}", path.display())],
        mode: None,
        generation: None,
        encryption_key: None,
        lease_until_ns: None,
    };
    service.add_volume(&VolumePlan::of_words(&words).expect("sound")).expect("it is memory");
    service.export("v").expect("listens");
    let break_one = service.reactors().breaker();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let clients: Vec<_> = (0..6).map(|_| greeted(&path)).collect();
            break_one(breakage);
            for mut client in clients {
                // Not an error, and not for ever.
                assert_eq!(client.read(&mut [0]).expect("the end"), 0);
            }
        });
        service.run(&reactor).expect("ends in order");
    });
    service.failure().expect("it was not told to end").to_string()
}

#[test]
fn a_helper_that_panics_ends_the_service_with_the_reason() {
    assert_eq!(reason(Breakage::Panic), "the thread forebay-core-1: panicked");
}

#[test]
fn a_helper_that_fails_ends_the_service_with_the_reason() {
    assert_eq!(reason(Breakage::Fail), "the thread forebay-core-1: as it was told");
}
