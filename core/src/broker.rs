//! [`Broker`]: one broker, reached.

use std::fmt;
use std::sync::Arc;

use crate::codec::{BodyCodec, Codecs};
use crate::host::Process;
use crate::metrics::{Metric, Registry};
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;
use crate::trace::Propagator;
use crate::transport::{SubscriptionInfo, Transport, registry};
use crate::{Error, ErrorKind, Result};

/// Environment variable that names the broker where no URL is given.
pub const BROKER_URL_VARIABLE: &str = "TIDINGS_BROKER_URL";
/// The embedded default was used and said so.
static SAID: std::sync::Once = std::sync::Once::new();

/// Environment variable that forbids falling back to the embedded file.
pub const REQUIRE_BROKER_VARIABLE: &str = "TIDINGS_REQUIRE_BROKER";
/// The embedded default.
pub const DEFAULT_URL: &str = "sqlite:tidings.db";

/// A broker that was reached: publishers, subscribers, dead letters and administration over one set of connections.
///
/// Cheap to clone. Changing the URL changes the broker, nothing else.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
    codecs: Codecs,
    propagator: Option<Arc<dyn Propagator>>,
}

struct Inner {
    home: Process,
    transport: Arc<dyn Transport>,
    metrics: Arc<Registry>,
    url: String,
}

impl Broker {
    /// Reaches the broker that `url` names: `memory:`, `sqlite:path.db`, `amqp://…`, `amqps://…`.
    ///
    /// Errors: `INVALID_URL`, `UNSUPPORTED_TRANSPORT`, `CONNECTION_FAILED`, `ACCESS_REFUSED`, `TLS_FAILED`, the store's.
    pub async fn connect(url: &str) -> Result<Self> {
        let transport = registry::connect(url).await?;
        Ok(Self::new(transport, registry::redact(url)))
    }

    /// As [`connect`](Self::connect), for tools that look: where a store is a file and there is none, none is made.
    ///
    /// Errors: `CONNECTION_FAILED` where there is no such file, else those of `connect`.
    pub async fn connect_existing(url: &str) -> Result<Self> {
        if url.starts_with("sqlite:") && !url.contains("mode=") {
            let separator = if url.contains('?') { '&' } else { '?' };
            return Self::connect(&format!("{url}{separator}mode=rw")).await;
        }
        Self::connect(url).await
    }

    /// Reaches the broker of the environment: `TIDINGS_BROKER_URL`, else the catalog's default broker for `TIDINGS_ENV`
    /// (feature `catalog`), else `sqlite:tidings.db` in the working directory.
    ///
    /// The fallback is said once in the log, with the absolute path; `TIDINGS_REQUIRE_BROKER=1` makes it an error.
    pub async fn from_env() -> Result<Self> {
        Self::connect(&Self::url_from_env()?).await
    }

    /// The URL that [`from_env`](Self::from_env) uses. It may hold a password.
    pub fn url_from_env() -> Result<String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        #[cfg(feature = "catalog")]
        if variable(BROKER_URL_VARIABLE).is_none() {
            let catalog = crate::catalog::Catalog::open(crate::catalog::CatalogOptions::default())?;
            if let Some(url) = catalog.default_broker_url()? {
                return Ok(url);
            }
        }
        url_without_catalog(&variable)
    }

    /// Uses a transport that was made elsewhere.
    pub fn with_transport(transport: Arc<dyn Transport>) -> Self {
        let url = format!("{}:", transport.capabilities().name);
        Self::new(transport, url)
    }

    fn new(transport: Arc<dyn Transport>, url: String) -> Self {
        let inner = Inner { home: Process::here(), transport, metrics: Arc::default(), url };
        Self { inner: Arc::new(inner), codecs: Codecs::default(), propagator: None }
    }

    /// Reads and writes bodies of another content type than JSON too, in what is made from this handle afterwards.
    pub fn codec(mut self, codec: impl BodyCodec) -> Self {
        self.codecs = self.codecs.with(codec);
        self
    }

    /// Carries the context of traces along with events, in what is made from this handle afterwards.
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// The same broker through another transport, with the same counters.
    pub(crate) fn over(&self, transport: Arc<dyn Transport>) -> Self {
        let (metrics, url) = (self.inner.metrics.clone(), self.inner.url.clone());
        let inner = Inner { home: Process::here(), transport, metrics, url };
        Self { inner: Arc::new(inner), codecs: self.codecs.clone(), propagator: self.propagator.clone() }
    }

    /// A publisher to this broker.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    /// A subscriber to this broker.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.clone())
    }

    /// The subscriptions that the transport knows of.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        self.here()?.subscriptions().await
    }

    /// One subscription with its depths; `None` if there is none of this name.
    pub async fn subscription(&self, name: &str) -> Result<Option<SubscriptionInfo>> {
        crate::routing::check_peer_name(name)?;
        self.here()?.subscription(name).await
    }

    /// Deletes a subscription with all its events and dead letters. `false` if there was none.
    pub async fn delete_subscription(&self, name: &str) -> Result<bool> {
        crate::routing::check_peer_name(name)?;
        self.here()?.delete_subscription(name).await
    }

    /// Whether the broker answers right now.
    pub async fn ping(&self) -> Result<()> {
        self.here()?.ping().await
    }

    /// All counters and gauges of this handle and its clones. None in the child of a fork, whose handle it is not.
    pub fn metrics(&self) -> Vec<Metric> {
        if self.inner.home.is_here() { self.registry().snapshot() } else { Vec::new() }
    }

    /// What the broker behind this handle can do.
    pub fn capabilities(&self) -> crate::transport::Capabilities {
        self.transport().capabilities()
    }

    /// Lets go of the broker. Publishes under way are finished first; stop subscribers before.
    pub async fn close(&self) -> Result<()> {
        self.here()?.close().await
    }

    /// The transport, unless this is the child of a fork: then `FORKED_CLIENT`.
    pub(crate) fn here(&self) -> Result<&Arc<dyn Transport>> {
        self.inner.home.check()?;
        Ok(&self.inner.transport)
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.inner.transport
    }

    pub(crate) fn codecs(&self) -> &Codecs {
        &self.codecs
    }

    pub(crate) fn propagator_in_use(&self) -> Option<&Arc<dyn Propagator>> {
        self.propagator.as_ref()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.metrics
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // Its end would wait for threads that only the parent has.
            std::mem::forget(self.transport.clone());
        }
    }
}

/// The URL that the environment says, else the embedded default, if that is allowed.
pub(crate) fn url_without_catalog(variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    if let Some(url) = variable(BROKER_URL_VARIABLE) {
        return Ok(url);
    }
    if variable(REQUIRE_BROKER_VARIABLE).is_some_and(|value| !["", "0"].contains(&value.as_str())) {
        return Err(Error::new(ErrorKind::InvalidUrl, "no broker is named and the embedded default is forbidden")
            .field(BROKER_URL_VARIABLE, "")
            .remedy(format!("set {BROKER_URL_VARIABLE}, or unset {REQUIRE_BROKER_VARIABLE}")));
    }
    SAID.call_once(|| {
        let path = std::path::absolute("tidings.db").unwrap_or_else(|_| "tidings.db".into());
        tracing::warn!(path = %path.display(), "{BROKER_URL_VARIABLE} is not set: events go to this file");
    });
    Ok(DEFAULT_URL.to_owned())
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("url", &self.inner.url).finish_non_exhaustive()
    }
}
