//! What travels: an event's bytes with everything a broker needs to know about it.

use std::sync::Arc;
use std::time::Instant;

use super::DEFAULT_EXCHANGE;
use crate::event::{Headers, Payload, Timestamp};

/// An encoded event on its way to or from a broker.
///
/// `routing_key`, `id`, `key` and `timestamp` repeat what the body says, so that no transport parses bodies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// Namespace of bindings; an exchange on RabbitMQ.
    pub exchange: Arc<str>,
    /// Where it goes within the exchange.
    pub routing_key: Arc<str>,
    /// The event's id.
    pub id: Arc<str>,
    /// Ordering key, if it has one.
    pub key: Option<Arc<str>>,
    /// When it happened. Of a received one: the Unix epoch where the broker does not say; the body does.
    pub timestamp: Timestamp,
    /// The five-key JSON object.
    pub body: Payload,
    /// Everything else.
    pub headers: Headers,
    /// Publish only: routed to subscriptions at this time, not before. Those bound by then get it.
    pub deliver_at: Option<Timestamp>,
    /// Publish only: `UNROUTABLE` if no subscription wants it.
    pub require_route: bool,
    /// Publish only: given up on at this instant of Tokio's clock (`tokio::time::Instant::into_std`).
    pub deadline: Option<Instant>,
}

impl Message {
    /// A message without headers, to the exchange `domain-events`, at once and without a deadline.
    pub fn new(routing_key: impl Into<Arc<str>>, id: impl Into<Arc<str>>, body: impl Into<Payload>) -> Self {
        Self {
            exchange: DEFAULT_EXCHANGE.into(),
            routing_key: routing_key.into(),
            id: id.into(),
            key: None,
            timestamp: Timestamp::EPOCH,
            body: body.into(),
            headers: Headers::new(),
            deliver_at: None,
            require_route: false,
            deadline: None,
        }
    }

    /// Sets the exchange.
    pub fn with_exchange(mut self, exchange: impl Into<Arc<str>>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// Sets the ordering key, or takes it away.
    pub fn with_key(mut self, key: Option<Arc<str>>) -> Self {
        self.key = key;
        self
    }

    /// Sets when it happened.
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Sets all headers.
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets when it is routed to subscriptions.
    pub fn with_deliver_at(mut self, time: Timestamp) -> Self {
        self.deliver_at = Some(time);
        self
    }

    /// Sets whether a subscription must want it.
    pub fn with_require_route(mut self, required: bool) -> Self {
        self.require_route = required;
        self
    }

    /// Sets when it is given up on.
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The deadline as Tokio's timers want it.
    #[cfg(any(feature = "amqp", feature = "memory", feature = "sqlite"))]
    pub(crate) fn gives_up_at(&self) -> Option<tokio::time::Instant> {
        self.deadline.map(tokio::time::Instant::from_std)
    }
}

/// What a publisher gets for a durable event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's id.
    pub id: Arc<str>,
    /// Whether at least one subscription wanted it; `None` where that is not known (delayed events).
    pub routed: Option<bool>,
}

impl Receipt {
    /// A receipt for the event `id`.
    pub fn new(id: Arc<str>, routed: Option<bool>) -> Self {
        Self { id, routed }
    }
}
