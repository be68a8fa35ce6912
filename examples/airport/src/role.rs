//! What the services have in common: where they work, and the line protocol that they speak with the director.
//!
//! A service is any process, in any language, that is started with `TIDINGS_BROKER_URL`, `AIRPORT_PREFIX`, `AIRPORT_DIR`,
//! `AIRPORT_DATA` and `AIRPORT_PACE` in its environment, writes [`Report`]s to stdout, and ends when its stdin does.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use tidings::{BoxError, Broker};
use tokio::sync::oneshot;

/// Namespace of the demo's events, so that it disturbs nobody who uses the same broker.
pub(crate) const EXCHANGE: &str = "airport";
/// Put in front of subscription names where the broker is shared.
pub(crate) const PREFIX_VARIABLE: &str = "AIRPORT_PREFIX";
/// Where the services keep their ledgers.
pub(crate) const DIR_VARIABLE: &str = "AIRPORT_DIR";
/// The file of flights.
pub(crate) const DATA_VARIABLE: &str = "AIRPORT_DATA";
/// How many times faster than the day was; 0: as fast as it can.
pub(crate) const PACE_VARIABLE: &str = "AIRPORT_PACE";
/// The interpreters that have the packages.
pub(crate) const PYTHON_VARIABLE: &str = "AIRPORT_PYTHON";
pub(crate) const NODE_VARIABLE: &str = "AIRPORT_NODE";

pub(crate) struct Role {
    pub(crate) broker: Broker,
    dir: PathBuf,
    prefix: String,
    end: oneshot::Receiver<()>,
}

impl Role {
    pub(crate) async fn begin() -> Result<Self, BoxError> {
        let (sender, end) = oneshot::channel();
        // A thread of its own: the process can end while it waits.
        std::thread::spawn(move || {
            let _whatever_it_was = std::io::stdin().lock().read_to_end(&mut Vec::new());
            let _ended_already = sender.send(());
        });
        let dir = std::env::var_os(DIR_VARIABLE).map_or_else(|| PathBuf::from("."), PathBuf::from);
        let prefix = std::env::var(PREFIX_VARIABLE).unwrap_or_default();
        Ok(Self { broker: Broker::from_env().await?, dir, prefix, end })
    }

    /// The name of the service's subscription in this run.
    pub(crate) fn subscription(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits until the service is to end.
    pub(crate) async fn over(&mut self) {
        let _closed = (&mut self.end).await;
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
