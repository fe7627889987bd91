//! How far the demo is, for people: one bar on standard error, nothing where that is no terminal.

use std::cell::Cell;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of the whole bar.
const STEPS: f64 = 1000.0;

/// One bar for all phases.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Where the current phase begins and how much of the whole it is, from 0 to 1.
    phase: Cell<(f64, f64)>,
}

impl Progress {
    /// A bar at its start.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(STEPS as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg:20} {wide_bar:.cyan/dim} {percent:>3} %");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
        Self { bar, phase: Cell::new((0.0, 0.0)) }
    }

    /// The next phase begins; it is `share` of the whole.
    pub(super) fn begin(&self, name: &'static str, share: f64) {
        let (start, before) = self.phase.get();
        self.phase.set((start + before, share));
        self.bar.set_message(name);
        self.show(0.0);
    }

    /// The phase is `done` of itself, from 0 to 1.
    pub(super) fn show(&self, done: f64) {
        let (start, share) = self.phase.get();
        self.bar.set_position((STEPS * (start + share * done)) as u64);
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
