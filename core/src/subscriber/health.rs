//! Whether a subscription is really consuming.

use crate::Error;
use crate::transport::OrderState;

/// What a subscription is doing right now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// Its name.
    pub subscription: String,
    /// The broker can be reached.
    pub connected: bool,
    /// The broker knows a live consumer of this process: new events will arrive.
    pub consuming: bool,
    /// Paused by `pause`.
    pub paused: bool,
    /// Stopping: handlers finish, nothing new starts.
    pub draining: bool,
    /// Events that handlers have in hand.
    pub in_flight: usize,
    /// Events fetched and waiting for a handler.
    pub buffered: usize,
    /// How often the consumer had to be set up again.
    pub recoveries: u64,
    /// What ended the connection or consumer last.
    pub last_error: Option<String>,
    /// What holds it back, if something does: `prefetch`, `suspect`, `max_parked`.
    pub limited_by: Option<&'static str>,
    /// Ordered subscriptions: who runs it, and what waits. RabbitMQ: of what this process owns. `sqlite:`: of the whole
    /// subscription, as it was when it was last asked for.
    pub order: Option<OrderState>,
}

impl SubscriptionHealth {
    /// Of a subscription that cannot be looked at.
    pub(super) fn unknown(subscription: &str, why: &Error) -> Self {
        Self {
            subscription: subscription.to_owned(),
            connected: false,
            consuming: false,
            paused: false,
            draining: false,
            in_flight: 0,
            buffered: 0,
            recoveries: 0,
            last_error: Some(why.to_string()),
            limited_by: None,
            order: None,
        }
    }
}
