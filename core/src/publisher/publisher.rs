//! [`Publisher`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::options::When;
use super::under_way::UnderWay;
use super::{PublishMiddleware, PublishNext, PublishOptions};
use crate::broker::Broker;
use crate::event::{Headers, Payload, Timestamp, decode, encode, name, new_id};
use crate::routing::{check_exchange_name, check_routing_key};
use crate::settlement::replayed;
use crate::transport::{DEFAULT_EXCHANGE, Message, Receipt};
use crate::{DomainEvent, Error, ErrorKind, Result};

/// Most events of one publisher that wait for their confirm; further calls wait.
const MAX_IN_FLIGHT: usize = 8192;
/// Events of a batch that are in middleware at once.
const WITH_MIDDLEWARE: usize = 256;
/// Routing keys that are remembered as warned about.
const MAX_WARNED: usize = 1000;

/// Publishes events to one broker. Cheap to clone, usable from many tasks at once.
///
/// When a publish returns, the broker has the event durably, or it fails. On a lost connection the unconfirmed are sent
/// again, in order, until the time-out: duplicates are possible, loss is not. Dropping the future does not withdraw the
/// event.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::{DomainEvent, Publisher};
///
/// let publisher = Publisher::connect("memory:").await?;
/// let receipt = publisher.publish(DomainEvent::new("user.registered", &serde_json::json!({"user_id": 7}))?).await?;
/// assert_eq!(receipt.routed, Some(false)); // nobody has subscribed yet
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    exchange: Arc<str>,
    timeout: Duration,
    max_payload: usize,
    middleware: Arc<[Arc<dyn PublishMiddleware>]>,
    in_flight: Arc<Semaphore>,
    warned: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl Publisher {
    /// Reaches the broker that `url` names and returns a publisher to it.
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Broker::connect(url).await?.publisher())
    }

    pub(crate) fn new(broker: Broker) -> Self {
        Self {
            broker,
            exchange: DEFAULT_EXCHANGE.into(),
            timeout: Duration::from_secs(30),
            max_payload: 1024 * 1024,
            middleware: Arc::new([]),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            warned: Arc::default(),
        }
    }

    /// Publishes to this exchange, the namespace of binding keys. Default: `domain-events`.
    pub fn exchange(mut self, exchange: impl Into<Arc<str>>) -> Result<Self> {
        self.exchange = exchange.into();
        check_exchange_name(&self.exchange)?;
        Ok(self)
    }

    /// Gives up on an event after this time (`publish_timeout`, default 30 s).
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Largest body in bytes (default 1 MiB, at most what the transport can carry).
    pub fn max_payload(mut self, bytes: usize) -> Result<Self> {
        let most = self.broker.transport().capabilities().max_payload;
        if bytes == 0 || bytes > most {
            return Err(Error::new(
                ErrorKind::InvalidOption,
                format!("the transport carries bodies of 1 to {most} bytes"),
            )
            .field("max_payload", bytes)
            .remedy("keep large documents elsewhere and publish their address"));
        }
        self.max_payload = bytes;
        Ok(self)
    }

    /// Adds code around every publish; the first one added is the outermost.
    pub fn middleware(mut self, middleware: impl PublishMiddleware) -> Self {
        self.middleware = self.middleware.iter().cloned().chain([Arc::new(middleware) as _]).collect();
        self
    }

    /// Publishes one event and waits until the broker has it durably.
    ///
    /// Errors: `INVALID_HEADER`, `HEADERS_TOO_LARGE`, `PAYLOAD_TOO_LARGE` before anything is sent; `TIMEOUT` (the
    /// outcome is unknown), `REJECTED`, `CLOSED` and the store's errors afterwards.
    pub async fn publish(&self, event: DomainEvent) -> Result<Receipt> {
        self.publish_with(event, PublishOptions::new()).await
    }

    /// Publishes one event with options.
    pub async fn publish_with(&self, event: DomainEvent, options: PublishOptions) -> Result<Receipt> {
        self.broker.here()?;
        if self.middleware.is_empty() {
            return self.send(event, &options).await;
        }
        PublishNext { publisher: self, at: 0 }.run(event, options).await
    }

    /// Publishes many events at once: one result each, in order. One that fails does not stop the others.
    ///
    /// Events of one key are accepted in the order of the iterator, unless a middleware makes one of them wait.
    pub async fn publish_batch(&self, events: impl IntoIterator<Item = DomainEvent>) -> Vec<Result<Receipt>> {
        if let Err(error) = self.broker.here() {
            return events.into_iter().map(|_| Err(error.duplicate())).collect();
        }
        if !self.middleware.is_empty() {
            let published = futures_util::stream::iter(events).map(|event| self.publish(event));
            return published.buffered(WITH_MIDDLEWARE).collect().await;
        }
        let options = PublishOptions::new();
        let mut results: Vec<Result<Receipt>> = Vec::new();
        let mut events = events.into_iter().peekable();
        // Bounded pieces, so that a long iterator does not become a long vector of encoded bodies.
        while events.peek().is_some() {
            let mut batch = Vec::new();
            let mut places = Vec::new();
            for event in events.by_ref().take(MAX_IN_FLIGHT / 2) {
                match self.message(event, &options) {
                    Ok(message) => {
                        places.push((results.len(), message.routing_key.clone()));
                        batch.push(message);
                        results
                            .push(Err(Error::new(ErrorKind::Internal, "the transport gave no result for this event")));
                    }
                    Err(error) => {
                        self.broker.registry().publish_failures.fetch_add(1, Relaxed);
                        results.push(Err(error));
                    }
                }
            }
            if batch.is_empty() {
                continue;
            }
            let sent = match self.hand_over(batch).await {
                Ok(sent) => sent,
                Err(error) => places.iter().map(|_| Err(error.duplicate())).collect(),
            };
            for ((place, routing_key), result) in places.into_iter().zip(sent) {
                self.note(&result, &routing_key);
                results[place] = result;
            }
        }
        results
    }

    /// Publishes a body that is encoded already, byte for byte, without middleware. For programs that bring their own bytes.
    ///
    /// If it is an event (wire version 1), the receipt has its id. If it is not, it is sent all the same, with an id of
    /// its own: subscriptions make an undecodable dead letter of it.
    ///
    /// Errors: `INVALID_ROUTING_KEY`, and those of [`publish`](Self::publish).
    pub async fn publish_encoded(&self, routing_key: &str, body: impl Into<Payload>) -> Result<Receipt> {
        self.broker.here()?;
        check_routing_key(routing_key)?;
        let body = body.into();
        self.check_size(&body, routing_key)?;
        let (id, key, timestamp) = match decode(&body, Headers::new()) {
            Ok(event) => (event.shared_id(), event.shared_key(), event.timestamp()),
            Err(_no_event) => (new_id(), None, Timestamp::now()),
        };
        let message = Message::new(routing_key, id, body)
            .with_exchange(self.exchange.clone())
            .with_key(key)
            .with_timestamp(timestamp)
            .with_deadline(self.deadline(None));
        let routing_key = message.routing_key.clone();
        let result = self.send_message(message).await;
        self.note(&result, &routing_key);
        result
    }

    /// Waits until every publish that had begun at the call is confirmed or has failed, those whose futures were dropped
    /// too. Calls made meanwhile wait.
    ///
    /// A publish begins when its future is polled first, unless it has to wait for a middleware or for room.
    pub async fn flush(&self) -> Result<()> {
        self.broker.here()?;
        self.permits(MAX_IN_FLIGHT).await.map(drop)
    }

    /// The broker that this publisher sends to.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    pub(super) fn middlewares(&self) -> &[Arc<dyn PublishMiddleware>] {
        &self.middleware
    }

    async fn permits(&self, count: usize) -> Result<OwnedSemaphorePermit> {
        let count = u32::try_from(count.min(MAX_IN_FLIGHT)).unwrap_or(u32::MAX);
        let permits = self.in_flight.clone().acquire_many_owned(count).await;
        permits.map_err(|_| Error::new(ErrorKind::Closed, "the publisher is closed"))
    }

    /// Gives the transport these messages. From then on they are on their way, even if this future is dropped.
    async fn hand_over(&self, batch: Vec<Message>) -> Result<Vec<Result<Receipt>>> {
        let permits = self.permits(batch.len()).await?;
        let transport = self.broker.transport().clone();
        let publish = async move {
            let results = transport.publish(batch).await;
            drop(permits);
            results
        };
        Ok(UnderWay::new(publish).await)
    }

    pub(super) async fn send(&self, event: DomainEvent, options: &PublishOptions) -> Result<Receipt> {
        let routing_key = event.shared_routing_key();
        let result = self.send_one(event, options).await;
        self.note(&result, &routing_key);
        result
    }

    async fn send_one(&self, event: DomainEvent, options: &PublishOptions) -> Result<Receipt> {
        let span = tracing::info_span!("publish", id = event.id(), routing_key = event.routing_key());
        // Inside its own span, so that this is what the event's handlers continue.
        let message = span.in_scope(|| self.message(event, options))?;
        self.send_message(message).instrument(span).await
    }

    async fn send_message(&self, message: Message) -> Result<Receipt> {
        let result = self.hand_over(vec![message]).await?.pop();
        result.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "the transport gave no result")))
    }

    fn message(&self, mut event: DomainEvent, options: &PublishOptions) -> Result<Message> {
        if event.headers().iter().any(|(n, _)| n.starts_with("tidings-")) {
            // An event that was received and is sent on starts its own life: none of its attempts, no delay bits.
            *event.headers_mut() = replayed(event.headers());
        }
        if let Some(propagator) = self.broker.propagator_in_use()
            && event.headers().get(name::TRACEPARENT).is_none()
        {
            propagator.inject(event.headers_mut());
        }
        event.headers().check()?;
        if let Some(key) = event.headers().get(name::KEY).filter(|key| key.as_str().is_none()) {
            return Err(Error::new(ErrorKind::InvalidHeader, "the ordering key is not text")
                .field(name::KEY, format!("{key:?}"))
                .remedy("set it with with_key"));
        }
        let exchange = match &options.exchange {
            Some(exchange) => {
                check_exchange_name(exchange)?;
                exchange.clone()
            }
            None => self.exchange.clone(),
        };
        let deliver_at = self.deliver_at(options)?;
        let body = match self.broker.codecs().encode(&event)? {
            Some(foreign) => foreign,
            None => encode(&event),
        };
        self.check_size(&body, event.routing_key())?;
        Ok(Message {
            exchange,
            routing_key: event.shared_routing_key(),
            id: event.shared_id(),
            key: event.shared_key(),
            timestamp: event.timestamp(),
            body,
            headers: std::mem::take(event.headers_mut()),
            deliver_at,
            require_route: options.require_route,
            deadline: self.deadline(options.timeout),
        })
    }

    /// When a publish that begins now is given up on. A time-out beyond the end of time is none.
    fn deadline(&self, timeout: Option<Duration>) -> Option<std::time::Instant> {
        Instant::now().checked_add(timeout.unwrap_or(self.timeout)).map(Instant::into_std)
    }

    fn check_size(&self, body: &Payload, routing_key: &str) -> Result<()> {
        if body.len() <= self.max_payload {
            return Ok(());
        }
        let text = format!("the body has {} bytes, max_payload is {}", body.len(), self.max_payload);
        Err(Error::new(ErrorKind::PayloadTooLarge, text)
            .field("data", routing_key)
            .remedy("raise max_payload, or keep the document elsewhere and publish its address"))
    }

    fn deliver_at(&self, options: &PublishOptions) -> Result<Option<crate::Timestamp>> {
        let transport = self.broker.transport();
        let (at, delay) = match options.when {
            When::Now => return Ok(None),
            When::After(delay) => (transport.now().after(delay), delay),
            When::At(at) => (at, at.since(transport.now())),
        };
        let most = transport.capabilities().max_delay;
        if delay > most {
            return Err(Error::new(
                ErrorKind::InvalidDelay,
                format!("the delay is longer than the transport can keep ({most:?})"),
            )
            .field("delay", format!("{delay:?}"))
            .remedy("write the event to an outbox with available_at"));
        }
        if options.require_route {
            return Err(Error::new(
                ErrorKind::InvalidOption,
                "whether a delayed event will be wanted is not known when it is published",
            )
            .field("require_route", true)
            .remedy("leave out the delay or require_route"));
        }
        Ok((!delay.is_zero()).then_some(at))
    }

    fn note(&self, result: &Result<Receipt>, routing_key: &Arc<str>) {
        let metrics = self.broker.registry();
        match result {
            Ok(receipt) => {
                metrics.published.fetch_add(1, Relaxed);
                if receipt.routed == Some(false) {
                    metrics.unrouted.fetch_add(1, Relaxed);
                    self.warn_unrouted(routing_key);
                }
            }
            Err(_) => {
                metrics.publish_failures.fetch_add(1, Relaxed);
            }
        }
    }

    fn warn_unrouted(&self, routing_key: &Arc<str>) {
        let mut warned = self.warned.lock();
        if warned.len() < MAX_WARNED && warned.insert(routing_key.clone()) {
            tracing::warn!(%routing_key, exchange = %self.exchange, "no subscription wants this event; further ones are only counted");
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("broker", &self.broker)
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
