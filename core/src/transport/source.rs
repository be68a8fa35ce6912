//! The consuming side of a transport.

use std::time::Duration;

use async_trait::async_trait;

use super::Message;
use crate::Result;
use crate::event::Headers;

/// Names one delivery of a source. Worthless once settled, or when its connection or lease is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Token {
    /// The delivery: a delivery tag, a row.
    pub id: u64,
    /// The connection or lease that it belongs to. Grows: once a source hands over a delivery of a newer generation, its
    /// older ones are no longer ours.
    pub generation: u64,
}

impl Token {
    /// The delivery `id` of a connection or lease.
    pub const fn new(id: u64, generation: u64) -> Self {
        Self { id, generation }
    }
}

/// An event as a source hands it over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// Names it when it is settled.
    pub token: Token,
    /// The event. Headers are without the broker's own (`x-*`).
    pub message: Message,
    /// Earlier deliveries that ended without an outcome (crash, lost lease, lost connection), as far as the broker knows.
    pub lost_deliveries: u32,
}

impl Incoming {
    /// A first delivery of `message`.
    pub fn new(token: Token, message: Message) -> Self {
        Self { token, message, lost_deliveries: 0 }
    }

    /// Sets how many earlier deliveries ended without an outcome.
    pub fn with_lost_deliveries(mut self, lost: u32) -> Self {
        self.lost_deliveries = lost;
        self
    }
}

/// What the engine wants done with a delivery. Headers are complete: the transport writes them as they are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Settlement {
    /// Done: forget it.
    Ack,
    /// Give it back, to be delivered again at once, no attempt spent. On an ordered subscription to its old place.
    Release,
    /// Deliver it again after `delay`, with these headers.
    Retry {
        /// Time to wait.
        delay: Duration,
        /// The headers it is delivered with next.
        headers: Headers,
    },
    /// Keep it among the dead letters, with these headers.
    DeadLetter {
        /// The headers it is kept with.
        headers: Headers,
    },
    /// Deliver it again at once with these headers and `lost_deliveries` counted from 0: it will be run alone.
    Suspect {
        /// The headers it is delivered with next.
        headers: Headers,
    },
}

/// Whether a source is really consuming.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SourceHealth {
    /// The broker or file can be reached.
    pub connected: bool,
    /// The broker has a live consumer of ours: new events will arrive. A lost consumer comes back while `next` is
    /// awaited, so a source that nobody asks for events may stay without one.
    pub consuming: bool,
    /// How often it had to recover.
    pub recoveries: u64,
    /// The error that ended the connection or consumer last.
    pub last_error: Option<String>,
    /// Ordered subscriptions, where the transport knows: who runs them, and what waits.
    pub order: Option<OrderState>,
    /// Events that it has fetched and keeps until it is their turn.
    pub held: usize,
    /// The limit that keeps it from fetching, if it is at one.
    pub limited_by: Option<&'static str>,
}

/// Who runs an ordered subscription, and what waits in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OrderState {
    /// Who runs it. Empty: nobody. RabbitMQ: host, process and connection; seen from inside a process, its own only.
    /// `sqlite:`: the leases that have keys in hand. `memory:`: this process.
    pub owners: Vec<String>,
    /// Keys whose head waits for its retry. RabbitMQ: those that the owner holds.
    pub waiting_keys: u64,
    /// Keys that are parked: their head is dead or, on RabbitMQ, waits for a long retry.
    pub parked_keys: u64,
    /// Of those, the ones whose head is dead.
    pub dead_keys: u64,
    /// How long the head that has waited longest has done so, held or parked. `sqlite:`: since its event was accepted.
    pub oldest_waiting: Option<Duration>,
    /// It is that of the whole subscription, whoever runs its keys (`memory:`, `sqlite:`), so everybody who looks sees the
    /// same; not that of the part that one process owns.
    pub whole: bool,
}

impl OrderState {
    /// Of two sources.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        if self.whole && other.whole {
            return other;
        }
        self.owners.extend(other.owners);
        self.owners.dedup();
        self.waiting_keys += other.waiting_keys;
        self.parked_keys += other.parked_keys;
        self.dead_keys += other.dead_keys;
        self.oldest_waiting = self.oldest_waiting.max(other.oldest_waiting);
        self
    }
}

/// A stream of deliveries of one subscription.
///
/// Recovers by itself from lost connections, closed channels and deleted queues. What was delivered before a recovery
/// is delivered again; its old tokens settle as `STALE_DELIVERY`.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Waits for at least one event and returns at most `max`; an empty vector once the source is closed.
    ///
    /// Only one call is under way at a time, and it is never cancelled: the engine keeps one pending poll.
    /// An error is final for the source.
    async fn next(&self, max: usize) -> Result<Vec<Incoming>>;

    /// Carries out settlements, one result each, in order.
    ///
    /// `Retry`, `DeadLetter` and `Suspect` write the next place first, confirm it, and only then remove the delivery.
    /// `STALE_DELIVERY` and `CLOSED` end a delivery. Any other error leaves it ours: the engine settles it again.
    /// On a keyed subscription a key goes on once every delivery of it that was handed over is settled.
    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>>;

    /// How long an ack may wait for others to go with: where each one costs the broker as much as many together. Until
    /// then, or until half of the prefetch is done, the engine keeps it, unless something waits for it.
    fn ack_patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether an event that was handed over may still be begun with. Asked right before, on ordered subscriptions only;
    /// `false`: it is released.
    fn may_begin(&self, _token: Token) -> bool {
        true
    }

    /// Stops (`false`) or resumes (`true`) fetching. What was fetched and not handed over goes back.
    async fn set_flow(&self, open: bool) -> Result<()>;

    /// Whether it is really consuming.
    fn health(&self) -> SourceHealth;

    /// Stops fetching for good: a waiting `next` returns nothing. What was handed over can still be settled.
    async fn stop(&self);

    /// Lets go. Whatever was not settled is released.
    async fn close(&self);
}
