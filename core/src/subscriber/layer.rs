//! Tower layers around handlers (feature `tower`).

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tower_layer::Layer;
use tower_service::Service;

use super::handler::{Handler, outcome};
use super::{Middleware, Next, Subscriber};
use crate::event::DomainEvent;
use crate::settlement::Outcome;
use crate::{BoxError, Result};

/// An event on its way to its handler, as a tower service gets it.
pub struct HandleRequest {
    event: DomainEvent,
    middleware: Arc<[Arc<dyn Middleware>]>,
    at: usize,
    handler: Handler,
}

impl HandleRequest {
    /// The event.
    pub fn event(&self) -> &DomainEvent {
        &self.event
    }

    /// Goes on with another event in its place.
    pub fn with_event(mut self, event: DomainEvent) -> Self {
        self.event = event;
        self
    }
}

impl fmt::Debug for HandleRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleRequest").field("event", &self.event).finish_non_exhaustive()
    }
}

/// The innermost tower service: further middleware, and in the end the handler. It never fails; how a handler fared is
/// its [`Outcome`].
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct HandleService;

impl Service<HandleRequest> for HandleService {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HandleRequest) -> Self::Future {
        let HandleRequest { event, middleware, at, handler } = request;
        Box::pin(async move { Ok(Next { middleware: &middleware, at, handler: &handler }.run(event).await) })
    }
}

/// A tower service as middleware.
struct Layered<S>(S);

#[async_trait]
impl<S> Middleware for Layered<S>
where
    S: Service<HandleRequest, Response = Outcome> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn handle(&self, event: DomainEvent, next: Next<'_>) -> Outcome {
        let request =
            HandleRequest { event, middleware: next.middleware.clone(), at: next.at, handler: next.handler.clone() };
        let mut service = self.0.clone();
        let handled = async {
            poll_fn(|context| service.poll_ready(context)).await?;
            service.call(request).await
        };
        handled.await.unwrap_or_else(|error| outcome(&*error.into(), std::any::type_name::<S::Error>()))
    }
}

impl Subscriber {
    /// Puts a tower [`Layer`] around every handler, among the [`middleware`](Self::middleware) in the order of the calls:
    /// the first one added is the outermost.
    ///
    /// The layer is applied once and its service cloned for each event, so that what its clones share (a limit of
    /// concurrency, a circuit breaker) holds for all handlers of the subscriber. An error of the service is an error of the
    /// handler: its type is what a policy's `retry_on` matches. The time that it waits counts towards the handler's
    /// `timeout`.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use std::time::Duration;
    /// use tidings::{BoxError, Broker, DomainEvent};
    /// use tower::ServiceBuilder;
    ///
    /// let broker = Broker::connect("memory:").await?;
    /// let around = ServiceBuilder::new().concurrency_limit(8).timeout(Duration::from_secs(5));
    /// let subscriber = broker.subscriber().layer(around);
    /// subscriber.subscription("welcome").bind("user.*").handle(|event: DomainEvent| async move {
    ///     println!("{}", event.data_json());
    ///     Ok::<(), BoxError>(())
    /// })?;
    /// # Ok::<(), tidings::Error>(())
    /// # })?; Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<HandleService>,
        L::Service: Service<HandleRequest, Response = Outcome> + Clone + Send + Sync + 'static,
        <L::Service as Service<HandleRequest>>::Error: Into<BoxError>,
        <L::Service as Service<HandleRequest>>::Future: Send,
    {
        self.middleware(Layered(layer.layer(HandleService)))
    }
}
