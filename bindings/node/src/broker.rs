//! A broker, reached when it is first needed.

use std::sync::{Arc, OnceLock};

use napi_derive::napi;
use tidings::transport::memory::MemoryTransport;
use tidings::{Broker as Core, DomainEvent, Error, ErrorKind, MetricKind, Result, SubscriptionOptions};
use tokio::runtime::Handle;

use crate::bridge::{Answer, Bridge, Shared};
use crate::convert::duration;
use crate::error::thrown;
use crate::log;
use crate::runtime::{self, VirtualTime};

/// One broker of JavaScript. Nothing is connected before `connect`.
#[napi]
pub struct Broker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) bridge: Arc<Shared>,
    core: OnceLock<Core>,
    /// What its subscription is, if the catalog says so.
    topic: OnceLock<SubscriptionOptions>,
    clock: Option<Clock>,
}

/// A memory broker whose time is moved by hand.
struct Clock {
    time: Arc<VirtualTime>,
    transport: OnceLock<Arc<MemoryTransport>>,
}

impl Inner {
    /// Where the broker's work runs.
    pub(crate) fn handle(&self) -> Result<Handle> {
        match &self.clock {
            Some(clock) => Ok(clock.time.handle().clone()),
            None => runtime::shared(),
        }
    }

    /// The broker, once it is connected.
    pub(crate) fn core(&self) -> Result<&Core> {
        self.core.get().ok_or_else(|| {
            Error::new(ErrorKind::Closed, "the broker is not connected").remedy("wait for connect() first")
        })
    }

    /// It was reached by way of the catalog, for the subscription of a topic.
    pub(crate) fn connected(&self, core: Core, topic: SubscriptionOptions) {
        self.core.get_or_init(|| core);
        self.topic.get_or_init(|| topic);
    }

    /// The catalog's say in a subscription's options: its name, where it is bound, and which events it wants.
    pub(crate) fn resolved(&self, mut options: SubscriptionOptions) -> SubscriptionOptions {
        if let Some(topic) = self.topic.get() {
            options.spec.name.clone_from(&topic.spec.name);
            options.spec.exchange.clone_from(&topic.spec.exchange);
            options.spec.binding_keys.clone_from(&topic.spec.binding_keys);
            options.wanted.clone_from(&topic.wanted);
        }
        options
    }

    /// Runs `work` on the connected broker and answers `op` with it.
    pub(crate) fn run<F, W>(self: &Arc<Self>, op: u32, work: W)
    where
        W: FnOnce(Core) -> F,
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        match (self.handle(), self.core()) {
            (Ok(handle), Ok(core)) => self.bridge.run(&handle, op, work(core.clone())),
            (Err(error), _) | (_, Err(error)) => self.bridge.answer(op, Err(error)),
        }
    }
}

