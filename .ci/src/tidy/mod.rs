//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy knows, checked on the
//! source itself. Each finding says what to do instead.
//!
//! ```text
//!   files ──▶ source (code without comments and strings, test lines known)
//!                 ├──▶ shape         sizes, first lines, words, binaries
//!                 ├──▶ architecture  who may name what
//!                 ├──▶ citations     of specifications (`cargo xtask citations`)
//!                 └──▶ named_tests   tests that documents name
//! ```
//! What is absent: parsing. The rules look at words of the code, which is enough for all of them
//! and takes milliseconds. Function length, unwrap, printing and the like are clippy's.

mod architecture;
mod named_tests;
mod shape;
mod source;

use std::path::{Path, PathBuf};

use crate::{StepResult, citations, report};
use named_tests::NamedTests;
use source::SourceFile;

/// Folders that are not ours to judge: build output, the repository itself, what fuzzing leaves.
const SKIPPED: &[&str] = &[".git", "target", "fuzz/corpus", "fuzz/artifacts", "fuzz/target"];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    severity: Severity,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// Listed, and stops nothing.
    Warning,
    /// Fails the run.
    Error,
}

impl Finding {
    fn error(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, severity: Severity::Error, message: message.into() }
    }

    fn warning(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, line, message) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Checks every file of the workspace.
///
/// # Errors
/// When a rule is broken, or a file cannot be read.
pub(crate) fn run(root: &Path) -> StepResult {
    report::step("tidy", "cargo xtask tidy");
    let mut paths = Vec::new();
    collect(root, root, &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    let mut named_tests = NamedTests::default();
    for path in &paths {
        let bytes = std::fs::read(root.join(path))
            .map_err(|error| format!("tidy: {}: {error}", path.display()))?;
        check(&path.to_string_lossy(), &bytes, &mut findings);
        named_tests.read(&path.to_string_lossy(), &bytes);
    }
    named_tests.check(&mut findings);
    let mut errors = 0;
    for finding in &findings {
        match finding.severity {
            Severity::Warning => report::note(&finding.to_string()),
            Severity::Error => {
                errors += 1;
                report::failure(&finding.to_string());
            }
        }
    }
    if errors > 0 {
        return Err(format!("tidy: {errors} broken rules in {} files", paths.len()));
    }
    report::note(&format!("{} files are tidy", paths.len()));
    Ok(())
}

/// Applies every rule to one file.
fn check(path: &str, bytes: &[u8], findings: &mut Vec<Finding>) {
    let Some(text) = shape::text_of(path, bytes, findings) else { return };
    shape::check_text(path, text, findings);
    if path.ends_with(".rs") {
        let file = SourceFile::new(path, text);
        shape::check_source(&file, findings);
        architecture::check_source(&file, findings);
        for malformed in citations::check(path, text) {
            findings.push(Finding::error(path, malformed.line, malformed.message));
        }
    } else if path.ends_with("Cargo.toml") {
        architecture::check_manifest(path, text, findings);
    }
}

/// The text files below `folder`, which ends in `/`, by their paths from `root`, in order.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn files_below(
    root: &Path,
    folder: &str,
) -> Result<impl Iterator<Item = (String, String)>, String> {
    let mut paths = Vec::new();
    collect(root, &root.join(folder), &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes = std::fs::read(root.join(&path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push((path.to_string_lossy().into_owned(), text));
        }
    }
    Ok(files.into_iter())
}

/// Appends the files below `folder`, as paths from `root`.
fn collect(root: &Path, folder: &Path, paths: &mut Vec<PathBuf>) -> StepResult {
    let failed = |error| format!("tidy: {}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if SKIPPED.iter().any(|skipped| relative == Path::new(skipped)) {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(root, &path, paths)?;
        } else if kind.is_file() {
            paths.push(relative);
        }
    }
    Ok(())
}

/// The messages of what `check` finds in `text` as `path`, for the rules' tests.
#[cfg(test)]
fn messages(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    check(path, text.as_bytes(), &mut findings);
    findings.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_walked_without_its_build_output() {
        let root = crate::workspace_root();
        let mut paths = Vec::new();
        collect(&root, &root, &mut paths).unwrap();
        assert!(paths.contains(&PathBuf::from(".ci/src/tidy/mod.rs")));
        assert!(!paths.iter().any(|path| path.starts_with("target") || path.starts_with(".git")));
    }

    #[test]
    fn a_finding_reads_like_a_compiler_message() {
        assert_eq!(Finding::error("a/b.rs", 3, "no").to_string(), "a/b.rs:3: no");
        assert_eq!(Finding::warning("a/b.rs", 0, "no").to_string(), "a/b.rs: no");
    }
}
