//! Dead letters: kept apart from what is claimed, so that any number of them slows nothing.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::client::Client;
use super::clock::NEVER;
use super::error::Step;
use super::events::{self, COLUMNS, PIECE};
use super::tx::Tx;
use super::{admin, headers, ordered};
use crate::event::name;
use crate::transport::{DeadLetters, Message, StoredDeadLetter, Token};
use crate::{Error, ErrorKind, Result};

/// Most of one walk's step that are read in one transaction, whatever is asked for.
const PAGE: usize = 1000;

/// Keeps an event as dead. A parked one stays at the head of its key, so its row is needed twice.
pub(super) fn add(tx: &Tx<'_>, subscription: i64, event: i64, parked: bool, headers: Option<&str>) -> Step<()> {
    tx.conn
        .prepare_cached("INSERT INTO tidings_dead (subscription, event, parked, headers) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![subscription, event, parked, headers])?;
    if parked {
        tx.conn.prepare_cached("UPDATE tidings_event SET refs = refs + 1 WHERE id = ?1")?.execute([event])?;
    }
    Ok(())
}

/// A walk over the dead letters of one subscription.
pub(super) struct Walk {
    client: Arc<Client>,
    subscription: i64,
    /// The dead letter that was seen last, and the last one to see.
    cursor: i64,
    end: i64,
    depth: u64,
}

impl Walk {
    pub(super) async fn open(client: Arc<Client>, name: &str) -> Result<Self> {
        let name = name.to_owned();
        let (subscription, end, depth) = client
            .store()?
            .call(0, move |tx| {
                let subscription = admin::find(tx, &name)?.ok_or_else(|| admin::not_found(&name))?;
                let (end, depth): (Option<i64>, i64) = tx
                    .conn
                    .prepare_cached("SELECT max(id), count(*) FROM tidings_dead WHERE subscription = ?1")?
                    .query_row([subscription], |r| Ok((r.get(0)?, r.get(1)?)))?;
                Ok((subscription, end.unwrap_or(0), depth.cast_unsigned()))
            })
            .await?;
        Ok(Self { client, subscription, cursor: 0, end, depth })
    }
}

#[async_trait]
impl DeadLetters for Walk {
    fn depth(&self) -> u64 {
        self.depth
    }

    async fn next(&mut self, max: usize) -> Result<Vec<StoredDeadLetter>> {
        let (subscription, cursor, end, max) = (self.subscription, self.cursor, self.end, max.min(PAGE));
        let page = self.client.store()?.call(0, move |tx| page(tx, subscription, cursor, end, max)).await?;
        if let Some(last) = page.last() {
            self.cursor = last.token.id.cast_signed();
        }
        Ok(page)
    }

    async fn replay(&mut self, batch: Vec<(Token, Message)>) -> Vec<Result<()>> {
        let (subscription, count) = (self.subscription, batch.len());
        let encoded = batch.into_iter().map(|(token, mut message)| {
            message.headers.remove(name::PARKED);
            Ok((token.id.cast_signed(), headers::encode(&message.headers)?))
        });
        let replayed = async {
            let batch = encoded.collect::<Result<Vec<_>>>()?;
            let size = batch.iter().map(|(_, headers)| headers.as_ref().map_or(0, String::len)).sum();
            let run = move |tx: &mut Tx<'_>| {
                batch.iter().map(|(id, headers)| replay(tx, subscription, *id, headers.as_deref())).collect()
            };
            self.client.store()?.call(size, run).await
        };
        replayed.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.duplicate())).collect())
    }

    async fn discard(&mut self, batch: Vec<Token>) -> Vec<Result<()>> {
        let (subscription, count) = (self.subscription, batch.len());
        let discarded = async {
            let run = move |tx: &mut Tx<'_>| {
                batch.iter().map(|token| discard(tx, subscription, token.id.cast_signed())).collect()
            };
            self.client.store()?.call(0, run).await
        };
        discarded.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.duplicate())).collect())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the dead letter is gone: somebody else has replayed or discarded it")
        .remedy("open the dead letters again")
}

