//! Looking back, and keys with a time to live.
//!
//! The table of keys is made when it is first used: a store that nobody asks for it stays as it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params, params_from_iter};

use super::client::Client;
use super::error::Step;
use super::schema;
use super::tx::Tx;
use super::{events, headers};
use crate::event::name;
use crate::transport::{Journal, JournalEntry, JournalPlace, JournalQuery, JournalState, RememberedKey};
use crate::{Result, settlement};

/// Most entries of one page: each page is a transaction of the one writer.
const PAGE: usize = 500;
/// Keys that are forgotten in one transaction.
const PIECE: i64 = 200;

/// The journal of an open store.
#[derive(Debug)]
pub(super) struct SqliteJournal {
    client: Arc<Client>,
    retention: Duration,
}

impl SqliteJournal {
    pub(super) fn new(client: Arc<Client>, retention: Duration) -> Self {
        Self { client, retention }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    fn retention(&self) -> Duration {
        self.retention
    }

    async fn events(&self, query: &JournalQuery, max: usize) -> Result<Vec<JournalEntry>> {
        let (query, max) = (query.clone(), max.min(PAGE));
        let mut before = query.before;
        loop {
            let (page_query, from) = (query.clone(), before);
            let page = self.client.store()?.call(0, move |tx| page(tx, &page_query, from, max)).await?;
            // A page of which nothing passed the last check is not the end.
            if !page.entries.is_empty() || page.last.is_none() {
                return Ok(page.entries);
            }
            before = page.last;
        }
    }

    async fn remember(&self, key: &RememberedKey, value: &str, time: Duration) -> Result<Option<String>> {
        let (key, value) = (key.clone(), value.to_owned());
        let size = key.key.len() + value.len();
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        self.client.store()?.call(size, move |tx| remember(tx, &key, &value, micros)).await
    }

    async fn recall(&self, key: &RememberedKey, count: bool) -> Result<Option<String>> {
        let key = key.clone();
        self.client.store()?.call(0, move |tx| recall(tx, &key, count)).await
    }

    async fn duplicates(&self, scope: &str) -> Result<u64> {
        let scope = scope.to_owned();
        let count = move |tx: &mut Tx<'_>| {
            schema::migrate_memory(tx.conn)?;
            let sql = "SELECT coalesce(sum(looks), 0) FROM tidings_remembered WHERE scope = ?1 AND until > ?2";
            Ok(tx.conn.prepare_cached(sql)?.query_row(params![scope, tx.now], |r| r.get::<_, i64>(0))?.cast_unsigned())
        };
        self.client.store()?.call(0, count).await
    }
}

fn recall(tx: &mut Tx<'_>, key: &RememberedKey, count: bool) -> Step<Option<String>> {
    schema::migrate_memory(tx.conn)?;
    let found: Option<String> = tx
        .conn
        .prepare_cached("SELECT value FROM tidings_remembered WHERE key = ?1 AND until > ?2")?
        .query_row(params![key.key, tx.now], |r| r.get(0))
        .optional()?;
    if count && found.is_some() {
        tx.conn
            .prepare_cached("UPDATE tidings_remembered SET looks = looks + 1 WHERE key = ?1")?
            .execute([&key.key])?;
    }
    Ok(found)
}

fn remember(tx: &mut Tx<'_>, key: &RememberedKey, value: &str, micros: i64) -> Step<Option<String>> {
    if let Some(found) = recall(tx, key, true)? {
        return Ok(Some(found));
    }
    tx.conn
        .prepare_cached(
            "DELETE FROM tidings_remembered WHERE key IN (SELECT key FROM tidings_remembered WHERE until <= ?1 LIMIT ?2)",
        )?
        .execute([tx.now, PIECE])?;
    tx.conn
        .prepare_cached(
            "INSERT INTO tidings_remembered (key, scope, value, until, looks) VALUES (?1, ?2, ?3, ?4, 0)
             ON CONFLICT DO UPDATE SET scope = excluded.scope, value = excluded.value, until = excluded.until, looks = 0",
        )?
        .execute(params![key.key, key.scope, value, tx.now.saturating_add(micros)])?;
    Ok(None)
}

