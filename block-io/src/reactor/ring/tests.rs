//! The rings themselves: every way of delivery, full rings, and refusals.

use super::super::submission::File;
use super::*;

/// Sixteen reads of an empty pipe, with room for two submissions and four completions: the
/// submission ring fills, half the entries go by the backlog, and the completions overflow.
fn completes(wide: bool, deliveries: &[Delivery]) -> Features {
    let mut features = Features::default();
    let mut ring = Ring::with_deliveries(2, 4, wide, deliveries, &mut features).expect("sets up");
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let mut bytes = [0u8; 16];
    let file = File::Plain(std::os::fd::AsRawFd::as_raw_fd(&reader));
    for (place, byte) in bytes.iter_mut().enumerate() {
        let span = Span { base: byte, length: 1, registered: None };
        let read = Submission::read(file, span, u64::MAX);
        if place == 8 {
            // As after a submission that the kernel was too busy for.
            ring.backlog.push_back(read.0.user_data(8));
            continue;
        }
        // SAFETY: `bytes` outlives all sixteen completions, which are waited for below.
        unsafe { ring.push(read, place as u64) };
    }
    assert_eq!(ring.backlog.len(), 8, "nothing overtakes the backlog");
    assert!(ring.wants_enter());
    ring.enter(None).expect("enters");
    assert!(ring.backlog.is_empty());
    let mut seen = [false; 16];
    ring.reap(|user_data, _, _| seen[user_data as usize] = true);
    assert_eq!(seen, [false; 16], "the pipe is empty");
    io::Write::write_all(&mut writer, &[7; 16]).expect("writes");
    while seen != [true; 16] {
        ring.enter(Some(Duration::MAX)).expect("enters");
        ring.reap(|user_data, result, _| {
            assert_eq!(result, 1);
            assert!(!std::mem::replace(&mut seen[user_data as usize], true), "once each");
        });
    }
    assert_eq!(bytes, [7; 16]);
    features
}

#[test]
fn every_way_of_delivery_completes() {
    for wide in [false, true] {
        for delivery in Delivery::ALL {
            let features = completes(wide, &[delivery]);
            assert!(delivery.names().iter().all(|name| features.has(name)), "{features}");
            assert_eq!(features.has("SQE128"), wide);
        }
    }
}

#[test]
fn a_span_in_the_arena_is_named_by_its_registered_buffer() {
    let mut features = Features::default();
    let mut ring = Ring::new(2, 4, false, &mut features).expect("sets up");
    ring.arena = (1 << 40, 3 << 30);
    let registered = |start: usize, length| {
        let base = std::ptr::without_provenance_mut(start);
        ring.span(base, length).registered
    };
    assert_eq!(registered(1 << 40, 4096), Some(0));
    assert_eq!(registered((1 << 40) - 1, 4096), None, "before it");
    assert_eq!(registered((1 << 40) + (1 << 30) - 4096, 4096), Some(0));
    assert_eq!(registered((1 << 40) + (1 << 30) - 4096, 4097), None, "across two");
    assert_eq!(registered((1 << 40) + (1 << 30), 4096), Some(1));
    assert_eq!(registered((1 << 40) + (3 << 30) - 4096, 4096), Some(2));
    assert_eq!(registered((1 << 40) + (3 << 30) - 4096, 4097), None, "beyond it");
}

#[test]
fn a_refusal_names_io_uring_and_what_to_do() {
    for (number, advice) in [
        (libc::ENOSYS, "seccomp"),
        (libc::EPERM, "kernel.io_uring_disabled"),
        (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (libc::EMFILE, "ulimit -n"),
    ] {
        let message = refusal(256, io::Error::from_raw_os_error(number)).to_string();
        assert!(message.contains("io_uring") && message.contains(advice), "{message}");
    }
}
