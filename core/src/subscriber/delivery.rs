//! [`Delivery`]: one event handed over once, to be settled.

use std::fmt;
use std::sync::Arc;

use super::session::Session;
use crate::event::DomainEvent;
use crate::settlement::Outcome;
use crate::transport::Token;
use crate::{Error, Result};

/// One event handed to one subscription once. It must be settled; dropped unsettled it is released.
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery {
    event: DomainEvent,
    token: Token,
    session: Arc<Session>,
    settled: bool,
}

impl Delivery {
    pub(super) fn new(event: DomainEvent, token: Token, session: Arc<Session>) -> Self {
        Self { event, token, session, settled: false }
    }

    /// The event.
    pub fn event(&self) -> &DomainEvent {
        &self.event
    }

    /// Names the delivery within its subscription and process.
    pub fn token(&self) -> Token {
        self.token
    }

    /// How often the subscription has already tried the event.
    pub fn retries(&self) -> u32 {
        self.event.retries()
    }

    /// Settles the delivery and waits until the settlement is durable.
    ///
    /// Errors: `STALE_DELIVERY` if its connection or lease is gone (it will be delivered again).
    pub async fn settle(self, outcome: Outcome) -> Result<()> {
        let session = self.session.clone();
        session.settle(vec![(self, outcome)]).await
    }

    /// Takes the delivery apart for settling; it is no longer released on drop.
    pub(super) fn into_parts(mut self) -> (DomainEvent, Token) {
        self.settled = true;
        (std::mem::replace(&mut self.event, DomainEvent::nothing()), self.token)
    }

    pub(super) fn check_session(&self, session: &Arc<Session>) -> Result<()> {
        if Arc::ptr_eq(&self.session, session) {
            return Ok(());
        }
        Err(Error::new(crate::ErrorKind::InvalidOption, "the delivery belongs to another subscription")
            .field("delivery", self.event.id())
            .remedy("settle it where it came from"))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            self.session.give_back(&self.event, self.token);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("event", &self.event).field("retries", &self.retries()).finish_non_exhaustive()
    }
}
