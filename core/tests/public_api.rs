//! `core/tests/snapshots/public-api.txt` is the public surface of the crate: a change of it is seen where it is reviewed.
//!
//! `TIDINGS_UPDATE=1 cargo test -p tidings --test public_api` writes it.
//!
//! It is read from the sources, which rustfmt has laid out and in which `unreachable_pub` allows `pub` only on what users
//! can reach: no compiler of a certain version is needed, and no feature has to be on.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Attributes that a user notices.
const NOTICED: &[&str] = &["#[non_exhaustive]", "#[derive(", "#[cfg(", "#[must_use", "#[deprecated", "#[async_trait]"];

#[test]
fn the_surface_is_the_one_that_was_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/snapshots/public-api.txt");
    let now = surface(&root.join("src"));
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let reviewed = fs::read_to_string(&path).unwrap_or_default();
    let (gone, new) = (lines_without(&reviewed, &now), lines_without(&now, &reviewed));
    assert!(
        reviewed == now,
        "the public API is another one. If that is meant: TIDINGS_UPDATE=1 cargo test -p tidings --test public_api\n\
         gone or moved:\n{gone}\nnew or moved:\n{new}"
    );
}

/// The lines of `text` that `other` does not have.
fn lines_without(text: &str, other: &str) -> String {
    let others: std::collections::HashSet<_> = other.lines().collect();
    text.lines().filter(|line| !others.contains(line)).collect::<Vec<_>>().join("\n")
}

fn surface(folder: &Path) -> String {
    let mut files = Vec::new();
    sources(folder, &mut files);
    files.sort();
    let mut text = String::from("# Written by core/tests/public_api.rs. Comments and private items are left out.\n");
    for file in files {
        let items = Reader::default().read(&fs::read_to_string(&file).unwrap());
        if !items.is_empty() {
            let name = file.strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/");
            let _infallible = write!(text, "\n## {name}\n{items}");
        }
    }
    text
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
            files.push(path);
        }
    }
}

/// Reads one file line by line.
#[derive(Default)]
struct Reader {
    items: String,
    attributes: Vec<String>,
    /// The `impl` block that is open, until an item of it is written.
    block: Option<String>,
    /// The trait or enum that is open, all of which is public, and its indent.
    open: Option<(Kind, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Trait,
    Enum,
}

impl Reader {
    fn read(mut self, source: &str) -> String {
        let mut lines = source.lines().peekable();
        while let Some(line) = lines.next() {
            let (text, indent) = (line.trim(), line.len() - line.trim_start().len());
            if text == "#[cfg(test)]" {
                // The tests are the end of a file; a lone item of theirs is passed over.
                if lines.peek().is_some_and(|next| next.starts_with("mod ")) {
                    break;
                }
                lines.next();
                continue;
            }
            if self.open.is_some_and(|(_, depth)| depth == indent && text == "}") {
                self.open = None;
                self.write(indent, "}");
            } else if text.is_empty() || text.starts_with("//") {
                continue;
            } else if text.starts_with("#[") {
                if NOTICED.iter().any(|noticed| text.starts_with(noticed)) {
                    self.attributes.push(text.to_owned());
                }
                continue;
            } else if text.starts_with("impl") && indent == 0 {
                let header = statement(text, &mut lines, &['{', '}']);
                if header.contains(" for ") && !header.starts_with("impl Drop") {
                    self.write(0, header.trim_end_matches(['{', '}', ' ']));
                } else {
                    self.block = Some(header);
                }
            } else if self.is_public(text, indent) {
                let is_field = indent > 0 && !text.contains("fn ");
                let ends: &[char] = if is_field { &['{', ';', ','] } else { &['{', ';'] };
                let item = statement(text, &mut lines, ends);
                self.item(&item, indent);
            } else if indent == 0 && text == "}" {
                self.block = None;
            }
            self.attributes.clear();
        }
        self.items
    }

    fn is_public(&self, text: &str, indent: usize) -> bool {
        match self.open {
            Some((Kind::Enum, _)) => true,
            Some((Kind::Trait, depth)) => {
                indent == depth + 4 && ["fn ", "async fn ", "type ", "const "].iter().any(|word| text.starts_with(word))
            }
            None => text.starts_with("pub "),
        }
    }

    fn item(&mut self, item: &str, indent: usize) {
        let item = match item.split_once(" = ") {
            // What a long table holds is the business of its own test.
            Some((declared, value)) if value.len() > 80 => declared.to_owned() + " = …",
            _ => item.to_owned(),
        };
        if let Some(header) = self.block.take() {
            self.write(0, &header);
        }
        for attribute in std::mem::take(&mut self.attributes) {
            self.write(indent, &attribute);
        }
        let opens = item.ends_with('{');
        let kind = match item.split_whitespace().find(|word| !word.starts_with("pub")) {
            Some("trait") => Some(Kind::Trait),
            Some("enum") => Some(Kind::Enum),
            _ => None,
        };
        if let (true, Some(kind), None) = (opens, kind, self.open) {
            self.open = Some((kind, indent));
            self.write(indent, &item);
        } else {
            let keeps_brace = self.open.is_some_and(|(kind, _)| kind == Kind::Enum);
            self.write(indent, if keeps_brace { &item } else { item.trim_end_matches(['{', ' ']) });
        }
    }

    fn write(&mut self, indent: usize, text: &str) {
        let _infallible = writeln!(self.items, "{:indent$}{text}", "");
    }
}

/// The statement that begins with `first`, on one line.
fn statement<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>, ends: &[char]) -> String {
    let mut text = first.to_owned();
    // A body on the same line belongs to no signature.
    while !(text.ends_with('}') || text.ends_with(ends) && balanced(&text)) {
        let Some(next) = lines.next() else { break };
        let space = if text.ends_with(['(', '<', '[']) || next.trim().starts_with([')', '>', ']']) { "" } else { " " };
        text = text
            .trim_end_matches(if space.is_empty() && next.trim().starts_with([')', '>']) {
                &[','][..]
            } else {
                &[][..]
            })
            .to_owned()
            + space
            + next.trim();
    }
    text
}

fn balanced(text: &str) -> bool {
    let count = |sign: char| text.chars().filter(|c| *c == sign).count();
    count('(') == count(')') && count('[') == count(']')
}
