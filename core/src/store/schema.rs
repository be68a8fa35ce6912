//! The schema as SQL that people can read and run, and its version.

use std::fmt::Write as _;

use super::statement::Sql;
use super::{Dialect, Statement, Tables};
use crate::{Error, ErrorKind, Result};

/// The version of the outbox's schema that this build writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

const POSTGRES: &[&str] = &[include_str!("migrations/outbox_postgres_0001.sql")];
const MYSQL: &[&str] = &[include_str!("migrations/outbox_mysql_0001.sql")];
const SQLITE: &[&str] = &[include_str!("migrations/outbox_sqlite_0001.sql")];

/// The whole schema of an outbox as a script: what a migration tool of your own runs instead of `install`.
///
/// ```
/// use tidings::outbox::{Dialect, Tables, outbox_schema};
///
/// let script = outbox_schema(Dialect::Postgres, &Tables::new("app.outbox")?);
/// assert!(script.contains(r#"CREATE TABLE "app"."outbox" ("#));
/// # Ok::<(), tidings::Error>(())
/// ```
pub fn outbox_schema(dialect: Dialect, tables: &Tables) -> String {
    let mut script = format!("{};\n\n", create_versions(dialect, &tables.versions(dialect)));
    for migration in migrations(dialect) {
        script.push_str(&named(dialect, tables, migration));
        script.push('\n');
    }
    let component = tables.component().replace('\'', "''");
    // Writing into a string cannot fail.
    let _infallible = writeln!(
        script,
        "INSERT INTO {} (component, version) VALUES ('{component}', {SCHEMA_VERSION});",
        tables.versions(dialect)
    );
    script
}

/// The statements that lead from version `found` to this build's.
pub(crate) fn upgrade(dialect: Dialect, tables: &Tables, found: u32) -> Vec<Statement> {
    let missing = migrations(dialect).iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    let mut all: Vec<Statement> = missing
        .flat_map(|migration| statements(&named(dialect, tables, migration)))
        .map(|sql| Statement { sql, params: Vec::new() })
        .collect();
    let versions = tables.versions(dialect);
    all.push(
        Sql::new(dialect)
            .sql(&format!("DELETE FROM {versions} WHERE component = "))
            .bind(component(dialect, tables))
            .done(),
    );
    all.push(
        Sql::new(dialect)
            .sql(&format!("INSERT INTO {versions} (component, version) VALUES ("))
            .bind(component(dialect, tables))
            .sql(&format!(", {SCHEMA_VERSION})"))
            .done(),
    );
    all
}

/// What asks for the version.
pub(crate) fn version(dialect: Dialect, tables: &Tables) -> Statement {
    let versions = tables.versions(dialect);
    Sql::new(dialect)
        .sql(&format!("SELECT version FROM {versions} WHERE component = "))
        .bind(component(dialect, tables))
        .done()
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
/// The version that the answer to [`version`] tells; 0 if there is none.
pub(crate) fn found(answer: &super::driver::Output) -> u32 {
    match answer.rows.first().and_then(|row| row.first()) {
        Some(super::Value::Int(version)) => u32::try_from(*version).unwrap_or(u32::MAX),
        _ => 0,
    }
}

/// As [`create_versions`], to be run.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn prepare_versions(dialect: Dialect, tables: &Tables) -> Statement {
    Statement { sql: create_versions(dialect, &tables.versions(dialect)), params: Vec::new() }
}

/// What creates the table of versions, if it is not there.
pub(crate) fn create_versions(dialect: Dialect, versions: &str) -> String {
    let columns = match dialect {
        Dialect::Postgres => "(component text PRIMARY KEY, version integer NOT NULL)",
        Dialect::MySql => "(component varbinary(255) PRIMARY KEY, version integer NOT NULL) ENGINE = InnoDB",
        Dialect::Sqlite => "(component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    };
    format!("CREATE TABLE IF NOT EXISTS {versions} {columns}")
}

/// Refuses what a newer version has written. Returns whether the tables are of this version.
pub(crate) fn check_version(tables: &Tables, found: u32) -> Result<bool> {
    if found > SCHEMA_VERSION {
        let message = format!("the store has version {found} of the schema, this build knows up to {SCHEMA_VERSION}");
        return Err(Error::new(ErrorKind::SchemaTooNew, message)
            .field("table", tables.name())
            .remedy("use the version of Tidings that wrote it, or a newer one"));
    }
    Ok(found == SCHEMA_VERSION)
}

fn component(dialect: Dialect, tables: &Tables) -> super::Value {
    super::insert::text(dialect, &tables.component())
}

fn migrations(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Postgres => POSTGRES,
        Dialect::MySql => MYSQL,
        Dialect::Sqlite => SQLITE,
    }
}

/// The script with its tables called what they are to be called.
fn named(dialect: Dialect, tables: &Tables, script: &str) -> String {
    let mut out = String::with_capacity(script.len());
    let mut rest = script;
    while let Some(at) = rest.find("tidings_outbox") {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        out.push_str(before);
        out.push_str(&tables.rename(dialect, word).unwrap_or_else(|| word.to_owned()));
        rest = after;
    }
    out + rest
}

/// The statements of a script of ours: each ends with a semicolon at the end of a line.
fn statements(script: &str) -> Vec<String> {
    script.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_gets_the_chosen_name() {
        for &dialect in Dialect::ALL {
            let script = outbox_schema(dialect, &Tables::new("mine").unwrap());
            assert!(!script.contains("tidings_outbox"), "{script}");
            assert!(statements(&script).len() >= 6, "{dialect:?}");
        }
    }
}
