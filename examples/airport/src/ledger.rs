//! What a service has done, in a file of its own: it survives a kill -9, and makes repeated deliveries harmless.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidings::DomainEvent;

use crate::flights::Flight;

/// One line of a ledger: an event that was handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) routing_key: String,
    pub(crate) flight: u32,
    pub(crate) tail: Option<String>,
    /// The event was in the ledger already: delivery is at least once.
    pub(crate) again: bool,
}

/// An append-only file with a set of the event ids in it.
pub(crate) struct Ledger(Mutex<Inner>);

struct Inner {
    file: File,
    ids: HashSet<String>,
}

/// What came of [`Ledger::record`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is new, and now there are so many.
    New(usize),
    /// It was there.
    Again,
}

impl Ledger {
    /// Opens the ledger with all that an earlier process has written.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let ids = read(path)?.into_iter().map(|entry| entry.id).collect();
        Ok(Self(Mutex::new(Inner { file, ids })))
    }

    /// Writes the event down, once. What `write` got survives the process; it need not survive a power cut here.
    pub(crate) fn record(&self, event: &DomainEvent, flight: &Flight) -> io::Result<Recorded> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            id: event.id().to_owned(),
            routing_key: event.routing_key().to_owned(),
            flight: flight.id,
            tail: flight.tail.clone(),
            again: inner.ids.contains(event.id()),
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        inner.file.write_all(&line)?;
        if entry.again {
            return Ok(Recorded::Again);
        }
        inner.ids.insert(entry.id);
        Ok(Recorded::New(inner.ids.len()))
    }

    /// How many different events are in it.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ids.len()
    }
}

/// All entries of a ledger in the order of handling; none if nobody has opened it yet.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let (origin, destination) = ("EWR".into(), "IAH".into());
        let flight = Flight { id: 2, number: "UA 1".into(), tail: None, origin, destination };
        let event = DomainEvent::new("flight.departed", &flight).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.record(&event, &flight).unwrap(), Recorded::New(1));
        drop(ledger);
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.record(&event, &flight).unwrap(), Recorded::Again);
        assert_eq!((ledger.len(), read(&path).unwrap().len()), (1, 2));
    }
}
