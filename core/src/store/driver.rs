//! What a database's driver must do for a store: run statements.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{Component, Dialect, Statement, Value, schema};
use crate::Result;
use crate::outbox::WakeUp;

/// What a statement gave.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Rows of a query.
    pub(crate) rows: Vec<Vec<Value>>,
    /// Rows that a change has changed.
    pub(crate) affected: u64,
}

/// A database, reached.
#[async_trait]
pub(crate) trait Driver: Debug + Send + Sync + 'static {
    /// Its SQL.
    fn dialect(&self) -> Dialect;

    /// The clock of relays' leases, in microseconds: SQL.
    fn lease_clock(&self) -> &'static str {
        self.dialect().now()
    }

    /// Runs one statement in a transaction of its own.
    async fn run(&self, statement: Statement) -> Result<Output>;

    /// Runs statements in one transaction, each of which sees what others have committed before it.
    async fn transaction(&self, statements: Vec<Statement>) -> Result<Vec<Output>>;

    /// Brings the tables to this version; of several callers at once, one does it and the others find it done.
    async fn install(&self, component: &Component) -> Result<()>;

    /// Refuses tables that are not there, or are not of this version.
    async fn check(&self, component: &Component) -> Result<()> {
        component.check(schema::found(&self.run(component.version()).await?))
    }

    /// What tells that somebody has notified `channel`.
    async fn listen(&self, channel: &str) -> Result<Option<Box<dyn WakeUp>>>;

    /// Lets go of all connections.
    async fn close(&self) -> Result<()>;
}

/// Reads a row's values in order.
pub(crate) struct Reader(std::vec::IntoIter<Value>);

impl Reader {
    pub(crate) fn new(row: Vec<Value>) -> Self {
        Self(row.into_iter())
    }

    pub(crate) fn int(&mut self) -> Option<i64> {
        match self.0.next() {
            Some(Value::Int(number)) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        self.0.next().and_then(Value::into_text)
    }

    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        self.0.next().and_then(Value::into_bytes)
    }
}
