//! Documents that say which test holds what: every test that one names is there.
//!
//! A name is a path in backquotes whose last part is the test's, `pair::cuts::a_cut_anywhere`, or
//! `…::a_cut_anywhere` where the path was given before; of a long one `pair::cuts::a_cut…` will do.
//! The parts before it are folders, files and modules, as many as tell which is meant, and `tests`,
//! `main` and `mod` may be left out; those of cases in kernels of their own are the names that the
//! cases have. Absent: macros that make tests.

use super::Finding;
use super::source::SourceFile;

/// Documents that are checked.
const DOCUMENTS: &[&str] = &["docs/nvme-conformance.md", "docs/invariants.md"];
/// What precedes the name of a case in a kernel of its own.
const CASE: &str = "Case::new(\"";
/// Parts of a path that say nothing.
const SILENT: &[&str] = &["", "src", "tests", "test", "cases", "main", "mod", "lib"];

/// The tests of the workspace, and the documents that name some.
#[derive(Default)]
pub(super) struct NamedTests {
    /// Each as its parts: crate, folders, files and modules, the name last.
    tests: Vec<Vec<String>>,
    /// Path, line and name.
    named: Vec<(String, usize, String)>,
}

impl NamedTests {
    /// Takes note of what is in a file.
    pub(super) fn read(&mut self, path: &str, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if path.ends_with(".rs") {
            self.read_source(&SourceFile::new(path, text));
        } else {
            self.read_document(path, text);
        }
    }

    /// Takes note of a Rust file's tests.
    fn read_source(&mut self, file: &SourceFile<'_>) {
        let place = parts(file.path.trim_end_matches(".rs"), '/');
        let mut follows_mark = false;
        for (code, text) in file.code.lines().zip(file.text.lines()) {
            let code = code.trim();
            if code.starts_with("#[test]") {
                follows_mark = true;
            } else if let Some(name) = function(code).filter(|_| follows_mark) {
                let mut path = place.clone();
                path.push(name.to_owned());
                self.tests.push(path);
                follows_mark = false;
            }
            let case = text.split_once(CASE).and_then(|(_, rest)| rest.split_once('"'));
            if let Some((name, _)) = case {
                self.tests.push(name.split("::").map(str::to_owned).collect());
            }
        }
    }

    /// Takes note of the tests that a document names.
    fn read_document(&mut self, path: &str, text: &str) {
        if !DOCUMENTS.contains(&path) {
            return;
        }
        for (index, line) in text.lines().enumerate() {
            let quoted = line.split('`').skip(1).step_by(2).filter(|quoted| is_test(quoted));
            let named = quoted.map(|name| (path.to_owned(), index + 1, name.to_owned()));
            self.named.extend(named);
        }
    }

    /// What is named and not there.
    pub(super) fn check(&self, findings: &mut Vec<Finding>) {
        for (path, line, name) in &self.named {
            let wanted = parts(name, ':');
            if !self.tests.iter().any(|test| ends_with(test, &wanted)) {
                let message = format!("`{name}`: there is no such test");
                findings.push(Finding::error(path, *line, message));
            }
        }
    }
}

/// A path of modules to what is called in words, as tests are and little else is.
fn is_test(quoted: &str) -> bool {
    let Some((_, name)) = quoted.rsplit_once("::") else { return false };
    let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:…".contains(c);
    quoted.chars().all(is_lower) && name.matches('_').count() >= 2
}

/// The parts of a path that say something.
fn parts(path: &str, separator: char) -> Vec<String> {
    let parts = path.split(separator).filter(|part| !SILENT.contains(part) && *part != "…");
    parts.map(str::to_owned).collect()
}

fn ends_with(test: &[String], wanted: &[String]) -> bool {
    let (Some((name, place)), Some((wanted_name, wanted_place))) =
        (test.split_last(), wanted.split_last())
    else {
        return false;
    };
    let is_named = match wanted_name.strip_suffix('…') {
        Some(start) => name.starts_with(start),
        None => name == wanted_name,
    };
    is_named && place.ends_with(wanted_place)
}

/// The name of the function that a line begins.
fn function(code: &str) -> Option<&str> {
    let code = code.trim_start_matches("pub(crate) ").trim_start_matches("async ");
    let rest = code.strip_prefix("fn ")?;
    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(document: &str) -> Vec<String> {
        let mut tests = NamedTests::default();
        for (path, text) in [
            (
                "a/src/deep/tests/io.rs",
                "#[test]\n#[should_panic]\nfn it_is_so() {}\nfn no_t_one() {}",
            ),
            ("a/tests/pair/main.rs", "#[test]\nfn a_b_c() {}"),
            ("tests/vm/cases/x.rs", "Case::new(\"kernel::does_what_it_should\", f),"),
        ] {
            tests.read_source(&SourceFile::new(path, text));
        }
        tests.read_document("docs/invariants.md", document);
        let mut findings = Vec::new();
        tests.check(&mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tests_are_found_by_any_end_of_their_path() {
        for name in [
            "deep::tests::io::it_is_so",
            "io::it_is_so",
            "…::it_is_so",
            "io::it_is…",
            "a::pair::a_b_c",
            "kernel::does_what_it_should",
        ] {
            assert_eq!(findings(&format!("by `{name}`, `std::fs` and `Doubt::note`")), [""; 0]);
        }
    }

    #[test]
    fn a_test_that_is_not_there_is_told_with_its_line() {
        for name in [
            "io::it_is_not_so",
            "io::it_was_so…",
            "pair::it_is_so",
            "io::no_t_one",
            "…::does_what_it_should_not",
        ] {
            let expected = format!("docs/invariants.md:2: `{name}`: there is no such test");
            assert_eq!(findings(&format!("x\nby `{name}`")), [expected]);
        }
    }

    #[test]
    fn other_documents_may_say_what_they_like() {
        let mut tests = NamedTests::default();
        tests.read_document("README.md", "`a::b_c_d`");
        assert!(tests.named.is_empty());
    }
}
