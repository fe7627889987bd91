//! Entries for the submission ring, one for each kind of operation.
//!
//! Absent: who owns what an entry points to (`slots`), and when it goes to the kernel (`ring`).

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

/// A file as a submission entry names it.
#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    /// By its descriptor.
    Plain(RawFd),
    /// By its place in the ring's table.
    Registered(u32),
}

impl File {
    fn number(self) -> types::Fd {
        match self {
            Self::Plain(fd) => types::Fd(fd),
            Self::Registered(place) => types::Fd(place as i32),
        }
    }
}

/// Memory for one transfer: address, length, and the registered buffer it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) base: *mut u8,
    pub(super) length: u32,
    pub(super) registered: Option<u16>,
}

/// One entry for the submission ring.
pub(super) struct Submission(pub(super) squeue::Entry);

/// `IORING_SEND_ZC_REPORT_USAGE`, Linux `include/uapi/linux/io_uring.h`.
const REPORT_USAGE: u16 = 1 << 3;

impl Submission {
    fn of(file: File, entry: squeue::Entry) -> Self {
        match file {
            File::Registered(_) => Self(entry.flags(squeue::Flags::FIXED_FILE)),
            File::Plain(_) => Self(entry),
        }
    }

    pub(super) fn read(file: File, span: Span, offset: u64) -> Self {
        let (fd, base, length) = (file.number(), span.base, span.length);
        Self::of(
            file,
            match span.registered {
                Some(index) => {
                    opcode::ReadFixed::new(fd, base, length, index).offset(offset).build()
                }
                None => opcode::Read::new(fd, base, length).offset(offset).build(),
            },
        )
    }

    pub(super) fn write(file: File, span: Span, offset: u64, durable: bool) -> Self {
        let (fd, base, length) = (file.number(), span.base, span.length);
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        Self::of(
            file,
            match span.registered {
                Some(index) => opcode::WriteFixed::new(fd, base, length, index)
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
                None => opcode::Write::new(fd, base, length).offset(offset).rw_flags(flags).build(),
            },
        )
    }

    pub(super) fn synchronize(file: File) -> Self {
        let entry = opcode::Fsync::new(file.number()).flags(types::FsyncFlags::DATASYNC).build();
        Self::of(file, entry)
    }

    pub(super) fn allocate(file: File, mode: i32, offset: u64, length: u64) -> Self {
        let entry = opcode::Fallocate::new(file.number(), length).offset(offset).mode(mode);
        Self::of(file, entry.build())
    }

    pub(super) fn accept(file: File) -> Self {
        let none = std::ptr::null_mut();
        let entry = opcode::Accept::new(file.number(), none, none.cast());
        Self::of(file, entry.flags(libc::SOCK_CLOEXEC).build())
    }

    pub(super) fn connect(
        file: File,
        address: *const libc::sockaddr,
        length: libc::socklen_t,
    ) -> Self {
        Self::of(file, opcode::Connect::new(file.number(), address, length).build())
    }

    pub(super) fn receive(file: File, span: Span) -> Self {
        Self::of(file, opcode::Recv::new(file.number(), span.base, span.length).build())
    }

    pub(super) fn receive_message(file: File, message: *mut libc::msghdr) -> Self {
        Self::of(file, opcode::RecvMsg::new(file.number(), message).build())
    }

    pub(super) fn send(file: File, span: Span) -> Self {
        let entry = opcode::Send::new(file.number(), span.base, span.length);
        Self::of(file, entry.flags(libc::MSG_NOSIGNAL).build())
    }

    pub(super) fn send_message(file: File, message: *const libc::msghdr) -> Self {
        let entry = opcode::SendMsg::new(file.number(), message);
        Self::of(file, entry.flags(libc::MSG_NOSIGNAL as u32).build())
    }

    /// A send whose bytes the kernel takes from where they lie, until a second completion says that
    /// it has done with them; that one tells whether it had to copy after all.
    pub(super) fn send_zero_copy(file: File, span: Span) -> Self {
        let entry = opcode::SendZc::new(file.number(), span.base, span.length);
        let entry = entry.buf_index(span.registered).zc_flags(REPORT_USAGE);
        Self::of(file, entry.flags(libc::MSG_NOSIGNAL).build())
    }

    /// As [`send_zero_copy`](Self::send_zero_copy).
    pub(super) fn send_message_zero_copy(file: File, message: *const libc::msghdr) -> Self {
        let entry = opcode::SendMsgZc::new(file.number(), message).ioprio(REPORT_USAGE);
        Self::of(file, entry.flags(libc::MSG_NOSIGNAL as u32).build())
    }

    pub(super) fn cancel(user_data: u64) -> Self {
        Self(opcode::AsyncCancel::new(user_data).build())
    }
}
