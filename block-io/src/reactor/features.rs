//! What the kernel gave a reactor, by name, and why it did not give the rest.

use std::fmt;

/// One thing asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the kernel's headers, without the prefix.
    pub name: &'static str,
    /// Whether the reactor has it.
    pub obtained: bool,
    /// Why not, or a remark on how; empty when there is nothing to say.
    pub reason: String,
}

/// Everything that was asked for, in the order of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(Vec<Feature>);

impl Features {
    /// Every feature that was asked for.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.0.iter()
    }

    /// Whether the feature of this name was asked for and obtained.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|feature| feature.name == name && feature.obtained)
    }

    pub(super) fn obtained(&mut self, name: &'static str) {
        self.record(name, true, String::new());
    }

    pub(super) fn missing(&mut self, name: &'static str, reason: impl Into<String>) {
        self.record(name, false, reason.into());
    }

    /// Notes the answer to a yes-or-no question.
    pub(super) fn answer(&mut self, name: &'static str, obtained: bool) {
        let reason = if obtained { "" } else { "not in this kernel" };
        self.record(name, obtained, reason.to_string());
    }

    /// Notes one feature, instead of what was noted of it before.
    fn record(&mut self, name: &'static str, obtained: bool, reason: String) {
        self.0.retain(|feature| feature.name != name);
        self.0.push(Feature { name, obtained, reason });
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, feature) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            let sign = if feature.obtained { '+' } else { '-' };
            write!(f, "{comma}{sign}{}", feature.name)?;
            if !feature.reason.is_empty() {
                write!(f, " ({})", feature.reason)?;
            }
        }
        Ok(())
    }
}
