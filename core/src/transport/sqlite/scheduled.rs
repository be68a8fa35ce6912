//! Events that were published for later.

use super::clock::NEVER;
use super::error::Step;
use super::events::{Columns, accept, insert_into};
use super::tx::Tx;

/// Most events that one transaction routes, so that it stays short.
const BATCH: i64 = 500;

/// Keeps an event until `due`.
pub(super) fn add(tx: &mut Tx<'_>, event: &Columns<'_>, due: i64) -> Step<()> {
    let id = tx.event_id();
    event.insert(tx, insert_into!("tidings_scheduled", "due"), id, due)?;
    tx.state.scheduled = tx.state.scheduled.min(due);
    Ok(())
}

/// Routes what is due: to those bound by now, behind what was accepted before. One transaction routes and removes, so
/// every event is routed once, by whichever process is first.
pub(super) fn route_due(tx: &mut Tx<'_>) -> Step<()> {
    if tx.state.scheduled > tx.now {
        return Ok(());
    }
    let mut unwanted = 0;
    let mut routed = Vec::new();
    {
        let mut statement = tx.conn.prepare_cached(
            "SELECT id, timestamp, exchange, routing_key, event_id, key, headers, body FROM tidings_scheduled
             WHERE due <= ?1 ORDER BY due, id LIMIT ?2",
        )?;
        let mut rows = statement.query([tx.now, BATCH])?;
        while let Some(row) = rows.next()? {
            let text = |at: usize| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from);
            let maybe = |at: usize| row.get_ref(at)?.as_str_or_null().map_err(rusqlite::Error::from);
            let event = Columns {
                timestamp: row.get(1)?,
                exchange: text(2)?,
                routing_key: text(3)?,
                event_id: text(4)?,
                key: maybe(5)?,
                headers: maybe(6)?,
                body: row.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?,
            };
            if !accept(tx, &event)? {
                unwanted += 1;
            }
            routed.push(row.get::<_, i64>(0)?);
        }
    }
    for id in routed {
        tx.conn.prepare_cached("DELETE FROM tidings_scheduled WHERE id = ?1")?.execute([id])?;
    }
    if unwanted > 0 {
        tracing::warn!(events = unwanted, "delayed events fell due that no subscription wants; they are gone");
    }
    let next: Option<i64> =
        tx.conn.prepare_cached("SELECT min(due) FROM tidings_scheduled")?.query_row([], |r| r.get(0))?;
    tx.state.scheduled = next.unwrap_or(NEVER);
    Ok(())
}
