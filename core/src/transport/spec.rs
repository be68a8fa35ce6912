//! What a subscription asks of a transport.

use std::time::Duration;

use crate::routing::{check_binding_key, check_exchange_name, check_peer_name, check_subscription_name};
use crate::{Error, ErrorKind, Result};

/// Exchange that is used unless another one is named.
pub const DEFAULT_EXCHANGE: &str = "domain-events";

/// Most partitions: a process has a connection for each of them.
const MOST_PARTITIONS: u16 = 64;

/// Longest `hold_max`.
const LONGEST_HOLD_MAX: Duration = Duration::from_secs(5 * 60);

/// What the events of a key do while its head waits for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnRetry {
    /// They wait behind it.
    #[default]
    Wait,
    /// They go on: order is given up for this event.
    Pass,
}

/// What the events of a key do when its head becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDead {
    /// They wait until it is replayed or discarded.
    #[default]
    Park,
    /// They go on without it.
    Skip,
}

/// Order per key, as a subscription asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KeyOrder {
    /// While a head waits for its retry.
    pub on_retry: OnRetry,
    /// When a head is dead.
    pub on_dead: OnDead,
}

impl KeyOrder {
    /// The events of a key wait, whatever happens to their head.
    pub const fn new() -> Self {
        Self { on_retry: OnRetry::Wait, on_dead: OnDead::Park }
    }

    /// Sets what the others do while a head waits for its retry.
    pub const fn on_retry(mut self, on_retry: OnRetry) -> Self {
        self.on_retry = on_retry;
        self
    }

    /// Sets what the others do when a head is dead.
    pub const fn on_dead(mut self, on_dead: OnDead) -> Self {
        self.on_dead = on_dead;
        self
    }
}

/// Kind of the queue on RabbitMQ. Other transports have one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum QueueType {
    /// Replicated, with at-least-once dead-lettering.
    #[default]
    Quorum,
    /// For servers without quorum queues; best effort across a broker crash.
    Classic,
}

/// A subscription as a transport declares it. Made by `Subscriber::subscription`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionSpec {
    /// Its name.
    pub name: String,
    /// Where its binding keys apply.
    pub exchange: String,
    /// Which events it wants.
    pub binding_keys: Vec<String>,
    /// Order per key, if asked for.
    pub ordered: Option<KeyOrder>,
    /// Most events fetched and not settled.
    pub prefetch: u16,
    /// Keep what was given up on (`true`), or drop it, counted.
    pub dead_letter: bool,
    /// RabbitMQ: kind of queue.
    pub queue_type: QueueType,
    /// RabbitMQ: declare exactly what `domain-event-broker` 3.0.2 declares.
    pub compat: bool,
    /// RabbitMQ, classic: survives a restart of the broker.
    pub durable: bool,
    /// RabbitMQ, classic: only this connection may use the queue.
    pub exclusive: bool,
    /// RabbitMQ, classic: deleted with its last consumer.
    pub auto_delete: bool,
    /// SQL: how long a claim lasts without being renewed.
    pub lease: Duration,
    /// Nothing is held unsettled in a buffer for longer.
    pub max_hold: Duration,
    /// RabbitMQ, ordered: an event that is to be retried sooner waits with its key in the owner, a later one is parked.
    pub hold_max: Duration,
    /// RabbitMQ, ordered: most keys that are parked at a time.
    pub max_parked: u32,
    /// RabbitMQ, ordered: into how many queues the keys are divided, each with an owner of its own. 1: not divided.
    pub partitions: u16,
}

impl SubscriptionSpec {
    /// A subscription with the defaults of the design.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            exchange: DEFAULT_EXCHANGE.to_owned(),
            binding_keys: Vec::new(),
            ordered: None,
            prefetch: 16,
            dead_letter: true,
            queue_type: QueueType::default(),
            compat: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            lease: Duration::from_secs(30),
            max_hold: Duration::from_secs(20 * 60),
            hold_max: Duration::from_secs(60),
            max_parked: 1000,
            partitions: 1,
        }
    }

    /// Refuses names, binding keys and combinations that no transport could serve.
    pub fn check(&self) -> Result<()> {
        if self.compat {
            check_peer_name(&self.name)?;
        } else {
            check_subscription_name(&self.name)?;
        }
        check_exchange_name(&self.exchange)?;
        for key in &self.binding_keys {
            check_binding_key(key)?;
        }
        if self.prefetch == 0 {
            return Err(Error::new(ErrorKind::InvalidOption, "the prefetch is zero, so nothing would ever arrive")
                .field("prefetch", 0)
                .remedy("use 1 to 65535"));
        }
        if self.lease < Duration::from_millis(100) {
            return Err(Error::new(ErrorKind::InvalidOption, "the lease is too short to be renewed in time")
                .field("lease", format!("{:?}", self.lease))
                .remedy("use at least 100 ms; the default is 30 s"));
        }
        if self.max_hold < Duration::from_millis(100) {
            return Err(Error::new(ErrorKind::InvalidOption, "events would go back before a handler can have them")
                .field("max_hold", format!("{:?}", self.max_hold))
                .remedy("use at least 100 ms; the default is 20 min"));
        }
        self.check_order()
    }

    /// Refuses what makes no sense for an ordered subscription.
    fn check_order(&self) -> Result<()> {
        let invalid = |message: &str, field, value: String, remedy: &str| {
            Err(Error::new(ErrorKind::InvalidOption, message).field(field, value).remedy(remedy))
        };
        if self.hold_max > LONGEST_HOLD_MAX {
            let value = format!("{:?}", self.hold_max);
            return invalid("a key would be held longer than RabbitMQ allows", "hold_max", value, "use at most 5 min");
        }
        if self.max_parked == 0 {
            return invalid("no key could be parked", "max_parked", "0".into(), "use 1 or more; the default is 1000");
        }
        let partitions = self.partitions.to_string();
        match self.partitions {
            0 => invalid("no partition could have a key", "partitions", partitions, "use 1 to 64; the default is 1"),
            1 => Ok(()),
            _ if self.ordered.is_none() => {
                let message = "only the keys of an ordered subscription are divided into partitions";
                invalid(message, "partitions", partitions, "ask for order (ordered), or leave partitions out")
            }
            _ if self.compat => {
                let message = "a queue that domain-event-broker declares alike cannot be divided into partitions";
                invalid(message, "partitions", partitions, "leave out compat, or partitions")
            }
            2..=MOST_PARTITIONS => Ok(()),
            _ => {
                let message = "a process would have too many connections: one for each partition";
                invalid(message, "partitions", partitions, "use at most 64")
            }
        }
    }

    /// The queue's kind once `exclusive`, `auto_delete` and `durable` have had their say: only classic queues have them.
    pub fn effective_queue_type(&self) -> QueueType {
        if self.compat || self.exclusive || self.auto_delete || !self.durable {
            QueueType::Classic
        } else {
            self.queue_type
        }
    }
}
