//! The extents of 4 MiB that may be being written: what the device knows of them, and who waits.
//!
//! ```text
//!            change begins        page sent        page durable      oldest, nothing in flight
//!   Idle ─────────────────▶ Queued ───────▶ Writing ───────▶ Active ───────▶ Retiring ──▶ gone
//!                             ▲  write failed │                 ▲ changed again │
//!                             └───────────────┘                 └───────────────┘
//! ```
//! After a crash every line of an extent that the device names is dropped. So a change may go on
//! at once where its extent is active on the device, or has no line recorded there; else it waits
//! for the extent's page. Extents that become active while their page is being written go with its
//! next write. A page has two copies, and a write goes to the one that is not the newest; one that
//! failed goes there again.
//!
//! An extent is retired in memory only: the device names it until its place is given to another.
//! Absent: when retiring is allowed, which is the owner's to know (everything recorded of the
//! extents must be durable).

use block_io::BufferPool;

use super::PersistenceConfig;
use super::device::{Device, Purpose};
use super::key_map::KeyMap;
use crate::cache::metadata::activity_page::{self, ActivityPage, PLACES};
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::{FormatId, PAGE_SIZE};

/// Pages being written at the same time at the most.
pub(super) const ACTIVITY_WRITES_MAX: usize = 64;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Known only because a change is in flight or waits: it has no place.
    Idle,
    /// It has a place in a page that has not been sent since.
    Queued,
    /// Its page is being written.
    Writing,
    /// The device names it.
    Active,
    /// The device names it, and it may be forgotten unless it changes.
    Retiring,
}

#[derive(Clone, Copy)]
struct Entry {
    number: u64,
    /// When a change of it began last, in nanoseconds.
    stamp: u64,
    place: u32,
    in_flight: u32,
    state: State,
    /// Something about it could not be recorded: it stays until the end of the run.
    kept: bool,
}

struct Page {
    /// Of the newest copy on the device.
    sequence: u64,
    /// Which copy that is.
    newest: u32,
    writing: bool,
    /// It stands in the list of pages to be written.
    dirty: bool,
    free: Vec<u16>,
}

struct Waiting {
    piece: u16,
    extent: u64,
}

/// The table of extents.
pub(super) struct Activity {
    map: KeyMap,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    /// The entry in each place, page after page.
    places: Box<[u32]>,
    free_places: usize,
    /// Places that can be given out, in all and of each page.
    usable: usize,
    usable_of_page: usize,
    pages: Box<[Page]>,
    /// Pages to be written, and whether someone waits for one of them.
    dirty: Vec<u32>,
    urgent: bool,
    writes: usize,
    waiting: Vec<Waiting>,
    /// The device's pages are known, so places can be given out.
    ready: bool,
    pub(super) activations: u64,
    pub(super) waits: u64,
    pub(super) retired: u64,
}

impl Activity {
    /// A table for `pages` pages.
    pub(super) fn new(pages: u32, config: PersistenceConfig) -> Self {
        let changes_max = config.changes_max;
        let places = pages as usize * PLACES;
        let usable_of_page = config.extents_per_page.clamp(1, PLACES);
        let page =
            || Page { sequence: 0, newest: 1, writing: false, dirty: false, free: Vec::new() };
        Self {
            map: KeyMap::new(places + changes_max),
            entries: Vec::with_capacity(places + changes_max),
            free_entries: Vec::with_capacity(places + changes_max),
            places: vec![NONE; places].into_boxed_slice(),
            free_places: 0,
            usable: usable_of_page * pages as usize,
            usable_of_page,
            pages: (0..pages).map(|_| page()).collect(),
            dirty: Vec::with_capacity(pages as usize),
            urgent: false,
            writes: 0,
            waiting: Vec::with_capacity(changes_max),
            ready: false,
            activations: 0,
            waits: 0,
            retired: 0,
        }
    }

