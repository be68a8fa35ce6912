//! MySQL 8 and MariaDB 10.6, and later.

use std::fmt;

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, SslOpts, TxOpts};

use super::driver::{Driver, Output};
use super::{Component, Dialect, Statement, Value, address, schema};
use crate::outbox::WakeUp;
use crate::{Error, ErrorKind, Result};

/// Connections of one store: two for the work, so that one batch is deleted while the next is read, one for leases.
const CONNECTIONS: usize = 3;

/// A database of a MySQL or MariaDB server.
pub(crate) struct MySql {
    pool: Pool,
    shown: String,
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySql").field("url", &self.shown).finish_non_exhaustive()
    }
}

impl MySql {
    /// Reaches it once, to see whether it can be done.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let address = address::parse(url)?;
        let refuse = |message: &str| {
            Error::new(ErrorKind::InvalidUrl, message)
                .field("url", &address.shown)
                .remedy("use mysql://user:password@host:port/database?sslmode=require")
        };
        // The driver's own text may have the password in it.
        let mut known = address.url.clone();
        known.set_scheme("mysql").map_err(|()| refuse("the store URL has another scheme than mysql"))?;
        let opts = Opts::from_url(known.as_str())
            .map_err(|_| refuse("the store URL has a part that the MySQL driver does not know"))?;
        let limits = PoolConstraints::new(0, CONNECTIONS).ok_or_else(|| refuse("no connections are allowed"))?;
        let tls = address.tls.unwrap_or_else(|| !address.is_local());
        let tls = tls.then(|| {
            let roots = address.roots.iter().map(|path| std::path::PathBuf::from(path).into()).collect();
            SslOpts::default().with_root_certs(roots)
        });
        let builder = OptsBuilder::from_opts(opts)
            .ssl_opts(tls)
            .pool_opts(PoolOpts::default().with_constraints(limits))
            // What others have committed is seen by every statement, and gaps between rows are not locked.
            .setup(vec!["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned()]);
        let driver = Self { pool: Pool::new(builder), shown: address.shown };
        drop(driver.conn().await?);
        Ok(driver)
    }

    async fn conn(&self) -> Result<Conn> {
        self.pool.get_conn().await.map_err(of)
    }
}

#[async_trait]
impl Driver for MySql {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    async fn run(&self, statement: Statement) -> Result<Output> {
        run(&mut self.conn().await?, statement).await
    }

    async fn transaction(&self, statements: Vec<Statement>) -> Result<Vec<Output>> {
        let mut conn = self.conn().await?;
        // Rolled back before the connection is used again if this is dropped.
        let mut tx = conn.start_transaction(TxOpts::default()).await.map_err(of)?;
        let mut outputs = Vec::with_capacity(statements.len());
        for statement in statements {
            outputs.push(run(&mut tx, statement).await?);
        }
        tx.commit().await.map_err(of)?;
        Ok(outputs)
    }

    async fn install(&self, component: &Component) -> Result<()> {
        let mut conn = self.conn().await?;
        // Changes of tables end transactions, so a lock of the session stands in for one.
        let lock = format!("tidings-{:016x}", component.lock());
        let got: Option<Option<i64>> = conn.exec_first("SELECT GET_LOCK(?, 60)", (&lock,)).await.map_err(of)?;
        if got.flatten() != Some(1) {
            return Err(Error::new(ErrorKind::StoreBusy, "somebody else is installing the tables").remedy("try again"));
        }
        let installed = install(&mut conn, component).await;
        let _released: Option<Option<i64>> = conn.exec_first("SELECT RELEASE_LOCK(?)", (&lock,)).await.map_err(of)?;
        installed
    }

    async fn listen(&self, _: &str) -> Result<Option<Box<dyn WakeUp>>> {
        Ok(None)
    }

    async fn close(&self) -> Result<()> {
        self.pool.clone().disconnect().await.map_err(of)
    }
}

async fn install(conn: &mut Conn, component: &Component) -> Result<()> {
    conn.query_drop(component.prepare().sql).await.map_err(of)?;
    let found = schema::found(&run(conn, component.version()).await?);
    if component.is_current(found)? {
        return Ok(());
    }
    for statement in component.upgrade(found) {
        if statement.params.is_empty() {
            conn.query_drop(statement.sql).await.map_err(of)?;
        } else {
            run(conn, statement).await?;
        }
    }
    Ok(())
}

async fn run<Q: mysql_async::prelude::Queryable>(conn: &mut Q, statement: Statement) -> Result<Output> {
    let params: Vec<mysql_async::Value> = statement.params.into_iter().map(param).collect();
    let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
    let mut result = conn.exec_iter(statement.sql, params).await.map_err(of)?;
    let rows: Vec<mysql_async::Row> = result.collect().await.map_err(of)?;
    let affected = result.affected_rows();
    let rows = rows.into_iter().map(|row| row.unwrap().into_iter().map(value).collect()).collect();
    Ok(Output { rows, affected })
}

fn param(value: Value) -> mysql_async::Value {
    match value {
        Value::Null | Value::Ints(_) => mysql_async::Value::NULL,
        Value::Int(number) => mysql_async::Value::Int(number),
        Value::Text(text) => mysql_async::Value::Bytes(text.into_bytes()),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes),
    }
}

fn value(value: mysql_async::Value) -> Value {
    match value {
        mysql_async::Value::Int(number) => Value::Int(number),
        mysql_async::Value::UInt(number) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        mysql_async::Value::Bytes(bytes) => Value::Bytes(bytes),
        _ => Value::Null,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn of(error: mysql_async::Error) -> Error {
    let mysql_async::Error::Server(answer) = &error else {
        return Error::new(ErrorKind::ConnectionFailed, format!("the database cannot be reached: {error}"))
            .remedy("check host, port and network")
            .source(error.to_string());
    };
    let (kind, remedy) = match answer.code {
        1044 | 1045 => (ErrorKind::AccessRefused, "check user, password and database of the store URL"),
        1142 | 1143 | 1227 => (ErrorKind::AccessRefused, "grant the user what the tables of Tidings need"),
        1049 => (ErrorKind::AccessRefused, "create the database, or correct the store URL's path"),
        1146 | 1054 => (ErrorKind::InvalidOption, "install() the tables, or run the SQL of outbox_schema"),
        1062 => (ErrorKind::InvalidEvent, "an event with this id was written before: ids are used once"),
        1205 | 1213 => (ErrorKind::StoreBusy, "try again: another transaction was in the way"),
        1114 | 1021 => (ErrorKind::StoreFull, "free space on the database server"),
        1040 | 1053 | 1152 | 1158..=1161 => (ErrorKind::ConnectionFailed, "try again: the server is busy or stopping"),
        _ => (ErrorKind::Internal, "report this with the cause"),
    };
    let message = format!("the database refused a statement ({}): {}", answer.code, answer.message);
    Error::new(kind, message).remedy(remedy).source(error.to_string())
}
