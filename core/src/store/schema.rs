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
    Component::outbox(dialect, tables).script()
}

/// Tables of ours with their row in `tidings_schema`.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    dialect: Dialect,
    /// The table of versions, quoted.
    versions: String,
    /// What it calls these tables.
    name: String,
    /// What the program calls them.
    table: String,
    /// One script for each version, the first leading from nothing to version 1.
    migrations: Vec<String>,
}

impl Component {
    /// The tables of an outbox.
    pub(crate) fn outbox(dialect: Dialect, tables: &Tables) -> Self {
        let migrations = migrations(dialect).iter().map(|script| named(dialect, tables, script)).collect();
        Self::new(dialect, tables.versions(dialect), tables.component(), tables.name(), migrations)
    }

    pub(crate) fn new(
        dialect: Dialect,
        versions: String,
        name: String,
        table: String,
        migrations: Vec<String>,
    ) -> Self {
        Self { dialect, versions, name, table, migrations }
    }

    /// Everything as a script, for migration tools.
    pub(crate) fn script(&self) -> String {
        let mut script = format!("{};\n\n", create_versions(self.dialect, &self.versions));
        for migration in &self.migrations {
            script.push_str(migration);
            script.push('\n');
        }
        // Writing into a string cannot fail.
        let _infallible = writeln!(
            script,
            "INSERT INTO {} (component, version) VALUES ('{}', {});",
            self.versions,
            self.name.replace('\'', "''"),
            self.newest()
        );
        script
    }

    /// What creates the table of versions, if it is not there.
    pub(crate) fn prepare(&self) -> Statement {
        Statement { sql: create_versions(self.dialect, &self.versions), params: Vec::new() }
    }

    /// What asks for the version.
    pub(crate) fn version(&self) -> Statement {
        let sql = format!("SELECT version FROM {} WHERE component = ", self.versions);
        Sql::new(self.dialect).sql(&sql).bind(self.bound()).done()
    }

    /// Whether tables of version `found` are of this build's. Refuses what a newer version has written.
    pub(crate) fn is_current(&self, found: u32) -> Result<bool> {
        let newest = self.newest();
        if found > newest {
            let message = format!("the store has version {found} of the schema, this build knows up to {newest}");
            return Err(Error::new(ErrorKind::SchemaTooNew, message)
                .field("table", &self.table)
                .remedy("use the version of Tidings that wrote it, or a newer one"));
        }
        Ok(found == newest)
    }

    /// Refuses tables that are not there, or are not of this build's version.
    pub(crate) fn check(&self, found: u32) -> Result<()> {
        if self.is_current(found)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidOption, "the tables are not there, or are of an older version")
            .field("table", &self.table)
            .remedy("install() them, or run the SQL of their schema"))
    }

    /// The statements that lead from version `found` to this build's.
    pub(crate) fn upgrade(&self, found: u32) -> Vec<Statement> {
        let missing = self.migrations.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
        let mut all: Vec<Statement> = missing
            .flat_map(|migration| statements(migration))
            .map(|sql| Statement { sql, params: Vec::new() })
            .collect();
        let versions = &self.versions;
        let sql = |text: String| Sql::new(self.dialect).sql(&text).bind(self.bound());
        all.push(sql(format!("DELETE FROM {versions} WHERE component = ")).done());
        let insert = sql(format!("INSERT INTO {versions} (component, version) VALUES ("));
        all.push(insert.sql(&format!(", {})", self.newest())).done());
        all
    }

    /// What asks for all inboxes in the table `versions`, with their versions.
    pub(crate) fn inboxes(dialect: Dialect, versions: &str) -> Statement {
        // MySQL's names are binary.
        let name = if dialect == Dialect::MySql { "CONVERT(component USING utf8mb4)" } else { "component" };
        let sql = format!("SELECT {name}, version FROM {versions} WHERE component LIKE 'inbox%' ORDER BY component");
        Statement { sql, params: Vec::new() }
    }

    /// Names the lock of those who install: one at a time for each table of versions, which all of them create.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn lock(&self) -> u64 {
        super::insert::hash(self.versions.as_bytes())
    }

    fn newest(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    fn bound(&self) -> super::Value {
        super::insert::text(self.dialect, &self.name)
    }
}

/// The version that the answer to [`Component::version`] tells; 0 if there is none.
pub(crate) fn found(answer: &super::driver::Output) -> u32 {
    match answer.rows.first().and_then(|row| row.first()) {
        Some(super::Value::Int(version)) => u32::try_from(*version).unwrap_or(u32::MAX),
        _ => 0,
    }
}

fn create_versions(dialect: Dialect, versions: &str) -> String {
    let columns = match dialect {
        Dialect::Postgres => "(component text PRIMARY KEY, version integer NOT NULL)",
        Dialect::MySql => "(component varbinary(255) PRIMARY KEY, version integer NOT NULL) ENGINE = InnoDB",
        Dialect::Sqlite => "(component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    };
    format!("CREATE TABLE IF NOT EXISTS {versions} {columns}")
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

    #[test]
    fn an_older_version_is_led_through_what_is_missing() {
        let scripts = ["CREATE TABLE a (x);\n", "ALTER TABLE a ADD y;\n"].map(str::to_owned).to_vec();
        let component = Component::new(Dialect::Sqlite, "v".into(), "inbox".into(), "a".into(), scripts);
        let sql = |found| component.upgrade(found).into_iter().map(|s| s.sql).collect::<Vec<_>>();
        assert_eq!(sql(0)[..2], ["CREATE TABLE a (x)", "ALTER TABLE a ADD y"]);
        assert_eq!(sql(1)[0], "ALTER TABLE a ADD y");
        assert_eq!(sql(1).len(), 3, "and the version");
        assert_eq!(component.check(1).unwrap_err().code(), "INVALID_OPTION");
        component.check(2).unwrap();
        assert_eq!(component.check(3).unwrap_err().code(), "SCHEMA_TOO_NEW");
    }
}