    /// A change of an extent begins. True when the device names the extent.
    #[inline]
    pub(super) fn begin(&mut self, extent: u64, stamp: u64) -> bool {
        let Some(at) = self.map.find(extent) else { return false };
        let entry = &mut self.entries[at as usize];
        let durable = matches!(entry.state, State::Active | State::Retiring);
        if durable {
            entry.state = State::Active;
            entry.in_flight += 1;
            entry.stamp = stamp;
        }
        durable
    }

    /// The same for an extent that [`begin`](Self::begin) did not find active. With `wait` the
    /// piece is noted as waiting for it.
    pub(super) fn begin_inactive(&mut self, extent: u64, stamp: u64, wait: Option<u16>) {
        let at = self.find_or_add(extent);
        let entry = &mut self.entries[at as usize];
        entry.in_flight += 1;
        entry.stamp = stamp;
        self.give_place(at);
        if let Some(piece) = wait {
            self.waiting.push(Waiting { piece, extent });
            self.urgent = true;
            self.waits += 1;
        }
    }

    /// A change is over. False when the extent was not known, which only a cache that was given
    /// up may be told.
    pub(super) fn end(&mut self, extent: u64) -> bool {
        let Some(at) = self.map.find(extent) else { return false };
        let entry = &mut self.entries[at as usize];
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if entry.in_flight == 0 && entry.state == State::Idle {
            self.remove(at);
        }
        true
    }

    /// Keeps an extent from being retired in this run. False when it has no place to be kept in.
    pub(super) fn keep(&mut self, extent: u64) -> bool {
        let Some(at) = self.map.find(extent) else { return false };
        let entry = &mut self.entries[at as usize];
        entry.kept = true;
        if entry.state == State::Retiring {
            entry.state = State::Active;
        }
        entry.place != NONE
    }

    /// Whether records of this extent's lines may wait.
    pub(super) fn is_active(&self, extent: u64) -> bool {
        let state = |at: u32| self.entries[at as usize].state;
        self.map.find(extent).is_some_and(|at| state(at) != State::Idle)
    }

    /// Whether the extent is active, or a change of it is in flight or waits.
    pub(super) fn is_known(&self, extent: u64) -> bool {
        self.map.find(extent).is_some()
    }

    /// Extents that have a place.
    pub(super) fn active(&self) -> usize {
        if self.ready { self.usable.saturating_sub(self.free_places) } else { 0 }
    }

