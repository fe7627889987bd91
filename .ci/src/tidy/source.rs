//! A Rust file as the rules see it: its code without comments and literals, which of its lines
//! are tests, and the words and paths it names.

/// One Rust file.
pub(super) struct SourceFile<'a> {
    /// From the workspace's root, with `/`.
    pub(super) path: &'a str,
    /// As it is.
    pub(super) text: &'a str,
    /// The text with comments and literals blanked out; every line at its place.
    pub(super) code: String,
    /// For each line from 0, whether it is in a test module.
    test_lines: Vec<bool>,
}

impl<'a> SourceFile<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Self {
        let code = blank_comments_and_literals(text);
        let mut test_lines = lines_of_test_modules(&code);
        if is_test_file(path) {
            test_lines.fill(true);
        }
        Self { path, text, code, test_lines }
    }

    /// Lines that are not in test modules.
    pub(super) fn product_lines(&self) -> usize {
        self.test_lines.iter().filter(|is_test| !**is_test).count()
    }

    /// Whether `line`, from 1, is in a test module.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// The identifiers of the code, each with its line from 1.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(index, line)| {
            line.split(|character: char| !is_word(character))
                .filter(|word| !word.is_empty())
                .map(move |word| (index + 1, word))
        })
    }

    /// The paths that the code names, `use` groups written out, each with its line from 1:
    /// `use std::{fs, net::TcpStream}` names `std::fs` and `std::net::TcpStream`.
    pub(super) fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let mut scanner = PathScanner { code: self.code.as_bytes(), at: 0, line: 1 };
        while scanner.skip_to_word() {
            scanner.path(String::new(), &mut paths);
        }
        paths
    }
}

/// Whether a file holds nothing but tests.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Walks code and writes down paths, groups included.
struct PathScanner<'a> {
    code: &'a [u8],
    at: usize,
    line: usize,
}

impl PathScanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.code.get(self.at).copied()
    }

    fn step(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.step();
        }
    }

    /// Moves to the next identifier; false at the end.
    fn skip_to_word(&mut self) -> bool {
        while let Some(byte) = self.peek() {
            if is_word(byte as char) {
                return true;
            }
            self.step();
        }
        false
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|byte| is_word(byte as char)) {
            self.step();
        }
        String::from_utf8_lossy(&self.code[start..self.at]).into_owned()
    }

    fn separator(&mut self) -> bool {
        let (at, line) = (self.at, self.line);
        self.skip_space();
        if self.code[self.at.min(self.code.len())..].starts_with(b"::") {
            self.at += 2;
            self.skip_space();
            return true;
        }
        (self.at, self.line) = (at, line);
        false
    }

    /// Reads one path from an identifier on; `prefix` is what stands before a group's brace.
    fn path(&mut self, prefix: String, paths: &mut Vec<(usize, String)>) {
        let line = self.line;
        let mut path = prefix;
        path.push_str(&self.word());
        while self.separator() {
            match self.peek() {
                Some(b'{') => return self.group(&path, paths),
                Some(byte) if is_word(byte as char) => {
                    path.push_str("::");
                    path.push_str(&self.word());
                }
                _ => break,
            }
        }
        paths.push((line, path));
    }

    fn group(&mut self, path: &str, paths: &mut Vec<(usize, String)>) {
        self.step();
        loop {
            self.skip_space();
            match self.peek() {
                None => return,
                Some(b'}') => return self.step(),
                Some(byte) if is_word(byte as char) => self.path(format!("{path}::"), paths),
                Some(_) => self.step(),
            }
        }
    }
}

/// For each line of `code`, whether it belongs to an item under `#[cfg(test)]`.
fn lines_of_test_modules(code: &str) -> Vec<bool> {
    const MARK: &str = "#[cfg(test)]";
    let mut lines = vec![false; code.lines().count()];
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let end = end_of_item(code.as_bytes(), start + MARK.len());
        let first = code[..start].matches('\n').count();
        let last = code[..end].matches('\n').count();
        let last = last.min(lines.len().saturating_sub(1));
        lines[first..=last].fill(true);
        from = end;
    }
    lines
}

