//! What a subscription asks for, and how it is said.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::handler::{Handler, erase};
use super::{Deliveries, Subscriber};
use crate::policy::{Backoff, RetryPolicy};
use crate::settlement::{Redact, SettlementPolicy};
use crate::transport::{Capabilities, KeyOrder, Ordered, QueueType, SubscriptionSpec};
use crate::{BoxError, DomainEvent, Error, ErrorKind, Headers, Result};

/// Longest run of a handler on an ordered subscription that one process owns, where it asks for none.
const ORDERED_TIMEOUT: Duration = Duration::from_secs(9 * 60);
/// From here on an event is parked with its key, wherever it is.
const ORDERED_TIMEOUT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Everything that a subscription can be told, with the defaults of the design.
#[derive(Clone)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// What the transport declares.
    pub spec: SubscriptionSpec,
    /// Most retries of one event; `None`: what the policy says, else 0.
    pub max_retries: Option<u32>,
    /// When errors are retried; `None`: never, an error dead-letters.
    pub retry: Option<RetryPolicy>,
    /// Handlers that run at once.
    pub concurrency: usize,
    /// Most events fetched and not settled; `None`: 2 × concurrency, at least 16.
    pub prefetch: Option<u16>,
    /// Longest run of a handler; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Deliveries without an outcome after which an event is run alone.
    pub max_deliveries: u32,
    /// Whether dead letters keep stacks.
    pub capture_stack: bool,
    /// Rewrites error texts before they are kept.
    pub redact: Option<Redact>,
    /// Looks at the headers of each event; those for which it is `false` are discarded before any handler sees them.
    pub wanted: Option<Wanted>,
}

/// Whether a subscription wants an event that its bindings let through.
pub type Wanted = Arc<dyn Fn(&Headers) -> bool + Send + Sync>;

impl SubscriptionOptions {
    /// The defaults, for a subscription of this name.
    pub fn new(name: &str) -> Self {
        Self {
            spec: SubscriptionSpec::new(name),
            max_retries: None,
            retry: None,
            concurrency: 1,
            prefetch: None,
            timeout: None,
            max_deliveries: 20,
            capture_stack: true,
            redact: None,
            wanted: None,
        }
    }

    /// Refuses what makes no sense, as far as that can be told without a broker.
    pub fn check(&self) -> Result<()> {
        let invalid = |message: &str, field, value: String, remedy: &str| {
            Err(Error::new(ErrorKind::InvalidOption, message).field(field, value).remedy(remedy))
        };
        if self.concurrency == 0 {
            return invalid("no handler could run", "concurrency", "0".into(), "use 1 or more");
        }
        if self.max_deliveries == 0 {
            return invalid(
                "every event would be a suspect",
                "max_deliveries",
                "0".into(),
                "use 1 or more; the default is 20",
            );
        }
        if self.timeout.is_some_and(|t| t.is_zero()) {
            return invalid("every handler would be over at once", "timeout", "0".into(), "leave it out for no limit");
        }
        if let (Some(n), Some(policy)) = (self.max_retries, &self.retry) {
            let value = format!("{n} and {}", policy.max_retries);
            return invalid(
                "two limits of retries",
                "max_retries",
                value,
                "the retry policy has one: leave this one out",
            );
        }
        if let Some(policy) = &self.retry {
            policy.check()?;
        }
        let prefetch = self.effective_prefetch();
        if prefetch != 0 && usize::from(prefetch) < self.concurrency {
            return invalid(
                "handlers would wait for events that are not fetched",
                "prefetch",
                prefetch.to_string(),
                "use at least the concurrency",
            );
        }
        SubscriptionSpec { prefetch, ..self.spec.clone() }.check()
    }

    /// Most events fetched and not settled: what [`prefetch`](Self::prefetch) says, or its default. 0: no limit.
    pub fn effective_prefetch(&self) -> u16 {
        let concurrency = u16::try_from(self.concurrency).unwrap_or(u16::MAX);
        self.prefetch.unwrap_or_else(|| concurrency.saturating_mul(2).max(16))
    }

