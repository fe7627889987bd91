//! How far the replay is, for people: a bar on standard error once it takes longer than two
//! seconds, nothing where that is no terminal.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of a bar.
const STEPS: f64 = 1000.0;

/// What nobody needs a bar for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bar for one part after another.
pub(super) struct Progress {
    bar: ProgressBar,
    start: Instant,
    is_shown: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let hidden = ProgressDrawTarget::hidden();
        let bar = ProgressBar::with_draw_target(Some(STEPS as u64), hidden);
        let style = ProgressStyle::with_template("{msg:36} {wide_bar:.cyan/dim} {percent:>3} %");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
        Self { bar, start: Instant::now(), is_shown: Cell::new(false) }
    }

    /// The next part begins.
    pub(super) fn begin(&self, name: String) {
        self.bar.set_message(name);
        self.show(0.0);
    }

    /// The part is `done` of itself, from 0 to 1.
    pub(super) fn show(&self, done: f64) {
        if !self.is_shown.get() && self.start.elapsed() > PATIENCE {
            self.is_shown.set(true);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position((STEPS * done) as u64);
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
