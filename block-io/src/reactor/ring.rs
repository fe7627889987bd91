//! The kernel's two rings: with `submission` the only file that names `io_uring`.
//!
//! It sets a ring up with what the kernel has, pushes submission entries, enters the kernel and
//! hands out completions. What an operation means, who waits for it and who owns its
//! memory is not its business: see `slots` and `core`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, Probe, Submitter, cqueue, opcode, squeue, types};

use super::features::Features;
use super::submission::{Span, Submission};
use crate::DeviceError;

/// What a completion is of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All that comes.
    Whole,
    /// The result. The kernel still reads the memory.
    Result,
    /// The kernel has done with the memory.
    Release,
}

enum Kind {
    Narrow(IoUring<squeue::Entry, cqueue::Entry>),
    /// 128-byte submission entries, which NVMe and ublk commands need.
    Wide(IoUring<squeue::Entry128, cqueue::Entry>),
}

/// Runs the same expression on either kind of ring.
macro_rules! either {
    ($kind:expr, $ring:ident => $body:expr) => {
        match $kind {
            Kind::Narrow($ring) => $body,
            Kind::Wide($ring) => $body,
        }
    };
}

/// A pair of rings shared with the kernel.
pub(super) struct Ring {
    kind: Kind,
    /// Entries that found the submission ring full; at most one an operation and one a cancel.
    backlog: VecDeque<squeue::Entry>,
    /// The registered arena: address and length, zero length without one.
    arena: (usize, usize),
    files: u32,
}

/// A registered buffer is at most this long (Linux `io_buffer_validate`), so a longer arena is
/// registered in pieces.
const REGISTERED_BUFFER_MAX: usize = 1 << 30;

impl Ring {
    /// A ring with room for `entries` submissions and `completions` completions.
    ///
    /// # Errors
    /// When the kernel has no io_uring, or too little of it.
    pub(super) fn new(
        entries: u32,
        completions: u32,
        wide: bool,
        features: &mut Features,
    ) -> Result<Self, DeviceError> {
        Self::with_deliveries(entries, completions, wide, &Delivery::ALL, features)
    }

    fn with_deliveries(
        entries: u32,
        completions: u32,
        wide: bool,
        deliveries: &[Delivery],
        features: &mut Features,
    ) -> Result<Self, DeviceError> {
        let kind = if wide {
            set_up(entries, completions, deliveries, features).map(Kind::Wide)?
        } else {
            set_up(entries, completions, deliveries, features).map(Kind::Narrow)?
        };
        if wide {
            features.obtained("SQE128");
        }
        let ring = Self { kind, backlog: VecDeque::new(), arena: (0, 0), files: 0 };
        ring.check(features)?;
        Ok(ring)
    }

