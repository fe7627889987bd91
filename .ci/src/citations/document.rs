//! The specifications that comments cite: how each is named there, which versions there are, and
//! which chapters these have.

/// A specification as a comment names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Document {
    /// In full, with its version: `NVMe Base 2.0`.
    pub(super) title: String,
    /// The last of its chapters, where that is known.
    chapters: Option<u32>,
}

/// How a name at the head of a citation reads.
pub(super) struct Named {
    pub(super) document: Document,
    /// Characters that the name takes, version included.
    pub(super) length: usize,
    /// Whether the name is one without any place behind it: `RFC 7919` is, `Base` is a word.
    pub(super) alone: bool,
}

/// A specification with versions.
struct Family {
    /// Names in comments, the longest first.
    names: &'static [&'static str],
    title: &'static str,
    /// What is meant where the name stands without a version, as `nvme-fabric/src/spec/mod.rs`
    /// says; none where all versions say the same.
    usual: Option<&'static str>,
    versions: &'static [&'static str],
    chapters: u32,
    /// Whether a name without version is a word of every day as well.
    is_word: bool,
}

const FAMILIES: &[Family] = &[
    Family {
        names: &["NVMe/TCP Transport"],
        title: "NVMe/TCP Transport",
        usual: None,
        versions: &["1.0", "1.1"],
        chapters: 3,
        is_word: false,
    },
    Family {
        names: &["NVMe Base", "Base"],
        title: "NVMe Base",
        usual: Some("2.0"),
        versions: &["2.0", "2.1"],
        chapters: 9,
        is_word: true,
    },
    Family {
        names: &["NVM"],
        title: "NVM Command Set",
        usual: Some("1.0"),
        versions: &["1.0", "1.1"],
        chapters: 5,
        is_word: true,
    },
];

/// Names that end in a number, which is all the version there is.
const NUMBERED: &[&str] = &["RFC ", "TP"];

/// The document that `text` begins to name; none where it names none.
///
/// # Errors
/// When it names one in a version that is not known.
pub(super) fn named(text: &str) -> Result<Option<Named>, String> {
    for prefix in NUMBERED {
        let Some(rest) = text.strip_prefix(prefix) else { continue };
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        // RFC numbers have as many digits as they need, proposals always four.
        if number.is_empty() || (*prefix == "TP" && number.len() != 4) {
            continue;
        }
        let title = format!("{prefix}{number}");
        let length = title.chars().count();
        return Ok(Some(Named {
            document: Document { title, chapters: None },
            length,
            alone: true,
        }));
    }
    for family in FAMILIES {
        let Some(name) = family.names.iter().find(|name| starts_with_word(text, name)) else {
            continue;
        };
        return family.read(name, &text[name.len()..]).map(Some);
    }
    Ok(None)
}

impl Family {
    fn read(&self, name: &str, rest: &str) -> Result<Named, String> {
        let version = rest.strip_prefix(' ').map(version).unwrap_or_default();
        let known = self.versions.contains(&version);
        if !version.is_empty() && !known {
            return Err(format!(
                "`{name} {version}`: of {} there are {}",
                self.title,
                self.versions.join(" and ")
            ));
        }
        let title = match (known, self.usual) {
            (true, _) => format!("{} {version}", self.title),
            (false, Some(usual)) => format!("{} {usual}", self.title),
            (false, None) => self.title.to_owned(),
        };
        let length = name.chars().count() + if known { 1 + version.len() } else { 0 };
        let document = Document { title, chapters: Some(self.chapters) };
        Ok(Named { document, length, alone: known || !self.is_word })
    }
}

impl Document {
    /// What is wrong with `section` as one of this document's: numbers with dots between them.
    pub(super) fn refusal(&self, section: &str) -> Option<String> {
        let numbers: Vec<Option<u32>> =
            section.split('.').map(|part| part.parse().ok().filter(|n| *n > 0)).collect();
        if numbers.contains(&None) {
            return Some(format!("`§{section}`: numbers from 1 with dots between them"));
        }
        let chapter = numbers[0].unwrap_or_default();
        if let Some(last) = self.chapters.filter(|last| chapter > *last) {
            return Some(format!("`§{section}`: {} has {last} chapters", self.title));
        }
        // Version 2.1 put all commands of chapter 5 into three groups; a citation with a larger
        // number has 2.0's.
        let second = numbers.get(1).copied().flatten();
        if self.title == "NVMe Base 2.1" && chapter == 5 && second.is_some_and(|n| n > 3) {
            return Some(format!("`§{section}`: is of version 2.0, in 2.1 it is in §5.1 to §5.3"));
        }
        None
    }
}

/// `text` begins with `name`, and that word ends there.
fn starts_with_word(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// The version that `text` begins with: digits, a dot, digits. Empty where there is none.
fn version(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let version = text[..end].trim_end_matches('.');
    if version.contains('.') { version } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(text: &str) -> Option<String> {
        named(text).unwrap().map(|named| named.document.title)
    }

    #[test]
    fn each_name_has_its_document() {
        assert_eq!(title("Base §5.2").as_deref(), Some("NVMe Base 2.0"));
        assert_eq!(title("NVMe Base 2.1 §9.6").as_deref(), Some("NVMe Base 2.1"));
        assert_eq!(title("NVM §3.1").as_deref(), Some("NVM Command Set 1.0"));
        assert_eq!(title("NVMe/TCP Transport, \"R2T\"").as_deref(), Some("NVMe/TCP Transport"));
        assert_eq!(title("NVMe/TCP Transport 1.1 §3.1").as_deref(), Some("NVMe/TCP Transport 1.1"));
        assert_eq!(title("RFC 8446 §5.1").as_deref(), Some("RFC 8446"));
        assert_eq!(title("TP8018's").as_deref(), Some("TP8018"));
        for word in ["Base64", "NVMe over TCP", "TP1", "RFC", "Basement §1"] {
            assert_eq!(title(word), None, "{word}");
        }
    }

    #[test]
    fn a_version_that_there_is_not_is_named_with_those_that_there_are() {
        let message = named("NVMe Base 2.7 §5.2").err().unwrap();
        assert_eq!(message, "`NVMe Base 2.7`: of NVMe Base there are 2.0 and 2.1");
        // The end of a sentence is no version.
        assert_eq!(title("NVMe/TCP Transport 1.1.").as_deref(), Some("NVMe/TCP Transport 1.1"));
    }

    #[test]
    fn sections_are_numbers_of_chapters_that_there_are() {
        let of = |text: &str| named(text).unwrap().unwrap().document;
        assert_eq!(of("Base").refusal("5.17.2.1"), None);
        assert_eq!(of("NVMe Base 2.1").refusal("5.1.13.2.1"), None);
        assert_eq!(of("RFC 7919").refusal("17"), None);
        for (document, section) in [
            ("Base", ""),
            ("Base", "5..1"),
            ("Base", ".5"),
            ("Base", "0.1"),
            ("Base", "11.2"),
            ("NVMe/TCP Transport 1.1", "5.1"),
            ("NVM", "6"),
            ("Base 2.1", "5.27.1.8"),
        ] {
            assert!(of(document).refusal(section).is_some(), "{document} §{section}");
        }
    }
}
