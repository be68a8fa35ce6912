//! A database with an outbox of its own for each test, and transactions of a program in it.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use tidings::outbox::{Dialect, Outbox, OutboxWriter, Statement, Tables, Value};
use tokio_postgres::types::{ToSql, Type};

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

enum Connection {
    Postgres(tokio_postgres::Client),
    MySql(tokio::sync::Mutex<mysql_async::Conn>),
    Sqlite(std::sync::Mutex<rusqlite::Connection>),
}

fn postgres_url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://tidings:tidings@127.0.0.1:5432/tidings".to_owned())
}

impl Database {
    pub(crate) async fn postgres() -> Result<Self, tidings::Error> {
        Self::open(&postgres_url(), Dialect::Postgres).await
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
    async fn sqlite() -> Self {
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
            let connection = self.connect().await;
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
    pub(crate) async fn sql(&self, tx: &str, sql: &str) -> Result<(), String> {
        match &self.connections[tx] {
            Connection::Postgres(client) => client.batch_execute(sql).await.map_err(|e| e.to_string()),
            Connection::MySql(conn) => conn.lock().await.query_drop(sql).await.map_err(|e| e.to_string()),
            Connection::Sqlite(conn) => conn.lock().unwrap().execute_batch(sql).map_err(|e| e.to_string()),
        }
    }

    /// Runs one statement and returns how many rows it changed.
    pub(crate) async fn change(&self, tx: &str, statement: &Statement) -> Result<u64, String> {
        match &self.connections[tx] {
            Connection::Postgres(client) => {
                let typed: Vec<(&(dyn ToSql + Sync), Type)> = statement.params.iter().map(typed).collect();
                client.execute_typed(&statement.sql, &typed).await.map_err(|e| e.to_string())
            }
            Connection::MySql(conn) => {
                let params = mysql_async::Params::Positional(statement.params.iter().map(mysql_value).collect());
                let mut conn = conn.lock().await;
                conn.exec_drop(&statement.sql, params).await.map_err(|e| e.to_string())?;
                Ok(conn.affected_rows())
            }
            Connection::Sqlite(conn) => sqlite_run(&conn.lock().unwrap(), statement),
        }
    }

    /// Runs what the writer rendered.
    pub(crate) async fn run(&self, tx: &str, statements: &[Statement]) -> Result<(), String> {
        for statement in statements {
            match &self.connections[tx] {
                Connection::Postgres(client) => {
                    let typed: Vec<(&(dyn ToSql + Sync), Type)> = statement.params.iter().map(typed).collect();
                    client.query_typed(&statement.sql, &typed).await.map_err(|e| e.to_string())?;
                }
                Connection::MySql(conn) => {
                    let params: Vec<mysql_async::Value> = statement.params.iter().map(mysql_value).collect();
                    let params = if params.is_empty() {
                        mysql_async::Params::Empty
                    } else {
                        mysql_async::Params::Positional(params)
                    };
                    conn.lock().await.exec_drop(&statement.sql, params).await.map_err(|e| e.to_string())?;
                }
                Connection::Sqlite(conn) => drop(sqlite_run(&conn.lock().unwrap(), statement)?),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Connection {
        if self.dialect == Dialect::MySql {
            let opts = mysql_async::Opts::from_url(&self.url).unwrap();
            return Connection::MySql(tokio::sync::Mutex::new(mysql_async::Conn::new(opts).await.unwrap()));
        }
        if let Some(folder) = &self.folder {
            let conn = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
            conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
            return Connection::Sqlite(std::sync::Mutex::new(conn));
        }
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        Connection::Postgres(client)
    }

    /// Removes the tables.
    pub(crate) async fn remove(mut self) {
        self.outbox.close().await.unwrap();
        if self.folder.is_some() {
            return;
        }
        let connection = self.connect().await;
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

fn typed(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        Value::Null => (&None::<&str>, Type::UNKNOWN),
        Value::Int(number) => (number, Type::INT8),
        Value::Text(text) => (text, Type::TEXT),
        Value::Bytes(bytes) => (bytes, Type::BYTEA),
        _ => unreachable!("the writer renders scalars"),
    }
}

fn sqlite_run(conn: &rusqlite::Connection, statement: &Statement) -> Result<u64, String> {
    let params = statement.params.iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Bytes(bytes) => bytes.clone().into(),
        _ => unreachable!("the writer renders scalars"),
    });
    let changed = conn.execute(&statement.sql, rusqlite::params_from_iter(params)).map_err(|e| e.to_string())?;
    Ok(changed as u64)
}

fn mysql_value(value: &Value) -> mysql_async::Value {
    match value {
        Value::Null => mysql_async::Value::NULL,
        Value::Int(number) => mysql_async::Value::Int(*number),
        Value::Text(text) => mysql_async::Value::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes.clone()),
        _ => unreachable!("the writer renders scalars"),
    }
}
