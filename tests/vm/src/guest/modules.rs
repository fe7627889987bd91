//! Drivers that are loaded before a case.

use std::process::Command;

use crate::message::Module;

/// Loads modules, and what they use; some may be there already.
///
/// # Errors
/// The first that cannot be loaded, and why.
pub(super) fn load(modules: &[Module]) -> Result<(), String> {
    for words in modules {
        let failed = |why: &str| format!("modprobe {}: {why}", words.join(" "));
        let output = Command::new("modprobe").args(words).env("PATH", super::PATH).output();
        let output = output.map_err(|error| failed(&error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim_end()));
        }
    }
    Ok(())
}
