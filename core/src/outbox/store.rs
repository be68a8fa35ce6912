//! [`OutboxStore`]: what a relay needs of a database.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{OutboxEvent, WakeUp};
use crate::Result;
use crate::event::Payload;

/// Where events wait between their transaction and the broker.
///
/// Implemented for PostgreSQL, MySQL/MariaDB and SQLite; implement it for a database of your own to use the relay there.
///
/// **Parts.** Ordering keys are divided by hash into 256 parts. A relay publishes only rows of parts that it has
/// acquired, and has them as long as its entry (`join`, `renew`) exists. An entry whose time has passed is removed by
/// `evict`, never by time alone: whoever evicts has made sure that the old relay publishes nothing any more. All times
/// are those of the database's clock.
///
/// **Order.** `poll` returns what one snapshot sees, without gaps: a row that is passed over because it is not visible
/// yet may only be one of a transaction that overlaps those of all returned rows. A cursor over ids does not keep this.
#[async_trait]
pub trait OutboxStore: Debug + Send + Sync + 'static {
    /// Creates the tables, or brings them to this version. `SCHEMA_TOO_NEW` if a newer version has written them.
    async fn install(&self) -> Result<()>;

    /// Refuses tables that are not there, or are of a newer version.
    async fn check(&self) -> Result<()>;

    /// Writes events in a transaction of its own. Programs with a transaction write in that one instead.
    async fn publish(&self, events: &[OutboxEvent]) -> Result<()>;

    /// Enters a relay under a name that nobody has used before. `fence` names the transport that fences it, or is empty.
    async fn join(&self, owner: &str, fence: &str, lease: Duration) -> Result<()>;

    /// Prolongs the relay's entry and returns all entries, its own too if it still has one.
    async fn renew(&self, owner: &str, lease: Duration) -> Result<Vec<Member>>;

    /// Removes the entry of a relay whose time has passed. `false` if it was renewed or removed meanwhile.
    async fn evict(&self, owner: &str) -> Result<bool>;

    /// Takes up to `most` parts that nobody has and returns all that the relay has now.
    async fn acquire(&self, owner: &str, most: usize) -> Result<Vec<u16>>;

    /// Gives parts back. Nothing of them may be on its way to the broker.
    async fn release(&self, owner: &str, parts: &[u16]) -> Result<()>;

    /// Gives everything back and removes the entry.
    async fn leave(&self, owner: &str) -> Result<()>;

    /// Rows that are ready, by id.
    async fn poll(&self, parts: &[u16], limit: PollLimit) -> Result<Page>;

    /// Rows whose back-off is over, oldest first, at most `most`.
    async fn poll_retries(&self, parts: &[u16], most: usize) -> Result<Vec<OutboxRow>>;

    /// Makes scheduled rows ready whose time has come, and says when the next row of any relay falls due.
    async fn promote(&self, parts: &[u16]) -> Result<Option<Duration>>;

    /// Records what became of rows. Does nothing if the relay's entry is gone.
    async fn settle(&self, owner: &str, settled: Settled) -> Result<()>;

    /// Keys with a failed row, those that will be tried again too, at most `most`.
    async fn blocked(&self, parts: &[u16], most: usize) -> Result<Vec<String>>;

    /// Keys with rows that wait behind a failed one.
    async fn waiting(&self, parts: &[u16]) -> Result<Vec<String>>;

    /// Counts, and the age of the oldest row that should have been published.
    async fn status(&self) -> Result<OutboxStatus>;

    /// Age of the oldest row that should have been published; cheap enough to be asked all the time.
    async fn oldest(&self) -> Result<Option<Duration>>;

    /// Whether a relay could publish anything, now or after a back-off: not scheduled rows whose time has not come, not
    /// failed ones, not those that wait behind a failed one.
    async fn busy(&self) -> Result<bool>;

    /// Rows that were given up on, by id, beginning behind `after`.
    async fn failed(&self, after: i64, limit: usize) -> Result<Vec<FailedRow>>;

    /// Has failed rows tried again, as if they had never failed. Returns how many there were.
    async fn retry(&self, ids: &[i64]) -> Result<u64>;

    /// Removes failed rows. Returns how many there were.
    async fn discard(&self, ids: &[i64]) -> Result<u64>;

    /// Removes up to `limit` rows that were published and kept, older than `age`. Returns how many.
    async fn purge(&self, age: Duration, limit: usize) -> Result<u64>;

    /// What tells that a transaction with rows has committed; `None` where the database cannot say.
    async fn listen(&self) -> Result<Option<Box<dyn WakeUp>>>;

    /// Lets go of all connections.
    async fn close(&self) -> Result<()>;
}

/// How much one poll returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollLimit {
    /// Most rows.
    pub rows: usize,
    /// Most bytes of bodies and headers, though at least one row is returned.
    pub bytes: usize,
}

impl PollLimit {
    /// At most so many rows and bytes.
    pub const fn new(rows: usize, bytes: usize) -> Self {
        Self { rows, bytes }
    }
}

/// What one poll returned.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Page {
    /// By id.
    pub rows: Vec<OutboxRow>,
    /// A limit was reached: there may be more.
    pub more: bool,
}

impl Page {
    /// A page of these rows.
    pub fn new(rows: Vec<OutboxRow>, more: bool) -> Self {
        Self { rows, more }
    }
}

/// A row on its way to the broker.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The row's number; of one key, later rows have larger ones.
    pub id: i64,
    /// The exchange, if it is not the relay's.
    pub exchange: Option<Arc<str>>,
    /// What rows of one key have in common; not necessarily the key itself.
    pub key: Option<Arc<str>>,
    /// JSON of the headers.
    pub headers: Option<Payload>,
    /// The event's body.
    pub body: Payload,
    /// Tries so far.
    pub attempts: u32,
}

/// A relay's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub owner: String,
    /// The transport that fences it, or empty.
    pub fence: String,
    /// What is left of its time; zero if it has passed.
    pub left: Duration,
}

/// What became of rows.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Confirmed by the broker.
    pub done: Vec<i64>,
    /// Keep the confirmed rows as processed instead of deleting them.
    pub keep: bool,
    /// Not taken by the broker.
    pub failed: Vec<Failed>,
    /// Ready, but behind a failed row of their key.
    pub waiting: Vec<i64>,
    /// Keys whose failed row is gone: what waits behind it is ready again.
    pub unblocked: Vec<String>,
}

impl Settled {
    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty() && self.waiting.is_empty() && self.unblocked.is_empty()
    }
}

/// A row that could not be published.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The row.
    pub id: i64,
    /// Why, without secrets.
    pub error: String,
    /// When it is tried again; `None`: never, it is FAILED.
    pub retry_after: Option<Duration>,
}

/// How an outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// PENDING: not published, and not given up on. Scheduled rows count.
    pub pending: u64,
    /// PROCESSED and kept.
    pub processed: u64,
    /// FAILED: given up on until somebody retries or discards them.
    pub failed: u64,
    /// Age of the oldest row that should have been published by now.
    pub oldest: Option<Duration>,
}

/// A row that was given up on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedRow {
    /// The row's number, for `retry` and `discard`.
    pub id: i64,
    /// The event's id.
    pub event_id: String,
    /// Its routing key.
    pub routing_key: String,
    /// Its ordering key, shortened if it is long.
    pub key: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// The last error.
    pub error: String,
}

impl FailedRow {
    /// A row without anything but its number.
    pub fn new(id: i64) -> Self {
        Self { id, event_id: String::new(), routing_key: String::new(), key: None, attempts: 0, error: String::new() }
    }
}
