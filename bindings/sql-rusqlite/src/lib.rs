//! Writes events into an outbox with rusqlite, in the caller's own transaction: they are published if it commits.
//!
//! The statement is rendered by [`tidings::outbox::OutboxWriter`]; this crate runs it.
//!
//! ```
//! use rusqlite::Connection;
//! use tidings::DomainEvent;
//! use tidings::outbox::{Dialect, OutboxWriter, Tables, outbox_schema};
//!
//! let mut connection = Connection::open_in_memory()?;
//! connection.execute_batch(&outbox_schema(Dialect::Sqlite, &Tables::default()))?;
//! let outbox = OutboxWriter::new(Dialect::Sqlite);
//! let tx = connection.transaction()?;
//! tidings_rusqlite::add(&outbox, &tx, &[DomainEvent::new("order.placed", &7)?.into()])?;
//! tx.commit()?;
//! # Ok::<(), tidings::BoxError>(())
//! ```
//!
//! A relay in the same process needs `shared=true` in its URL: both are one copy of SQLite.

use rusqlite::{Transaction, params_from_iter, types};
use tidings::inbox::InboxWriter;
use tidings::outbox::{OutboxEvent, OutboxWriter, ParamStyle, Statement, Value};
use tidings::{BoxError, DomainEvent};

/// Writes `events` in the transaction. A connection without one is not taken.
///
/// Errors: the engine's, for what no relay could publish, and the driver's.
pub fn add(outbox: &OutboxWriter, tx: &Transaction<'_>, events: &[OutboxEvent]) -> Result<(), BoxError> {
    for statement in outbox.insert(ParamStyle::Question, events)? {
        run(tx, &statement)?;
    }
    Ok(())
}

/// Claims the event for `subscription` in the transaction. `false`: it was processed before.
pub fn claim(
    inbox: &InboxWriter,
    tx: &Transaction<'_>,
    subscription: &str,
    event: &DomainEvent,
) -> Result<bool, BoxError> {
    Ok(run(tx, &inbox.claim(ParamStyle::Question, subscription, event)?)? == 1)
}

fn run(tx: &Transaction<'_>, statement: &Statement) -> rusqlite::Result<usize> {
    tx.execute(&statement.sql, params_from_iter(statement.params.iter().map(stored)))
}

fn stored(value: &Value) -> types::Value {
    match value {
        Value::Int(number) => types::Value::Integer(*number),
        Value::Text(text) => types::Value::Text(text.clone()),
        Value::Bytes(bytes) => types::Value::Blob(bytes.clone()),
        // Null; arrays are never rendered for callers.
        _ => types::Value::Null,
    }
}
