//! The database of a client: an outbox that it writes and relays, and the inbox and the effects of its handlers.

use std::sync::Arc;

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use parking_lot::Mutex;
use tidings::inbox::{InboxWriter, Transactions};
use tidings::outbox::{Dialect, Outbox, OutboxWriter, Statement, Tables};
use tidings::{BoxError, DomainEvent, Error, ErrorKind, Result};

use crate::connection::Connection;

/// A database, and the names in it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) outbox: Outbox,
    pub(crate) writer: OutboxWriter,
    inbox: InboxWriter,
    url: String,
    dialect: Dialect,
    table: String,
    /// Connections that no transaction uses.
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Store {
    /// Reaches it; creates the tables if they are to be installed.
    pub(crate) async fn open(url: String, table: String, install: bool) -> Result<Self> {
        let dialect = Dialect::of_name(url.split(':').next().unwrap_or_default())?;
        let tables = Tables::new(&table)?;
        let store = Self {
            outbox: Outbox::connect_to(&url, tables.clone()).await?,
            writer: OutboxWriter::new(dialect).tables(tables),
            inbox: InboxWriter::new(dialect).table(&format!("{table}_in"))?,
            url,
            dialect,
            table,
            idle: Arc::default(),
        };
        if install {
            store.outbox.install().await?;
            // Numbered in the order in which they take place.
            let number = match store.dialect {
                Dialect::MySql => "BIGINT AUTO_INCREMENT PRIMARY KEY",
                Dialect::Sqlite => "INTEGER PRIMARY KEY",
                _ => "BIGSERIAL PRIMARY KEY",
            };
            let effects = format!("CREATE TABLE {}_fx (n {number}, id VARCHAR(200) NOT NULL)", store.table);
            store.script(&format!("{};\n{effects}", store.inbox.schema())).await.map_err(database)?;
        }
        Ok(store)
    }

    /// Its SQL.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A transaction that is open.
    pub(crate) async fn transaction(&self) -> Result<Connection, BoxError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.url).await?,
        };
        // SQLite: a transaction that writes only later may be refused then.
        connection.sql(if self.dialect == Dialect::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" }).await?;
        Ok(connection)
    }

    /// Ends a transaction with `how`. Its connection is used again.
    pub(crate) async fn end(&self, transaction: Connection, how: &str) -> Result<(), BoxError> {
        transaction.sql(how).await?;
        self.idle.lock().push(transaction);
        Ok(())
    }

    /// What a handler does to the world.
    pub(crate) async fn effect(&self, transaction: &Connection, id: &str) -> Result<(), BoxError> {
        let sql = format!("INSERT INTO {}_fx (id) VALUES ('{}')", self.table, id.replace('\'', "''"));
        transaction.sql(&sql).await
    }

    /// The ids of all effects.
    pub(crate) async fn effects(&self) -> Result<Vec<String>> {
        self.read(&format!("SELECT id FROM {}_fx ORDER BY n", self.table)).await.map_err(database)
    }

    /// The texts that a query finds.
    async fn read(&self, sql: &str) -> Result<Vec<String>, BoxError> {
        Ok(match Connection::open(&self.url).await? {
            Connection::Postgres(client) => {
                let rows = client.query(sql, &[]).await?;
                rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?
            }
            Connection::MySql(connection) => connection.into_inner().query(sql).await?,
            Connection::Sqlite(connection) => {
                let connection = connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                connection.prepare(sql)?.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?
            }
        })
    }

    /// Removes the tables.
    pub(crate) async fn uninstall(&self) -> Result<()> {
        let table = &self.table;
        let lock = if self.dialect == Dialect::MySql { format!("DROP TABLE {table}_lock;\n") } else { String::new() };
        let tables =
            ["", "_part", "_relay", "_in", "_fx"].map(|suffix| format!("DROP TABLE {table}{suffix};\n")).concat();
        let versions = format!("DELETE FROM tidings_schema WHERE component IN ('outbox:{table}', 'inbox:{table}_in')");
        self.script(&format!("DROP VIEW {table}_status;\n{lock}{tables}{versions}")).await.map_err(database)
    }

    async fn script(&self, script: &str) -> Result<(), BoxError> {
        let connection = Connection::open(&self.url).await?;
        for statement in script.split(";\n").filter(|sql| !sql.trim().is_empty()) {
            connection.sql(statement).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Transactions for Store {
    type Tx = Connection;

    async fn begin(&self) -> Result<Connection, BoxError> {
        self.transaction().await
    }

    async fn claim(&self, tx: &mut Connection, subscription: &str, event: &DomainEvent) -> Result<bool, BoxError> {
        let claim: Statement = self.inbox.claim(self.dialect.default_style(), subscription, event)?;
        Ok(tx.change(&claim).await? == 1)
    }

    async fn commit(&self, tx: Connection) -> Result<(), BoxError> {
        self.end(tx, "COMMIT").await
    }
}

/// A driver's error as one that can be said.
pub(crate) fn database(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    Error::new(ErrorKind::ConnectionFailed, text)
}
