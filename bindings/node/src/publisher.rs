//! Publishing.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use napi_derive::napi;
use parking_lot::Mutex;
use std::sync::Arc;
use tidings::{DomainEvent, PublishOptions, Publisher as Core, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bridge::{Answer, Shared};
use crate::broker::{Broker, Inner};
use crate::convert::{duration, headers, timestamp};

/// What a publish may say beside routing key, data and object id.
#[napi(object)]
#[derive(Default)]
pub struct PublishExtra {
    /// Id of the event; made here if it is missing.
    pub id: Option<String>,
    /// Seconds since the Unix epoch; the time now if it is missing.
    pub timestamp: Option<f64>,
    /// Headers, as JSON.
    pub headers: Option<String>,
    /// Milliseconds until it is handed to subscriptions.
    pub delay_ms: Option<f64>,
    /// When it is handed to subscriptions, seconds since the Unix epoch.
    pub deliver_at: Option<f64>,
    /// Fail if nobody wants it.
    pub require_route: Option<bool>,
    /// Another exchange than the publisher's.
    pub exchange: Option<String>,
    /// Milliseconds until it is given up.
    pub timeout_ms: Option<f64>,
}

/// What a publisher is told when it is made.
#[napi(object)]
pub struct PublisherSettings {
    /// Exchange to publish to.
    pub exchange: Option<String>,
    /// Milliseconds until a publish is given up.
    pub publish_timeout_ms: Option<f64>,
    /// Largest body in bytes.
    pub max_payload: Option<f64>,
}

/// A publisher; `open` it once the broker is connected.
///
/// Its events go through one task in the order of the calls, so that those of a key stay in order. What waits there has a
/// promise in JavaScript each, and TypeScript lets through 8,192 at most.
#[napi]
pub struct Publisher {
    broker: Arc<Inner>,
    open: Mutex<Option<Open>>,
}

struct Open {
    core: Core,
    queue: UnboundedSender<(u32, DomainEvent, PublishOptions)>,
}

#[napi]
impl Publisher {
    /// A publisher to `broker`.
    #[napi(constructor)]
    pub fn new(broker: &Broker) -> Self {
        Self { broker: broker.inner(), open: Mutex::new(None) }
    }

    /// Checks the settings and is ready.
    #[napi]
    pub fn open(&self, op: u32, settings: PublisherSettings) {
        let answer = self.try_open(settings).map(|()| Answer::Nothing);
        self.broker.bridge.answer(op, answer);
    }

    fn try_open(&self, settings: PublisherSettings) -> Result<()> {
        let mut core = self.broker.core()?.publisher();
        if let Some(exchange) = settings.exchange {
            core = core.exchange(exchange)?;
        }
        if let Some(millis) = settings.publish_timeout_ms {
            core = core.publish_timeout(duration("publishTimeoutMs", millis)?);
        }
        if let Some(bytes) = settings.max_payload {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the core refuses 0 and too much"
            )]
            let bytes = bytes as usize;
            core = core.max_payload(bytes)?;
        }
        let (queue, waiting) = unbounded_channel();
        let bridge = self.broker.bridge.clone();
        let work = work(core.clone(), waiting, bridge.clone());
        self.broker.handle()?.spawn(bridge.while_wanted(work));
        *self.open.lock() = Some(Open { core, queue });
        Ok(())
    }

    /// Publishes one event; answers its id and whether somebody wanted it.
    #[napi]
    pub fn publish(
        &self,
        op: u32,
        routing_key: String,
        data: String,
        domain_object_id: Option<String>,
        extra: Option<PublishExtra>,
    ) {
        if let Err(error) = self.enqueue(op, &routing_key, data, domain_object_id, extra) {
            self.broker.bridge.answer(op, Err(error));
        }
    }

    fn enqueue(
        &self,
        op: u32,
        routing_key: &str,
        data: String,
        domain_object_id: Option<String>,
        extra: Option<PublishExtra>,
    ) -> Result<()> {
        let (event, options) = event(routing_key, data, domain_object_id, extra.unwrap_or_default())?;
        let open = self.open.lock();
        let Some(open) = open.as_ref() else { return Err(closed()) };
        open.queue.send((op, event, options)).map_err(|_| closed())
    }

    /// Waits until everything under way at the call is confirmed or has failed.
    #[napi]
    pub fn flush(&self, op: u32) {
        let core = self.open.lock().as_ref().map(|open| open.core.clone());
        self.broker.run(op, |_| async move {
            match core {
                Some(core) => core.flush().await.map(|()| Answer::Nothing),
                None => Err(closed()),
            }
        });
    }

    /// Takes no more events; those under way are finished.
    #[napi]
    pub fn close(&self) {
        self.open.lock().take();
    }
}

fn closed() -> tidings::Error {
    tidings::Error::new(tidings::ErrorKind::Closed, "the publisher is closed").remedy("make a new one")
}

/// Publishes what comes, in its order, all at once; ends with the publisher.
async fn work(core: Core, mut waiting: UnboundedReceiver<(u32, DomainEvent, PublishOptions)>, bridge: Arc<Shared>) {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            // New ones first: they are polled, and thereby sent, in the order they came.
            biased;
            next = waiting.recv(), if open => match next {
                Some((op, event, options)) => {
                    let core = &core;
                    under_way.push(async move { (op, core.publish_with(event, options).await) });
                }
                None => open = false,
            },
            Some((op, result)) = under_way.next() => {
                bridge.answer(op, result.map(|receipt| Answer::Receipt(receipt.id, receipt.routed)));
            }
        }
    }
}

fn event(
    routing_key: &str,
    data: String,
    domain_object_id: Option<String>,
    extra: PublishExtra,
) -> Result<(DomainEvent, PublishOptions)> {
    let mut event = DomainEvent::from_json(routing_key, data)?;
    if let Some(id) = domain_object_id {
        event = event.with_domain_object_id(id);
    }
    if let Some(id) = extra.id {
        event = event.with_id(&id)?;
    }
    if let Some(seconds) = extra.timestamp {
        event = event.with_timestamp(timestamp("timestamp", seconds)?);
    }
    if let Some(json) = extra.headers {
        for (name, value) in headers(&json)?.iter() {
            event = event.with_header(name, value.clone());
        }
    }
    let mut options = PublishOptions::new();
    if let Some(millis) = extra.delay_ms {
        options = options.delay(duration("delayMs", millis)?);
    }
    if let Some(seconds) = extra.deliver_at {
        options = options.deliver_at(timestamp("deliverAt", seconds)?);
    }
    if extra.require_route == Some(true) {
        options = options.require_route();
    }
    if let Some(exchange) = extra.exchange {
        options = options.exchange(exchange);
    }
    if let Some(millis) = extra.timeout_ms {
        options = options.timeout(duration("timeoutMs", millis)?);
    }
    Ok((event, options))
}
