//! What the services have in common: where they work, and the line protocol that they speak with the director.
//!
//! A service is any process that is started with `TIDINGS_BROKER_URL`, `AIRPORT_PREFIX` and `AIRPORT_DIR` in its
//! environment, writes [`Report`]s to stdout, reads commands from stdin, and ends when stdin does.

use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use tidings::{BoxError, Broker};
use tokio::sync::mpsc;

/// Namespace of the demo's events, so that it disturbs nobody who uses the same broker.
pub(crate) const EXCHANGE: &str = "airport";
/// Put in front of subscription names where the broker is shared.
pub(crate) const PREFIX_VARIABLE: &str = "AIRPORT_PREFIX";
/// Where the services keep their ledgers.
pub(crate) const DIR_VARIABLE: &str = "AIRPORT_DIR";

pub(crate) struct Role {
    pub(crate) broker: Broker,
    dir: PathBuf,
    prefix: String,
    commands: mpsc::UnboundedReceiver<String>,
}

impl Role {
    pub(crate) async fn begin() -> Result<Self, BoxError> {
        let (sender, commands) = mpsc::unbounded_channel();
        // A thread of its own: the process can end while it waits for a line.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let dir = std::env::var_os(DIR_VARIABLE).map_or_else(|| PathBuf::from("."), PathBuf::from);
        let prefix = std::env::var(PREFIX_VARIABLE).unwrap_or_default();
        Ok(Self { broker: Broker::from_env().await?, dir, prefix, commands })
    }

    /// The name of the service's subscription in this run.
    pub(crate) fn subscription(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The next command; `None` when the service is to end.
    pub(crate) async fn command(&mut self) -> Option<String> {
        self.commands.recv().await
    }
}

/// One line that a service writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Its subscription exists: events can be published.
    Ready,
    /// It has done so much of something in all.
    Count(String, usize),
    /// A sentence of the story.
    Say(String),
    /// It ends because of this.
    Failed(String),
}

impl Report {
    /// Writes the line at once. Nobody reads it any more if the director is gone; then stdin ends the service.
    pub(crate) fn send(&self) {
        let mut out = std::io::stdout().lock();
        let _nobody_reads = writeln!(out, "{self}").and_then(|()| out.flush());
    }
}

/// Tells the director how much of something is done.
pub(crate) fn count(what: &str, n: usize) {
    Report::Count(what.to_owned(), n).send();
}

/// Adds a sentence to the story.
pub(crate) fn say(text: impl Into<String>) {
    Report::Say(text.into()).send();
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Count(what, n) => write!(f, "count {what} {n}"),
            Self::Say(text) => write!(f, "say {}", text.replace('\n', " ")),
            Self::Failed(text) => write!(f, "failed {}", text.replace('\n', " ")),
        }
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => Ok(Self::Ready),
            "say" => Ok(Self::Say(rest.to_owned())),
            "failed" => Ok(Self::Failed(rest.to_owned())),
            "count" => rest
                .split_once(' ')
                .and_then(|(what, n)| Some(Self::Count(what.to_owned(), n.parse().ok()?)))
                .ok_or_else(|| format!("not a count: {line:?}")),
            _ => Err(format!("not a line of the protocol: {line:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let count = Report::Count("logged".into(), 1996);
        for report in [Report::Ready, count, Report::Say("a b".into()), Report::Failed("c".into())] {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        assert!("count logged many".parse::<Report>().is_err());
    }
}
