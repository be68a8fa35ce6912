//! A few connections, opened when they are needed and again when they are lost.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;

use super::error;
use super::url::Target;
use crate::{Error, ErrorKind, Result};

/// Connections of one store: two for the work, so that one batch is deleted while the next is read, one for leases.
const CONNECTIONS: usize = 3;
/// Longest wait for one of them.
const TURN: Duration = Duration::from_secs(30);

/// The connections of one store.
pub(super) struct Pool {
    target: Arc<Target>,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, idle: Mutex::default(), permits: Semaphore::new(CONNECTIONS) }
    }

    /// A connection that nobody else uses meanwhile.
    pub(super) async fn get(&self) -> Result<Held<'_>> {
        let turn = tokio::time::timeout(TURN, self.permits.acquire()).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, format!("all connections to the database were busy for {TURN:?}"))
                .remedy("look for statements that wait for a lock on the outbox's tables")
        })?;
        let permit = turn.map_err(|_| closed())?;
        let idle = std::iter::from_fn(|| self.idle.lock().pop()).find(|client| !client.is_closed());
        let client = match idle {
            Some(client) => client,
            None => self.target.open().await?,
        };
        Ok(Held { pool: self, client: Some(client), whole: true, _permit: permit })
    }

    /// Closes what is idle; what is in use goes when it is given back.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().clear();
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed").remedy("connect again")
}

/// A connection on loan.
pub(super) struct Held<'a> {
    pool: &'a Pool,
    client: Option<Client>,
    /// It is outside a transaction.
    whole: bool,
    _permit: SemaphorePermit<'a>,
}

impl Held<'_> {
    /// Begins a transaction in which each statement sees what was committed before it.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.whole = false;
        self.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(error::of)
    }

    /// Ends it.
    pub(super) async fn end(&mut self, how: &str) -> Result<()> {
        self.batch_execute(how).await.map_err(error::of)?;
        self.whole = true;
        Ok(())
    }
}

impl Deref for Held<'_> {
    type Target = Client;

    #[allow(clippy::expect_used, reason = "it is taken on drop only")]
    fn deref(&self) -> &Client {
        self.client.as_ref().expect("a connection on loan is there until it is given back")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take().filter(|client| self.whole && !client.is_closed())
            && !self.pool.permits.is_closed()
        {
            self.pool.idle.lock().push(client);
        }
    }
}