/// Where the item from `at` ends: behind its braces, or at the semicolon of one without.
fn end_of_item(code: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    for (index, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            b';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

/// What the characters being read are part of.
enum Part {
    Code,
    LineComment,
    /// With its depth: block comments nest.
    BlockComment(usize),
    Text,
    /// With its number of `#`.
    RawText(usize),
}

/// The text with every character of comments and of string and character literals made a space,
/// newlines kept.
fn blank_comments_and_literals(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut part = Part::Code;
    let mut at = 0;
    while at < characters.len() {
        let (taken, keep, next) = step(&characters, at, part);
        for character in &characters[at..at + taken] {
            let blank = !keep && *character != '\n';
            code.push(if blank || !character.is_ascii() { ' ' } else { *character });
        }
        part = next;
        at += taken;
    }
    code
}

/// How many characters from `at` go together, whether they are code, and what comes after them.
fn step(characters: &[char], at: usize, part: Part) -> (usize, bool, Part) {
    let here = characters[at];
    let next = characters.get(at + 1).copied();
    match part {
        Part::Code => step_code(characters, at),
        Part::LineComment if here == '\n' => (1, false, Part::Code),
        Part::LineComment => (1, false, Part::LineComment),
        Part::BlockComment(depth) => match (here, next) {
            ('*', Some('/')) if depth == 1 => (2, false, Part::Code),
            ('*', Some('/')) => (2, false, Part::BlockComment(depth - 1)),
            ('/', Some('*')) => (2, false, Part::BlockComment(depth + 1)),
            _ => (1, false, Part::BlockComment(depth)),
        },
        Part::Text => match here {
            '\\' if next.is_some() => (2, false, Part::Text),
            '"' => (1, false, Part::Code),
            _ => (1, false, Part::Text),
        },
        Part::RawText(hashes) => {
            let closes = here == '"'
                && characters[at + 1..].iter().take(hashes).filter(|c| **c == '#').count()
                    == hashes;
            if closes { (1 + hashes, false, Part::Code) } else { (1, false, Part::RawText(hashes)) }
        }
    }
}

fn step_code(characters: &[char], at: usize) -> (usize, bool, Part) {
    let rest = &characters[at..];
    let after_word = at > 0 && is_word(characters[at - 1]);
    match (rest[0], rest.get(1)) {
        ('/', Some('/')) => (2, false, Part::LineComment),
        ('/', Some('*')) => (2, false, Part::BlockComment(1)),
        ('"', _) => (1, false, Part::Text),
        ('r', Some('"' | '#')) if !after_word => raw_text(rest, 1),
        ('b' | 'c', Some('r')) if !after_word => raw_text(rest, 2),
        ('\'', _) => (character_literal(rest), false, Part::Code),
        _ => (1, true, Part::Code),
    }
}

/// The start of a raw string whose `#`s begin at `hashes_at`, or else an ordinary character.
fn raw_text(rest: &[char], hashes_at: usize) -> (usize, bool, Part) {
    let hashes = rest[hashes_at.min(rest.len())..].iter().take_while(|c| **c == '#').count();
    if rest.get(hashes_at + hashes) == Some(&'"') {
        (hashes_at + hashes + 1, false, Part::RawText(hashes))
    } else {
        (1, true, Part::Code)
    }
}

/// The length of a character literal, or 1 for the mark of a lifetime.
fn character_literal(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), Some(_)) => {
            rest.iter().skip(3).position(|c| *c == '\'').map_or(1, |length| length + 4)
        }
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = concat!(
            "let a = 'x'; // tokio \"\n",
            "let b = \"std::fs \\\" {\"; /* rand /* { */ */ c(b'\\'', '\\n', &'static str);\n",
            "let d = r#\"Instant \"quoted\" \"#; let r#type = 1; let e = br\"tokio\";\n",
        );
        let code = blank_comments_and_literals(text);
        assert_eq!(code.lines().count(), 3);
        for hidden in ["tokio", "std", "{", "rand", "Instant", "quoted"] {
            assert!(!code.contains(hidden), "{hidden} in {code}");
        }
        for kept in ["let a", "let b", "c(b", "static str", "let d", "type = 1", "let e"] {
            assert!(code.contains(kept), "{kept} not in {code}");
        }
    }

    #[test]
    fn paths_are_written_out() {
        let file = SourceFile::new(
            "a.rs",
            "use std::{fs, net::{TcpStream as T, self}, time::Duration};\n\
             fn f() { x::y::<u8>() }\n",
        );
        let paths = file.paths();
        let has = |line, path: &str| paths.contains(&(line, path.to_owned()));
        assert!(has(1, "std::fs") && has(1, "std::net::TcpStream") && has(1, "std::net::self"));
        assert!(has(1, "std::time::Duration") && has(2, "x::y"), "{paths:?}");
    }

    #[test]
    fn test_modules_end_at_their_brace() {
        let file = SourceFile::new(
            "a.rs",
            "//! A.\nfn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n\
             #[cfg(test)]\nmod more;\nfn d() {}\n",
        );
        let tests: Vec<_> = (1..=10).filter(|line| file.is_test_line(*line)).collect();
        assert_eq!(tests, [3, 4, 5, 6, 8, 9]);
        assert_eq!(file.product_lines(), 4);
        assert_eq!(SourceFile::new("crate/tests/a.rs", "fn a() {}\n").product_lines(), 0);
    }
}
