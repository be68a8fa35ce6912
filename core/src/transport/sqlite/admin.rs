//! Subscriptions: declared, listed, deleted.

use rusqlite::{OptionalExtension, params};

use super::bindings::{self, Bindings};
use super::error::Step;
use super::ordered;
use super::tx::Tx;
use crate::event::Timestamp;
use crate::transport::{OnDead, OnRetry, SubscriptionInfo, SubscriptionSpec};
use crate::{Error, ErrorKind};

/// Declares a subscription, or adds binding keys to the one that is there; its id.
pub(super) fn declare(tx: &mut Tx<'_>, spec: &SubscriptionSpec) -> Step<i64> {
    let on_retry = spec.ordered.map(|o| match o.on_retry {
        OnRetry::Wait => "wait",
        OnRetry::Pass => "pass",
    });
    let on_dead = spec.ordered.map(|o| match o.on_dead {
        OnDead::Park => "park",
        OnDead::Skip => "skip",
    });
    let stored = tx
        .conn
        .prepare_cached("SELECT id, exchange, ordered, on_retry, on_dead FROM tidings_subscription WHERE name = ?1")?
        .query_row([&spec.name], |r| {
            let stored: (String, bool, Option<String>, Option<String>) = (r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?);
            Ok((r.get::<_, i64>(0)?, stored))
        })
        .optional()?;
    let id = if let Some((id, (exchange, ordered, retry, dead))) = stored {
        let truth = |is| if is { "true" } else { "false" };
        let settings = [
            ("exchange", exchange.as_str(), spec.exchange.as_str()),
            ("ordered", truth(ordered), truth(spec.ordered.is_some())),
            ("on_retry", retry.as_deref().unwrap_or(""), on_retry.unwrap_or("")),
            ("on_dead", dead.as_deref().unwrap_or(""), on_dead.unwrap_or("")),
        ];
        if let Some((setting, stored, wanted)) = settings.into_iter().find(|(_, stored, wanted)| stored != wanted) {
            return Err(conflict(&spec.name, setting, stored, wanted).into());
        }
        id
    } else {
        tx.conn
            .prepare_cached(
                "INSERT INTO tidings_subscription (name, exchange, ordered, on_retry, on_dead) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![spec.name, spec.exchange, spec.ordered.is_some(), on_retry, on_dead])?;
        bindings::changed(tx)?;
        tx.conn.last_insert_rowid()
    };
    let mut added = 0;
    for key in &spec.binding_keys {
        added += tx
            .conn
            .prepare_cached(
                "INSERT INTO tidings_binding (subscription, binding_key) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?
            .execute(params![id, key])?;
    }
    if added > 0 {
        bindings::changed(tx)?;
    }
    Ok(id)
}

fn conflict(name: &str, setting: &'static str, stored: &str, wanted: &str) -> Error {
    Error::new(
        ErrorKind::SubscriptionConflict,
        format!("the subscription {name} exists with {setting} {stored:?} and was declared with {wanted:?}"),
    )
    .field(setting, wanted)
    .remedy("declare it as it is, choose another name, or delete the subscription first")
}

pub(super) fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::SubscriptionNotFound, "the store has no subscription of this name")
        .field("subscription", name)
        .remedy("check the name and the path of the store; a subscription is created by subscribing")
}

/// The id of a subscription.
pub(super) fn find(tx: &Tx<'_>, name: &str) -> Step<Option<i64>> {
    Ok(tx
        .conn
        .prepare_cached("SELECT id FROM tidings_subscription WHERE name = ?1")?
        .query_row([name], |r| r.get(0))
        .optional()?)
}

/// All subscriptions with their depths.
pub(super) fn list(tx: &Tx<'_>) -> Step<Vec<SubscriptionInfo>> {
    let mut statement = tx
        .conn
        .prepare_cached("SELECT id, name, ordered FROM tidings_subscription WHERE name IS NOT NULL ORDER BY name")?;
    let named: Vec<(i64, String, bool)> =
        statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect::<Result<_, _>>()?;
    named
        .into_iter()
        .map(|(id, name, keyed)| {
            let count = |sql: &str| -> Step<u64> {
                Ok(tx.conn.prepare_cached(sql)?.query_row([id], |r| r.get::<_, i64>(0))?.cast_unsigned())
            };
            let plain = count("SELECT count(*) FROM tidings_delivery WHERE subscription = ?1 AND owner = 0")?;
            let held = count("SELECT count(*) FROM tidings_delivery WHERE subscription = ?1 AND owner > 0")?;
            let in_order = count("SELECT count(*) FROM tidings_ordered WHERE subscription = ?1")?;
            let held_keyed = count(
                "SELECT count(*) FROM tidings_key k CROSS JOIN tidings_ordered o
                 ON o.subscription = k.subscription AND o.key = k.key AND o.event <= k.upto AND o.due <= k.ready
                 WHERE k.subscription = ?1 AND k.owner > 0",
            )?;
            // A parked head is among the dead letters, where it can be seen.
            let parked = count("SELECT count(*) FROM tidings_dead WHERE subscription = ?1 AND parked")?;
            let mut info = SubscriptionInfo::new(name);
            info.ready = plain + in_order.saturating_sub(held_keyed + parked);
            info.in_flight = Some(held + held_keyed);
            info.dead = count("SELECT count(*) FROM tidings_dead WHERE subscription = ?1")?;
            info.parked = Some(parked);
            info.oldest = oldest(tx, id)?;
            info.order = keyed.then(|| ordered::state(tx.conn, id, tx.now)).transpose()?;
            Ok(info)
        })
        .collect()
}

/// When the oldest event that could be handled now was accepted: an event's id is that time on the store's clock.
fn oldest(tx: &Tx<'_>, subscription: i64) -> Step<Option<Timestamp>> {
    let accepted: Option<i64> = tx
        .conn
        .prepare_cached(
            "SELECT min(event) FROM (
                 SELECT event FROM tidings_delivery WHERE subscription = ?1 AND owner = 0 AND ready <= ?2
                 UNION ALL
                 SELECT o.event FROM tidings_key k CROSS JOIN tidings_ordered o
                 ON o.subscription = k.subscription AND o.key = k.key
                 WHERE k.subscription = ?1 AND k.owner = 0 AND k.ready <= ?2)",
        )?
        .query_row([subscription, tx.now], |r| r.get(0))?;
    Ok(accepted.map(|accepted| {
        let age = u64::try_from(tx.now.saturating_sub(accepted)).unwrap_or(0);
        Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub_unsigned(age))
    }))
}

/// Deletes a subscription: at once for everybody who looks, its rows bit by bit (see `purge`).
pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Step<bool> {
    let Some(id) = find(tx, name)? else { return Ok(false) };
    tx.conn.prepare_cached("DELETE FROM tidings_binding WHERE subscription = ?1")?.execute([id])?;
    tx.conn.prepare_cached("UPDATE tidings_subscription SET name = NULL WHERE id = ?1")?.execute([id])?;
    bindings::changed(tx)?;
    Bindings::reload(tx)?;
    Ok(true)
}