    /// Refuses what makes no sense or what the transport cannot do, and fills in what depends on other options.
    pub(super) fn resolve(mut self, capabilities: &Capabilities) -> Result<Self> {
        self.check()?;
        if let Some(policy) = &self.retry {
            let longest = match policy.backoff {
                Backoff::Fixed(delay) | Backoff::Exponential { max: delay, .. } => delay,
            };
            if longest > capabilities.max_delay {
                return Err(Error::new(
                    ErrorKind::InvalidDelay,
                    "the retry policy waits longer than the transport can keep an event",
                )
                .field("retry", format!("{longest:?}"))
                .remedy(format!("at most {:?} are possible on {}:", capabilities.max_delay, capabilities.name)));
            }
        }
        if self.spec.ordered.is_some() && capabilities.ordered == Ordered::No {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: does not keep order per key", capabilities.name),
            )
            .field("ordered", true)
            .remedy("leave out ordered, or use a transport that keeps order (sqlite:, memory:)"));
        }
        if self.spec.partitions > 1 && capabilities.ordered == Ordered::Single && !capabilities.partitioned {
            let message = format!("{}: cannot divide the keys of a subscription into partitions", capabilities.name);
            return Err(Error::new(ErrorKind::Unsupported, message)
                .field("partitions", self.spec.partitions)
                .remedy("leave out partitions"));
        }
        self.bound_timeout(capabilities)?;
        self.spec.prefetch = self.effective_prefetch();
        Ok(self)
    }

    /// Where one process owns the keys, an event cannot stay with a handler for as long as it likes.
    fn bound_timeout(&mut self, capabilities: &Capabilities) -> Result<()> {
        if self.spec.ordered.is_none() || capabilities.ordered != Ordered::Single {
            return Ok(());
        }
        let timeout = *self.timeout.get_or_insert(ORDERED_TIMEOUT);
        if timeout >= ORDERED_TIMEOUT_LIMIT {
            return Err(Error::new(
                ErrorKind::InvalidOption,
                format!("{}: would take an ordered event away from its handler before that", capabilities.name),
            )
            .field("timeout", format!("{timeout:?}"))
            .remedy("use less than 10 min; the default is 9 min"));
        }
        Ok(())
    }

    pub(super) fn settlement_policy(&self, capabilities: &Capabilities) -> SettlementPolicy {
        SettlementPolicy {
            subscription: self.spec.name.as_str().into(),
            max_retries: self.max_retries.or(self.retry.as_ref().map(|r| r.max_retries)).unwrap_or(0),
            retry: self.retry.clone(),
            dead_letter: self.spec.dead_letter,
            max_delay: capabilities.max_delay,
            max_deliveries: self.max_deliveries,
            capture_stack: self.capture_stack,
            redact: self.redact.clone(),
        }
    }
}

/// A subscription in the making: say what it wants, end with [`handle`](Self::handle) or [`deliveries`](Self::deliveries).
#[must_use = "nothing is subscribed before handle() or deliveries()"]
pub struct SubscriptionBuilder<'a> {
    subscriber: &'a Subscriber,
    options: SubscriptionOptions,
}

impl<'a> SubscriptionBuilder<'a> {
    pub(super) fn new(subscriber: &'a Subscriber, name: &str) -> Self {
        Self { subscriber, options: SubscriptionOptions::new(name) }
    }

    /// Wants events whose routing key matches: `*` is exactly one word, `#` zero or more. May be called several times.
    pub fn bind(mut self, binding_key: impl Into<String>) -> Self {
        self.options.spec.binding_keys.push(binding_key.into());
        self
    }

