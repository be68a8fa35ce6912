//! [`OutboxEvent`]: an event with what only the outbox needs to know.

use std::sync::Arc;

use crate::{DomainEvent, Timestamp};

/// An event to be written to an outbox. Made from a [`DomainEvent`] where nothing else is to be said.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "it is not written yet"]
pub struct OutboxEvent {
    pub(crate) event: DomainEvent,
    pub(crate) exchange: Option<Arc<str>>,
    pub(crate) available_at: Option<Timestamp>,
}

impl OutboxEvent {
    /// An event that is published as soon as its transaction commits.
    pub fn new(event: DomainEvent) -> Self {
        Self { event, exchange: None, available_at: None }
    }

    /// Publishes it at this time, not before. Until then it holds up no other event, also none of its key.
    pub fn available_at(mut self, time: Timestamp) -> Self {
        self.available_at = Some(time);
        self
    }

    /// Publishes it to this exchange instead of the relay's.
    pub fn exchange(mut self, exchange: impl Into<Arc<str>>) -> Self {
        self.exchange = Some(exchange.into());
        self
    }

    /// When it is published at the earliest, if that was said.
    pub fn available(&self) -> Option<Timestamp> {
        self.available_at
    }

    /// The exchange that it was said to go to.
    pub fn exchange_name(&self) -> Option<&str> {
        self.exchange.as_deref()
    }

    /// The event.
    pub fn event(&self) -> &DomainEvent {
        &self.event
    }
}

impl From<DomainEvent> for OutboxEvent {
    fn from(event: DomainEvent) -> Self {
        Self::new(event)
    }
}
