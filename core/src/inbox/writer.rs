//! Claiming events in the handler's own transaction: statements and parameters, and nothing that touches a connection.

use std::time::Duration;

use crate::outbox::{Dialect, ParamStyle, Statement, Value};
use crate::routing::check_subscription_name;
use crate::store::{Component, Sql, escaped};
use crate::{DomainEvent, Error, ErrorKind, Result};

/// Longest key and tenant, in bytes: what the columns of every database hold.
const MAX_KEY: usize = 255;
/// Longest name of the table: PostgreSQL keeps 63 bytes.
const MAX_NAME: usize = 60;

/// Renders what remembers that a subscription has processed an event.
///
/// The statement of [`claim`](Self::claim) is run in the transaction that has the handler's effects. **One changed row**:
/// the event is new, go on. **None**: it was processed before, acknowledge it without doing anything.
///
/// ```
/// use tidings::inbox::InboxWriter;
/// use tidings::outbox::{Dialect, ParamStyle};
/// use tidings::DomainEvent;
///
/// let inbox = InboxWriter::new(Dialect::Postgres);
/// let event = DomainEvent::new("order.placed", &serde_json::json!({"order": 7}))?;
/// let claim = inbox.claim(ParamStyle::Dollar, "billing", &event)?;
/// assert!(claim.sql.ends_with("ON CONFLICT DO NOTHING"));
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct InboxWriter {
    dialect: Dialect,
    schema: Option<String>,
    table: String,
}

impl InboxWriter {
    /// With the table `tidings_inbox`.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, schema: None, table: "tidings_inbox".to_owned() }
    }

    /// With this table, or `schema.table`. It is quoted wherever it is used.
    pub fn table(mut self, name: &str) -> Result<Self> {
        let (schema, table) = name.split_once('.').map_or((None, name), |(schema, table)| (Some(schema), table));
        for part in schema.into_iter().chain([table]) {
            if part.is_empty() || part.len() > MAX_NAME || part.contains(['\0', '.']) {
                return Err(Error::new(ErrorKind::InvalidName, "the name cannot be that of a table")
                    .field("table", name)
                    .remedy(format!("use table or schema.table, each of 1 to {MAX_NAME} bytes")));
            }
        }
        (self.schema, self.table) = (schema.map(str::to_owned), table.to_owned());
        Ok(self)
    }

    /// The whole schema as a script, with its row in `tidings_schema`.
    pub fn schema(&self) -> String {
        self.component().script()
    }

    /// The table with its versions.
    pub(crate) fn component(&self) -> Component {
        let script = match self.dialect {
            Dialect::Postgres => include_str!("../store/migrations/inbox_postgres_0001.sql"),
            Dialect::MySql => include_str!("../store/migrations/inbox_mysql_0001.sql"),
            Dialect::Sqlite => include_str!("../store/migrations/inbox_sqlite_0001.sql"),
        };
        let index = self.dialect.quote(&format!("{}_age_index", self.table));
        // The index first, under a name that is not one of the table's.
        let script = script.replace("tidings_inbox_age_index", "\u{1}").replace("tidings_inbox", &self.quoted());
        let name = match self.table.as_str() {
            "tidings_inbox" => "inbox".to_owned(),
            other => format!("inbox:{other}"),
        };
        let table =
            self.schema.as_ref().map_or_else(|| self.table.clone(), |schema| format!("{schema}.{}", self.table));
        let versions = self.qualified("tidings_schema");
        Component::new(self.dialect, versions, name, table, vec![script.replace('\u{1}', &index)])
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What claims `event` for `subscription`; the event's idempotency key, else its id, is the key, within its tenant.
    ///
    /// Of two transactions that claim the same, the second waits for the first.
    ///
    /// Errors: `INVALID_NAME` for what is no name of a subscription, `INVALID_HEADER` for a key or tenant of more than 255 bytes.
    pub fn claim(&self, style: ParamStyle, subscription: &str, event: &DomainEvent) -> Result<Statement> {
        check_subscription_name(subscription)?;
        let (key, tenant) = (event.idempotency_key(), event.tenant().unwrap_or_default());
        check(crate::event::name::IDEMPOTENCY_KEY, key)?;
        check(crate::event::name::TENANT, tenant)?;
        let (before, after) = match self.dialect {
            Dialect::MySql => ("INSERT IGNORE INTO", ""),
            Dialect::Postgres | Dialect::Sqlite => ("INSERT INTO", " ON CONFLICT DO NOTHING"),
        };
        let sql = Sql::styled(self.dialect, style)
            .sql(&format!("{before} {} (tenant, subscription, dedup_key, processed_at) VALUES (", self.quoted()))
            .bind(escaped(self.dialect, tenant))
            .sql(", ")
            .bind(escaped(self.dialect, subscription))
            .sql(", ")
            .bind(escaped(self.dialect, key))
            .sql(&format!(", {}){after}", self.dialect.now()));
        Ok(sql.done())
    }

    /// What forgets up to `limit` events that were processed longer ago than `age` (the design's default is 7 days). Run it
    /// until it changes fewer rows: a redelivery that comes later is processed again.
    pub fn forget(&self, style: ParamStyle, age: Duration, limit: u32) -> Statement {
        let (table, now) = (self.quoted(), self.dialect.now());
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let old = format!("processed_at < {now} - ");
        let sql = Sql::styled(self.dialect, style);
        let sql = match self.dialect {
            Dialect::MySql => sql.sql(&format!("DELETE FROM {table} WHERE {old}")).bind(age).sql(" ORDER BY processed_at LIMIT "),
            Dialect::Postgres | Dialect::Sqlite => sql
                .sql(&format!(
                    "DELETE FROM {table} WHERE (tenant, subscription, dedup_key) IN (SELECT tenant, subscription, dedup_key FROM {table} WHERE {old}"
                ))
                .bind(age)
                .sql(" ORDER BY processed_at LIMIT "),
        };
        let sql = sql.bind(Value::Int(limit.into()));
        if self.dialect == Dialect::MySql { sql.done() } else { sql.sql(")").done() }
    }

    fn quoted(&self) -> String {
        self.qualified(&self.table)
    }

    fn qualified(&self, name: &str) -> String {
        let table = self.dialect.quote(name);
        self.schema.as_ref().map_or_else(|| table.clone(), |schema| format!("{}.{table}", self.dialect.quote(schema)))
    }
}

fn check(header: &'static str, value: &str) -> Result<()> {
    if value.len() <= MAX_KEY {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidHeader, format!("it has {} bytes, the inbox keeps {MAX_KEY}", value.len()))
        .field(header, value)
        .remedy("use a shorter key, or its hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_index_have_the_names_that_were_chosen() {
        let script = InboxWriter::new(Dialect::Sqlite).schema();
        assert!(script.contains(r#"CREATE TABLE "tidings_inbox" ("#), "{script}");
        assert!(script.contains(r#"CREATE INDEX "tidings_inbox_age_index" ON "tidings_inbox" ("#), "{script}");
        assert!(script.contains("VALUES ('inbox', 1)"), "{script}");
        let script = InboxWriter::new(Dialect::Postgres).table("app.seen").unwrap().schema();
        assert!(script.contains(r#"CREATE TABLE "app"."seen" ("#), "{script}");
        assert!(script.contains(r#"INSERT INTO "app"."tidings_schema" (component, version) VALUES ('inbox:seen', 1)"#));
    }
}
