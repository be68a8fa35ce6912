//! Reads what the services keep in databases of their own, once they have ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tidings::{BoxError, RetryPolicy};

use crate::ledger::Entry;

/// How the notifier retries; its own file says the same.
pub(crate) fn retries() -> RetryPolicy {
    RetryPolicy::exponential(100, Duration::from_millis(100), 2.0, Duration::from_millis(1600))
}

/// A clock that is set a little, and milliseconds that are cut off: so much too early is not too early.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Flights by what became of them, as operations knows it.
pub(crate) fn flights(dir: &Path) -> Result<BTreeMap<String, u32>, BoxError> {
    let database = open(&dir.join("operations.db"))?;
    let mut found = database.prepare("SELECT status, count(*) FROM flights GROUP BY status")?;
    let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notices in the order in which they were written, and events that came again.
pub(crate) fn notices(dir: &Path) -> Result<Vec<Entry>, BoxError> {
    let database = open(&dir.join("notices.db"))?;
    let mut found = database.prepare("SELECT event, kind, flight, tail, again FROM notices ORDER BY rowid")?;
    let rows = found.query_map([], |row| {
        let (id, routing_key, flight) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Entry { id, routing_key, flight, tail: row.get(3)?, again: row.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The waits before the retries of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) retry: u32,
    pub(crate) due: Duration,
    pub(crate) events: usize,
    pub(crate) early: usize,
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
}

/// How long each retry really waited: from one refusal of the gateway to the next one of the same event.
pub(crate) fn waits(dir: &Path) -> Result<Vec<Waits>, BoxError> {
    let database = open(&dir.join("notices.db"))?;
    // An event whose process was killed while it was tried is tried again with the same number: its last try counts.
    let mut found = database.prepare(
        "WITH tries AS (SELECT event, retries, max(at) AS at FROM refusals GROUP BY event, retries)
         SELECT a.retries, b.at - a.at FROM tries a JOIN tries b ON b.event = a.event AND b.retries = a.retries + 1",
    )?;
    let mut waits = BTreeMap::new();
    for row in found.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, f64>(1)?)))? {
        let (retry, millis) = row?;
        let waited = Duration::from_secs_f64((millis / 1000.0).max(0.0));
        let due = retries().delay(retry, 0.0);
        let new = Waits { retry: retry + 1, due, events: 0, early: 0, shortest: waited, longest: waited };
        let of_retry: &mut Waits = waits.entry(retry).or_insert(new);
        of_retry.events += 1;
        of_retry.early += usize::from(waited + TOLERANCE < due);
        of_retry.shortest = waited.min(of_retry.shortest);
        of_retry.longest = waited.max(of_retry.longest);
    }
    Ok(waits.into_values().collect())
}

fn open(path: &Path) -> Result<Connection, BoxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    Connection::open_with_flags(path, flags).map_err(|e| format!("cannot open {}: {e}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_that_comes_too_early_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let database = Connection::open(dir.path().join("notices.db")).unwrap();
        database.execute_batch("CREATE TABLE refusals (event TEXT, retries INTEGER, at REAL)").unwrap();
        for (event, retries, at) in [("a", 0, 0.0), ("a", 1, 101.0), ("a", 2, 250.0), ("b", 0, 0.0), ("b", 1, 130.0)] {
            database.execute("INSERT INTO refusals VALUES (?, ?, ?)", (event, retries, at)).unwrap();
        }
        let waits = waits(dir.path()).unwrap();
        assert_eq!(waits.iter().map(|w| (w.retry, w.events, w.early)).collect::<Vec<_>>(), [(1, 2, 0), (2, 1, 1)]);
        assert_eq!((waits[0].shortest.as_millis(), waits[0].longest.as_millis()), (101, 130));
    }
}
