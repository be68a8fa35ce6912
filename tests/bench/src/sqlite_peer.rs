//! The peer on a file: the same rows as Tidings keeps them, written and claimed by plain rusqlite, nothing else.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::event::{Envelope, ROUTING_KEY, by_hand};
use crate::measure::BoxError;

const SCHEMA: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, timestamp INTEGER NOT NULL, exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL, event_id TEXT NOT NULL, key TEXT, headers TEXT, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS delivery (
    subscription INTEGER NOT NULL, owner INTEGER NOT NULL, ready INTEGER NOT NULL, event INTEGER NOT NULL,
    PRIMARY KEY (subscription, owner DESC, ready, event)) STRICT, WITHOUT ROWID;";
const EVENT: &str = "INSERT INTO event (id, refs, timestamp, exchange, routing_key, event_id, key, headers, body)
    VALUES (?1, 1, ?1, 'bench-events', ?2, ?3, ?4, NULL, ?5)";
const DELIVERY: &str = "INSERT INTO delivery (subscription, owner, ready, event) VALUES (1, 0, ?1, ?1)";
const HEAD: &str = "SELECT event FROM delivery WHERE subscription = 1 AND owner = 0 ORDER BY ready, event LIMIT ?1";
const CLAIM: &str = "UPDATE delivery SET owner = 7 WHERE subscription = 1 AND owner = 0 AND ready = ?1 AND event = ?1";
const BODY: &str = "SELECT body FROM event WHERE id = ?1";
const DONE: &str = "DELETE FROM delivery WHERE subscription = 1 AND owner = 7 AND ready = ?1 AND event = ?1";
const FORGET: &str = "DELETE FROM event WHERE id = ?1";

/// A file with one connection.
pub(crate) struct Peer {
    connection: Connection,
    next: i64,
}

impl Peer {
    /// Opens or makes a file; `synchronous` is `FULL` or `NORMAL`.
    pub(crate) fn open(path: &Path, synchronous: &str) -> Result<Self, BoxError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        Ok(Self { connection, next: 1 })
    }

    /// Builds, encodes and inserts `count` events in one transaction.
    pub(crate) fn publish(&mut self, count: usize) -> Result<(), BoxError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let (mut event, mut delivery) = (tx.prepare_cached(EVENT)?, tx.prepare_cached(DELIVERY)?);
            for _ in 0..count {
                let (id, key, body) = by_hand(usize::try_from(self.next)?)?;
                event.execute(params![self.next, ROUTING_KEY, id, key, body])?;
                delivery.execute(params![self.next])?;
                self.next += 1;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Claims at most `count` events in one transaction, decodes them, and removes them in another one.
    pub(crate) fn consume(&mut self, count: usize) -> Result<usize, BoxError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut claimed: Vec<(i64, Vec<u8>)> = Vec::with_capacity(count);
        {
            let ids: Vec<i64> = tx
                .prepare_cached(HEAD)?
                .query_map([i64::try_from(count)?], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let (mut claim, mut body) = (tx.prepare_cached(CLAIM)?, tx.prepare_cached(BODY)?);
            for id in ids {
                claim.execute([id])?;
                claimed.push((id, body.query_row([id], |row| row.get(0))?));
            }
        }
        tx.commit()?;
        for (_, body) in &claimed {
            let envelope: Envelope<'_> = serde_json::from_slice(body)?;
            std::hint::black_box(envelope.data.user_id);
        }
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let (mut done, mut forget) = (tx.prepare_cached(DONE)?, tx.prepare_cached(FORGET)?);
            for (id, _) in &claimed {
                done.execute([*id])?;
                forget.execute([*id])?;
            }
        }
        tx.commit()?;
        Ok(claimed.len())
    }
}
