//! A counted file descriptor: an operation in flight holds a count, so a number is never reused
//! under the kernel's hands.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};

use rustix::net::AddressFamily;

/// A file, socket or other descriptor, shared by reference count within one core.
#[derive(Clone)]
pub struct Descriptor(Rc<Inner>);

struct Inner {
    fd: OwnedFd,
    registration: RefCell<Option<Registration>>,
    /// The place in the table of the one ring that knows this file, copied out of
    /// `registration` for the submission path.
    place: Cell<Option<(u64, u32)>>,
    copying: Cell<Copying>,
}

/// What is known about sends to a socket for which the kernel makes no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    /// Nothing yet.
    Unknown,
    /// They may work.
    Avoidable,
    /// It is not TCP, or the kernel has copied what it was to send without.
    Needed,
}

/// A descriptor that may be closed.
pub(super) struct WeakDescriptor(Weak<Inner>);

impl WeakDescriptor {
    /// To send to it without a copy is of no use.
    pub(super) fn note_copy(&self) {
        if let Some(inner) = self.0.upgrade() {
            inner.copying.set(Copying::Needed);
        }
    }
}

/// A place in a ring's table of registered files, given back when dropped.
struct Registration {
    place: u32,
    released: Rc<RefCell<Vec<u32>>>,
}

impl Descriptor {
    /// The place in the file table of the ring named `ring`, if it is registered there.
    pub(super) fn place(&self, ring: u64) -> Option<u32> {
        self.0.place.get().filter(|(owner, _)| *owner == ring).map(|(_, place)| place)
    }

    /// Whether sends to it may do without a copy. Asks the kernel the first time.
    pub(super) fn may_spare_copy(&self) -> bool {
        if self.0.copying.get() == Copying::Unknown {
            let is_tcp = matches!(
                rustix::net::sockopt::socket_domain(&self.0.fd),
                Ok(AddressFamily::INET | AddressFamily::INET6)
            );
            self.0.copying.set(if is_tcp { Copying::Avoidable } else { Copying::Needed });
        }
        self.0.copying.get() == Copying::Avoidable
    }

    /// Does not keep the file open.
    pub(super) fn downgrade(&self) -> WeakDescriptor {
        WeakDescriptor(Rc::downgrade(&self.0))
    }

    /// Whether some ring has it in its table.
    pub(super) fn is_registered(&self) -> bool {
        self.0.place.get().is_some()
    }

    /// Notes that `ring` knows it as `place`; `released` hears of it when it is closed.
    pub(super) fn set_place(&self, ring: u64, place: u32, released: Rc<RefCell<Vec<u32>>>) {
        self.0.place.set(Some((ring, place)));
        *self.0.registration.borrow_mut() = Some(Registration { place, released });
    }
}

impl TryFrom<Descriptor> for OwnedFd {
    type Error = Descriptor;

    /// For another core: the descriptor itself, if nobody counts on it and no ring knows it.
    fn try_from(descriptor: Descriptor) -> Result<Self, Descriptor> {
        if descriptor.is_registered() {
            return Err(descriptor);
        }
        Rc::try_unwrap(descriptor.0).map(|inner| inner.fd).map_err(Descriptor)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.released.borrow_mut().push(self.place);
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        Self(Rc::new(Inner {
            fd,
            registration: RefCell::new(None),
            place: Cell::new(None),
            copying: Cell::new(Copying::Unknown),
        }))
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Descriptor({})", self.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_else_counts_on_leaves_the_core() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let number = one.as_raw_fd();
        let descriptor = Descriptor::from(OwnedFd::from(one));
        let clone = descriptor.clone();
        let descriptor = OwnedFd::try_from(descriptor).expect_err("there is a clone");
        drop(clone);
        let owned = OwnedFd::try_from(descriptor).expect("it is the only one");
        assert_eq!(owned.as_raw_fd(), number);
        let registered = Descriptor::from(owned);
        registered.set_place(1, 0, Rc::default());
        assert!(OwnedFd::try_from(registered).is_err(), "a ring knows it");
    }
}
