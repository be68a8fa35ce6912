//! [`Outbox`]: the table as relays and operators see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{FailedRow, OutboxEvent, OutboxStatus, OutboxStore, Relay, Tables};
use crate::broker::Broker;
use crate::{Error, ErrorKind, Result};

/// Most rows that one call of the store handles.
const SOME: usize = 1000;

/// An outbox in a database. Cheap to clone.
///
/// Programs write into it with [`OutboxWriter`](super::OutboxWriter), in their own transaction; this handle has
/// connections of its own, for the relay and for looking after the rows.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), tidings::BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// use tidings::Broker;
/// use tidings::outbox::Outbox;
///
/// let outbox = Outbox::connect("sqlite:app.db").await?; // or postgres://me@localhost/app, mysql://…
/// outbox.install().await?;
/// let broker = Broker::connect("sqlite:events.db").await?; // or amqp://localhost
/// let relay = outbox.relay(&broker).start().await?;
/// // …
/// relay.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Outbox {
    store: Arc<dyn OutboxStore>,
}

impl Outbox {
    /// Reaches the database that `url` names, with the default tables: `postgres://user:password@host/database`.
    ///
    /// Errors: `INVALID_URL`, `UNSUPPORTED_TRANSPORT`, `CONNECTION_FAILED`, `ACCESS_REFUSED`, `TLS_FAILED`, the store's.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_to(url, Tables::default()).await
    }

    /// As [`connect`](Self::connect), with tables of these names.
    pub async fn connect_to(url: &str, tables: Tables) -> Result<Self> {
        Ok(Self { store: crate::store::connect::connect(url, tables).await? })
    }

    /// As [`connect_to`](Self::connect_to), for whoever only looks: a SQLite file that is not there is not made.
    pub async fn connect_existing(url: &str, tables: Tables) -> Result<Self> {
        Self::connect_to(&crate::store::connect::existing(url), tables).await
    }

    /// Uses a store of your own.
    pub fn with_store(store: Arc<dyn OutboxStore>) -> Self {
        Self { store }
    }

    /// Creates the tables, or brings them to this version. Any number of processes may do so at once.
    ///
    /// `SCHEMA_TOO_NEW` if a newer version of Tidings has written them.
    pub async fn install(&self) -> Result<()> {
        self.store.install().await
    }

    /// Refuses tables that are not there, or are of another version.
    pub async fn check(&self) -> Result<()> {
        self.store.check().await
    }

    /// Writes events in a transaction of its own: for programs that have none at hand.
    pub async fn publish(&self, events: impl IntoIterator<Item = impl Into<OutboxEvent>>) -> Result<()> {
        let events: Vec<OutboxEvent> = events.into_iter().map(Into::into).collect();
        self.store.publish(&events).await
    }

    /// A relay that publishes the rows to `broker`.
    pub fn relay(&self, broker: &Broker) -> Relay {
        Relay::new(self.store.clone(), broker.clone())
    }

    /// How many rows there are of each status, and how old the oldest unpublished one is. Counts all rows.
    pub async fn status(&self) -> Result<OutboxStatus> {
        self.store.status().await
    }

    /// Rows that were given up on, by id, at most `limit`. The next page begins behind the last `id`; the first at 0.
    pub async fn failed(&self, after: i64, limit: usize) -> Result<Vec<FailedRow>> {
        self.store.failed(after, limit).await
    }

    /// Has these failed rows tried again, as if they had never failed. Returns how many there were.
    pub async fn retry(&self, ids: &[i64]) -> Result<u64> {
        let mut count = 0;
        for some in ids.chunks(SOME) {
            count += self.store.retry(some).await?;
        }
        Ok(count)
    }

    /// Removes these failed rows; what waits behind them goes on. Returns how many there were.
    pub async fn discard(&self, ids: &[i64]) -> Result<u64> {
        let mut count = 0;
        for some in ids.chunks(SOME) {
            count += self.store.discard(some).await?;
        }
        Ok(count)
    }

    /// Waits until nothing that is due is unpublished: before a deployment, or in a test. Rows that were given up on, and
    /// those that wait behind them, are not waited for. `TIMEOUT` after `timeout`.
    pub async fn drain(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(5);
        loop {
            if !self.store.busy().await? {
                return Ok(());
            }
            if Instant::now() + pause > deadline {
                return Err(Error::new(ErrorKind::Timeout, format!("the outbox was not empty after {timeout:?}"))
                    .remedy("see whether a relay runs, and what status() and failed() say"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Removes kept rows that were published longer ago than `age`, in small transactions. Returns how many.
    pub async fn purge(&self, age: Duration) -> Result<u64> {
        let mut count = 0;
        loop {
            let some = self.store.purge(age, SOME).await?;
            count += some;
            if some < SOME as u64 {
                return Ok(count);
            }
        }
    }

    /// Lets go of the database. Stop relays before.
    pub async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
