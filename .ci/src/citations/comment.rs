//! The citations in a file's comments.
//!
//! ```text
//!   Base §5.2                     NVMe Base 2.1 §3.9, §9.6       RFC 7919 Appendix A.1
//!   NVM §4.1.5.1 (LBADS)          NVMe/TCP Transport, "R2T"      Base §8.13.5 "AUTH_Negotiate"
//! ```
//! A citation may go on in the comment's next line. What is absent: strings, and comments behind
//! code without a space before them.

use super::document::{Document, named};

/// Bytes between the beginning of a document's name and its first place.
const PLACE_DISTANCE_MAX: usize = 30;

/// One place of a specification, cited on one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Citation {
    /// From 1.
    pub(super) line: usize,
    pub(super) document: String,
    /// `§5.2`, `"R2T"`, `Appendix A.1`; empty where the document is named without a place.
    pub(super) place: String,
}

/// A citation that cannot be right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All citations of a Rust file, in order.
pub(super) fn citations(text: &str) -> (Vec<Citation>, Vec<Malformed>) {
    let mut reader = Reader::default();
    let mut comment = Comment::default();
    for (index, line) in text.lines().enumerate() {
        match comment_of(line) {
            Some(words) => comment.push(index + 1, words),
            None => reader.read(&std::mem::take(&mut comment)),
        }
    }
    reader.read(&comment);
    (reader.citations, reader.malformed)
}

/// What a line says as a comment, without the slashes.
fn comment_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let start = if line.starts_with("//") { 0 } else { line.find(" // ")? + 1 };
    Some(line[start..].trim_start_matches('/').trim_start_matches(['!', '=']).trim())
}

/// Comment lines one below the other, as one text.
#[derive(Default)]
struct Comment {
    text: String,
    /// For each line where it begins in `text`, and its number.
    lines: Vec<(usize, usize)>,
}

impl Comment {
    fn push(&mut self, line: usize, words: &str) {
        self.lines.push((self.text.len(), line));
        self.text.push_str(words);
        self.text.push(' ');
    }

    fn line_at(&self, at: usize) -> usize {
        let index = self.lines.partition_point(|(start, _)| *start <= at);
        self.lines[index - 1].1
    }
}

#[derive(Default)]
struct Reader {
    citations: Vec<Citation>,
    malformed: Vec<Malformed>,
}

impl Reader {
    fn read(&mut self, comment: &Comment) {
        let text = comment.text.as_str();
        let mut at = 0;
        let mut after_word = false;
        while let Some(here) = text[at..].chars().next() {
            let step = if after_word { None } else { self.document(comment, at) };
            at = step.unwrap_or_else(|| {
                self.stray(comment, at, here, after_word);
                at + here.len_utf8()
            });
            after_word = text[..at].ends_with(|c: char| c.is_alphanumeric());
        }
    }

    /// Reads a document's name with its places; where it ends, if one begins at `at`.
    fn document(&mut self, comment: &Comment, at: usize) -> Option<usize> {
        let text = comment.text.as_str();
        let named = match named(&text[at..]) {
            Ok(named) => named?,
            Err(message) => {
                self.refuse(comment, at, message);
                // Its first place is told of already.
                let sign = text[at..].find('§').filter(|distance| *distance < PLACE_DISTANCE_MAX);
                return sign.map(|distance| at + distance + '§'.len_utf8());
            }
        };
        let name_end = at + bytes(&text[at..], named.length);
        let mut end = name_end;
        while let Some((start, place)) = next_place(text, end) {
            end = self.place(comment, &named.document, start, place);
        }
        if end == name_end {
            if !named.alone {
                return None;
            }
            self.cite(comment, at, &named.document, String::new());
        }
        Some(end)
    }

    /// Reads one place; where it ends.
    fn place(&mut self, comment: &Comment, of: &Document, at: usize, kind: Place) -> usize {
        let text = comment.text.as_str();
        let rest = &text[at..];
        match kind {
            Place::Section => {
                let number = &rest['§'.len_utf8()..];
                let length = number.find(|c: char| !is_of_number(c)).unwrap_or(number.len());
                let number = &number[..length];
                // A sentence may end behind it.
                let number = number.strip_suffix('.').unwrap_or(number);
                let end = at + '§'.len_utf8() + number.len();
                match of.refusal(number) {
                    Some(message) => self.refuse(comment, at, message),
                    None => self.cite(comment, at, of, format!("§{number}")),
                }
                // What the section, or the part of it that is meant, is called.
                let behind = behind_title(text, end);
                let goes_on = next_place(text, behind).is_some();
                if text[end..].starts_with(" \"") || goes_on { behind } else { end }
            }
            Place::Title => {
                let length = rest[1..].find('"').map_or(rest.len(), |length| length + 2);
                self.cite(comment, at, of, rest[..length].to_owned());
                at + length
            }
            Place::Appendix => {
                let word = "Appendix ".len();
                let length = rest[word..].find(|c: char| !c.is_alphanumeric() && c != '.');
                let name = &rest[..word + length.unwrap_or(rest.len() - word)];
                let name = name.trim_end_matches('.');
                self.cite(comment, at, of, name.to_owned());
                at + name.len()
            }
        }
    }

