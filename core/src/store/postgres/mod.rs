//! PostgreSQL.
//!
//! Statements are run unnamed and with the types of their parameters, in one round trip: nothing is prepared, so that a
//! pooler in transaction mode may sit in between.

mod error;
mod listen;
mod pool;
mod url;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::driver::{Driver, Output};
use super::{Component, Dialect, Statement, Value, schema};
use crate::outbox::WakeUp;
use crate::{BoxError, Error, ErrorKind, Result};
use pool::Pool;
use url::Target;

/// Understands a URL.
#[cfg(all(feature = "testkit", feature = "amqp"))]
pub(super) fn read_url(url: &str) -> Result<()> {
    Target::parse(url).map(drop)
}

/// A database of a PostgreSQL server.
#[derive(Debug)]
pub(crate) struct Postgres {
    target: Arc<Target>,
    pool: Pool,
}

impl Postgres {
    /// Reaches it once, to see whether it can be done.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let target = Arc::new(Target::parse(url)?);
        let pool = Pool::new(target.clone());
        drop(pool.get().await?);
        Ok(Self { target, pool })
    }
}

#[async_trait]
impl Driver for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn run(&self, statement: Statement) -> Result<Output> {
        let client = self.pool.get().await?;
        run(&client, &statement).await
    }

    async fn transaction(&self, statements: Vec<Statement>) -> Result<Vec<Output>> {
        if let [single] = &*statements {
            let client = self.pool.get().await?;
            return Ok(vec![run(&client, single).await?]);
        }
        let mut client = self.pool.get().await?;
        // Rolled back by the server if this is dropped: the connection does not return to the pool in the middle of it.
        client.begin().await?;
        let mut outputs = Vec::with_capacity(statements.len());
        for statement in &statements {
            match run(&client, statement).await {
                Ok(output) => outputs.push(output),
                Err(error) => {
                    client.end("ROLLBACK").await?;
                    return Err(error);
                }
            }
        }
        client.end("COMMIT").await?;
        Ok(outputs)
    }

    async fn install(&self, component: &Component) -> Result<()> {
        let mut client = self.pool.get().await?;
        client.begin().await?;
        let installed = install(&client, component).await;
        client.end(if installed.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        installed
    }

    async fn listen(&self, channel: &str) -> Result<Option<Box<dyn WakeUp>>> {
        Ok(Some(Box::new(listen::Listener::start(self.target.clone(), channel).await?)))
    }

    async fn close(&self) -> Result<()> {
        self.pool.close();
        Ok(())
    }
}

async fn install(client: &Client, component: &Component) -> Result<()> {
    let lock = vec![Value::Int(component.lock().cast_signed())];
    run(client, &Statement { sql: "SELECT pg_advisory_xact_lock($1)".into(), params: lock }).await?;
    run(client, &component.prepare()).await?;
    let found = schema::found(&run(client, &component.version()).await?);
    if !component.is_current(found)? {
        for statement in component.upgrade(found) {
            run(client, &statement).await?;
        }
    }
    Ok(())
}

async fn run(client: &Client, statement: &Statement) -> Result<Output> {
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = statement.params.iter().map(typed).collect();
    let rows = client.query_typed_raw(&statement.sql, typed).await.map_err(error::of)?;
    collect(rows).await
}

async fn collect(rows: tokio_postgres::RowStream) -> Result<Output> {
    use futures_util::TryStreamExt as _;
    let mut rows = std::pin::pin!(rows);
    let mut output = Output::default();
    while let Some(row) = rows.try_next().await.map_err(error::of)? {
        output.rows.push(values(&row)?);
    }
    output.affected = rows.rows_affected().unwrap_or(0);
    Ok(output)
}

fn typed(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        Value::Null => (&Nothing, Type::UNKNOWN),
        Value::Int(number) => (number, Type::INT8),
        Value::Text(text) => (text, Type::TEXT),
        Value::Bytes(bytes) => (bytes, Type::BYTEA),
        Value::Ints(numbers) => (numbers, Type::INT8_ARRAY),
    }
}

/// NULL of whatever type the server finds for it: a list of rows must have one type for each column.
#[derive(Debug)]
struct Nothing;

impl ToSql for Nothing {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> std::result::Result<IsNull, BoxError> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

fn values(row: &Row) -> Result<Vec<Value>> {
    let value = |at: usize, kind: &Type| -> std::result::Result<Value, tokio_postgres::Error> {
        Ok(match *kind {
            Type::INT8 => row.try_get::<_, Option<i64>>(at)?.into(),
            Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map(i64::from).into(),
            Type::INT2 => row.try_get::<_, Option<i16>>(at)?.map(i64::from).into(),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(at)?.map_or(Value::Null, Value::Bytes),
            // What we do not read: sums, whose type is numeric, and the nothing that functions return.
            Type::NUMERIC | Type::VOID => Value::Null,
            _ => row.try_get::<_, Option<String>>(at)?.into(),
        })
    };
    let columns = row.columns().iter().enumerate();
    let values: std::result::Result<_, _> = columns.map(|(at, column)| value(at, column.type_())).collect();
    values.map_err(|e| Error::new(ErrorKind::Internal, "a column has a type that was not expected").source(e))
}
