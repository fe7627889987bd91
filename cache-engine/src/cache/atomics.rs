//! The atomics of the shared index: the standard library's, or loom's where all interleavings of
//! the cores are tried (`RUSTFLAGS="--cfg loom"`, see `index/interleavings.rs`).

#[cfg(all(loom, test))]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(all(loom, test)))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
