//! [`MessageBroker`]: publishing and subscribing by `broker:topic`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as Turn, OnceCell};

use super::memory::{Memory, ProcessMemory};
use super::provider::with_retention;
use super::session::SessionVerifier;
use super::{Catalog, PublishRequest, Resolved, SubscribeRequest, VerifiedSession, canonical, digest};
use crate::broker::{self, DEFAULT_URL};
use crate::event::{Headers, name, new_id};
use crate::subscriber::SubscriptionOptions;
use crate::transport::{DEFAULT_EXCHANGE, RememberedKey};
use crate::{BoxError, Broker, Deliveries, DomainEvent, Error, ErrorKind, PublishOptions, Result, Running};

/// Turns that are kept before those that nobody waits for are forgotten.
const MAX_TURNS: usize = 1024;
/// How long an idempotency key is remembered unless told otherwise.
pub(super) const IDEMPOTENCY_TTL: Duration = Duration::from_secs(86_400);
/// What a duplicate is answered with.
const ALREADY: &str = "Already processed (idempotent)";

/// Publishes and subscribes by the names of a [`Catalog`]. Cheap to clone; connections are made when first used.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::catalog::{Catalog, CatalogOptions, MessageBroker, PublishRequest, SubscribeRequest};
/// use tidings::Outcome;
///
/// let declared = serde_json::json!({"brokers": [{"tag": "orders", "envs": [{"slug": "prd", "type": "MEMORY"}]}]});
/// let catalog = Catalog::open(CatalogOptions { declared: Some(declared), ..CatalogOptions::default() })?;
/// let broker = MessageBroker::new(catalog);
///
/// let topic = "orders:new-orders";
/// let subscription = broker.subscribe(SubscribeRequest::new("my_product", "prd", topic)).await?;
/// broker.publish(PublishRequest::new("my_product", "prd", topic, &serde_json::json!({"id": 7}))?).await?;
///
/// let delivery = subscription.next(1).await?.remove(0);
/// assert_eq!(delivery.event().data::<serde_json::Value>()?["id"], 7);
/// delivery.settle(Outcome::Ok).await?;
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MessageBroker {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    verifier: Option<Arc<dyn SessionVerifier>>,
    /// By URL; the empty one is the embedded default.
    brokers: Mutex<HashMap<String, Arc<OnceCell<Broker>>>>,
    memory: Arc<ProcessMemory>,
    /// Whoever publishes under a key has the turn: others of this process wait and find it remembered.
    turns: Mutex<HashMap<String, Weak<Turn<()>>>>,
    said_default: std::sync::Once,
    said_memory: std::sync::Once,
}

