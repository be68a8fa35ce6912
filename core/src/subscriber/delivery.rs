//! [`Delivery`]: one event handed over once, to be settled.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::session::Session;
use crate::Result;
use crate::event::DomainEvent;
use crate::settlement::Outcome;
use crate::transport::Token;

/// One event handed to one subscription once. It must be settled; dropped unsettled it is released.
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery {
    event: DomainEvent,
    token: Token,
    key: Option<Arc<str>>,
    since: Instant,
    lost_deliveries: u32,
    session: Arc<Session>,
    settled: bool,
}

/// A delivery without its duty to be settled.
pub(super) struct Parts {
    pub(super) event: DomainEvent,
    pub(super) token: Token,
    /// Set on ordered subscriptions: the key as the transport has it.
    pub(super) key: Option<Arc<str>>,
    /// When it was fetched.
    pub(super) since: Instant,
    /// Earlier deliveries that ended without an outcome.
    pub(super) lost_deliveries: u32,
}

impl Delivery {
    pub(super) fn new(parts: Parts, session: Arc<Session>) -> Self {
        let Parts { event, token, key, since, lost_deliveries } = parts;
        Self { event, token, key, since, lost_deliveries, session, settled: false }
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
        self.session.home.check()?;
        let session = self.session.clone();
        session.settle(vec![(self, outcome)]).await
    }

    /// Takes the delivery apart for settling; it is no longer released on drop.
    pub(super) fn into_parts(mut self) -> Parts {
        self.take()
    }

    fn take(&mut self) -> Parts {
        self.settled = true;
        let event = std::mem::replace(&mut self.event, DomainEvent::nothing());
        Parts {
            event,
            token: self.token,
            key: self.key.take(),
            since: self.since,
            lost_deliveries: self.lost_deliveries,
        }
    }

    /// The subscription that it belongs to, if that is not `session`.
    pub(super) fn other_session(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        (!Arc::ptr_eq(&self.session, session)).then(|| self.session.clone())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // The delivery is the parent's, where it is still in hand.
        if !self.settled && self.session.home.is_here() {
            let parts = self.take();
            self.session.give_back(parts);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("event", &self.event).field("retries", &self.retries()).finish_non_exhaustive()
    }
}
