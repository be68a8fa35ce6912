//! SQL stores: what outbox and inbox write in the caller's transaction, and what relays ask of a database.
//!
//! `insert` renders the statements that a program runs in its own transaction; nothing in it touches a connection.
//! `outbox` holds every other statement once for all databases and runs it through a [`Driver`](driver::Driver), of which
//! there is one for each database.

// Without a database only the rendering is used.
#![cfg_attr(not(any(feature = "postgres", feature = "mysql", feature = "sqlite")), allow(dead_code))]

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod address;
mod dialect;
pub(crate) mod driver;
mod insert;
#[cfg(feature = "mysql")]
mod mysql;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod tables;

pub use dialect::{Dialect, ParamStyle};
pub(crate) use insert::escaped;
pub use insert::{OutboxWriter, outbox_insert};
pub(crate) use schema::Component;
pub use schema::{SCHEMA_VERSION, outbox_schema};
pub(crate) use statement::Sql;
pub use statement::{Statement, Value};
pub use tables::Tables;

pub(crate) mod connect;

/// Reads the URL of a database server, without the files that it may name.
#[cfg(all(feature = "testkit", feature = "amqp", any(feature = "postgres", feature = "mysql")))]
pub(crate) fn read_url(url: &str) -> crate::Result<()> {
    address::parse(url).map(drop)?;
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres") && !url.contains("root") {
        postgres::read_url(url)?;
    }
    Ok(())
}