struct Page {
    entries: Vec<JournalEntry>,
    /// The last one that was looked at, if there may be more.
    last: Option<u64>,
}

fn page(tx: &mut Tx<'_>, query: &JournalQuery, before: Option<u64>, max: usize) -> Step<Page> {
    let mut sql = format!("SELECT e.id, e.refs, {} FROM tidings_event e WHERE e.id < ?", events::COLUMNS);
    let mut values = vec![Value::from(before.map_or(i64::MAX, u64::cast_signed))];
    let mut and = |condition: &str, value: Value| {
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(id) = &query.id {
        and(" AND e.event_id = ?", id.clone().into());
    }
    if let Some(since) = query.since {
        and(" AND e.timestamp >= ?", since.as_micros().into());
    }
    if let Some(until) = query.until {
        and(" AND e.timestamp < ?", until.as_micros().into());
    }
    for (name, _) in &query.headers {
        // Narrows it down; what the header really says is looked at below.
        and(" AND instr(e.headers, ?) > 0", name.clone().into());
    }
    and(" ORDER BY e.id DESC LIMIT ?", i64::try_from(max).unwrap_or(i64::MAX).into());
    let mut statement = tx.conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut entries, mut last, mut seen) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let message = events::message(row, 2, None)?;
        (last, seen) = (Some(id.cast_unsigned()), seen + 1);
        if query.headers.iter().all(|(name, value)| message.headers.text(name) == Some(value)) {
            let settled = row.get::<_, i64>(1)? == 0;
            entries.push(JournalEntry { sequence: id.cast_unsigned(), message, settled, places: Vec::new() });
        }
    }
    places(tx, &mut entries)?;
    Ok(Page { entries, last: last.filter(|_| seen == max) })
}

/// Finds out where the events of a page are.
fn places(tx: &Tx<'_>, entries: &mut [JournalEntry]) -> Step<()> {
    let (Some(newest), Some(oldest)) = (entries.first(), entries.last()) else { return Ok(()) };
    let range = [oldest.sequence.cast_signed(), newest.sequence.cast_signed()];
    if entries.iter().all(|entry| entry.settled) {
        return Ok(());
    }
    let at: HashMap<i64, usize> =
        entries.iter().enumerate().map(|(n, entry)| (entry.sequence.cast_signed(), n)).collect();
    for (sql, dead) in [
        ("SELECT d.event, s.name, d.headers FROM tidings_delivery d JOIN tidings_subscription s ON s.id = d.subscription
          WHERE d.event BETWEEN ?1 AND ?2 AND s.name IS NOT NULL", false),
        // A parked head is its dead letter already.
        ("SELECT o.event, s.name, o.headers FROM tidings_ordered o JOIN tidings_subscription s ON s.id = o.subscription
          WHERE o.event BETWEEN ?1 AND ?2 AND s.name IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tidings_dead d
          WHERE d.subscription = o.subscription AND d.event = o.event AND d.parked)", false),
        ("SELECT d.event, s.name, d.headers FROM tidings_dead d JOIN tidings_subscription s ON s.id = d.subscription
          WHERE d.event BETWEEN ?1 AND ?2 AND s.name IS NOT NULL", true),
    ] {
        let mut statement = tx.conn.prepare_cached(sql)?;
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            let Some(entry) = at.get(&row.get(0)?).and_then(|n| entries.get_mut(*n)) else { continue };
            let own: Option<String> = row.get(2)?;
            let own = headers::decode(own.as_deref());
            let attempts = settlement::attempt(&own);
            let state = match (dead, attempts) {
                (true, _) => JournalState::Dead,
                (false, 0) => JournalState::Pending,
                (false, _) => JournalState::Retrying,
            };
            let dead_attempts = own.int(name::DEAD_ATTEMPTS).and_then(|n| u32::try_from(n).ok());
            entry.places.push(JournalPlace {
                subscription: row.get(1)?,
                state,
                attempts: dead_attempts.unwrap_or(attempts),
                error: own.text(name::DEAD_ERROR).or(own.text(name::DEAD_REASON)).map(str::to_owned),
            });
        }
    }
    Ok(())
}
