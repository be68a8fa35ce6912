//! What a store remembers beyond the events that wait: settled events, and keys with a time to live.

use std::time::Duration;

use async_trait::async_trait;

use super::Message;
use crate::Result;
use crate::event::Timestamp;

/// The memory of a transport that is a store. RabbitMQ has none: what was consumed there is gone.
#[async_trait]
pub trait Journal: Send + Sync {
    /// How long settled events are kept. Zero: not at all, so they cannot be listed or counted.
    fn retention(&self) -> Duration;

    /// Events that the store has, newest first, at most `max`; an empty vector at the end.
    ///
    /// Those that no subscription wanted were never stored.
    async fn events(&self, query: &JournalQuery, max: usize) -> Result<Vec<JournalEntry>>;

    /// Remembers `value` under `key` for so long, unless something is remembered there: then that is returned, and the
    /// look is counted.
    async fn remember(&self, key: &RememberedKey, value: &str, time: Duration) -> Result<Option<String>>;

    /// What is remembered under `key`. `count` counts the look as a duplicate.
    async fn recall(&self, key: &RememberedKey, count: bool) -> Result<Option<String>>;

    /// How many looks were counted for the keys of this scope that are still remembered.
    async fn duplicates(&self, scope: &str) -> Result<u64>;
}

/// What something is remembered under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RememberedKey {
    /// What keys belong to, for counting.
    pub scope: String,
    /// The key, unique over all scopes.
    pub key: String,
}

/// Which events are wanted. The default: all of them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JournalQuery {
    /// Older than the entry with this sequence: the last one of the page before.
    pub before: Option<u64>,
    /// The event with this id.
    pub id: Option<String>,
    /// Headers that have these texts.
    pub headers: Vec<(String, String)>,
    /// Happened at or after this time.
    pub since: Option<Timestamp>,
    /// Happened before this time.
    pub until: Option<Timestamp>,
}

/// An event that a store has.
#[derive(Debug)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its place: later ones are greater.
    pub sequence: u64,
    /// The event.
    pub message: Message,
    /// Whether every subscription is done with it.
    pub settled: bool,
    /// What subscriptions that are not done with it do with it. Those that have acknowledged it are not among them.
    pub places: Vec<JournalPlace>,
}

/// What one subscription does with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalPlace {
    /// The subscription.
    pub subscription: String,
    /// What becomes of the event there.
    pub state: JournalState,
    /// How often it was tried.
    pub attempts: u32,
    /// The last error, of a dead letter.
    pub error: Option<String>,
}

/// What becomes of an event in a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalState {
    /// It waits, or a handler has it.
    Pending,
    /// It was tried and will be again.
    Retrying,
    /// It was given up on.
    Dead,
}
