//! The schema's version and the way to it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Fault, Step};
use crate::{Error, ErrorKind};

/// Name of this schema in `tidings_schema`, beside those of the outbox and the inbox.
const COMPONENT: &str = "broker";

/// The migrations, the first of them leading from nothing to version 1.
pub(super) const BROKER: &[&str] = &[include_str!("migrations/0001_broker.sql")];

/// The migrations of what is remembered beside the broker, which has a version of its own.
const MEMORY: &[&str] = &[include_str!("migrations/memory_0001.sql")];

/// Brings the tables to the version of this build. Needs a write transaction, so that of several processes that open
/// a new file at once one does it and the others find it done.
pub(super) fn migrate(conn: &Connection, path: &Path) -> Step<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS tidings_schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    bring(conn, COMPONENT, BROKER).map_err(|fault| match fault {
        Fault::Refused(error) => error.field("path", path.display()).into(),
        store @ Fault::Store(_) => store,
    })
}

/// As [`migrate`], for the keys with a time to live. Cheap where nothing is to be done.
pub(super) fn migrate_memory(conn: &Connection) -> Step<()> {
    bring(conn, "memory", MEMORY)
}

fn bring(conn: &Connection, component: &str, migrations: &[&str]) -> Step<()> {
    let found: Option<i64> = conn
        .prepare_cached("SELECT version FROM tidings_schema WHERE component = ?1")?
        .query_row([component], |r| r.get(0))
        .optional()?;
    let found = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
    if found > migrations.len() {
        return Err(Error::new(
            ErrorKind::SchemaTooNew,
            format!("the store has version {found} of the schema, this build knows up to {}", migrations.len()),
        )
        .field("component", component)
        .remedy("use the version of Tidings that wrote it, or a newer one")
        .into());
    }
    for (at, migration) in migrations.iter().enumerate().skip(found) {
        conn.execute_batch(migration)?;
        conn.execute(
            "INSERT INTO tidings_schema (component, version) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET version = excluded.version",
            params![component, i64::try_from(at + 1).unwrap_or(i64::MAX)],
        )?;
    }
    Ok(())
}
