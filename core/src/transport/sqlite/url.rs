//! What a `sqlite:` URL says.

use std::path::PathBuf;
use std::time::Duration;

use crate::transport::registry::redact;
use crate::{Error, ErrorKind, Result};

/// How long another process may hold the file's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// When SQLite waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Synchronous {
    /// At checkpoints: a power loss takes the last moments.
    Normal,
    /// At every commit: a receipt means durable.
    Full,
}

/// A `sqlite:` URL, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// The file, absolute.
    pub(super) path: PathBuf,
    pub(super) synchronous: Synchronous,
    pub(super) busy_timeout: Duration,
    /// How long settled events are kept.
    pub(super) retention: Duration,
    /// Make the file if it is not there.
    pub(super) create: bool,
    /// The program has it open too, through the same copy of SQLite.
    pub(super) shared: bool,
}

impl Options {
    /// Understands `sqlite:path.db`, `sqlite:///absolute/path.db`, each with `?synchronous=full|normal`,
    /// `&busy_timeout=<milliseconds>`, `&retention=<seconds>`, `&mode=rwc|rw`, `&shared=true|false`. `%XX` stands for a byte of the path.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let refuse = |message: &str, remedy: &str| {
            Error::new(ErrorKind::InvalidUrl, message).field("url", redact(url)).remedy(remedy)
        };
        let rest = url
            .strip_prefix("sqlite:")
            .ok_or_else(|| refuse("the URL's scheme is not sqlite", "use sqlite:path.db"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let path = percent_decoded(path).ok_or_else(|| {
            refuse("the path has a % that is not followed by the two digits of a byte", "write a % as %25")
        })?;
        if path.is_empty() {
            return Err(refuse("the path of the file is empty", "use sqlite:path.db or sqlite:///absolute/path.db"));
        }
        if path == ":memory:" {
            return Err(refuse("a store in memory is not a file", "use memory: for tests, or sqlite:path.db"));
        }
        if path.contains('\0') {
            return Err(refuse("the path has a NUL in it", "use a path that the file system can hold"));
        }
        let path = std::path::absolute(path)
            .map_err(|e| refuse("the path cannot be made absolute", "use an absolute path").source(e))?;
        let mut options = Self {
            path,
            synchronous: Synchronous::Full,
            busy_timeout: BUSY_TIMEOUT,
            retention: Duration::ZERO,
            create: true,
            shared: false,
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let number = |remedy: &str| {
                value.parse::<u32>().map_err(|e| {
                    Error::new(ErrorKind::InvalidUrl, format!("the parameter {name} is not a whole number"))
                        .field("url", redact(url))
                        .remedy(remedy)
                        .source(e)
                })
            };
            match &*name {
                "synchronous" => {
                    options.synchronous = match &*value.to_ascii_lowercase() {
                        "full" => Synchronous::Full,
                        "normal" => Synchronous::Normal,
                        _ => {
                            return Err(refuse(
                                "the parameter synchronous is neither full nor normal",
                                "use synchronous=full",
                            ));
                        }
                    }
                }
                "busy_timeout" => {
                    options.busy_timeout =
                        Duration::from_millis(number("give it in milliseconds: busy_timeout=5000")?.into());
                }
                "mode" => {
                    options.create = match &*value {
                        "rwc" => true,
                        "rw" => false,
                        _ => return Err(refuse("the parameter mode is neither rwc nor rw", "rw never makes a file")),
                    }
                }
                "shared" => {
                    options.shared = match &*value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(refuse("the parameter shared is neither true nor false", "leave it out")),
                    }
                }
                "retention" => {
                    options.retention = Duration::from_secs(number("give it in seconds: retention=86400")?.into());
                }
                _ => {
                    return Err(refuse(
                        &format!("the URL has the unknown parameter {name}"),
                        "sqlite: knows synchronous, busy_timeout, retention, mode and shared",
                    ));
                }
            }
        }
        Ok(options)
    }

    /// What serves both of two openers of one file.
    pub(super) fn merge(&mut self, other: &Self) {
        self.synchronous = self.synchronous.max(other.synchronous);
        self.busy_timeout = self.busy_timeout.max(other.busy_timeout);
        self.retention = self.retention.max(other.retention);
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let here = std::env::current_dir().unwrap();
        for (url, path) in [
            ("sqlite:a.db", here.join("a.db")),
            ("sqlite://a/b.db", here.join("a/b.db")),
            ("sqlite:///tmp/a.db", "/tmp/a.db".into()),
            ("sqlite:/tmp/a%20%3F.db?busy_timeout=7", "/tmp/a ?.db".into()),
        ] {
            assert_eq!(Options::parse(url).unwrap().path, path, "{url}");
        }
    }

    #[test]
    fn parameters() {
        let options = Options::parse("sqlite:a.db?synchronous=NORMAL&busy_timeout=250&retention=60").unwrap();
        assert_eq!(options.synchronous, Synchronous::Normal);
        assert_eq!((options.busy_timeout, options.retention), (Duration::from_millis(250), Duration::from_secs(60)));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (url, part) in [
            ("sqlite:", "empty"),
            ("sqlite://", "empty"),
            ("sqlite:?synchronous=full", "empty"),
            ("sqlite::memory:", "memory"),
            ("sqlite:a%2.db", "%25"),
            ("sqlite:a.db?sync=full", "unknown parameter sync"),
            ("sqlite:a.db?synchronous=off", "synchronous"),
            ("sqlite:a.db?mode=ro", "mode"),
            ("sqlite:a.db?busy_timeout=-1", "busy_timeout"),
            ("sqlite:a.db?retention=long", "retention"),
        ] {
            let error = Options::parse(url).unwrap_err();
            assert_eq!(error.code(), "INVALID_URL", "{url}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.remedy_text().is_some());
        }
    }
}