    /// Whether places are running out.
    pub(super) fn is_short(&self) -> bool {
        self.ready && self.free_places < self.usable.div_ceil(8)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether someone waits for a place while none is free.
    pub(super) fn is_starved(&self) -> bool {
        self.ready && self.free_places == 0 && !self.waiting.is_empty()
    }

    /// Whether someone waits for a place, and none can become free in this run.
    pub(super) fn is_hopeless(&self) -> bool {
        let kept = |at: &u32| self.entries.get(*at as usize).is_some_and(|entry| entry.kept);
        let used = self.places.chunks(PLACES).flat_map(|page| &page[..self.usable_of_page]);
        self.is_starved() && used.into_iter().all(kept)
    }

    /// Whether every page is on the device as it is here.
    pub(super) fn is_written(&self) -> bool {
        self.dirty.is_empty() && self.writes == 0
    }

    /// Takes over what the device's pages say (none where a page was never written), and gives
    /// places to whoever waits.
    pub(super) fn load(&mut self, pages: &[Option<(u32, ActivityPage)>]) {
        for (number, loaded) in pages.iter().enumerate() {
            let first = number * PLACES;
            if let Some((copy, page)) = loaded {
                (self.pages[number].newest, self.pages[number].sequence) = (*copy, page.sequence);
                for (place, extent) in page.places.iter().enumerate() {
                    if let Some(extent) = *extent {
                        self.load_extent(extent, first + place);
                    }
                }
            }
        }
        for (number, page) in self.pages.iter_mut().enumerate() {
            let is_free = |place: &u16| self.places[number * PLACES + usize::from(*place)] == NONE;
            page.free = (0..self.usable_of_page as u16).rev().filter(is_free).collect();
            self.free_places += page.free.len();
        }
        self.ready = true;
        self.give_places();
    }

    fn load_extent(&mut self, extent: u64, place: usize) {
        let at = self.find_or_add(extent);
        let entry = &mut self.entries[at as usize];
        // An extent that was retired in one page and active in another again stands in both.
        if entry.place == NONE {
            (entry.place, entry.state) = (place as u32, State::Active);
            self.places[place] = at;
        }
    }

    /// Gives places to the extents that are waited for, as far as there are any.
    fn give_places(&mut self) {
        for index in 0..self.waiting.len() {
            if let Some(at) = self.map.find(self.waiting[index].extent) {
                self.give_place(at);
            }
        }
        self.urgent |= !self.waiting.is_empty();
    }

    fn give_place(&mut self, at: u32) {
        if self.entries[at as usize].state != State::Idle || self.free_places == 0 {
            return;
        }
        let has_room = |page: &Page| !page.free.is_empty();
        let pages = &self.pages;
        // A page that is to be written anyway, else one that can be written at once, else any.
        let joined = self.dirty.iter().copied().find(|page| has_room(&pages[*page as usize]));
        let chosen = joined
            .or_else(|| position(pages, |page| has_room(page) && !page.writing))
            .or_else(|| position(pages, has_room));
        let Some(number) = chosen else { return };
        let page = &mut self.pages[number as usize];
        let Some(place) = page.free.pop() else { return };
        if !page.dirty {
            page.dirty = true;
            self.dirty.push(number);
        }
        let place = number * PLACES as u32 + u32::from(place);
        self.free_places -= 1;
        self.places[place as usize] = at;
        let entry = &mut self.entries[at as usize];
        (entry.place, entry.state) = (place, State::Queued);
        self.activations += 1;
    }

    /// Whether a page should be written now: someone waits for it.
    pub(super) fn wants_write(&self) -> bool {
        self.urgent && !self.dirty.is_empty()
    }

    /// Sends the pages that changed and are not on their way.
    pub(super) fn write(
        &mut self,
        device: &mut Device,
        pool: &BufferPool,
        (format_id, layout): (FormatId, &Layout),
        journal_head: u64,
    ) {
        self.urgent = false;
        let mut later = 0;
        for index in 0..self.dirty.len() {
            let number = self.dirty[index];
            let page = &mut self.pages[number as usize];
            if page.writing || self.writes == ACTIVITY_WRITES_MAX {
                self.dirty[later] = number;
                later += 1;
                continue;
            }
            (page.writing, page.dirty) = (true, false);
            self.writes += 1;
            let first = number as usize * PLACES;
            let entries = &mut self.entries;
            let places = self.places[first..first + PLACES].iter().map(|at| {
                let entry = entries.get_mut(*at as usize)?;
                if entry.state == State::Queued {
                    entry.state = State::Writing;
                }
                Some(entry.number)
            });
            let sequence = page.sequence + 1;
            let bytes = activity_page::encode(format_id, number, sequence, journal_head, places);
            let buffer = pool.allocate(PAGE_SIZE);
            buffer.copy_from_slice(&bytes);
            let offset = layout.activity_page_offset(number, 1 - page.newest);
            device.write(Purpose::ActivityWrite { page: number }, offset, buffer, true);
        }
        self.dirty.truncate(later);
    }

    /// A page's write is over. Whoever waited for nothing else is put in `activated`.
    pub(super) fn written(&mut self, number: u32, succeeded: bool, activated: &mut Vec<u16>) {
        let page = &mut self.pages[number as usize];
        page.writing = false;
        self.writes -= 1;
        if succeeded {
            page.sequence += 1;
            page.newest = 1 - page.newest;
        } else if !page.dirty {
            page.dirty = true;
            self.dirty.push(number);
        }
        let first = number as usize * PLACES;
        for at in &self.places[first..first + PLACES] {
            if let Some(entry) = self.entries.get_mut(*at as usize)
                && entry.state == State::Writing
            {
                entry.state = if succeeded { State::Active } else { State::Queued };
            }
        }
        self.release_active(activated);
        self.urgent |= !self.waiting.is_empty();
    }

    /// Lets everybody go on whose extent is active.
    pub(super) fn release_active(&mut self, activated: &mut Vec<u16>) {
        let (map, entries) = (&self.map, &mut self.entries);
        self.waiting.retain(|waiting| {
            let Some(at) = map.find(waiting.extent) else { return true };
            let entry = &mut entries[at as usize];
            let durable = matches!(entry.state, State::Active | State::Retiring);
            if durable {
                entry.state = State::Active;
                activated.push(waiting.piece);
            }
            !durable
        });
    }

    /// Lets everybody go on: the cache is given up.
    pub(super) fn release_all(&mut self, activated: &mut Vec<u16>) {
        activated.extend(self.waiting.drain(..).map(|waiting| waiting.piece));
    }

    /// Chooses the extents to be retired, a sixteenth of the places: those that were changed
    /// longest ago. False when none may be.
    pub(super) fn begin_retiring(&mut self) -> bool {
        let mut candidates: Vec<(u64, u32)> = Vec::new();
        for at in self.places.iter().filter(|at| **at != NONE) {
            let entry = &self.entries[*at as usize];
            if entry.state == State::Active && is_quiet(entry) {
                candidates.push((entry.stamp, *at));
            }
        }
        let count = (self.usable / 16).max(1);
        if candidates.len() > count {
            candidates.select_nth_unstable(count);
            candidates.truncate(count);
        }
        for (_, at) in &candidates {
            self.entries[*at as usize].state = State::Retiring;
        }
        !candidates.is_empty()
    }

    /// Forgets the extents that were chosen and not changed since, and gives their places to
    /// whoever waits for one.
    pub(super) fn end_retiring(&mut self) {
        for place in 0..self.places.len() {
            let at = self.places[place];
            if let Some(entry) = self.entries.get(at as usize)
                && entry.state == State::Retiring
            {
                debug_assert!(entry.in_flight == 0, "a change ends retiring");
                self.places[place] = NONE;
                if place % PLACES < self.usable_of_page {
                    self.free_places += 1;
                    self.pages[place / PLACES].free.push((place % PLACES) as u16);
                }
                self.remove(at);
                self.retired += 1;
            }
        }
        self.give_places();
    }

    /// At the end of a run: forgets every extent that may be, whether the device names it yet or
    /// not.
    pub(super) fn retire_all(&mut self) {
        for at in self.places.iter().filter(|at| **at != NONE) {
            let entry = &mut self.entries[*at as usize];
            if is_quiet(entry) {
                entry.state = State::Retiring;
            }
        }
        self.end_retiring();
        for (number, page) in self.pages.iter_mut().enumerate() {
            // Pages that were never written name nobody.
            if !page.dirty && (page.sequence > 0 || page.writing) {
                page.dirty = true;
                self.dirty.push(number as u32);
            }
        }
    }

    fn find_or_add(&mut self, extent: u64) -> u32 {
        if let Some(at) = self.map.find(extent) {
            return at;
        }
        let entry = Entry {
            number: extent,
            stamp: 0,
            place: NONE,
            in_flight: 0,
            state: State::Idle,
            kept: false,
        };
        let at = if let Some(at) = self.free_entries.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.map.insert(extent, at);
        at
    }

    fn remove(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        self.map.remove(entry.number);
        entry.number = u64::MAX;
        entry.state = State::Idle;
        self.free_entries.push(at);
    }
}

fn is_quiet(entry: &Entry) -> bool {
    entry.in_flight == 0 && !entry.kept
}

fn position(pages: &[Page], wanted: impl Fn(&Page) -> bool) -> Option<u32> {
    pages.iter().position(wanted).map(|number| number as u32)
}
