//! [`Subscriber`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::builder::{SubscriptionBuilder, SubscriptionOptions};
use super::handler::Handler;
use super::runner::Around;
use super::session::Session;
use super::{Deliveries, Middleware, Running};
use crate::broker::Broker;
use crate::{Error, ErrorKind, Result};

/// Handles the events of named subscriptions.
///
/// Every subscription gets its own durable copy of the events it is bound to; processes with the same name compete for
/// them. Delivery is at least once.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::{BoxError, Broker, DomainEvent};
///
/// let broker = Broker::connect("memory:").await?;
/// let subscriber = broker.subscriber();
/// let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
/// subscriber.subscription("welcome").bind("user.*").max_retries(3).handle(move |event: DomainEvent| {
///     let sender = sender.clone();
///     async move {
///         let user: serde_json::Value = event.data()?;
///         sender.send(user["name"].to_string()).await?;
///         Ok::<(), BoxError>(())
///     }
/// })?;
/// let running = subscriber.start().await?;
/// broker.publisher().publish(DomainEvent::new("user.registered", &serde_json::json!({"name": "Ada"}))?).await?;
/// assert_eq!(receiver.recv().await.as_deref(), Some("\"Ada\""));
/// running.stop().await?;
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subscriber {
    broker: Broker,
    registered: Mutex<Vec<Registered>>,
    middleware: Vec<Arc<dyn Middleware>>,
    drain_timeout: Duration,
}

/// A handler with what it asked for.
#[derive(Clone)]
pub(super) struct Registered {
    pub(super) options: SubscriptionOptions,
    pub(super) handler: Handler,
}

impl Subscriber {
    /// Reaches the broker that `url` names and returns a subscriber to it.
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Broker::connect(url).await?.subscriber())
    }

    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, registered: Mutex::default(), middleware: Vec::new(), drain_timeout: Duration::from_secs(30) }
    }

    /// How long [`Running::stop`] waits for handlers (`drain_timeout`, default 30 s).
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Adds code around every handler; the first one added is the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Begins a subscription: 1 to 200 characters of `A–Z a–z 0–9 . _ : -`.
    pub fn subscription(&self, name: &str) -> SubscriptionBuilder<'_> {
        SubscriptionBuilder::new(self, name)
    }

    /// Declares every subscription that has a handler and starts handling.
    ///
    /// If one cannot be declared, none is started and its error is returned.
    pub async fn start(&self) -> Result<Running> {
        let registered = self.registered.lock().clone();
        let mut opened = Vec::with_capacity(registered.len());
        for one in &registered {
            opened.push(self.open(&one.options).await?);
        }
        let around = Around {
            middleware: self.middleware.as_slice().into(),
            propagator: self.broker.propagator_in_use().cloned(),
        };
        Ok(Running::start(registered.into_iter().zip(opened), &around, self.drain_timeout))
    }

    /// The broker that this subscriber listens to.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    pub(super) fn add(&self, options: SubscriptionOptions, handler: Handler) -> Result<()> {
        let mut registered = self.registered.lock();
        if registered.iter().any(|r| r.options.spec.name == options.spec.name) {
            return Err(Error::new(
                ErrorKind::SubscriptionConflict,
                "this subscriber has a handler for the subscription already",
            )
            .field("subscription", &options.spec.name)
            .remedy("bind several keys to one handler, or give the second one a name of its own"));
        }
        registered.push(Registered { options, handler });
        Ok(())
    }

    pub(super) async fn open(&self, options: &SubscriptionOptions) -> Result<Deliveries> {
        let transport = self.broker.here()?;
        let policy = options.settlement_policy(&transport.capabilities());
        let counters = self.broker.registry().subscription(&policy.subscription);
        let source = transport.subscribe(&options.spec).await?;
        let codecs = self.broker.codecs().clone();
        let session = Arc::new(
            Session::new(source, transport.clone(), policy, options.spec.clone(), counters, codecs)
                .wanting(options.wanted.clone()),
        );
        session.counters.watch(Arc::<Session>::downgrade(&session));
        Ok(Deliveries::start(session))
    }
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.registered.lock().iter().map(|r| r.options.spec.name.clone()).collect();
        f.debug_struct("Subscriber")
            .field("broker", &self.broker)
            .field("subscriptions", &names)
            .finish_non_exhaustive()
    }
}
