//! Writes events into an outbox with tokio-postgres, in the caller's own transaction: they are published if it commits.
//!
//! The statement is rendered by [`tidings::outbox::OutboxWriter`]; this crate runs it.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), tidings::BoxError> {
//! # let Ok(url) = std::env::var("DATABASE_URL") else { return Ok(()) };
//! # let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
//! # tokio::spawn(connection);
//! # client.batch_execute("SET search_path = pg_temp; CREATE TABLE orders (id int PRIMARY KEY)").await?;
//! # client.batch_execute(&tidings::outbox::outbox_schema(Dialect::Postgres, &Default::default())).await?;
//! use tidings::DomainEvent;
//! use tidings::outbox::{Dialect, OutboxWriter};
//!
//! let outbox = OutboxWriter::new(Dialect::Postgres);
//! let tx = client.transaction().await?;
//! tx.execute("INSERT INTO orders VALUES (7)", &[]).await?;
//! tidings_tokio_postgres::add(&outbox, &tx, &[DomainEvent::new("order.placed", &7)?.into()]).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```

use tidings::inbox::InboxWriter;
use tidings::outbox::{OutboxEvent, OutboxWriter, ParamStyle, Statement, Value};
use tidings::{BoxError, DomainEvent};
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

/// Writes `events` in the transaction. A client without one is not taken.
///
/// Errors: the engine's, for what no relay could publish, and the driver's.
pub async fn add(outbox: &OutboxWriter, tx: &Transaction<'_>, events: &[OutboxEvent]) -> Result<(), BoxError> {
    for statement in outbox.insert(ParamStyle::Dollar, events)? {
        // Not every one changes rows: locks are taken by a query.
        tx.query_typed(&statement.sql, &typed(&statement)).await?;
    }
    Ok(())
}

/// Claims the event for `subscription` in the transaction. `false`: it was processed before.
pub async fn claim(
    inbox: &InboxWriter,
    tx: &Transaction<'_>,
    subscription: &str,
    event: &DomainEvent,
) -> Result<bool, BoxError> {
    let statement = inbox.claim(ParamStyle::Dollar, subscription, event)?;
    Ok(tx.execute_typed(&statement.sql, &typed(&statement)).await? == 1)
}

fn typed(statement: &Statement) -> Vec<(&(dyn ToSql + Sync), Type)> {
    let typed = statement.params.iter().map(|value| -> (&(dyn ToSql + Sync), Type) {
        match value {
            Value::Int(number) => (number, Type::INT8),
            Value::Text(text) => (text, Type::TEXT),
            Value::Bytes(bytes) => (bytes, Type::BYTEA),
            // Null of whatever type the server finds for it; arrays are never rendered for callers.
            _ => (&None::<&str>, Type::UNKNOWN),
        }
    });
    typed.collect()
}
