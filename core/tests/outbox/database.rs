//! A database with an outbox of its own for each test, and transactions of a program in it.

use std::collections::HashMap;

use tidings::BoxError;
use tidings::outbox::{Dialect, Outbox, OutboxWriter, Statement, Tables};

use crate::connection::Connection;

/// The databases of this run. One that is not there is a skip that says so.
pub(crate) async fn databases() -> Vec<Database> {
    let mut all = Vec::new();
    match Database::postgres().await {
        Ok(database) => all.push(database),
        Err(why) => println!("SKIPPED: no PostgreSQL: {why}"),
    }
    match Database::mysql().await {
        Ok(database) => all.push(database),
        Err(why) => println!("SKIPPED: no MySQL or MariaDB: {why}"),
    }
    all.push(Database::sqlite().await);
    all
}

/// One database with tables of its own.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) tables: Tables,
    pub(crate) dialect: Dialect,
    pub(crate) outbox: Outbox,
    connections: HashMap<String, Connection>,
    folder: Option<tempfile::TempDir>,
}

pub(crate) fn postgres_url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://tidings:tidings@127.0.0.1:5432/tidings".to_owned())
}

impl Database {
    pub(crate) async fn postgres() -> Result<Self, tidings::Error> {
        Self::open(&postgres_url(), Dialect::Postgres).await
    }

    /// PostgreSQL at another address.
    pub(crate) async fn postgres_at(url: &str) -> Result<Self, tidings::Error> {
        Self::open(url, Dialect::Postgres).await
    }

    /// The outbox that another process has made.
    pub(crate) async fn attach(url: &str, tables: Tables) -> Self {
        let outbox = Outbox::connect_to(url, tables.clone()).await.unwrap();
        Self {
            url: url.to_owned(),
            tables,
            dialect: Dialect::of_name(url.split(':').next().unwrap()).unwrap(),
            outbox,
            connections: HashMap::new(),
            folder: None,
        }
    }

    /// A file of its own. The tests write it through the copy of SQLite that the crate has too.
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}?shared=true", folder.path().join("app.db").display());
        let database = Self::open(&url, Dialect::Sqlite).await.unwrap();
        Self { folder: Some(folder), ..database }
    }

    async fn mysql() -> Result<Self, tidings::Error> {
        let url = std::env::var("MYSQL_URL");
        let url = url.unwrap_or_else(|_| "mysql://tidings:tidings@127.0.0.1:3306/tidings".to_owned());
        Self::open(&url, Dialect::MySql).await
    }

    async fn open(url: &str, dialect: Dialect) -> Result<Self, tidings::Error> {
        let name = format!("t\"%:`{}", &tidings::event::new_id()[14..]);
        let tables = Tables::new(&name).unwrap();
        let outbox = Outbox::connect_to(url, tables.clone()).await?;
        outbox.install().await.unwrap();
        Ok(Self { url: url.to_owned(), tables, dialect, outbox, connections: HashMap::new(), folder: None })
    }

    /// Another handle on the same outbox, as another process has it.
    pub(crate) async fn another(&self) -> Outbox {
        Outbox::connect_to(&self.url, self.tables.clone()).await.unwrap()
    }

    pub(crate) fn writer(&self) -> OutboxWriter {
        OutboxWriter::new(self.dialect).tables(self.tables.clone())
    }

    /// The name of a table in SQL.
    pub(crate) fn table(&self) -> String {
        match self.dialect {
            Dialect::MySql => format!("`{}`", self.tables.name().replace('`', "``")),
            _ => format!("\"{}\"", self.tables.name().replace('"', "\"\"")),
        }
    }

    pub(crate) async fn begin(&mut self, tx: &str) {
        if !self.connections.contains_key(tx) {
            let connection = Connection::open(&self.url).await.unwrap();
            self.connections.insert(tx.to_owned(), connection);
        }
        self.sql(tx, "BEGIN").await.unwrap();
    }

    pub(crate) async fn commit(&self, tx: &str) {
        self.sql(tx, "COMMIT").await.unwrap();
    }

    pub(crate) async fn rollback(&self, tx: &str) {
        self.sql(tx, "ROLLBACK").await.unwrap();
    }

    /// Runs a statement without parameters on the connection of `tx`.
    pub(crate) async fn sql(&self, tx: &str, sql: &str) -> Result<(), BoxError> {
        self.connections[tx].sql(sql).await
    }

    /// Runs one statement and returns how many rows it changed.
    pub(crate) async fn change(&self, tx: &str, statement: &Statement) -> Result<u64, BoxError> {
        self.connections[tx].change(statement).await
    }

    /// Runs what the writer rendered.
    pub(crate) async fn run(&self, tx: &str, statements: &[Statement]) -> Result<(), BoxError> {
        self.connections[tx].run(statements).await
    }

    /// Removes the tables.
    pub(crate) async fn remove(mut self) {
        self.outbox.close().await.unwrap();
        if self.folder.is_some() {
            return;
        }
        let connection = Connection::open(&self.url).await.unwrap();
        self.connections.clear();
        self.connections.insert("end".to_owned(), connection);
        let quoted = |suffix: &str| {
            let table = self.table();
            let (head, quote) = table.split_at(table.len() - 1);
            format!("{head}{suffix}{quote}")
        };
        self.sql("end", &format!("DROP VIEW {}", quoted("_status"))).await.unwrap();
        let lock = (self.dialect == Dialect::MySql).then_some("_lock");
        for suffix in ["", "_relay", "_part"].into_iter().chain(lock) {
            self.sql("end", &format!("DROP TABLE {}", quoted(suffix))).await.unwrap();
        }
        let component = format!("outbox:{}", self.tables.name()).replace('\'', "''");
        self.sql("end", &format!("DELETE FROM tidings_schema WHERE component = '{component}'")).await.unwrap();
    }
}
