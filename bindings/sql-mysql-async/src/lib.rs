//! Writes events into an outbox with `mysql_async`, in the caller's own transaction: they are published if it commits.
//!
//! The statement is rendered by [`tidings::outbox::OutboxWriter`]; this crate runs it.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), tidings::BoxError> {
//! # let Ok(url) = std::env::var("MYSQL_URL") else { return Ok(()) };
//! # let mut connection = mysql_async::Conn::from_url(&url).await?;
//! # connection.query_drop("CREATE TEMPORARY TABLE orders (id int PRIMARY KEY)").await?;
//! # let schema = tidings::outbox::outbox_schema(Dialect::MySql, &Default::default());
//! # for table in schema.split(";\n").filter(|sql| sql.contains("CREATE TABLE `tidings_outbox` ")) {
//! #     connection.query_drop(table.replace("CREATE TABLE", "CREATE TEMPORARY TABLE")).await?;
//! # }
//! use mysql_async::TxOpts;
//! use mysql_async::prelude::Queryable;
//! use tidings::DomainEvent;
//! use tidings::outbox::{Dialect, OutboxWriter};
//!
//! let outbox = OutboxWriter::new(Dialect::MySql);
//! let mut tx = connection.start_transaction(TxOpts::default()).await?;
//! tx.query_drop("INSERT INTO orders VALUES (7)").await?;
//! tidings_mysql_async::add(&outbox, &mut tx, &[DomainEvent::new("order.placed", &7)?.into()]).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```

use mysql_async::prelude::Queryable as _;
use mysql_async::{Params, Transaction};
use tidings::inbox::InboxWriter;
use tidings::outbox::{OutboxEvent, OutboxWriter, ParamStyle, Statement, Value};
use tidings::{BoxError, DomainEvent};

/// Writes `events` in the transaction. A connection without one is not taken.
///
/// Errors: the engine's, for what no relay could publish, and the driver's.
pub async fn add(outbox: &OutboxWriter, tx: &mut Transaction<'_>, events: &[OutboxEvent]) -> Result<(), BoxError> {
    for statement in outbox.insert(ParamStyle::Question, events)? {
        run(tx, statement).await?;
    }
    Ok(())
}

/// Claims the event for `subscription` in the transaction. `false`: it was processed before.
pub async fn claim(
    inbox: &InboxWriter,
    tx: &mut Transaction<'_>,
    subscription: &str,
    event: &DomainEvent,
) -> Result<bool, BoxError> {
    run(tx, inbox.claim(ParamStyle::Question, subscription, event)?).await?;
    Ok(tx.affected_rows() == 1)
}

async fn run(tx: &mut Transaction<'_>, statement: Statement) -> mysql_async::Result<()> {
    let params: Vec<_> = statement.params.into_iter().map(stored).collect();
    let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
    tx.exec_drop(statement.sql, params).await
}

fn stored(value: Value) -> mysql_async::Value {
    match value {
        Value::Int(number) => mysql_async::Value::Int(number),
        Value::Text(text) => mysql_async::Value::Bytes(text.into_bytes()),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes),
        // Null; arrays are never rendered for callers.
        _ => mysql_async::Value::NULL,
    }
}
