//! What one publish can ask for.

use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;

/// Options of one publish. The default sends at once, to the publisher's exchange.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PublishOptions {
    pub(crate) exchange: Option<Arc<str>>,
    pub(crate) when: When,
    pub(crate) require_route: bool,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum When {
    #[default]
    Now,
    After(Duration),
    At(Timestamp),
}

impl PublishOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands the event to subscriptions after this time. The transport's `max_delay` is the limit.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.when = When::After(delay);
        self
    }

    /// Hands the event to subscriptions at this time; at once if it has passed.
    pub fn deliver_at(mut self, time: Timestamp) -> Self {
        self.when = When::At(time);
        self
    }

    /// Fails with `UNROUTABLE` if no subscription wants the event. Not together with a delay: that is not known yet.
    pub fn require_route(mut self) -> Self {
        self.require_route = true;
        self
    }

    /// Publishes to another exchange than the publisher's.
    pub fn exchange(mut self, exchange: impl Into<Arc<str>>) -> Self {
        self.exchange = Some(exchange.into());
        self
    }

    /// Gives up after this time instead of the publisher's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
