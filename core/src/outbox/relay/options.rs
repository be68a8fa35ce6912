//! [`Relay`]: what a relay is told before it starts.

use std::sync::Arc;
use std::time::Duration;

use super::RunningRelay;
use crate::broker::Broker;
use crate::outbox::{OutboxStore, WakeUp};
use crate::{Backoff, Error, ErrorKind, Result, RetryPolicy};

/// What the later rows of a key do when one cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailed {
    /// They wait until it is published, retried or discarded: order is kept.
    #[default]
    Block,
    /// They go on without it.
    Pass,
}

/// Everything that a relay can be told, with the defaults of the design.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) exchange: Option<Arc<str>>,
    pub(super) batch: usize,
    pub(super) max_payload: usize,
    pub(super) lease: Duration,
    pub(super) poll_interval: Duration,
    pub(super) publish_timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) on_failed: OnFailed,
    pub(super) keep: Option<Duration>,
    pub(super) listen: bool,
}

/// A relay in the making; [`start`](Self::start) ends with one that runs.
#[must_use = "it does not run before start()"]
pub struct Relay {
    pub(super) store: Arc<dyn OutboxStore>,
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) wake_up: Option<Box<dyn WakeUp>>,
}

impl Relay {
    pub(in crate::outbox) fn new(store: Arc<dyn OutboxStore>, broker: Broker) -> Self {
        let minute = Duration::from_secs(60);
        let settings = Settings {
            exchange: None,
            batch: 1000,
            max_payload: 1024 * 1024,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            publish_timeout: Duration::from_secs(10),
            retry: RetryPolicy::exponential(19, Duration::from_secs(1), 2.0, 5 * minute).jitter(0.2),
            on_failed: OnFailed::Block,
            keep: None,
            listen: false,
        };
        Self { store, broker, settings, wake_up: None }
    }

    /// Publishes to this exchange what names none (default `domain-events`).
    pub fn exchange(mut self, exchange: impl Into<Arc<str>>) -> Self {
        self.settings.exchange = Some(exchange.into());
        self
    }

    /// Events that are published and settled together (default 1,000).
    pub fn batch(mut self, events: usize) -> Self {
        self.settings.batch = events;
        self
    }

    /// Largest body in bytes (default 1 MiB): at least what writers may write.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.settings.max_payload = bytes;
        self
    }

    /// How long others wait for a relay that says nothing before they take over (default 30 s). Renewed at a third of it.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Longest pause between two looks at the table (default 1 s; with a wake-up ten times that). Looks are more
    /// frequent while there is something to do.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// Gives up on a confirm after this time (default 10 s); the row stays and is published again. Below half the lease.
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.settings.publish_timeout = timeout;
        self
    }

    /// How often a row is tried before it is FAILED (default 20). A broker that cannot be reached costs no try.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.retry.max_retries = attempts.saturating_sub(1);
        self
    }

    /// Pauses of a row that the broker refused: from `initial`, doubling, to `max`, plus up to a fifth (default 1 s to 5 min).
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.settings.retry.backoff = Backoff::Exponential { initial, factor: 2.0, max };
        self
    }

    /// What the later rows of a key do when one cannot be published (default: they wait).
    pub fn on_failed(mut self, on_failed: OnFailed) -> Self {
        self.settings.on_failed = on_failed;
        self
    }

    /// Keeps published rows as PROCESSED for this time instead of deleting them, then removes them in small batches.
    pub fn keep(mut self, age: Duration) -> Self {
        self.settings.keep = Some(age);
        self
    }

    /// PostgreSQL: is woken by writers that notify, instead of looking all the time. Not behind a pooler in transaction mode.
    pub fn listen(mut self, listen: bool) -> Self {
        self.settings.listen = listen;
        self
    }

    /// Is woken by this.
    pub fn wake_up(mut self, wake_up: impl WakeUp) -> Self {
        self.wake_up = Some(Box::new(wake_up));
        self
    }

    /// Starts it as a task of this Tokio runtime. Any number may run, in any number of processes.
    ///
    /// Errors: `INVALID_OPTION` for settings that make no sense together or a store without tables, `SCHEMA_TOO_NEW`, the
    /// store's. A broker that cannot be reached is no error, nor is a SQLite file that somebody else is writing for longer
    /// than the busy time-out: the relay waits for it.
    pub async fn start(mut self) -> Result<RunningRelay> {
        self.check()?;
        let checked = match self.store.check().await {
            Ok(()) => true,
            // Looked at again by the relay itself, before it does anything.
            Err(error) if error.kind() == ErrorKind::StoreBusy => false,
            Err(error) => return Err(error),
        };
        if self.settings.listen && self.wake_up.is_none() {
            self.wake_up = self.store.listen().await?;
            if self.wake_up.is_none() {
                return Err(Error::new(ErrorKind::Unsupported, "this store cannot wake a relay")
                    .field("listen", true)
                    .remedy("leave it out: the relay looks by itself"));
            }
        }
        Ok(RunningRelay::start(self, checked))
    }

    fn check(&self) -> Result<()> {
        let settings = &self.settings;
        let invalid = |message: &str, field, value: String, remedy: &str| {
            Err(Error::new(ErrorKind::InvalidOption, message).field(field, value).remedy(remedy))
        };
        if settings.batch == 0 {
            return invalid("nothing would be published", "batch", "0".into(), "use 1 or more; the default is 1,000");
        }
        if settings.lease < Duration::from_millis(300) {
            let value = format!("{:?}", settings.lease);
            return invalid("the lease is too short to be renewed in time", "lease", value, "use 300 ms or more");
        }
        if settings.poll_interval.is_zero() {
            return invalid("the relay would never rest", "poll_interval", "0".into(), "the default is 1 s");
        }
        if settings.publish_timeout >= settings.lease / 2 {
            let value = format!("{:?}", settings.publish_timeout);
            let remedy = "use less than half the lease, else another relay may publish the same events meanwhile";
            return invalid("a publish could outlive the lease", "publish_timeout", value, remedy);
        }
        settings.retry.check()
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("store", &self.store).field("broker", &self.broker).finish_non_exhaustive()
    }
}
