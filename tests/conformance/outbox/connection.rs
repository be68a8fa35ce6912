//! A program's own connection to a database, on which it opens transactions and runs what the outbox and the inbox render.
//! A module of the tests that need one.

use mysql_async::prelude::Queryable as _;
use tidings::BoxError;
use tidings::outbox::{Statement, Value};
use tokio_postgres::types::{ToSql, Type};

/// One connection.
pub(crate) enum Connection {
    Postgres(tokio_postgres::Client),
    MySql(tokio::sync::Mutex<mysql_async::Conn>),
    Sqlite(std::sync::Mutex<rusqlite::Connection>),
}

impl Connection {
    /// Opens one to where the store's URL points.
    pub(crate) async fn open(url: &str) -> Result<Self, BoxError> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        Ok(match scheme {
            "sqlite" => {
                let connection = rusqlite::Connection::open(rest.split('?').next().unwrap_or(rest))?;
                connection.busy_timeout(std::time::Duration::from_secs(30))?;
                Self::Sqlite(std::sync::Mutex::new(connection))
            }
            "mysql" | "mariadb" => {
                let options = mysql_async::Opts::from_url(&format!("mysql:{rest}"))?;
                Self::MySql(tokio::sync::Mutex::new(mysql_async::Conn::new(options).await?))
            }
            _ => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                Self::Postgres(client)
            }
        })
    }

    /// Runs a statement without parameters.
    pub(crate) async fn sql(&self, sql: &str) -> Result<(), BoxError> {
        match self {
            Self::Postgres(client) => client.batch_execute(sql).await?,
            Self::MySql(connection) => connection.lock().await.query_drop(sql).await?,
            Self::Sqlite(connection) => blocking(connection, |connection| connection.execute_batch(sql))?,
        }
        Ok(())
    }

    /// Runs one statement and returns how many rows it changed.
    pub(crate) async fn change(&self, statement: &Statement) -> Result<u64, BoxError> {
        Ok(match self {
            Self::Postgres(client) => client.execute_typed(&statement.sql, &typed(statement)).await?,
            Self::MySql(connection) => {
                let mut connection = connection.lock().await;
                connection.exec_drop(&statement.sql, mysql_values(statement)).await?;
                connection.affected_rows()
            }
            Self::Sqlite(connection) => blocking(connection, |connection| {
                connection.execute(&statement.sql, rusqlite::params_from_iter(sqlite_values(statement)))
            })? as u64,
        })
    }

    /// Runs what a writer rendered. Not every statement of it changes rows: locks are taken by a query.
    pub(crate) async fn run(&self, statements: &[Statement]) -> Result<(), BoxError> {
        for statement in statements {
            match self {
                Self::Postgres(client) => drop(client.query_typed(&statement.sql, &typed(statement)).await?),
                _ => drop(self.change(statement).await?),
            }
        }
        Ok(())
    }
}

/// It may wait for another writer of the file, whose task must go on meanwhile.
fn blocking<T>(
    connection: &std::sync::Mutex<rusqlite::Connection>,
    run: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    tokio::task::block_in_place(|| run(&connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)))
}

fn typed(statement: &Statement) -> Vec<(&(dyn ToSql + Sync), Type)> {
    let typed = statement.params.iter().map(|value| -> (&(dyn ToSql + Sync), Type) {
        match value {
            Value::Int(number) => (number, Type::INT8),
            Value::Text(text) => (text, Type::TEXT),
            Value::Bytes(bytes) => (bytes, Type::BYTEA),
            _ => (&None::<&str>, Type::UNKNOWN),
        }
    });
    typed.collect()
}

fn mysql_values(statement: &Statement) -> mysql_async::Params {
    let values: Vec<mysql_async::Value> = statement.params.iter().map(mysql_value).collect();
    if values.is_empty() { mysql_async::Params::Empty } else { mysql_async::Params::Positional(values) }
}

fn mysql_value(value: &Value) -> mysql_async::Value {
    match value {
        Value::Int(number) => mysql_async::Value::Int(*number),
        Value::Text(text) => mysql_async::Value::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes.clone()),
        _ => mysql_async::Value::NULL,
    }
}

fn sqlite_values(statement: &Statement) -> impl Iterator<Item = rusqlite::types::Value> {
    statement.params.iter().map(|value| match value {
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Bytes(bytes) => bytes.clone().into(),
        _ => rusqlite::types::Value::Null,
    })
}
