//! Transports: one broker each behind one small trait.
//!
//! The engine decides (`settlement`), a transport carries out. To add one: a file or folder here, a cargo feature, a
//! line in [`registry`], and the testkit runs against it.

mod capabilities;
#[cfg(all(feature = "testkit", feature = "amqp", feature = "sqlite"))]
pub(crate) mod carry;
mod dead_letters;
mod journal;
mod message;
pub mod registry;
mod source;
mod spec;

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use capabilities::{Capabilities, Ordered};
pub use dead_letters::{DeadLetters, StoredDeadLetter};
pub use journal::{Journal, JournalEntry, JournalPlace, JournalQuery, JournalState, RememberedKey};
pub use message::{Message, Receipt};
pub use source::{Incoming, OrderState, Settlement, Source, SourceHealth, Token};
pub use spec::{DEFAULT_EXCHANGE, KeyOrder, OnDead, OnRetry, QueueType, SubscriptionSpec};

use crate::Result;
use crate::doctor::{Examination, Finding};
use crate::event::Timestamp;

/// One broker, reached.
///
/// A trait for others to implement: a method that is added later has a default, so that a transport of today still compiles.
///
/// All methods may be called from many tasks at once. A transport reconnects by itself; a call fails with
/// `CONNECTION_FAILED` only when its own time-out ends before the connection is back.
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// What this transport can do.
    fn capabilities(&self) -> Capabilities;

    /// Stores events durably. One result per message, in order; `Ok` means that the broker has it on disk.
    ///
    /// Messages of one key are accepted in the order of the batch, and batches in the order of the calls. A message
    /// that cannot be confirmed before its `deadline` ends in `TIMEOUT` with `outcome_unknown` and is not sent again.
    /// Dropping the future does not withdraw what was handed over.
    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<Receipt>>;

    /// A way to publish that ends with its connection: once that is lost, nothing that was sent over it can arrive, and
    /// every later publish fails with `CLOSED`. `owner` is a name that nobody has used before. `None` on transports that
    /// do not have it.
    async fn fence(&self, owner: &str) -> Result<Option<Arc<dyn Transport>>> {
        let _ = owner;
        Ok(None)
    }

    /// Whether the connection that was fenced as `owner` is gone, as the broker sees it.
    async fn fence_is_gone(&self, owner: &str) -> Result<bool> {
        let _ = owner;
        Ok(true)
    }

    /// Declares the subscription durably and returns a source of its events.
    ///
    /// Declaring the same one again adds its binding keys. Other settings than the stored ones are
    /// `SUBSCRIPTION_CONFLICT`, naming the setting.
    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<Arc<dyn Source>>;

    /// Opens the dead letters of a subscription, oldest first, as they are now. `SUBSCRIPTION_NOT_FOUND` if there is
    /// no such subscription.
    async fn dead_letters(&self, subscription: &str) -> Result<Box<dyn DeadLetters>>;

    /// The subscriptions that this transport knows of, with their depths. On RabbitMQ, which does not list queues to
    /// clients: those that this process has used.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>>;

    /// One subscription with its depths; `None` if there is none of this name.
    async fn subscription(&self, name: &str) -> Result<Option<SubscriptionInfo>> {
        Ok(self.subscriptions().await?.into_iter().find(|info| info.name == name))
    }

    /// Looks for what could lose, stop or delay events, for `tidings doctor`. Changes nothing that lasts.
    async fn examine(&self, _about: &Examination) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Deletes the subscription with all its events and dead letters. `false` if there was none.
    async fn delete_subscription(&self, name: &str) -> Result<bool>;

    /// What it remembers beyond the events that wait; `None` if it is no store.
    fn journal(&self) -> Option<&dyn Journal> {
        None
    }

    /// The wall clock that delays and ages are measured with. Only `memory:` has one of its own.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether the broker answers right now; the error says why not.
    async fn ping(&self) -> Result<()>;

    /// Lets go of everything. Later calls fail with `CLOSED`.
    async fn close(&self) -> Result<()>;
}

/// What is known of a subscription from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// Its name.
    pub name: String,
    /// Events that wait, those scheduled for a retry included where the transport can tell.
    pub ready: u64,
    /// Events handed to a consumer and not settled, where the transport can tell.
    pub in_flight: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// Consumers that the broker knows of, where it knows them while they are idle.
    pub consumers: Option<u64>,
    /// When the oldest event that could be handled now was accepted, where the transport can tell.
    pub oldest: Option<Timestamp>,
    /// Ordered subscriptions: keys that wait for the replay of their head, where the transport can tell.
    pub parked: Option<u64>,
    /// Ordered subscriptions, where the transport can tell: who runs them, and what waits.
    pub order: Option<OrderState>,
}

impl SubscriptionInfo {
    /// A subscription of this name with nothing in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ready: 0,
            in_flight: None,
            dead: 0,
            consumers: None,
            oldest: None,
            parked: None,
            order: None,
        }
    }
}
