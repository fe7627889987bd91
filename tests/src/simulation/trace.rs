//! The history of one run, for a person: what the client did and what each disk did, by time.
//!
//! It outlives the run, so that it can be printed after a panic. Absent when nobody asked for it:
//! a line costs more than the request that it tells of.

use std::cell::RefCell;
use std::rc::Rc;

use block_io::Timestamp;
use block_io::sim::SimDisk;

/// The history. Clones are the same.
#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    client: Vec<(Timestamp, String)>,
    disks: Vec<(String, SimDisk)>,
}

impl Trace {
    /// Adds what the client did.
    pub(super) fn add(&self, now: Timestamp, text: String) {
        self.0.borrow_mut().client.push((now, text));
    }

    /// Has a disk keep a log that is part of the history.
    pub(super) fn watch(&self, name: &str, disk: &SimDisk) {
        disk.set_logging(true);
        self.0.borrow_mut().disks.push((name.to_owned(), disk.clone()));
    }

    /// All of it, a line each, by virtual time.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.0.borrow();
        let client = |(time, text): &(Timestamp, String)| {
            (*time, format!("{:>12} ns  client  {text}", time.0))
        };
        let mut lines: Vec<(Timestamp, String)> = inner.client.iter().map(client).collect();
        for (name, disk) in &inner.disks {
            lines.extend(disk.log().iter().map(|entry| (entry.time, format!("{entry}  ({name})"))));
        }
        lines.sort_by_key(|(time, _)| *time);
        lines.into_iter().map(|(_, text)| text).collect()
    }
}