    /// Binds in this exchange. Default: `domain-events`.
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.options.spec.exchange = exchange.into();
        self
    }

    /// Most retries of one event, those that the handler asks for included (default 0). Not beside [`retry`](Self::retry).
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.options.max_retries = Some(retries);
        self
    }

    /// Retries errors by this policy. Without one an error dead-letters.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self
    }

    /// Handlers that run at once (default 1).
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.options.concurrency = handlers;
        self
    }

    /// Most events fetched and not settled (default 2 × concurrency, at least 16).
    pub fn prefetch(mut self, events: u16) -> Self {
        self.options.prefetch = Some(events);
        self
    }

    /// The events of a key are first handled in the order the transport accepted them, one at a time.
    pub fn ordered(self) -> Self {
        self.ordered_with(KeyOrder::default())
    }

    /// Like [`ordered`](Self::ordered), saying what the others of a key do while one waits or is dead.
    pub fn ordered_with(mut self, ordering: KeyOrder) -> Self {
        self.options.spec.ordered = Some(ordering);
        self
    }

    /// Ends a handler that runs longer: its outcome is a failure of type `Timeout`. Default: no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Whether events that were given up on are kept (default) or dropped, counted.
    pub fn dead_letter(mut self, keep: bool) -> Self {
        self.options.spec.dead_letter = keep;
        self
    }

    /// RabbitMQ: kind of the queue (default quorum).
    pub fn queue_type(mut self, queue_type: QueueType) -> Self {
        self.options.spec.queue_type = queue_type;
        self
    }

    /// RabbitMQ: declares exactly what `domain-event-broker` 3.0.2 declares, so that both can use the queue.
    pub fn compat(mut self) -> Self {
        self.options.spec.compat = true;
        self
    }

    /// RabbitMQ: whether the queue outlives the broker (default). `false` makes it a classic queue.
    pub fn durable(mut self, durable: bool) -> Self {
        self.options.spec.durable = durable;
        self
    }

    /// RabbitMQ: only this connection may use the queue. Makes it a classic queue.
    pub fn exclusive(mut self) -> Self {
        self.options.spec.exclusive = true;
        self
    }

    /// RabbitMQ: the queue goes with its last consumer. Makes it a classic queue.
    pub fn auto_delete(mut self) -> Self {
        self.options.spec.auto_delete = true;
        self
    }

    /// Takes all options at once, as a host or a configuration file has them; the name stays.
    pub fn options(mut self, options: SubscriptionOptions) -> Self {
        let name = std::mem::take(&mut self.options.spec.name);
        self.options = options;
        self.options.spec.name = name;
        self
    }

    /// SQL: how long a claim lasts when its process dies (default 30 s).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.spec.lease = lease;
        self
    }

    /// Longest time that a fetched event waits for a handler before it goes back (default 20 min).
    pub fn max_hold(mut self, hold: Duration) -> Self {
        self.options.spec.max_hold = hold;
        self
    }

    /// RabbitMQ, ordered: a key whose head is to be retried within this time is held in memory, with a later retry it is
    /// parked in a queue of its own (default 60 s, at most 5 min).
    pub fn hold_max(mut self, hold: Duration) -> Self {
        self.options.spec.hold_max = hold;
        self
    }

    /// RabbitMQ, ordered: most keys that are parked at a time (default 1,000). Further ones are held, until the prefetch is
    /// used up and fetching stops; `health()` says `max_parked` then.
    pub fn max_parked(mut self, keys: u32) -> Self {
        self.options.spec.max_parked = keys;
        self
    }

    /// Ordered: divides the keys into this many partitions, so that up to as many processes work at a time (default 1, at
    /// most 64). The other processes stand by, and each partition moves to one of them when its owner goes.
    ///
    /// `prefetch`, `max_parked` and the events held apply to each partition. The number can be changed while no other
    /// process uses the subscription and nothing is left in its partitions; else starting it is `SUBSCRIPTION_CONFLICT`,
    /// field `partitions`. Only RabbitMQ needs it: on `sqlite:` and `memory:` any process may run any key, and the number
    /// changes nothing.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.options.spec.partitions = partitions;
        self
    }

    /// Deliveries without an outcome after which an event is run alone (default 20).
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.options.max_deliveries = deliveries;
        self
    }

    /// Whether dead letters keep the error's stack (default yes).
    pub fn capture_stack(mut self, capture: bool) -> Self {
        self.options.capture_stack = capture;
        self
    }

    /// Discards, before any handler sees them, the events for whose headers this is `false`. For queues that several
    /// flows share; a binding key is cheaper where it can tell.
    pub fn wanted(mut self, wanted: impl Fn(&Headers) -> bool + Send + Sync + 'static) -> Self {
        self.options.wanted = Some(Arc::new(wanted));
        self
    }

    /// Rewrites error messages and stacks before they are kept or logged.
    pub fn redact(mut self, redact: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.options.redact = Some(Arc::new(redact));
        self
    }

    /// Handles the subscription's events with `handler`, once the subscriber is started.
    ///
    /// `Ok` acknowledges. An error is retried if the policy covers it, else it dead-letters; [`Retry`](super::Retry),
    /// [`DeadLetter`](super::DeadLetter) and [`Discard`](super::Discard) as (or inside) the error say so themselves.
    /// A panic is a failure of type `Panic`.
    ///
    /// Errors: whatever an option got wrong, before anything is sent to the broker.
    pub fn handle<F, Fut, E>(self, handler: F) -> Result<()>
    where
        F: Fn(DomainEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.handle_erased(erase(handler))
    }

    /// The subscription's name.
    pub(super) fn name(&self) -> &str {
        &self.options.spec.name
    }

    pub(super) fn handle_erased(self, handler: Handler) -> Result<()> {
        let options = self.options.resolve(&self.subscriber.broker().capabilities())?;
        self.subscriber.add(options, handler)
    }

    /// Declares the subscription, so that it collects events from now on, and handles none of them.
    pub async fn declare(self) -> Result<()> {
        let options = self.options.resolve(&self.subscriber.broker().capabilities())?;
        let source = self.subscriber.broker().transport().subscribe(&options.spec).await?;
        source.close().await;
        Ok(())
    }

    /// Declares the subscription and hands its events to the caller, who handles them as it likes.
    pub async fn deliveries(self) -> Result<Deliveries> {
        let options = self.options.resolve(&self.subscriber.broker().capabilities())?;
        self.subscriber.open(&options).await
    }
}
