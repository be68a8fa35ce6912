//! What travels: an event's bytes with everything a broker needs to know about it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::event::{Headers, Timestamp};

/// An encoded event on its way to or from a broker.
///
/// `routing_key`, `id`, `key` and `timestamp` repeat what the body says, so that no transport parses bodies.
#[derive(Debug, Clone)]
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
    pub body: Bytes,
    /// Everything else.
    pub headers: Headers,
    /// Publish only: routed to subscriptions at this time, not before. Those bound by then get it.
    pub deliver_at: Option<Timestamp>,
    /// Publish only: `UNROUTABLE` if no subscription wants it.
    pub require_route: bool,
    /// Publish only: given up on at this instant.
    pub deadline: Option<Instant>,
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
