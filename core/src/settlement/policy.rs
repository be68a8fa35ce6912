//! [`SettlementPolicy`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::RetryPolicy;

/// Hook that may rewrite error messages and stacks before they are kept or logged.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The part of a subscription's options that decides about outcomes.
#[derive(Clone)]
#[non_exhaustive]
pub struct SettlementPolicy {
    /// Name of the subscription, kept with dead letters.
    pub subscription: Arc<str>,
    /// Most retries of one event.
    pub max_retries: u32,
    /// When errors are retried; `None`: never.
    pub retry: Option<RetryPolicy>,
    /// Keep what was given up on, or drop it, counted.
    pub dead_letter: bool,
    /// Longest delay that the transport can keep; longer ones are cut to it.
    pub max_delay: Duration,
    /// Broker deliveries without an outcome after which an event is run alone.
    pub max_deliveries: u32,
    /// Whether dead letters keep the error's stack.
    pub capture_stack: bool,
    /// Rewrites error texts.
    pub redact: Option<Redact>,
}

impl SettlementPolicy {
    /// The defaults for the subscription of this name: no retry, dead letters kept; set the public fields to what it is.
    pub fn new(subscription: impl Into<Arc<str>>) -> Self {
        Self {
            subscription: subscription.into(),
            max_retries: 0,
            retry: None,
            dead_letter: true,
            max_delay: Duration::MAX,
            max_deliveries: 20,
            capture_stack: true,
            redact: None,
        }
    }
}

impl fmt::Debug for SettlementPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettlementPolicy")
            .field("subscription", &self.subscription)
            .field("max_retries", &self.max_retries)
            .field("retry", &self.retry)
            .field("dead_letter", &self.dead_letter)
            .finish_non_exhaustive()
    }
}