    fn submitter(&self) -> Submitter<'_> {
        either!(&self.kind, ring => ring.submitter())
    }

    /// Asks the kernel for the operations and features that the reactor is made of.
    fn check(&self, features: &mut Features) -> Result<(), DeviceError> {
        let parameters = either!(&self.kind, ring => ring.params());
        features.answer("EXT_ARG", parameters.is_feature_ext_arg());
        features.answer("NODROP", parameters.is_feature_nodrop());
        if !parameters.is_feature_ext_arg() {
            return Err(DeviceError::new(
                "io_uring: the kernel lacks EXT_ARG (waiting with a time-out); Linux 5.11 or \
                 later is needed",
            ));
        }
        let mut probe = Probe::new();
        self.submitter().register_probe(&mut probe).map_err(|error| {
            DeviceError::with_source("io_uring: asking for the supported operations", error)
        })?;
        for (name, code) in OPERATIONS {
            if !probe.is_supported(code) {
                return Err(DeviceError::new(format!(
                    "io_uring: the kernel lacks the operation {name}; Linux 5.11 or later is needed"
                )));
            }
        }
        features.obtained("PROBE");
        for (name, code) in WELCOME {
            features.answer(name, probe.is_supported(code));
        }
        Ok(())
    }

    /// Registers the arena, so that transfers in it skip pinning its pages.
    ///
    /// # Safety
    /// The memory must stay allocated for as long as the ring.
    pub(super) unsafe fn register_arena(&mut self, base: *mut u8, length: usize) -> io::Result<()> {
        let pieces: Vec<libc::iovec> = (0..length)
            .step_by(REGISTERED_BUFFER_MAX)
            .map(|start| libc::iovec {
                iov_base: base.wrapping_add(start).cast(),
                iov_len: REGISTERED_BUFFER_MAX.min(length - start),
            })
            .collect();
        // SAFETY: the caller keeps the memory allocated while the ring lives.
        unsafe { self.submitter().register_buffers(&pieces)? };
        self.arena = (base as usize, length);
        Ok(())
    }

    /// Makes a table for `places` registered files, all empty.
    pub(super) fn make_file_table(&mut self, places: u32) -> io::Result<()> {
        self.submitter().register_files_sparse(places)?;
        self.files = places;
        Ok(())
    }

    /// Places in the table of registered files, 0 without one.
    pub(super) fn file_places(&self) -> u32 {
        self.files
    }

    /// Puts a file into a place of the table, or with -1 takes it out.
    pub(super) fn set_file(&self, place: u32, fd: RawFd) -> io::Result<()> {
        self.submitter().register_files_update(place, &[fd]).map(drop)
    }

    /// The memory as an entry names it: by registered buffer where it lies in one.
    pub(super) fn span(&self, base: *mut u8, length: usize) -> Span {
        let start = (base as usize).wrapping_sub(self.arena.0);
        let inside = start < self.arena.1 && length <= self.arena.1 - start && length > 0;
        let (first, last) = (start / REGISTERED_BUFFER_MAX, start.wrapping_add(length.max(1) - 1));
        let whole = inside && first == last / REGISTERED_BUFFER_MAX;
        let registered = if whole { u16::try_from(first).ok() } else { None };
        // A buffer is under 4 GiB by construction.
        Span { base, length: length as u32, registered }
    }

    /// Takes every file out of the table now; closing the ring does it at some later time.
    pub(super) fn drop_file_table(&mut self) {
        if self.files > 0 && self.submitter().unregister_files().is_ok() {
            self.files = 0;
        }
    }

    /// Queues an entry; it goes to the kernel with the next [`enter`](Self::enter), or now when
    /// the ring is full.
    ///
    /// # Safety
    /// Everything the entry points to must stay valid, and unmoved, until its completion.
    pub(super) unsafe fn push(&mut self, submission: Submission, user_data: u64) {
        let entry = submission.0.user_data(user_data);
        if self.backlog.is_empty() {
            // SAFETY: the caller vouches for what the entry points to.
            if unsafe { push(&mut self.kind, &entry) } {
                return;
            }
            // A failure here (out of memory, completions overflowing) shows again in `enter`.
            let _ = self.submitter().submit();
            // SAFETY: as above.
            if unsafe { push(&mut self.kind, &entry) } {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Moves what the backlog holds into the ring as far as it has room.
    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever pushed it first vouched for it until its completion.
            if !unsafe { push(&mut self.kind, entry) } {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Gives everything queued to the kernel and lets it post completions. With `wait`, sleeps
    /// until there is a completion, at most so long. Interruptions and a busy kernel are no errors:
    /// the caller comes again anyway.
    ///
    /// # Errors
    /// When the kernel refuses the ring itself.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> Result<(), DeviceError> {
        loop {
            self.drain_backlog();
            let more = !self.backlog.is_empty();
            let wait = if more { None } else { wait };
            match self.enter_once(wait) {
                Ok(()) if more && self.has_room() => {}
                Ok(()) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => return Ok(()),
                    _ => {
                        let what = "io_uring: entering the kernel";
                        return Err(DeviceError::with_source(what, error));
                    }
                },
            }
        }
    }

    fn enter_once(&self, wait: Option<Duration>) -> io::Result<()> {
        let queued = self.queued();
        let submitter = self.submitter();
        let Some(wait) = wait else {
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: no argument is passed; entries were vouched for when pushed.
            return unsafe { submitter.enter::<libc::sigset_t>(queued, 0, flags, None) }.map(drop);
        };
        let time = types::Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
        let arguments = types::SubmitArgs::new().timespec(&time);
        let arguments = if wait == Duration::MAX { types::SubmitArgs::new() } else { arguments };
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        // SAFETY: EXT_ARG goes with an `io_uring_getevents_arg`, which `SubmitArgs` is; the time
        // it points to outlives the call.
        unsafe { submitter.enter(queued, 1, flags, Some(&arguments)) }.map(drop)
    }

    fn queued(&self) -> u32 {
        // SAFETY: the ring is used on this thread alone, and no other view of the submission
        // side lives while this one does.
        either!(&self.kind, ring => unsafe { ring.submission_shared() }.len() as u32)
    }

    fn has_room(&self) -> bool {
        // SAFETY: as in `queued`.
        either!(&self.kind, ring => !unsafe { ring.submission_shared() }.is_full())
    }

    /// Whether [`enter`](Self::enter) has something to do: entries for the kernel, or completions
    /// that it holds back until then. Reads shared memory only.
    pub(super) fn wants_enter(&self) -> bool {
        let held_back = either!(&self.kind, ring => {
            // SAFETY: as in `queued`.
            let submission = unsafe { ring.submission_shared() };
            !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
        });
        held_back || !self.backlog.is_empty()
    }

    /// Whether a completion waits to be reaped.
    pub(super) fn has_completion(&self) -> bool {
        // SAFETY: as in `queued`, for the completion side.
        either!(&self.kind, ring => unsafe { !ring.completion_shared().is_empty() })
    }

    /// Hands every completion to `take`: user data, result, and which of an operation's it is.
    pub(super) fn reap(&mut self, mut take: impl FnMut(u64, i32, Part)) {
        either!(&mut self.kind, ring => {
            for completion in ring.completion() {
                let part = match completion.flags() {
                    flags if cqueue::notif(flags) => Part::Release,
                    flags if cqueue::more(flags) => Part::Result,
                    _ => Part::Whole,
                };
                take(completion.user_data(), completion.result(), part);
            }
        });
    }
}

/// # Safety
/// As [`Ring::push`].
unsafe fn push(kind: &mut Kind, entry: &squeue::Entry) -> bool {
    match kind {
        // SAFETY: the caller vouches for what the entry points to.
        Kind::Narrow(ring) => unsafe { ring.submission().push(entry) }.is_ok(),
        // SAFETY: as above.
        Kind::Wide(ring) => unsafe { ring.submission().push(&entry.clone().into()) }.is_ok(),
    }
}

/// The operations without which there is no reactor.
const OPERATIONS: [(&str, u8); 13] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("SEND", opcode::Send::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("RECVMSG", opcode::RecvMsg::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

/// Operations that are done otherwise where the kernel lacks them.
const WELCOME: [(&str, u8); 2] =
    [("SEND_ZC", opcode::SendZc::CODE), ("SENDMSG_ZC", opcode::SendMsgZc::CODE)];

/// How the kernel hands completions over, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// Only when this thread asks for them, the only one that submits.
    Deferred,
    /// When this thread enters the kernel anyway.
    Cooperative,
    /// By interrupting this thread.
    Interrupting,
}

impl Delivery {
    const ALL: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Interrupting];

    /// The names of the flags that ask for it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Deferred => &["SINGLE_ISSUER", "DEFER_TASKRUN", "SUBMIT_ALL"],
            Self::Cooperative => &["COOP_TASKRUN"],
            Self::Interrupting => &[],
        }
    }
}

