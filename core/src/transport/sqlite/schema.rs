//! The schema's version and the way to it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Step;
use crate::{Error, ErrorKind};

/// Name of this schema in `tidings_schema`, beside those of the outbox and the inbox.
const COMPONENT: &str = "broker";

/// The migrations, the first of them leading from nothing to version 1.
pub(super) const BROKER: &[&str] = &[include_str!("migrations/0001_broker.sql")];

/// Brings the tables to the version of this build. Needs a write transaction, so that of several processes that open
/// a new file at once one does it and the others find it done.
pub(super) fn migrate(conn: &Connection, path: &Path) -> Step<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS tidings_schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    let found: Option<i64> = conn
        .query_row("SELECT version FROM tidings_schema WHERE component = ?1", [COMPONENT], |r| r.get(0))
        .optional()?;
    let found = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
    if found > BROKER.len() {
        return Err(Error::new(
            ErrorKind::SchemaTooNew,
            format!("the store has version {found} of the schema, this build knows up to {}", BROKER.len()),
        )
        .field("path", path.display())
        .remedy("use the version of Tidings that wrote it, or a newer one")
        .into());
    }
    for (at, migration) in BROKER.iter().enumerate().skip(found) {
        conn.execute_batch(migration)?;
        conn.execute(
            "INSERT INTO tidings_schema (component, version) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET version = excluded.version",
            params![COMPONENT, i64::try_from(at + 1).unwrap_or(i64::MAX)],
        )?;
    }
    Ok(())
}
