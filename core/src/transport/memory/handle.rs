//! The transport itself: a handle of a broker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::broker::Broker;
use super::dead_letters::MemoryDeadLetters;
use super::faults::Faults;
use super::pipeline;
use super::script::Operation;
use super::settling::MAX_DELAY;
use super::subscription::Subscription;
use crate::event::{Timestamp, decode};
use crate::transport::{
    Capabilities, DeadLetters, Message, Ordered, Receipt, Source, SubscriptionInfo, SubscriptionSpec, Transport,
};
use crate::{Error, ErrorKind, Result};

/// The brokers that have a name, as long as someone uses them.
static NAMED: Mutex<Option<HashMap<String, Weak<Broker>>>> = Mutex::new(None);

/// Reaches the broker that `url` names: `memory:` is a new one, `memory:name` the one of that name in this process.
pub fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(MemoryTransport::open(url)?))
}

/// A broker inside the process: nothing is durable, all else is as on the other transports.
///
/// Its clock is Tokio's. A named broker lives as long as a transport or source of it.
///
/// ```
/// # use tidings::transport::{SubscriptionSpec, Transport, memory::MemoryTransport};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings::Result<()> {
/// let transport = MemoryTransport::new();
/// let mut spec = SubscriptionSpec::new("billing");
/// spec.binding_keys.push("order.*".into());
/// let source = transport.subscribe(&spec).await?;
/// assert!(source.health().consuming);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryTransport {
    broker: Arc<Broker>,
    /// Tells its sources from those of other transports on the same broker.
    id: u64,
    closed: AtomicBool,
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTransport {
    /// A transport with a broker of its own.
    pub fn new() -> Self {
        Self::of(Broker::new())
    }

    /// As [`connect`], with the faults and the clock at hand.
    pub fn open(url: &str) -> Result<Self> {
        let invalid = |message: &str| {
            Err(Error::new(ErrorKind::InvalidUrl, message)
                .field("url", crate::transport::registry::redact(url))
                .remedy("use memory: or memory:name, the name of letters, digits and . _ -"))
        };
        let Some(name) = url.strip_prefix("memory:") else { return invalid("this is no URL of a memory broker") };
        if name.chars().any(|c| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
            return invalid("the memory broker's name has other characters than letters, digits and . _ -");
        }
        if name.is_empty() {
            return Ok(Self::new());
        }
        let mut named = NAMED.lock();
        let named = named.get_or_insert_default();
        named.retain(|_, broker| broker.strong_count() > 0);
        let broker = named.get(name).and_then(Weak::upgrade).unwrap_or_else(Broker::new);
        named.insert(name.to_owned(), Arc::downgrade(&broker));
        Ok(Self::of(broker))
    }

    fn of(broker: Arc<Broker>) -> Self {
        let id = broker.with(|state, _| state.fresh_id());
        Self { broker, id, closed: AtomicBool::new(false) }
    }

    /// Keeps at most `max` events per subscription, dead letters included (1,000,000 unless set), and as many scheduled
    /// ones. An event that finds one of its subscriptions full is `REJECTED` and stored nowhere.
    pub fn max_events(self, max: usize) -> Self {
        self.broker.with(|state, _| state.max_events = max);
        self
    }

    /// The broker's wall clock. It starts at the host's and runs with Tokio's.
    pub fn now(&self) -> Timestamp {
        self.broker.now()
    }

    /// How long until the next scheduled event or retry comes due, by Tokio's clock. For tests that move it.
    pub fn next_due(&self) -> Option<std::time::Duration> {
        self.broker.with(|state, now| {
            let retries = state.subscriptions.values().filter_map(super::subscription::Subscription::due);
            let due = retries.chain(state.scheduled_due()).min()?;
            Some(due.saturating_duration_since(now))
        })
    }

    /// Stops the broker's clock for a test, and keeps what is published from now on for [`published`](Self::published).
    ///
    /// Time then passes by [`advance`](Self::advance) only: retries and delayed events wait for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings::Result<()> {
    /// use std::{sync::Arc, time::Duration};
    /// use tidings::{Broker, DomainEvent, PublishOptions, transport::memory::MemoryTransport};
    ///
    /// let memory = Arc::new(MemoryTransport::new());
    /// memory.begin_test();
    /// let broker = Broker::with_transport(memory.clone());
    /// let deliveries = broker.subscriber().subscription("billing").bind("order.*").deliveries().await?;
    /// let in_an_hour = PublishOptions::new().delay(Duration::from_secs(3600));
    /// broker.publisher().publish_with(DomainEvent::new("order.reminder", &7)?, in_an_hour).await?;
    /// assert_eq!(memory.published().len(), 1);
    ///
    /// memory.advance(Duration::from_secs(3600));
    /// assert_eq!(deliveries.next(1).await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_test(&self) {
        self.broker.begin_test();
    }

    /// Moves a clock that [`begin_test`](Self::begin_test) stopped; `false` if it runs by itself.
    pub fn advance(&self, by: std::time::Duration) -> bool {
        self.broker.advance(by)
    }

    /// What was published since [`begin_test`](Self::begin_test), in order, scheduled events included.
    pub fn published(&self) -> Vec<crate::DomainEvent> {
        let accepted = self.broker.with(|state, _| state.accepted.clone().unwrap_or_default());
        // What a publisher accepted can be read.
        accepted.into_iter().filter_map(|message| decode(&message.body, message.headers).ok()).collect()
    }

    /// Whether none of these subscriptions has anything to hand over now, or anything out.
    pub fn is_idle(&self, subscriptions: &[String]) -> bool {
        self.broker.with(|state, now| {
            subscriptions.iter().all(|name| {
                state.subscriptions.get_mut(name.as_str()).is_none_or(|subscription| {
                    subscription.advance(now);
                    subscription.is_idle()
                })
            })
        })
    }

    /// Whether nothing is left to do before the next scheduled time: no event is out, none waits for a live consumer.
    pub fn is_at_rest(&self) -> bool {
        self.broker.with(|state, now| {
            let consumed: Vec<bool> = state
                .subscriptions
                .keys()
                .map(|name| {
                    state.sources.get(name).is_some_and(|all| all.values().any(|one| one.is_live() && one.flow))
                })
                .collect();
            state.subscriptions.values_mut().zip(consumed).all(|(subscription, consumed)| {
                subscription.advance(now);
                !subscription.is_busy(consumed)
            })
        })
    }

    /// The fault script of the broker.
    pub fn faults(&self) -> Faults {
        Faults::new(self.broker.clone())
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// A fault scripted for an operation that has no effect to come after.
    async fn upset(&self, operation: Operation) -> Result<()> {
        let (pause, fault) = {
            let mut script = self.broker.script.lock();
            (script.pause(operation), script.draw(operation))
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the transport was closed").remedy("connect again")
}

#[async_trait]
impl Transport for MemoryTransport {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ordered: Ordered::Keyed,
            fenced_settle: true,
            max_delay: MAX_DELAY,
            // As RabbitMQ: what passes a test here passes there.
            max_payload: 16 * 1024 * 1024,
            reports_routing: true,
            counts_in_flight: true,
            prefix_publish: true,
            ..Capabilities::new("memory")
        }
    }

    fn now(&self) -> Timestamp {
        self.broker.now()
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<Receipt>> {
        if self.check_open().is_err() {
            return batch.iter().map(|_| Err(closed())).collect();
        }
        let (pause, faults) = {
            let mut script = self.broker.script.lock();
            let faults: Vec<_> = batch.iter().map(|_| script.draw(Operation::Publish)).collect();
            (script.pause(Operation::Publish), faults)
        };
        pipeline::publish(&self.broker, batch, faults, pause).await
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<Arc<dyn Source>> {
        self.check_open()?;
        spec.check()?;
        self.upset(Operation::Subscribe).await?;
        Ok(Arc::new(self.broker.subscribe(spec, self.id)?))
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Box<dyn DeadLetters>> {
        self.check_open()?;
        Ok(Box::new(MemoryDeadLetters::open(self.broker.clone(), subscription)?))
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        self.check_open()?;
        Ok(self.broker.with(|state, now| {
            let info = |(name, it): (&Arc<str>, &Subscription)| {
                let live =
                    state.sources.get(name).map_or(0, |sources| sources.values().filter(|s| s.is_live()).count());
                let mut info = it.info(name, now);
                info.consumers = Some(live as u64);
                info
            };
            state.subscriptions.iter().map(info).collect()
        }))
    }

    async fn delete_subscription(&self, name: &str) -> Result<bool> {
        self.check_open()?;
        Ok(self.broker.with(|state, _| state.delete(name)))
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        if self.broker.with(|state, _| state.unreachable) {
            return Err(Error::new(ErrorKind::ConnectionFailed, "the connection is cut, as the fault script has it"));
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.broker.with(|state, now| {
            for (name, id) in state.source_ids(|source| source.handle == self.id) {
                state.close_source(&name, id, now);
            }
        });
        Ok(())
    }
}