fn page(tx: &Tx<'_>, subscription: i64, cursor: i64, end: i64, max: usize) -> Step<Vec<StoredDeadLetter>> {
    let sql = format!(
        "SELECT d.id, d.headers, {COLUMNS} FROM tidings_dead d CROSS JOIN tidings_event e ON e.id = d.event
         WHERE d.subscription = ?1 AND d.id > ?2 AND d.id <= ?3 ORDER BY d.id LIMIT ?4"
    );
    let mut statement = tx.conn.prepare_cached(&sql)?;
    let mut rows = statement.query([subscription, cursor, end, i64::try_from(max).unwrap_or(i64::MAX)])?;
    let (mut page, mut size) = (Vec::new(), 0);
    while size < PIECE
        && let Some(row) = rows.next()?
    {
        let id: i64 = row.get(0)?;
        let own = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        let message = events::message(row, 2, own)?;
        size += message.body.len();
        page.push(StoredDeadLetter { token: Token { id: id.cast_unsigned(), generation: 0 }, message });
    }
    Ok(page)
}

/// A dead letter with what is needed to end it.
struct Ended {
    event: i64,
    parked: bool,
    key: Option<String>,
    ordered: bool,
}

/// Removes a dead letter. `None`: somebody did before, and nothing must be done twice.
fn remove(tx: &Tx<'_>, subscription: i64, id: i64) -> Step<Option<Ended>> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT d.event, d.parked, e.key, s.ordered FROM tidings_dead d
             CROSS JOIN tidings_event e ON e.id = d.event CROSS JOIN tidings_subscription s ON s.id = d.subscription
             WHERE d.id = ?1 AND d.subscription = ?2",
        )?
        .query_row([id, subscription], |r| {
            Ok(Ended { event: r.get(0)?, parked: r.get(1)?, key: r.get(2)?, ordered: r.get(3)? })
        })
        .optional()?;
    if found.is_some() {
        tx.conn.prepare_cached("DELETE FROM tidings_dead WHERE id = ?1")?.execute([id])?;
    }
    Ok(found)
}

/// Puts the event back at once. A parked head stays where it is and its key goes on with it.
fn replay(tx: &mut Tx<'_>, subscription: i64, id: i64, headers: Option<&str>) -> Step<Result<()>> {
    let Some(dead) = remove(tx, subscription, id)? else { return Ok(Err(gone())) };
    match dead.key.filter(|_| dead.ordered) {
        Some(key) if dead.parked => {
            if is_parked(tx, subscription, &key, dead.event)? {
                ordered::rewrite(tx, subscription, &key, dead.event, 0, headers)?;
                ordered::reconsider(tx, subscription, &key)?;
            }
            events::unref(tx, dead.event)?;
        }
        Some(key) => {
            ordered::insert(tx, subscription, &key, dead.event, headers)?;
            ordered::reconsider(tx, subscription, &key)?;
        }
        None => {
            events::enqueue(tx, subscription, tx.now, dead.event, headers)?;
            tx.state.touch(subscription);
        }
    }
    Ok(Ok(()))
}

/// Drops the event. If it was parked, its key goes on without it.
fn discard(tx: &mut Tx<'_>, subscription: i64, id: i64) -> Step<Result<()>> {
    let Some(dead) = remove(tx, subscription, id)? else { return Ok(Err(gone())) };
    if let Some(key) = dead.key.filter(|_| dead.parked)
        && is_parked(tx, subscription, &key, dead.event)?
    {
        ordered::remove(tx, subscription, &key, dead.event)?;
        events::unref(tx, dead.event)?;
        ordered::reconsider(tx, subscription, &key)?;
    }
    events::unref(tx, dead.event)?;
    Ok(Ok(()))
}

fn is_parked(tx: &Tx<'_>, subscription: i64, key: &str, event: i64) -> Step<bool> {
    let due: Option<i64> = tx
        .conn
        .prepare_cached("SELECT due FROM tidings_ordered WHERE subscription = ?1 AND key = ?2 AND event = ?3")?
        .query_row(params![subscription, key, event], |r| r.get(0))
        .optional()?;
    Ok(due == Some(NEVER))
}
