//! Removing what nobody needs, a bounded piece in each transaction.

use super::error::Step;
use super::events;
use super::tx::Tx;

/// Rows that one transaction removes.
const PIECE: i64 = 2000;
/// Pause between two looks for settled events that are too old, in microseconds.
const RETENTION_PAUSE: i64 = 1_000_000;

/// Removes a piece of the first deleted subscription.
pub(super) fn subscriptions(tx: &mut Tx<'_>) -> Step<()> {
    let Some(&subscription) = tx.state.purging.first() else { return Ok(()) };
    let mut removed = 0;
    for sql in [
        "DELETE FROM tidings_delivery WHERE subscription = ?1 AND (owner, ready, event) IN
         (SELECT owner, ready, event FROM tidings_delivery WHERE subscription = ?1 LIMIT ?2) RETURNING event",
        "DELETE FROM tidings_ordered WHERE subscription = ?1 AND (key, event) IN
         (SELECT key, event FROM tidings_ordered WHERE subscription = ?1 LIMIT ?2) RETURNING event",
        "DELETE FROM tidings_dead WHERE id IN (SELECT id FROM tidings_dead WHERE subscription = ?1 LIMIT ?2) RETURNING event",
    ] {
        let events: Vec<i64> =
            tx.conn.prepare_cached(sql)?.query_map([subscription, PIECE], |r| r.get(0))?.collect::<Result<_, _>>()?;
        removed += events.len();
        for event in events {
            events::unref(tx, event)?;
        }
    }
    let keys = tx
        .conn
        .prepare_cached(
            "DELETE FROM tidings_key WHERE subscription = ?1 AND key IN
             (SELECT key FROM tidings_key WHERE subscription = ?1 LIMIT ?2)",
        )?
        .execute([subscription, PIECE])?;
    if removed > 0 {
        tracing::warn!(
            events = removed,
            "events of a deleted subscription were removed, those that waited for a retry included"
        );
    }
    if removed == 0 && keys == 0 {
        tx.conn.prepare_cached("DELETE FROM tidings_owner WHERE subscription = ?1")?.execute([subscription])?;
        tx.conn.prepare_cached("DELETE FROM tidings_subscription WHERE id = ?1")?.execute([subscription])?;
        tx.state.purging.retain(|other| *other != subscription);
    }
    Ok(())
}

/// Removes settled events that were kept for long enough. The rest of a large number follows at once.
pub(super) fn settled(tx: &mut Tx<'_>) -> Step<()> {
    let Ok(retention) = i64::try_from(tx.state.options.retention.as_micros()) else { return Ok(()) };
    if retention == 0 || tx.state.retention_due > tx.now {
        return Ok(());
    }
    let removed = tx
        .conn
        .prepare_cached("DELETE FROM tidings_event WHERE id IN (SELECT id FROM tidings_event WHERE settled <= ?1 ORDER BY settled LIMIT ?2)")?
        .execute([tx.now - retention, PIECE])?;
    let more = i64::try_from(removed).is_ok_and(|removed| removed == PIECE);
    tx.state.retention_due = if more { tx.now } else { tx.now + RETENTION_PAUSE };
    Ok(())
}
