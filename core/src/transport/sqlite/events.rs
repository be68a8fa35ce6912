//! Rows of events: written once, read by every subscription, gone with the last of them.

use rusqlite::{Row, params};

use super::error::Step;
use super::tx::Tx;
use super::{headers, ordered};
use crate::Result;
use crate::event::{Payload, Timestamp};
use crate::transport::Message;

/// The columns of an event that [`message`] reads, from `tidings_event e`.
pub(super) const COLUMNS: &str = "e.timestamp, e.exchange, e.routing_key, e.event_id, e.key, e.body, e.headers";

/// Bytes of bodies after which a claim or a page ends, however many events were asked for.
pub(super) const PIECE: usize = 32 * 1024 * 1024;

/// An event with its headers encoded, so that the writer thread need not do it.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) message: Message,
    pub(super) headers: Option<String>,
}

impl NewEvent {
    pub(super) fn new(message: Message) -> Result<Self> {
        let headers = headers::encode(&message.headers)?;
        Ok(Self { message, headers })
    }

    /// Bytes that it takes, roughly.
    pub(super) fn size(&self) -> usize {
        self.message.body.len() + self.headers.as_ref().map_or(0, String::len)
    }
}

/// What is written of an event, wherever it comes from.
pub(super) struct Columns<'a> {
    pub(super) timestamp: i64,
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) event_id: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) headers: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Writes an event into a table that has its columns behind an id and a number of its own.
macro_rules! insert_into {
    ($table:literal, $number:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (id, ",
            $number,
            ", timestamp, exchange, routing_key, event_id, key, headers, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        )
    };
}
pub(super) use insert_into;

impl Columns<'_> {
    /// Does what [`insert_into`] says.
    pub(super) fn insert(&self, tx: &Tx<'_>, insert: &str, id: i64, number: i64) -> Step<()> {
        tx.conn.prepare_cached(insert)?.execute(params![
            id,
            number,
            self.timestamp,
            self.exchange,
            self.routing_key,
            self.event_id,
            self.key,
            self.headers,
            self.body
        ])?;
        Ok(())
    }
}

impl<'a> From<&'a NewEvent> for Columns<'a> {
    fn from(event: &'a NewEvent) -> Self {
        let message = &event.message;
        Self {
            timestamp: message.timestamp.as_micros(),
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            event_id: &message.id,
            key: message.key.as_deref(),
            headers: event.headers.as_deref(),
            body: &message.body,
        }
    }
}

/// Routes an event and stores it for whoever wants it. `false`: nobody does, and nothing was stored.
pub(super) fn accept(tx: &mut Tx<'_>, event: &Columns<'_>) -> Step<bool> {
    let targets = tx.state.bindings.route(event.exchange, event.routing_key);
    if targets.is_empty() {
        return Ok(false);
    }
    let id = tx.event_id();
    let refs = i64::try_from(targets.len()).unwrap_or(i64::MAX);
    event.insert(tx, insert_into!("tidings_event", "refs"), id, refs)?;
    for target in targets {
        match event.key.filter(|_| target.ordered) {
            Some(key) => ordered::append(tx, target.subscription, key, id)?,
            None => enqueue(tx, target.subscription, tx.now, id, None)?,
        }
        tx.state.touch(target.subscription);
    }
    Ok(true)
}

/// Puts an event among those without order, to be claimed from `ready` on.
pub(super) fn enqueue(tx: &Tx<'_>, subscription: i64, ready: i64, event: i64, headers: Option<&str>) -> Step<()> {
    tx.conn
        .prepare_cached("INSERT INTO tidings_delivery (subscription, owner, ready, event, lost, headers) VALUES (?1, 0, ?2, ?3, 0, ?4)")?
        .execute(params![subscription, ready, event, headers])?;
    Ok(())
}

/// One row less needs the event.
pub(super) fn unref(tx: &Tx<'_>, event: i64) -> Step<()> {
    let gone = if tx.state.options.retention.is_zero() {
        tx.conn.prepare_cached("DELETE FROM tidings_event WHERE id = ?1 AND refs <= 1")?.execute([event])?
    } else {
        tx.conn
            .prepare_cached("UPDATE tidings_event SET refs = 0, settled = ?2 WHERE id = ?1 AND refs <= 1")?
            .execute([event, tx.now])?
    };
    if gone == 0 {
        tx.conn.prepare_cached("UPDATE tidings_event SET refs = refs - 1 WHERE id = ?1")?.execute([event])?;
    }
    Ok(())
}

/// The event of a row that has [`COLUMNS`] from `at` on; `own` headers replace the event's.
pub(super) fn message(row: &Row<'_>, at: usize, own: Option<&str>) -> Result<Message, rusqlite::Error> {
    let text = |column: usize| row.get_ref(at + column)?.as_str().map(Into::into).map_err(rusqlite::Error::from);
    let key = row.get_ref(at + 4)?.as_str_or_null()?.map(Into::into);
    let stored = match own {
        Some(_) => own,
        None => row.get_ref(at + 6)?.as_str_or_null()?,
    };
    Ok(Message {
        timestamp: Timestamp::from_micros(row.get(at)?),
        exchange: text(1)?,
        routing_key: text(2)?,
        id: text(3)?,
        key,
        body: Payload::copy_from_slice(row.get_ref(at + 5)?.as_blob()?),
        headers: headers::decode(stored),
        deliver_at: None,
        require_route: false,
        deadline: None,
    })
}
