//! Where a catalog is found, and how its file is read.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::invalid;
use crate::{Error, ErrorKind, Result};

/// Environment variable that names the catalog's file.
pub const CONFIG_VARIABLE: &str = "TIDINGS_CONFIG";
/// Files that are looked for in the working directory, the first one found wins.
const FILES: [&str; 2] = ["tidings.config.json", "tidings.config.toml"];
/// Ductape's folder.
const DUCTAPE: &str = "ductape";
/// Largest file that is read: a catalog is written by people.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Ours, or any that was named.
    File(PathBuf),
    /// `ductape/events.json`, with `config.json` beside it if there is one.
    Ductape(PathBuf),
}

/// The catalog's file: the one that `named` (`TIDINGS_CONFIG`) says, else what is in `folder`.
pub(super) fn find(folder: &Path, named: Option<&str>) -> Result<Option<Found>> {
    if let Some(path) = named.filter(|path| !path.is_empty()) {
        return Ok(Some(Found::File(folder.join(path))));
    }
    let found: Vec<_> = FILES.iter().map(|file| folder.join(file)).filter(|path| path.is_file()).collect();
    if let [first, second, ..] = &*found {
        return Err(Error::new(ErrorKind::CatalogInvalid, "there are two catalogs")
            .field("catalog", format!("{} and {}", first.display(), second.display()))
            .remedy(format!("keep one, or name it in {CONFIG_VARIABLE}")));
    }
    if let Some(path) = found.into_iter().next() {
        return Ok(Some(Found::File(path)));
    }
    let events = folder.join(DUCTAPE).join("events.json");
    Ok(events.is_file().then_some(Found::Ductape(events)))
}

/// Reads a catalog's file as JSON, whatever it is written in.
pub(super) fn read(found: &Found) -> Result<Value> {
    match found {
        Found::File(path) => read_file(path),
        Found::Ductape(events) => {
            let brokers = read_file(events)?;
            let settings = events.with_file_name("config.json");
            let mut catalog = serde_json::Map::from_iter([("brokers".to_owned(), brokers)]);
            if settings.is_file()
                && let Value::Object(settings) = read_file(&settings)?
            {
                catalog.extend(
                    settings.into_iter().filter(|(key, _)| ["product_tag", "env_slug"].contains(&key.as_str())),
                );
            }
            Ok(Value::Object(catalog))
        }
    }
}

fn read_file(path: &Path) -> Result<Value> {
    let at = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        let remedy = match error.kind() {
            Io::NotFound => format!("check the path, or unset {CONFIG_VARIABLE}"),
            _ => "make it readable for this user".to_owned(),
        };
        Error::new(ErrorKind::CatalogInvalid, format!("the catalog cannot be read: {}", error.kind()))
            .field("catalog", &at)
            .remedy(remedy)
            .source(error)
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(invalid(&at, format!("the file has {size} bytes"), "name the catalog's file"));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        // The parser's own text shows the line, which may hold a password.
        return toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            invalid(&at, format!("this is not TOML: {} (line {line})", e.message()), "correct the file")
        });
    }
    serde_json::from_str(text).map_err(|e| invalid(&at, format!("this is not JSON: {e}"), "correct the file"))
}
