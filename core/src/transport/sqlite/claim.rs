//! Handing deliveries to a source.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Step;
use super::events::{self, COLUMNS, PIECE};
use super::ledger::Held;
use super::tx::Tx;
use super::{ordered, owner};
use crate::transport::{Incoming, Token};

/// Claims at most `max` deliveries for `source`, those that are ready longest first.
pub(super) fn claim(tx: &mut Tx<'_>, source: u64, max: usize) -> Step<Vec<Incoming>> {
    let Some(state) = tx.state.ledger.get(source) else { return Ok(Vec::new()) };
    let (subscription, keyed, plain_first) = (state.subscription, state.spec.ordered.is_some(), state.plain_first);
    if next_ready(tx.conn, subscription, keyed)?.is_none_or(|ready| ready > tx.now) {
        return Ok(Vec::new());
    }
    let Some(owner) = owner::ensure(tx, source)? else { return Ok(Vec::new()) };
    if !keyed {
        return plain(tx, source, subscription, owner, max);
    }
    // Events without a key and keys take turns, so that neither starves the other.
    let mut claimed = Vec::new();
    for plain_turn in [plain_first, !plain_first] {
        let room = max - claimed.len();
        if room > 0 {
            let more = if plain_turn {
                plain(tx, source, subscription, owner, room)?
            } else {
                ordered::claim(tx, source, subscription, owner, room)?
            };
            claimed.extend(more);
        }
    }
    if let Some(state) = tx.state.ledger.get_mut(source) {
        state.plain_first = !plain_first;
    }
    Ok(claimed)
}

/// When the subscription has the next thing to claim.
pub(super) fn next_ready(conn: &Connection, subscription: i64, keyed: bool) -> Step<Option<i64>> {
    let plain: Option<i64> = conn
        .prepare_cached(
            "SELECT ready FROM tidings_delivery WHERE subscription = ?1 AND owner = 0 ORDER BY ready LIMIT 1",
        )?
        .query_row([subscription], |r| r.get(0))
        .optional()?;
    let key = if keyed { ordered::next_ready(conn, subscription)? } else { None };
    Ok([plain, key].into_iter().flatten().min())
}

/// Takes events without order from the head of the queue.
fn plain(tx: &mut Tx<'_>, source: u64, subscription: i64, owner: i64, max: usize) -> Step<Vec<Incoming>> {
    let sql = format!(
        "SELECT d.ready, d.event, d.lost, d.headers, {COLUMNS} FROM tidings_delivery d CROSS JOIN tidings_event e ON e.id = d.event
         WHERE d.subscription = ?1 AND d.owner = 0 AND d.ready <= ?2 ORDER BY d.ready, d.event LIMIT ?3"
    );
    let mut statement = tx.conn.prepare_cached(&sql)?;
    let mut rows = statement.query([subscription, tx.now, i64::try_from(max).unwrap_or(i64::MAX)])?;
    let mut claimed = Vec::new();
    let (mut last, mut size) = (None, 0);
    while let Some(row) = rows.next()? {
        let (ready, event): (i64, i64) = (row.get(0)?, row.get(1)?);
        let own = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        claimed.push(Incoming {
            token: Token { id: event.cast_unsigned(), generation: owner.cast_unsigned() },
            message: events::message(row, 4, own)?,
            lost_deliveries: row.get(2)?,
        });
        tx.state.ledger.hold(source, event, Held::Plain(ready));
        last = Some((ready, event));
        size += claimed.last().map_or(0, |incoming: &Incoming| incoming.message.body.len());
        if size > PIECE {
            break;
        }
    }
    if let Some((ready, event)) = last {
        // Exactly the rows that were read: they are the head of the queue, and nobody else writes meanwhile.
        tx.conn.prepare_cached(TAKE)?.execute(params![owner, subscription, ready, event])?;
    }
    Ok(claimed)
}

const TAKE: &str =
    "UPDATE tidings_delivery SET owner = ?1 WHERE subscription = ?2 AND owner = 0 AND (ready, event) <= (?3, ?4)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sqlite::schema;

    fn plan(conn: &Connection, sql: &str) -> String {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![0; statement.parameter_count()];
        let lines = statement.query_map(rusqlite::params_from_iter(values), |r| r.get::<_, String>(3)).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }

    /// Every statement of a claim must go straight to its rows, whatever waits or is held.
    #[test]
    fn claims_search_an_index_and_sort_nothing() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(schema::BROKER[0]).unwrap();
        for sql in [
            TAKE,
            "SELECT d.ready FROM tidings_delivery d CROSS JOIN tidings_event e ON e.id = d.event
             WHERE d.subscription = ?1 AND d.owner = 0 AND d.ready <= ?2 ORDER BY d.ready, d.event LIMIT ?3",
            "SELECT ready FROM tidings_delivery WHERE subscription = ?1 AND owner = 0 ORDER BY ready LIMIT 1",
            "UPDATE tidings_delivery SET owner = 0, lost = lost + 1 WHERE subscription = ?1 AND owner = ?2",
            "SELECT key FROM tidings_key WHERE subscription = ?1 AND owner = 0 AND ready <= ?2 ORDER BY ready LIMIT ?3",
            "SELECT key, ready, upto FROM tidings_key WHERE subscription = ?1 AND owner = ?2",
            "SELECT event FROM tidings_ordered WHERE subscription = ?1 AND key = ?2 ORDER BY event LIMIT ?3",
            "SELECT id FROM tidings_dead WHERE subscription = ?1 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4",
            "SELECT id FROM tidings_scheduled WHERE due <= ?1 ORDER BY due, id LIMIT ?2",
        ] {
            let plan = plan(&conn, sql);
            assert!(
                plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"),
                "{sql}\n{plan}"
            );
        }
        let plan = plan(&conn, TAKE);
        assert!(plan.contains("owner=?") && plan.contains('<'), "{plan}");
    }
}
