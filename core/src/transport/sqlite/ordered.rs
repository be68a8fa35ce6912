//! Order per key.
//!
//! The events of a key stand in `tidings_ordered` by id; the first of them is the head. The row of the key says who may
//! have them: nobody before `ready`, one owner at a time. An owner gets a run of them from the head on and the key goes
//! on once all of these are settled; from when on is then read from the head (`due`: a retry's time, or never while it
//! is parked). So order survives a crash at any point: whatever was not settled is still in its place.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::clock::NEVER;
use super::error::Step;
use super::events::{self, COLUMNS, PIECE};
use super::ledger::Held;
use super::tx::Tx;
use crate::transport::{Incoming, OrderState, Token};

/// Most events of a key that one claim takes.
const RUN: usize = 8;
/// Keys that a claim prefers to spread over before it takes longer runs: handlers work on keys in parallel.
const SPREAD: usize = 32;

/// Who has keys of the subscription in hand, and what waits. Costs as much as there are keys that wait.
pub(super) fn state(conn: &Connection, subscription: i64, now: i64) -> Step<OrderState> {
    let mut owners = conn.prepare_cached(
        "SELECT id FROM tidings_owner o WHERE subscription = ?1
         AND EXISTS (SELECT 1 FROM tidings_key k WHERE k.subscription = ?1 AND k.owner = o.id)",
    )?;
    let owners = owners.query_map([subscription], |r| Ok(format!("lease {}", r.get::<_, i64>(0)?)))?;
    let owners = owners.collect::<Result<_, _>>()?;
    let (waiting, dead, oldest): (i64, i64, Option<i64>) = conn
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE k.ready < ?3), count(*) FILTER (WHERE k.ready = ?3),
                    min((SELECT event FROM tidings_ordered o WHERE o.subscription = k.subscription AND o.key = k.key
                         ORDER BY event LIMIT 1))
             FROM tidings_key k WHERE k.subscription = ?1 AND k.owner = 0 AND k.ready > ?2",
        )?
        .query_row([subscription, now, NEVER], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let age = |accepted: i64| Duration::from_micros(u64::try_from(now.saturating_sub(accepted)).unwrap_or(0));
    Ok(OrderState {
        owners,
        waiting_keys: waiting.cast_unsigned(),
        parked_keys: dead.cast_unsigned(),
        dead_keys: dead.cast_unsigned(),
        oldest_waiting: oldest.map(age),
        whole: true,
    })
}

/// Appends an event to its key.
pub(super) fn append(tx: &Tx<'_>, subscription: i64, key: &str, event: i64) -> Step<()> {
    insert(tx, subscription, key, event, None)?;
    key_row(tx, subscription, key)
}

/// Puts an event into its place; whoever does looks after the row of the key.
pub(super) fn insert(tx: &Tx<'_>, subscription: i64, key: &str, event: i64, headers: Option<&str>) -> Step<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO tidings_ordered (subscription, key, event, due, lost, headers) VALUES (?1, ?2, ?3, 0, 0, ?4)",
        )?
        .execute(params![subscription, key, event, headers])?;
    Ok(())
}

fn key_row(tx: &Tx<'_>, subscription: i64, key: &str) -> Step<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO tidings_key (subscription, key, owner, ready, upto) VALUES (?1, ?2, 0, ?3, 0) ON CONFLICT DO NOTHING",
        )?
        .execute(params![subscription, key, tx.now])?;
    Ok(())
}