/// Entries of the smallest rings, for a process that may hardly lock memory (64 KiB is a common
/// limit in containers, and rings count). More completions than fit wait in the kernel.
const SMALLEST: (u32, u32) = (64, 256);

/// Sets a ring up with the best of `deliveries` that the kernel accepts, smaller than asked for
/// where memory may not be locked for more.
fn set_up<Entry: squeue::EntryMarker>(
    entries: u32,
    completions: u32,
    deliveries: &[Delivery],
    features: &mut Features,
) -> Result<IoUring<Entry, cqueue::Entry>, DeviceError> {
    let smaller = (entries.min(SMALLEST.0), completions.min(SMALLEST.1));
    let refused = match set_up_sized(entries, completions, deliveries, features) {
        Ok(ring) => return Ok(ring),
        Err(error) if error.raw_os_error() != Some(libc::ENOMEM) => error,
        Err(error) => match set_up_sized(smaller.0, smaller.1, deliveries, features) {
            Ok(ring) => {
                let wanted =
                    format!("{entries} entries: {error}; raise RLIMIT_MEMLOCK (ulimit -l)");
                features.missing("RINGS_OF_FULL_SIZE", wanted);
                return Ok(ring);
            }
            Err(error) => error,
        },
    };
    Err(refusal(entries, refused))
}

/// Sets a ring of this size up with the best of `deliveries` that the kernel accepts.
fn set_up_sized<Entry: squeue::EntryMarker>(
    entries: u32,
    completions: u32,
    deliveries: &[Delivery],
    features: &mut Features,
) -> io::Result<IoUring<Entry, cqueue::Entry>> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for delivery in deliveries {
        let mut builder = IoUring::<Entry, cqueue::Entry>::builder();
        builder.setup_cqsize(completions).setup_clamp();
        match delivery {
            Delivery::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
                builder.setup_submit_all();
            }
            Delivery::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            Delivery::Interrupting => {}
        }
        match builder.build(entries) {
            Ok(ring) => {
                for name in delivery.names() {
                    features.obtained(name);
                }
                return Ok(ring);
            }
            Err(error) => {
                for name in delivery.names() {
                    features.missing(name, format!("refused by the kernel: {error}"));
                }
                // Only what the kernel does not know is worth another try.
                let unknown = error.raw_os_error() == Some(libc::EINVAL);
                last = error;
                if !unknown {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// Why there is no ring, and what to do about it.
fn refusal(entries: u32, error: io::Error) -> DeviceError {
    let advice = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring (or a seccomp filter hides it); Linux 5.11 or later is \
             needed, and in a container a seccomp profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "not permitted; set sysctl kernel.io_uring_disabled=0, and in a container use a \
             seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOMEM) => "out of lockable memory; raise RLIMIT_MEMLOCK (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "out of file descriptors; raise ulimit -n",
        _ => "setting up the rings failed",
    };
    DeviceError::with_source(format!("io_uring with {entries} entries: {advice}"), error)
}

#[cfg(test)]
mod tests;