/// What a publisher gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// Always true: what fails is an error.
    pub success: bool,
    /// Names this call.
    pub process_id: String,
    /// The event's id.
    pub message_id: String,
    /// It was sent before, in the window of its cache; this is what that call got.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Says that the idempotency key is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MessageBroker {
    /// Uses this catalog.
    pub fn new(catalog: Catalog) -> Self {
        Self::with_verifier(catalog, None)
    }

    /// Uses this catalog, and verifies sessions in the program's own way.
    pub fn with_verifier(catalog: Catalog, verifier: Option<Arc<dyn SessionVerifier>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                catalog,
                verifier,
                brokers: Mutex::default(),
                memory: Arc::default(),
                turns: Mutex::default(),
                said_default: std::sync::Once::new(),
                said_memory: std::sync::Once::new(),
            }),
        }
    }

    /// The catalog that names are looked up in.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Publishes an event and waits until its broker has it durably.
    ///
    /// An event that nobody wants yet waits in the topic's own subscription, unless the broker is declared with
    /// `hold: false`. With a `cache`, the same message is sent once in that window; with an idempotency key, once while
    /// the key is remembered. Two processes that publish the same at the same moment may both send it.
    ///
    /// Errors: those of [`Catalog::resolve`], `SESSION_INVALID`, `CACHE_NOT_FOUND`, what is wrong with the message, and
    /// `PUBLISH_FAILED` with the broker's error as its cause.
    pub async fn publish(&self, request: PublishRequest) -> Result<Published> {
        let resolved =
            self.inner.catalog.resolve(request.product_tag.as_deref(), request.env.as_deref(), &request.event)?;
        let session =
            self.session(&resolved.product, request.session.as_ref(), request.verified_session.as_ref()).await?;
        let event = event(&resolved, &request, session.as_ref())?;
        let broker = self.connect(resolved.url.as_deref()).await.map_err(failed(ErrorKind::PublishFailed))?;
        let send = async || {
            let message_id =
                self.send(&broker, &resolved, &event, &request).await.map_err(failed(ErrorKind::PublishFailed))?;
            let process_id = new_id().to_string();
            Ok(Published { success: true, process_id, message_id, cached: false, error: None })
        };
        if let Some(key) = &request.idempotency_key {
            let failed = failed(ErrorKind::PublishIdempotentFailed);
            let memory = self.durable_memory(&broker).await.map_err(&failed)?;
            let ttl = request.idempotency_ttl.map_or(IDEMPOTENCY_TTL, Duration::from_secs);
            let key = idempotency_key(&resolved.product, &resolved.env, resolved.event.broker(), key);
            let mut published = self.once(&memory, &key, ttl, send).await.map_err(failed)?;
            if std::mem::take(&mut published.cached) {
                published.error = Some(ALREADY.to_owned());
            }
            return Ok(published);
        }
        if let Some(tag) = &request.cache {
            let expiry = Duration::from_millis(self.inner.catalog.cache_expiry(&resolved.product, tag)?);
            let memory = self.any_memory(&broker).await.map_err(failed(ErrorKind::PublishFailed))?;
            let key = cache_key(&resolved, tag, request.input.message.get())?;
            return self.once(&memory, &key, expiry, send).await;
        }
        send().await
    }

    /// Subscribes to a topic. All processes of the product compete for its events, or all of a group.
    ///
    /// Errors: those of [`Catalog::resolve`], `SESSION_INVALID`, what is wrong with an option, and `SUBSCRIBE_FAILED`
    /// with the broker's error as its cause.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Deliveries> {
        let (broker, options) = self.subscription(&request).await?;
        let subscriber = broker.subscriber();
        let name = options.spec.name.clone();
        let opened = subscriber.subscription(&name).options(options).deliveries().await;
        opened.map_err(failed(ErrorKind::SubscribeFailed))
    }

    /// As [`subscribe`](Self::subscribe), with a handler. `Ok` acknowledges, an error is retried at most `max_retries`
    /// times if it asks for it, else it dead-letters.
    pub async fn handle<F, Fut, E>(&self, request: SubscribeRequest, handler: F) -> Result<Running>
    where
        F: Fn(DomainEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let (broker, options) = self.subscription(&request).await?;
        let subscriber = broker.subscriber();
        let name = options.spec.name.clone();
        subscriber.subscription(&name).options(options).handle(handler).map_err(failed(ErrorKind::SubscribeFailed))?;
        subscriber.start().await.map_err(failed(ErrorKind::SubscribeFailed))
    }

    /// Where the events of a request come from, and how they are consumed: for hosts with subscribers of their own.
    pub async fn subscription(&self, request: &SubscribeRequest) -> Result<(Broker, SubscriptionOptions)> {
        let resolved =
            self.inner.catalog.resolve(request.product_tag.as_deref(), request.env.as_deref(), &request.event)?;
        self.session(&resolved.product, request.session.as_ref(), request.verified_session.as_ref()).await?;
        let mut options = own_options(&resolved, request.input.group.as_deref());
        options.concurrency = request.input.concurrency.unwrap_or(options.concurrency);
        options.max_retries = request.input.max_retries;
        let broker = self.connect(resolved.url.as_deref()).await.map_err(failed(ErrorKind::SubscribeFailed))?;
        Ok((broker, options))
    }

    /// Lets go of every broker. Subscriptions are to be stopped before.
    pub async fn close(&self) -> Result<()> {
        let brokers: Vec<_> = self.inner.brokers.lock().drain().filter_map(|(_, cell)| cell.get().cloned()).collect();
        let mut result = Ok(());
        for broker in brokers {
            result = result.and(broker.close().await);
        }
        result
    }

    /// The broker at a URL; `None` is the embedded default.
    pub(super) async fn connect(&self, url: Option<&str>) -> Result<Broker> {
        let cell = self.inner.brokers.lock().entry(url.unwrap_or_default().to_owned()).or_default().clone();
        let connected = cell.get_or_try_init(async || match url {
            Some(url) => Broker::connect(url).await,
            None => self.connect_default().await,
        });
        connected.await.cloned()
    }

    async fn connect_default(&self) -> Result<Broker> {
        let url = broker::url_without_catalog(&|name| self.inner.catalog.resolver()(name))?;
        self.inner.said_default.call_once(|| {
            let shown = crate::transport::registry::redact(&url);
            tracing::info!(url = %shown, "there is no catalog: every broker:topic is on this broker");
        });
        let url = if url == DEFAULT_URL { with_retention(url, None) } else { url };
        Broker::connect(&url).await
    }

    async fn session(
        &self,
        product: &str,
        session: Option<&super::Session>,
        verified: Option<&VerifiedSession>,
    ) -> Result<Option<VerifiedSession>> {
        match (verified, session) {
            (Some(verified), _) => Ok(Some(verified.clone())),
            (None, Some(session)) => {
                self.inner.catalog.verify(product, session, self.inner.verifier.as_ref()).await.map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// Publishes; if nobody wants the event, makes the topic's own subscription and publishes again.
    async fn send(
        &self,
        broker: &Broker,
        resolved: &Resolved,
        event: &DomainEvent,
        request: &PublishRequest,
    ) -> Result<String> {
        let mut publisher = broker.publisher();
        if let Some(exchange) = &resolved.exchange {
            publisher = publisher.exchange(exchange.as_str())?;
        }
        let id = event.id().to_owned();
        let delay = request.input.delay_ms.filter(|delay| *delay > 0).map(Duration::from_millis);
        if let Some(delay) = delay {
            publisher.publish_with(event.clone(), PublishOptions::new().delay(delay)).await?;
            return Ok(id);
        }
        if !resolved.hold {
            publisher.publish(event.clone()).await?;
            return Ok(id);
        }
        let required = PublishOptions::new().require_route();
        match publisher.publish_with(event.clone(), required).await {
            Err(error) if error.kind() == ErrorKind::Unroutable => {
                let source = broker.transport().subscribe(&own_options(resolved, None).spec).await?;
                source.close().await;
                publisher.publish(event.clone()).await?;
            }
            other => drop(other?),
        }
        Ok(id)
    }

    /// Runs `send` unless its result is remembered, and remembers it.
    async fn once(
        &self,
        memory: &Memory,
        key: &RememberedKey,
        time: Duration,
        send: impl AsyncFnOnce() -> Result<Published>,
    ) -> Result<Published> {
        let turn = self.turn(&key.key);
        let _turn = turn.lock().await;
        if let Some(first) = memory.recall(key, true).await? {
            let first: Published = serde_json::from_str(&first).map_err(|e| {
                Error::new(ErrorKind::StoreCorrupt, "what is remembered of a publish cannot be read").source(e)
            })?;
            return Ok(Published { cached: true, ..first });
        }
        let published = send().await?;
        let text = serde_json::to_string(&published)
            .map_err(|e| Error::new(ErrorKind::Internal, "a result has no JSON form").source(e))?;
        if !time.is_zero()
            && let Err(error) = memory.remember(key, &text, time).await
        {
            // The event is out: an error would make the caller send it again.
            tracing::warn!(%error, "a publish could not be remembered; the same one would be sent again");
        }
        Ok(published)
    }

    fn turn(&self, key: &str) -> Arc<Turn<()>> {
        let mut turns = self.inner.turns.lock();
        if turns.len() >= MAX_TURNS {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = turns.get(key).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// What remembers for this broker: the declared store, the broker itself if it is one, else this process.
    async fn any_memory(&self, broker: &Broker) -> Result<Memory> {
        if let Some(memory) = self.store(broker).await? {
            return Ok(memory);
        }
        self.inner.said_memory.call_once(|| {
            tracing::warn!("caches are remembered by this process alone: declare a store to share them");
        });
        Ok(Memory::Process(self.inner.memory.clone()))
    }

    /// As [`any_memory`](Self::any_memory), but the memory must outlive the process where the broker does.
    pub(super) async fn durable_memory(&self, broker: &Broker) -> Result<Memory> {
        if let Some(memory) = self.store(broker).await? {
            return Ok(memory);
        }
        let name = broker.capabilities().name;
        Err(Error::new(ErrorKind::Unsupported, format!("{name}: does not remember idempotency keys"))
            .field("store", "")
            .remedy("declare a store in the catalog: \"store\": \"sqlite:tidings.db\""))
    }

    async fn store(&self, broker: &Broker) -> Result<Option<Memory>> {
        if let Some(url) = self.inner.catalog.store_url()? {
            return Ok(Some(Memory::Store(self.connect(Some(&url)).await?)));
        }
        if broker.transport().journal().is_some() {
            return Ok(Some(Memory::Store(broker.clone())));
        }
        let in_process = !broker.capabilities().durable;
        Ok(in_process.then(|| Memory::Process(self.inner.memory.clone())))
    }
}

/// The subscription of a topic, or of a group of it, with the defaults.
fn own_options(resolved: &Resolved, group: Option<&str>) -> SubscriptionOptions {
    let mut options = SubscriptionOptions::new(&resolved.subscription(group));
    resolved.exchange.as_deref().unwrap_or(DEFAULT_EXCHANGE).clone_into(&mut options.spec.exchange);
    options.spec.binding_keys = vec![resolved.routing_key.clone()];
    let (event, product, env) = (resolved.event.as_str().to_owned(), resolved.product.clone(), resolved.env.clone());
    // Several topics may share one destination. What has no name comes from elsewhere and is let through.
    options.wanted = Some(Arc::new(move |headers: &Headers| {
        let is = |name: &str, own: &str| headers.text(name).is_none_or(|found| found == own);
        is(name::EVENT_NAME, &event) && is(name::PRODUCT, &product) && is(name::ENV, &env)
    }));
    options
}

fn event(resolved: &Resolved, request: &PublishRequest, session: Option<&VerifiedSession>) -> Result<DomainEvent> {
    let mut event = DomainEvent::from_json(&resolved.routing_key, request.input.message.get())?;
    if let Some(own) = request.input.headers.keys().find(|name| name.starts_with("tidings-")) {
        return Err(Error::new(ErrorKind::InvalidHeader, "headers that begin with tidings- are set by Tidings")
            .field("headers", own)
            .remedy("choose another name"));
    }
    let headers = event.headers_mut();
    for (name, value) in &request.input.headers {
        headers.set(name.as_str(), value.as_str());
    }
    headers.set(name::EVENT_NAME, resolved.event.as_str());
    headers.set(name::PRODUCT, resolved.product.as_str());
    headers.set(name::ENV, resolved.env.as_str());
    if let Some(session) = session {
        session.write(headers);
    }
    if let Some(key) = &request.input.key {
        headers.set(name::KEY, key.as_str());
    }
    if let Some(key) = request.idempotency_key.as_ref().or(request.input.idempotency_key.as_ref()) {
        headers.set(name::IDEMPOTENCY_KEY, key.as_str());
    }
    Ok(event)
}

/// What belongs to one broker of a product's environment.
pub(super) fn scope(product: &str, env: &str, broker: &str) -> String {
    [product, env, broker].join("\n")
}

fn cache_key(resolved: &Resolved, tag: &str, message: &str) -> Result<RememberedKey> {
    let message = canonical::canonical(message)?;
    let exact = [&resolved.product, &resolved.env, resolved.event.as_str(), &message].join("\n");
    let scope = scope(&resolved.product, &resolved.env, resolved.event.broker());
    Ok(RememberedKey { scope, key: format!("cache:{tag}:{}", digest::sha256_hex(exact.as_bytes())) })
}

/// Idempotency keys are those of a product's environment, whatever the broker.
pub(super) fn idempotency_key(product: &str, env: &str, broker: &str, key: &str) -> RememberedKey {
    let exact = [product, env, key].join("\n");
    let key = format!("idempotency:{}", digest::sha256_hex(exact.as_bytes()));
    RememberedKey { scope: scope(product, env, broker), key }
}

/// Puts what a broker said under the code of the operation. What the caller can correct keeps its own.
pub(super) fn failed(kind: ErrorKind) -> impl Fn(Error) -> Error {
    move |error| {
        let callers = [
            "INVALID_",
            "HEADERS_",
            "PAYLOAD_",
            "CATALOG_",
            "PROVIDER_",
            "SECRET_",
            "SESSION_",
            "CACHE_",
            "BROKER_",
            "TOPIC_",
            "PRODUCT_",
            "ENV_",
            "PUBLISH_FAILED",
        ];
        let stays = callers.iter().any(|prefix| error.code().starts_with(prefix)) || error.kind() == kind;
        if stays { error } else { error.under(kind) }
    }
}
