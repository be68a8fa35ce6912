//! Statements of others in the store's transactions: what an outbox relay asks of a SQLite file.
//!
//! They go through the same thread as the broker's own, so that one process has a file open once, whatever it uses it
//! for, and lets go of it while it forks.

use rusqlite::types::{Value as Stored, ValueRef};
use rusqlite::{ErrorCode, params_from_iter};

use super::client::Client;
use super::error::{Fault, Step};
use super::registry;
use super::tx::Tx;
use super::url::Options;
use crate::store::{Statement, Value};
use crate::{Error, ErrorKind, Result};

/// Statements up to this length are kept prepared.
const KEPT: usize = 1500;

/// Rows and the number of changed ones.
pub(crate) type Answer = (Vec<Vec<Value>>, u64);

/// A SQLite file that runs statements.
#[derive(Debug)]
pub(crate) struct Statements {
    client: Client,
}

impl Statements {
    /// Opens the file that `url` names; see [`connect`](super::connect) for its parameters.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let options = Options::parse(url)?;
        let open = tokio::task::spawn_blocking(move || registry::open(&options));
        let store = open.await.map_err(|e| Error::new(ErrorKind::Internal, "opening the store failed").source(e))??;
        Ok(Self { client: Client::new(store) })
    }

    /// Runs them in one transaction, all or none.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Answer>> {
        let bytes = statements.iter().flat_map(|statement| &statement.params).map(size).sum();
        self.client.store()?.call(bytes, move |tx| all_or_none(tx, |tx| run(tx, &statements))).await
    }

    /// Runs what `decide` makes of the rows of `look`, in the same transaction.
    pub(crate) async fn run_upon<F>(&self, look: Vec<Statement>, decide: F) -> Result<()>
    where
        F: Fn(Vec<Answer>) -> Result<Vec<Statement>> + Send + 'static,
    {
        let run = move |tx: &mut Tx<'_>| {
            all_or_none(tx, |tx| {
                let found = run(tx, &look)?;
                run(tx, &decide(found)?).map(drop)
            })
        };
        self.client.store()?.call(0, run).await
    }

    /// Lets go of the file.
    pub(crate) async fn close(&self) -> Result<()> {
        self.client.close().await
    }
}

/// The work of others shares the transaction, so what is refused must leave nothing in it.
fn all_or_none<T>(tx: &mut Tx<'_>, run: impl FnOnce(&mut Tx<'_>) -> Step<T>) -> Step<T> {
    tx.conn.execute_batch("SAVEPOINT statements")?;
    let done = run(tx).map_err(explained);
    if let Err(Fault::Refused(_)) = done {
        tx.conn.execute_batch("ROLLBACK TO statements")?;
    }
    // After a failure of SQLite the whole transaction is void anyway.
    if !matches!(done, Err(Fault::Store(_))) {
        tx.conn.execute_batch("RELEASE statements")?;
    }
    done
}

fn run(tx: &mut Tx<'_>, statements: &[Statement]) -> Step<Vec<Answer>> {
    statements.iter().map(|statement| one(tx, statement)).collect()
}

fn one(tx: &mut Tx<'_>, statement: &Statement) -> Step<Answer> {
    // Long ones have numbers in them and do not come again.
    if statement.sql.len() > KEPT {
        return ask(&mut tx.conn.prepare(&statement.sql)?, statement);
    }
    let mut kept = tx.conn.prepare_cached(&statement.sql)?;
    ask(&mut kept, statement)
}

fn ask(prepared: &mut rusqlite::Statement<'_>, statement: &Statement) -> Step<Answer> {
    let params = params_from_iter(statement.params.iter().map(stored));
    let columns = prepared.column_count();
    if columns == 0 {
        let changed = prepared.execute(params)?;
        return Ok((Vec::new(), changed as u64));
    }
    let rows = prepared.query_map(params, |row| {
        (0..columns).map(|at| Ok(value(row.get_ref(at)?))).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    Ok((rows.collect::<rusqlite::Result<_>>()?, 0))
}

fn stored(value: &Value) -> Stored {
    match value {
        Value::Int(number) => Stored::Integer(*number),
        Value::Text(text) => Stored::Text(text.clone()),
        Value::Bytes(bytes) => Stored::Blob(bytes.clone()),
        // Arrays are PostgreSQL's.
        Value::Null | Value::Ints(_) => Stored::Null,
    }
}

fn value(stored: ValueRef<'_>) -> Value {
    match stored {
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// What is wrong with one of the statements, rather than with the file.
fn explained(fault: Fault) -> Fault {
    let Fault::Store(error) = fault else { return fault };
    let (kind, message, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => (
            ErrorKind::InvalidEvent,
            "the database refused a row",
            "an event with this id was written before: ids are used once",
        ),
        Some(ErrorCode::Unknown) => (
            ErrorKind::InvalidOption,
            "the tables are not those of an outbox",
            "install() them, or run the SQL of outbox_schema",
        ),
        _ => return Fault::Store(error),
    };
    Error::new(kind, message).remedy(remedy).source(error).into()
}