#[napi]
impl Broker {
    /// With `virtual_time` it is a memory broker of its own whose clock stands still.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge, virtual_time: bool) -> napi::Result<Self> {
        let clock = if virtual_time {
            let time = VirtualTime::start().map_err(|error| thrown(&error))?;
            Some(Clock { time, transport: OnceLock::new() })
        } else {
            None
        };
        Ok(Self {
            inner: Arc::new(Inner { bridge: bridge.shared(), core: OnceLock::new(), topic: OnceLock::new(), clock }),
        })
    }

    /// Reaches the broker of `url`, or of the environment where there is none.
    #[napi]
    pub fn connect(&self, op: u32, url: Option<String>) {
        log::install();
        let inner = self.inner.clone();
        let handle = match inner.handle() {
            Ok(handle) => handle,
            Err(error) => return self.inner.bridge.answer(op, Err(error)),
        };
        self.inner.bridge.run(&handle, op, async move {
            let core = match (&inner.clock, url) {
                (Some(clock), _) => {
                    let transport = clock.transport.get_or_init(|| Arc::new(MemoryTransport::new()));
                    Core::with_transport(transport.clone())
                }
                (None, Some(url)) => Core::connect(&url).await?,
                (None, None) => Core::from_env().await?,
            };
            // A second connect finds the first one's broker.
            inner.core.get_or_init(|| core);
            Ok(Answer::Nothing)
        });
    }

    /// Whether it answers right now.
    #[napi]
    pub fn ping(&self, op: u32) {
        self.inner.run(op, |core| async move { core.ping().await.map(|()| Answer::Nothing) });
    }

    /// The subscriptions that the transport knows, as JSON.
    #[napi]
    pub fn subscriptions(&self, op: u32) {
        self.inner.run(op, |core| async move {
            let known = core.subscriptions().await?;
            let list = known.iter().map(|one| {
                serde_json::json!({ "name": one.name, "ready": one.ready, "inFlight": one.in_flight, "dead": one.dead })
            });
            Ok(Answer::Json(list.collect::<serde_json::Value>().to_string()))
        });
    }

    /// Deletes a subscription with its events. Answers 1 if there was one, else 0.
    #[napi]
    pub fn delete_subscription(&self, op: u32, name: String) {
        self.inner.run(op, |core| async move {
            Ok(Answer::Number(f64::from(u8::from(core.delete_subscription(&name).await?))))
        });
    }

    /// Lets go of the broker.
    #[napi]
    pub fn close(&self, op: u32) {
        match self.inner.core() {
            Ok(_) => self.inner.run(op, |core| async move { core.close().await.map(|()| Answer::Nothing) }),
            // Nothing was connected, so there is nothing to let go of.
            Err(_) => self.inner.bridge.answer(op, Ok(Answer::Nothing)),
        }
    }

    /// All counters and gauges, as JSON. Empty before the broker is connected.
    #[napi]
    pub fn metrics(&self) -> String {
        let metrics = self.inner.core().map(Core::metrics).unwrap_or_default();
        let list = metrics.iter().map(|metric| {
            let kind = match metric.kind {
                MetricKind::Gauge => "gauge",
                _ => "counter",
            };
            let subscription = metric.subscription.as_deref();
            serde_json::json!({ "name": metric.name, "kind": kind, "subscription": subscription, "value": metric.value })
        });
        list.collect::<serde_json::Value>().to_string()
    }

    /// What the connected broker can do, as JSON.
    #[napi]
    pub fn capabilities(&self) -> napi::Result<String> {
        let capabilities = self.inner.core().map_err(|error| thrown(&error))?.capabilities();
        Ok(serde_json::json!({
            "name": capabilities.name,
            "maxDelayMs": u64::try_from(capabilities.max_delay.as_millis()).unwrap_or(u64::MAX),
            "maxPayload": capabilities.max_payload,
        })
        .to_string())
    }

    /// Virtual time: moves the clock and runs what became due. Answers the time since the start, in milliseconds.
    #[napi]
    pub fn advance(&self, op: u32, millis: f64) {
        let by = duration("ms", millis);
        self.inner.run(op, |_| async move {
            tokio::time::advance(by?).await;
            Ok(Answer::Nothing)
        });
    }

    /// Virtual time: milliseconds until the next scheduled event or retry is due; -1 if there is none.
    #[napi]
    pub fn next_due(&self, op: u32) {
        let transport = self.inner.clock.as_ref().and_then(|clock| clock.transport.get()).cloned();
        self.inner.run(op, |_| async move {
            let due = transport.and_then(|transport| transport.next_due());
            Ok(Answer::Number(due.map_or(-1.0, |due| due.as_secs_f64() * 1e3)))
        });
    }

    /// Virtual time: answers 1 if nothing is left to do at the present time, else 0.
    #[napi]
    pub fn is_idle(&self, op: u32) {
        let transport = self.inner.clock.as_ref().and_then(|clock| clock.transport.get()).cloned();
        self.inner.run(op, |_| async move {
            Ok(Answer::Number(f64::from(u8::from(transport.is_none_or(|transport| transport.is_at_rest())))))
        });
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.clone()
    }
}

/// A new event id, for events that are made before they are published.
#[napi]
pub fn new_id() -> napi::Result<String> {
    DomainEvent::from_json("id", "null").map(|event| event.id().to_owned()).map_err(|error| thrown(&error))
}