    /// What looks like a citation and belongs to no document.
    fn stray(&mut self, comment: &Comment, at: usize, here: char, after_word: bool) {
        let rest = &comment.text[at..];
        let in_words = ["section ", "Section "].iter().any(|word| {
            let number = rest.strip_prefix(word);
            number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        });
        if here == '§' {
            let message = "a section of no document: write `Base §5.2`, `RFC 8446 §5.1`, …";
            self.refuse(comment, at, message.to_owned());
        } else if in_words && !after_word {
            let message = "a section in words: write `Base §5.2`, `RFC 8446 §5.1`, …";
            self.refuse(comment, at, message.to_owned());
        }
    }

    fn cite(&mut self, comment: &Comment, at: usize, document: &Document, place: String) {
        let document = document.title.clone();
        self.citations.push(Citation { line: comment.line_at(at), document, place });
    }

    fn refuse(&mut self, comment: &Comment, at: usize, message: String) {
        self.malformed.push(Malformed { line: comment.line_at(at), message });
    }
}

#[derive(Clone, Copy)]
enum Place {
    Section,
    Title,
    Appendix,
}

/// Where the next place of a list begins, if `text` has one from `at` on.
fn next_place(text: &str, at: usize) -> Option<(usize, Place)> {
    let rest = &text[at..];
    let separator = [", ", " and ", " "].iter().find(|separator| rest.starts_with(**separator))?;
    let start = at + separator.len();
    let rest = &text[start..];
    if rest.starts_with('§') {
        Some((start, Place::Section))
    } else if rest.starts_with("Appendix ") {
        Some((start, Place::Appendix))
    } else if rest.starts_with('"') && *separator != " and " {
        Some((start, Place::Title))
    } else {
        None
    }
}

/// Behind a title, in quotes or brackets, that stands at `at`; else `at`.
fn behind_title(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let close = if rest.starts_with(" \"") {
        '"'
    } else if rest.starts_with(" (") {
        ')'
    } else {
        return at;
    };
    rest[2..].find(close).map_or(at, |length| at + 2 + length + close.len_utf8())
}

/// What may stand in a number, right or wrong: letters are taken along to be refused.
const fn is_of_number(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '.'
}

/// The bytes of the first so many characters.
fn bytes(text: &str, characters: usize) -> usize {
    text.chars().take(characters).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String)> {
        let (citations, malformed) = citations(text);
        assert_eq!(malformed, [], "{text}");
        let read = |citation: Citation| {
            let text = format!("{} {}", citation.document, citation.place);
            (citation.line, text.trim_end().to_owned())
        };
        citations.into_iter().map(read).collect()
    }

    fn one(line: usize, text: &str) -> (usize, String) {
        (line, text.to_owned())
    }

    #[test]
    fn every_form_in_use_is_read() {
        assert_eq!(read("/// NSSR. Base §3.1.3."), [one(1, "NVMe Base 2.0 §3.1.3")]);
        assert_eq!(
            read("    // Only Register. Base §7.2, §7.4.\n"),
            [one(1, "NVMe Base 2.0 §7.2"), one(1, "NVMe Base 2.0 §7.4")]
        );
        assert_eq!(
            read("//! path. Base §8.1 (ANA states), §3.3.3.2.1 (path related), NVM §3.1 (Compare)"),
            [
                one(1, "NVMe Base 2.0 §8.1"),
                one(1, "NVMe Base 2.0 §3.3.3.2.1"),
                one(1, "NVM Command Set 1.0 §3.1"),
            ]
        );
        assert_eq!(
            read("let a = 1; // NVMe/TCP Transport, \"R2T\", asks for it"),
            [one(1, "NVMe/TCP Transport \"R2T\"")]
        );
        assert_eq!(
            read("// RFC 7919 Appendix A.1. RFC 5869 and RFC 8446 §7.1, §5"),
            [
                one(1, "RFC 7919 Appendix A.1"),
                one(1, "RFC 5869"),
                one(1, "RFC 8446 §7.1"),
                one(1, "RFC 8446 §5"),
            ]
        );
        assert_eq!(
            read("/// Base §8.13.5 \"AUTH_Failure1 Message\", \"AUTH_Failure2 Message\"."),
            [one(1, "NVMe Base 2.0 §8.13.5"), one(1, "NVMe Base 2.0 \"AUTH_Failure2 Message\""),]
        );
    }

    #[test]
    fn a_citation_goes_on_in_the_next_line_and_not_beyond_its_comment() {
        assert_eq!(
            read("/// A mask. Base\n/// §5.27.1.28.\nlet a = 1;\n"),
            [one(2, "NVMe Base 2.0 §5.27.1.28")]
        );
        let (found, malformed) = citations("// Base\nlet a = 1;\n// §5.2\n");
        assert_eq!((found.len(), malformed.len()), (0, 1));
    }

    #[test]
    fn words_strings_and_code_are_no_citations() {
        for text in [
            "// Base64 of the NVM command set, in sections 4 bytes long, and the base.",
            "let a = \"Base §99\";",
            "let uri = \"nvme+tcp://a\"; let b = \"§\";",
        ] {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_at_its_line() {
        for text in [
            "// as in §5.2",
            "// Base §",
            "// Base §5.x",
            "// Base §5..2",
            "// Base §5.2a",
            "// Base §12.1",
            "// Base 2.7 §5.1",
            "// NVMe Base 2.1 §5.27.1.8",
            "// Base, section 5.2",
            "// RFC 8446 §5.1; §",
        ] {
            let (_, malformed) = citations(&format!("let a = 1;\n{text}\n"));
            assert_eq!(malformed.len(), 1, "{text}: {malformed:?}");
            assert_eq!(malformed[0].line, 2, "{text}");
        }
    }
}
