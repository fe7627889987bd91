//! Rules about a file by itself: its size, its first line, its words, its kind.

use super::Finding;
use super::source::SourceFile;

/// Product lines of a file from which on it is listed.
const PRODUCT_LINES_SOFT_MAX: usize = 500;
/// Lines of a file, tests included, that fail the run.
const LINES_MAX: usize = 800;
/// Characters of a line.
const LINE_LENGTH_MAX: usize = 100;
/// Kinds of file whose lines are measured; prose and tables are not.
const MEASURED: &[&str] = &[".rs", ".toml", ".sh", "/run"];

/// Words that announce unfinished work, anywhere in a file. Written in two parts, for this file
/// is checked too.
const UNFINISHED: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];
/// Macros that stand for work not done.
const STAND_INS: &[&str] = &["todo!", "unimplemented!"];
/// Names that say nothing of what is inside.
const BAGS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// The file as text; a finding and nothing for one that is not.
pub(super) fn text_of<'a>(
    path: &str,
    bytes: &'a [u8],
    findings: &mut Vec<Finding>,
) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    if text.is_none() {
        findings.push(Finding::error(
            path,
            0,
            "a binary file: write it as hex text, or make it where it is used",
        ));
    }
    text
}

/// Rules for any text file.
pub(super) fn check_text(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let measured = MEASURED.iter().any(|ending| path.ends_with(ending));
    for (index, line) in text.lines().enumerate() {
        let length = line.chars().count();
        if measured && length > LINE_LENGTH_MAX && !line.contains("://") {
            let message = format!("{length} characters: break the line at {LINE_LENGTH_MAX}");
            findings.push(Finding::error(path, index + 1, message));
        }
        for word in UNFINISHED {
            if contains_word(line, word) {
                let message = format!("`{word}`: finish it, or write an issue and leave it out");
                findings.push(Finding::error(path, index + 1, message));
            }
        }
    }
}

/// Rules for Rust files.
pub(super) fn check_source(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    let path = file.path;
    if !file.text.starts_with("//!") {
        findings.push(Finding::error(
            path,
            1,
            "open the file with `//!`: what it is, and what it leaves out",
        ));
    }
    check_size(file, findings);
    for (index, line) in file.code.lines().enumerate() {
        for stand_in in STAND_INS {
            if line.contains(stand_in) {
                let message = format!("`{stand_in}`: write the code, or return a real error");
                findings.push(Finding::error(path, index + 1, message));
            }
        }
        if line.contains("#[ignore") {
            let message = "an ignored test: make it pass, or delete it";
            findings.push(Finding::error(path, index + 1, message));
        }
    }
    check_module_names(file, findings);
}

fn check_size(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    let (all, product) = (file.text.lines().count(), file.product_lines());
    if all > LINES_MAX {
        let message =
            format!("{all} lines, {LINES_MAX} at most: split it by phase, or move its tests out");
        findings.push(Finding::error(file.path, 0, message));
    } else if product > PRODUCT_LINES_SOFT_MAX {
        let message = format!(
            "{product} lines without tests, {PRODUCT_LINES_SOFT_MAX} is the aim: split it soon"
        );
        findings.push(Finding::warning(file.path, 0, message));
    }
}

fn check_module_names(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    let mut parts = file.path.trim_end_matches(".rs").split('/');
    if let Some(bag) = parts.find(|part| BAGS.contains(part)) {
        findings.push(Finding::error(file.path, 0, bag_message(bag)));
    }
    let mut previous = "";
    for (line, word) in file.words() {
        if previous == "mod" && BAGS.contains(&word) {
            findings.push(Finding::error(file.path, line, bag_message(word)));
        }
        previous = word;
    }
}

fn bag_message(name: &str) -> String {
    format!("`{name}` names no idea: name the module after what its items are about")
}

fn contains_word(line: &str, word: &str) -> bool {
    line.split(|character: char| !character.is_ascii_alphanumeric()).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, check, messages};

    fn only(path: &str, text: &str) -> String {
        let messages = messages(path, text);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.into_iter().next().unwrap()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let text = "//! Says what it is. It leaves out `utils` and the word todo.\n\
                    mod commonplace;\nfn a() { b(\"todo!()\") } // unimplemented! in words\n";
        assert_eq!(messages("block-io/src/a.rs", text), [""; 0]);
        assert_eq!(messages("docs/a.md", &"long ".repeat(50)), [""; 0]);
    }

    #[test]
    fn every_rust_file_says_what_it_is() {
        assert!(only("a/src/b.rs", "fn a() {}\n").contains("open the file with `//!`"));
        assert!(only("a/src/b.rs", "\n//! Late.\n").contains("open the file with `//!`"));
    }

    #[test]
    fn long_lines_are_found_except_for_addresses() {
        let line = "x".repeat(101);
        assert!(only("a.rs", &format!("//! A.\n// {line}\n")).starts_with("a.rs:2: 104 char"));
        assert_eq!(messages("a.rs", &format!("//! A.\n// https://{line}\n")), [""; 0]);
        assert_eq!(messages("a.rs", &format!("//! A.\n{}\n", "é".repeat(100))), [""; 0]);
        assert!(only("Cargo.toml", &line).contains("break the line"));
    }

    #[test]
    fn long_files_are_listed_then_refused() {
        let product = |lines| format!("//! A.\n{}", "fn a() {}\n".repeat(lines));
        assert_eq!(messages("a.rs", &product(499)), [""; 0]);
        assert!(only("a.rs", &product(500)).contains("501 lines without tests"));
        let tests =
            "#[cfg(test)]\nmod tests {\n}\n".replace("{\n", &format!("{{\n{}", "\n".repeat(300)));
        assert_eq!(messages("a.rs", &(product(400) + &tests)), [""; 0]);
        assert!(only("a.rs", &(product(500) + &tests)).contains("804 lines, 800 at most"));
        assert!(only("a/tests/b.rs", &product(800)).contains("801 lines"));
        let mut findings = Vec::new();
        check("a.rs", product(500).as_bytes(), &mut findings);
        assert!(matches!(
            &findings[..],
            [Finding { severity: super::super::Severity::Warning, .. }]
        ));
    }

    #[test]
    fn unfinished_work_is_refused() {
        let word = super::UNFINISHED[0];
        assert!(only("a.rs", &format!("//! A.\n// {word}: later\n")).contains("finish it"));
        assert!(only("docs/a.md", &format!("{word}\n")).contains("finish it"));
        assert!(only("a.rs", "//! A.\nfn a() { todo!() }\n").contains("write the code"));
        assert!(only("a.rs", "//! A.\nfn a() { unimplemented!(\"\") }\n").contains("real error"));
        assert!(only("a.rs", "//! A.\n#[ignore = \"slow\"]\nfn a() {}\n").contains("ignored test"));
    }

    #[test]
    fn bags_are_refused() {
        assert!(only("a/src/utils.rs", "//! A.\n").contains("`utils` names no idea"));
        assert!(only("a/src/common/b.rs", "//! A.\n").contains("`common` names no idea"));
        assert!(only("a/src/b.rs", "//! A.\npub(crate) mod helpers;\n").contains("`helpers`"));
    }

    #[test]
    fn binary_files_are_refused() {
        let mut findings = Vec::new();
        check("a.bin", &[1, 0, 2], &mut findings);
        check("b.bin", &[0xff, 0xfe], &mut findings);
        assert_eq!(findings.len(), 2);
    }
}
