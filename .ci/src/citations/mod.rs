//! `cargo xtask citations`: which places of which specifications the comments of `nvme-fabric`
//! cite, counted by document and section.
//!
//! ```text
//!   files ──▶ comment (citations) ──▶ table, or --json
//!                 │ document (names, versions, chapters)
//!                 └──▶ malformed: also findings of `cargo xtask tidy`
//! ```
//! What is absent: whether the place says what the comment says. The texts are not ours to keep.

mod comment;
mod document;

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::{StepResult, report, tidy};
pub(crate) use comment::Malformed;

/// Folder whose comments are counted.
const FOLDER: &str = "nvme-fabric/";
/// Folder of which every file with facts of a specification says where they are from.
const FACTS: &str = "nvme-fabric/src/spec/";

/// What may be said after `cargo xtask citations`.
#[derive(Args)]
pub(crate) struct CitationsArguments {
    /// On standard output, with the file and line of each citation.
    #[arg(long)]
    json: bool,
}

/// For each document, for each place in it, where it is cited: `file:line`.
type Count = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Counts, prints, and fails on what is malformed.
///
/// # Errors
/// When a citation cannot be right, or a file cannot be read.
pub(crate) fn run(root: &Path, arguments: &CitationsArguments) -> StepResult {
    let mut count = Count::new();
    let mut broken = 0;
    for (path, text) in tidy::files_below(root, FOLDER)? {
        if !path.ends_with(".rs") {
            continue;
        }
        let (citations, _) = comment::citations(&text);
        for citation in citations {
            let places = count.entry(citation.document).or_default();
            places.entry(citation.place).or_default().push(format!("{path}:{}", citation.line));
        }
        for malformed in check(&path, &text) {
            broken += 1;
            report::failure(&format!("{path}:{}: {}", malformed.line, malformed.message));
        }
    }
    if arguments.json {
        report::standard_output(&to_json(&count).to_string());
    } else {
        report::table(&to_table(&count));
    }
    if broken > 0 { Err(format!("citations: {broken} cannot be right")) } else { Ok(()) }
}

/// What is wrong with the citations of the Rust file at `path`.
pub(crate) fn check(path: &str, text: &str) -> Vec<Malformed> {
    if !path.starts_with(FOLDER) {
        return Vec::new();
    }
    let (citations, mut malformed) = comment::citations(text);
    let has_facts = path.starts_with(FACTS) && !path.ends_with("tests.rs");
    if has_facts && citations.is_empty() && malformed.is_empty() {
        let message = "facts without a source: cite one, `Base §5.2`".to_owned();
        malformed.push(Malformed { line: 1, message });
    }
    malformed
}

/// One line for each document, and one for each place below it.
fn to_table(count: &Count) -> Vec<String> {
    let mut lines = Vec::new();
    let mut total = 0;
    for (document, places) in count {
        let sum: usize = places.values().map(Vec::len).sum();
        total += sum;
        lines.push(format!("{sum:>5}  {document}"));
        let mut places: Vec<_> = places.iter().collect();
        places.sort_by_key(|(place, _)| order(place));
        for (place, cited) in places {
            let place = if place.is_empty() { "(no place)" } else { place };
            lines.push(format!("{:>5}      {place}", cited.len()));
        }
    }
    lines.push(format!("{total:>5}  in all"));
    lines
}

/// Sections by their numbers, others behind them by name.
fn order(place: &str) -> (bool, Vec<u32>, &str) {
    match place.strip_prefix('§') {
        Some(number) => (false, number.split('.').flat_map(str::parse).collect(), ""),
        None => (true, Vec::new(), place),
    }
}

fn to_json(count: &Count) -> Value {
    let mut documents = serde_json::Map::new();
    for (document, places) in count {
        let places: serde_json::Map<String, Value> =
            places.iter().map(|(place, cited)| (place.clone(), json!(cited))).collect();
        documents.insert(document.clone(), Value::Object(places));
    }
    Value::Object(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_by_document_and_orders_sections_by_number() {
        let mut count = Count::new();
        let places = count.entry("NVMe Base 2.0".to_owned()).or_default();
        for (place, times) in [("§5.17", 2), ("§5.2", 1), ("", 1), ("§5", 1)] {
            places.insert(place.to_owned(), vec!["a.rs:1".to_owned(); times]);
        }
        let lines: Vec<_> = to_table(&count).iter().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "5  NVMe Base 2.0",
                "1      §5",
                "1      §5.2",
                "2      §5.17",
                "1      (no place)",
                "5  in all",
            ]
        );
        let json = to_json(&count);
        assert_eq!(json["NVMe Base 2.0"]["§5.17"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_file_of_facts_has_a_source_and_other_folders_are_left_alone() {
        assert_eq!(check("nvme-fabric/src/spec/a.rs", "//! A.\n").len(), 1);
        assert_eq!(check("nvme-fabric/src/spec/a.rs", "//! A. Base §5.\n"), []);
        assert_eq!(check("nvme-fabric/src/spec/a/tests.rs", "//! A.\n"), []);
        assert_eq!(check("nvme-fabric/src/host/a.rs", "//! A.\n"), []);
        assert_eq!(check("nvme-fabric/src/host/a.rs", "//! A. Base §99.\n").len(), 1);
        assert_eq!(check("cache-engine/src/a.rs", "//! RFC 3986 (§3.3).\n"), []);
    }
}
