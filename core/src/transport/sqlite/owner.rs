//! Leases: who holds deliveries, until when, and what happens to those of the dead.
//!
//! A source holds everything under one row, so renewing costs one update however much it holds. The row's id is the
//! fence: a lease that ended is never renewed, its id never comes back, and tokens of it settle as `STALE_DELIVERY`.

use rusqlite::{Connection, OptionalExtension};

use super::clock::NEVER;
use super::error::Step;
use super::ledger::{Owner, SourceState};
use super::ordered;
use super::tx::{State, Tx};

/// The lease under which a source may claim now; its id.
pub(super) fn ensure(tx: &mut Tx<'_>, source: u64) -> Step<Option<i64>> {
    let Some(state) = tx.state.ledger.get(source) else { return Ok(None) };
    let (lease, subscription) = (state.lease(), state.subscription);
    let until = tx.now + lease;
    match state.owner {
        Some(owner) if owner.until > tx.now => {
            if owner.until - tx.now < lease / 3 * 2 {
                extend(tx, source, Owner { id: owner.id, until })?;
            }
            Ok(Some(owner.id))
        }
        _ => {
            tx.conn
                .prepare_cached("INSERT INTO tidings_owner (subscription, until) VALUES (?1, ?2)")?
                .execute([subscription, until])?;
            let id = tx.conn.last_insert_rowid();
            tx.state.ledger.set_owner(source, Some(Owner { id, until }));
            tx.state.lease_end = tx.state.lease_end.min(until);
            Ok(Some(id))
        }
    }
}

fn extend(tx: &mut Tx<'_>, source: u64, owner: Owner) -> Step<()> {
    tx.conn.prepare_cached("UPDATE tidings_owner SET until = ?2 WHERE id = ?1")?.execute([owner.id, owner.until])?;
    tx.state.ledger.set_owner(source, Some(owner));
    Ok(())
}

/// When a lease of this process must be renewed: a third into it. One that covers nothing may end.
pub(super) fn next_renewal(state: &State) -> i64 {
    let due = |(_, source): (u64, &SourceState)| {
        source.owner.filter(|_| !source.holds_nothing()).map(|owner| owner.until - source.lease() / 3 * 2)
    };
    state.ledger.iter().filter_map(due).min().unwrap_or(NEVER)
}

/// Renews the leases of this process that are due for it.
pub(super) fn renew(tx: &mut Tx<'_>) -> Step<()> {
    let due: Vec<(u64, Owner)> = tx
        .state
        .ledger
        .iter()
        .filter(|(_, source)| !source.holds_nothing())
        .filter_map(|(id, source)| {
            let owner = source.owner?;
            // Those that are nearly due are renewed along with the others.
            let near = owner.until > tx.now && owner.until - tx.now <= source.lease() / 4 * 3;
            near.then(|| (id, Owner { id: owner.id, until: tx.now + source.lease() }))
        })
        .collect();
    for (source, owner) in due {
        extend(tx, source, owner)?;
    }
    super::clock::remember(tx.conn, tx.now)
}

/// Takes over what the owners held whose lease has ended, in this process or another one.
pub(super) fn sweep(tx: &mut Tx<'_>) -> Step<()> {
    forget_lapsed(tx);
    if tx.state.lease_end > tx.now {
        return Ok(());
    }
    let ended: Vec<(i64, i64)> = tx
        .conn
        .prepare_cached("SELECT id, subscription FROM tidings_owner WHERE until <= ?1")?
        .query_map([tx.now], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, subscription) in ended {
        take_over(tx.conn, id, subscription, tx.now)?;
        tx.state.touch(subscription);
    }
    let next: Option<i64> = tx
        .conn
        .prepare_cached("SELECT min(until) FROM tidings_owner")?
        .query_row([], |r| r.get(0))
        .optional()?
        .flatten();
    tx.state.lease_end = next.unwrap_or(NEVER);
    Ok(())
}

/// Has the sources of this process forget what they held under a lease that has ended. Another process may have taken it over
/// long ago, and there is no row of the lease any more: what was forgotten here counts as held no longer.
fn forget_lapsed(tx: &mut Tx<'_>) {
    let lapsed = |(id, source): (u64, &SourceState)| {
        source.owner.is_some_and(|owner| owner.until <= tx.now).then_some((id, !source.holds_nothing()))
    };
    let lapsed: Vec<(u64, bool)> = tx.state.ledger.iter().filter_map(lapsed).collect();
    for (id, held) in lapsed {
        if held && let Some(source) = tx.state.ledger.get(id) {
            let mut health = source.health.lock();
            health.recoveries += 1;
            health.last_error = Some("the lease ended before it could be renewed".to_owned());
        }
        tx.state.ledger.lose(id);
    }
}

/// Takes over what every owner held: none of them has survived the boot.
pub(super) fn end_all(conn: &Connection, now: i64) -> Step<()> {
    let all: Vec<(i64, i64)> = conn
        .prepare_cached("SELECT id, subscription FROM tidings_owner")?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, subscription) in all {
        take_over(conn, id, subscription, now)?;
    }
    Ok(())
}

fn take_over(conn: &Connection, owner: i64, subscription: i64, now: i64) -> Step<()> {
    conn.prepare_cached(
        "UPDATE tidings_delivery SET owner = 0, lost = lost + 1 WHERE subscription = ?1 AND owner = ?2",
    )?
    .execute([subscription, owner])?;
    ordered::take_over(conn, subscription, owner, now)?;
    conn.prepare_cached("DELETE FROM tidings_owner WHERE id = ?1")?.execute([owner])?;
    Ok(())
}

/// Gives back all that a source holds and forgets the source: nothing of it counts as lost.
pub(super) fn release(tx: &mut Tx<'_>, source: u64) -> Step<()> {
    let Some(state) = tx.state.ledger.get(source) else { return Ok(()) };
    let subscription = state.subscription;
    if let Some(owner) = state.owner {
        if state.held_plain() {
            tx.conn
                .prepare_cached("UPDATE tidings_delivery SET owner = 0 WHERE subscription = ?1 AND owner = ?2")?
                .execute([subscription, owner.id])?;
        }
        for key in state.held_keys() {
            ordered::resume(tx.conn, subscription, &key, tx.now)?;
        }
        tx.conn.prepare_cached("DELETE FROM tidings_owner WHERE id = ?1")?.execute([owner.id])?;
        tx.state.touch(subscription);
    }
    tx.state.ledger.remove(source);
    Ok(())
}