/// Claims runs of keys that are ready, the longest waiting key first, at most `max` events.
pub(super) fn claim(tx: &mut Tx<'_>, source: u64, subscription: i64, owner: i64, max: usize) -> Step<Vec<Incoming>> {
    let keys = ready_keys(tx, subscription, max)?;
    let run = max.div_ceil(keys.len().clamp(1, SPREAD)).min(RUN);
    let mut claimed: Vec<Incoming> = Vec::new();
    let mut size = 0;
    let sql = format!(
        "SELECT o.event, o.due, o.lost, o.headers, {COLUMNS} FROM tidings_ordered o CROSS JOIN tidings_event e ON e.id = o.event
         WHERE o.subscription = ?1 AND o.key = ?2 ORDER BY o.event LIMIT ?3"
    );
    let mut select = tx.conn.prepare_cached(&sql)?;
    let mut take = tx.conn.prepare_cached(
        "UPDATE tidings_key SET owner = ?3, ready = ?4, upto = ?5 WHERE subscription = ?1 AND key = ?2",
    )?;
    for key in keys {
        let limit = run.min(max - claimed.len());
        if limit == 0 || size > PIECE {
            break;
        }
        let mut upto = None;
        let mut rows = select.query(params![subscription, &*key, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let (event, due): (i64, i64) = (row.get(0)?, row.get(1)?);
            if due > tx.now {
                break;
            }
            let own = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            claimed.push(Incoming {
                token: Token { id: event.cast_unsigned(), generation: owner.cast_unsigned() },
                message: events::message(row, 4, own)?,
                lost_deliveries: row.get(2)?,
            });
            tx.state.ledger.hold(source, event, Held::Keyed(key.clone()));
            upto = Some(event);
            size += claimed.last().map_or(0, |incoming| incoming.message.body.len());
            if size > PIECE {
                break;
            }
        }
        match upto {
            Some(upto) => {
                take.execute(params![subscription, &*key, owner, tx.now, upto])?;
            }
            // A row of a key says more than its events do: put it right, or it would be looked at for ever.
            None => resume(tx.conn, subscription, &key, tx.now)?,
        }
    }
    Ok(claimed)
}

fn ready_keys(tx: &Tx<'_>, subscription: i64, max: usize) -> Step<Vec<Arc<str>>> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT key FROM tidings_key WHERE subscription = ?1 AND owner = 0 AND ready <= ?2 ORDER BY ready LIMIT ?3",
    )?;
    let keys = statement.query_map([subscription, tx.now, i64::try_from(max).unwrap_or(i64::MAX)], |row| {
        row.get_ref(0)?.as_str().map(Arc::from).map_err(rusqlite::Error::from)
    })?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// When the first key of the subscription can be claimed.
pub(super) fn next_ready(conn: &Connection, subscription: i64) -> Step<Option<i64>> {
    Ok(conn
        .prepare_cached("SELECT ready FROM tidings_key WHERE subscription = ?1 AND owner = 0 ORDER BY ready LIMIT 1")?
        .query_row([subscription], |r| r.get(0))
        .optional()?)
}

/// Gives a key back: ready when its head is, gone if it has no events.
pub(super) fn resume(conn: &Connection, subscription: i64, key: &str, now: i64) -> Step<()> {
    let head: Option<i64> = conn
        .prepare_cached("SELECT due FROM tidings_ordered WHERE subscription = ?1 AND key = ?2 ORDER BY event LIMIT 1")?
        .query_row(params![subscription, key], |r| r.get(0))
        .optional()?;
    match head {
        Some(due) => conn
            .prepare_cached(
                "UPDATE tidings_key SET owner = 0, ready = ?3, upto = 0 WHERE subscription = ?1 AND key = ?2",
            )?
            .execute(params![subscription, key, due.max(now)])?,
        None => conn
            .prepare_cached("DELETE FROM tidings_key WHERE subscription = ?1 AND key = ?2")?
            .execute(params![subscription, key])?,
    };
    Ok(())
}

/// Looks at a key again whose events were changed from outside; leaves it alone if somebody has it.
pub(super) fn reconsider(tx: &mut Tx<'_>, subscription: i64, key: &str) -> Step<()> {
    key_row(tx, subscription, key)?;
    let owner: i64 = tx
        .conn
        .prepare_cached("SELECT owner FROM tidings_key WHERE subscription = ?1 AND key = ?2")?
        .query_row(params![subscription, key], |r| r.get(0))?;
    if owner == 0 {
        resume(tx.conn, subscription, key, tx.now)?;
        tx.state.touch(subscription);
    }
    Ok(())
}

/// Takes an event out of its key. `false` if it is not there.
pub(super) fn remove(tx: &Tx<'_>, subscription: i64, key: &str, event: i64) -> Step<bool> {
    let removed = tx
        .conn
        .prepare_cached("DELETE FROM tidings_ordered WHERE subscription = ?1 AND key = ?2 AND event = ?3")?
        .execute(params![subscription, key, event])?;
    Ok(removed > 0)
}

/// Rewrites an event in its place. `false` if it is not there.
pub(super) fn rewrite(
    tx: &Tx<'_>,
    subscription: i64,
    key: &str,
    event: i64,
    due: i64,
    headers: Option<&str>,
) -> Step<bool> {
    let rewritten = tx
        .conn
        .prepare_cached(
            "UPDATE tidings_ordered SET due = ?4, lost = 0, headers = ?5 WHERE subscription = ?1 AND key = ?2 AND event = ?3",
        )?
        .execute(params![subscription, key, event, due, headers])?;
    Ok(rewritten > 0)
}

/// Takes every key of a dead owner back; what it had in hands counts as lost once more.
pub(super) fn take_over(conn: &Connection, subscription: i64, owner: i64, now: i64) -> Step<()> {
    let keys: Vec<(String, i64, i64)> = conn
        .prepare_cached("SELECT key, ready, upto FROM tidings_key WHERE subscription = ?1 AND owner = ?2")?
        .query_map([subscription, owner], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (key, claimed, upto) in keys {
        // What has a later `due` was settled since the claim.
        conn.prepare_cached(
            "UPDATE tidings_ordered SET lost = lost + 1 WHERE subscription = ?1 AND key = ?2 AND event <= ?3 AND due <= ?4",
        )?
        .execute(params![subscription, key, upto, claimed])?;
        resume(conn, subscription, &key, now)?;
    }
    Ok(())
}
