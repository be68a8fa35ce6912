//! Runs handlers: as many at once as the subscription asks for, each inside its time-out, none able to take another down.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::handler::Handler;
use super::session::Phase;
use super::{Deliveries, Middleware, Next};
use crate::event::DomainEvent;
use crate::settlement::{Failure, Outcome, reason};
use crate::trace::Propagator;

/// Events that a lone worker takes at a time, as long as its handler never waits.
const BATCH: usize = 128;
/// Longest time that an outcome waits for others to be settled with.
const LONGEST_WAIT: Duration = Duration::from_millis(4);

/// What every handler of a subscriber has around it.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) middleware: Arc<[Arc<dyn Middleware>]>,
    pub(super) propagator: Option<Arc<dyn Propagator>>,
}

pub(super) struct Runner {
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) handler: Handler,
    pub(super) around: Around,
    pub(super) timeout: Option<Duration>,
    pub(super) concurrency: usize,
}

impl Runner {
    /// One worker: takes events and handles them one after the other, until the subscription ends.
    pub(super) async fn work(self: Arc<Self>) -> crate::Result<()> {
        let session = &self.deliveries.session;
        let limit = if self.concurrency == 1 { BATCH } else { 1 };
        let mut at_once = 1;
        loop {
            let batch = self.deliveries.next(at_once).await?;
            if batch.is_empty() {
                return Ok(());
            }
            // Handlers that finish without waiting are settled together; before one waits, those done are settled.
            let mut done = Vec::with_capacity(batch.len());
            let mut oldest = Instant::now();
            at_once = limit.min(at_once * 2);
            let mut batch = batch.into_iter();
            while let Some(delivery) = batch.next() {
                if session.phase() != Phase::Open || session.is_paused() {
                    // Dropping it gives it back.
                    continue;
                }
                let started = Instant::now();
                let mut run = std::pin::pin!(self.run(delivery.event().clone()));
                let outcome = match futures_util::poll!(run.as_mut()) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => {
                        session.settle_soon(done.drain(..));
                        // Nobody knows for how long: those behind it count as waiting, not as in hand.
                        session.put_back(batch.by_ref());
                        at_once = 1;
                        run.await
                    }
                };
                let now = Instant::now();
                session.counters.handled(1, now - started);
                if now - started > session.spec.max_hold {
                    tracing::warn!(subscription = %session.spec.name, took = ?(now - started),
                        "the handler ran longer than max_hold, the broker may have delivered the event again: raise the \
                         broker's own limit (RabbitMQ: consumer_timeout) and max_hold with it");
                }
                if done.is_empty() {
                    oldest = now;
                }
                done.push((delivery, outcome));
                if now - oldest > LONGEST_WAIT {
                    session.settle_soon(done.drain(..));
                }
            }
            session.settle_soon(done);
        }
    }

    async fn run(&self, event: DomainEvent) -> Outcome {
        let span = tracing::info_span!("handle", subscription = %self.deliveries.session.spec.name, id = event.id(),
            routing_key = event.routing_key(), retries = event.retries());
        if let Some(propagator) = &self.around.propagator {
            propagator.extract(&event, &span);
        }
        let handled = async {
            if self.around.middleware.is_empty() {
                (self.handler)(event).await
            } else {
                Next { middleware: &self.around.middleware, at: 0, handler: &self.handler }.run(event).await
            }
        };
        // The handler's state is dropped with its future, and nothing of ours is shared with it.
        let guarded = AssertUnwindSafe(handled).catch_unwind().map(|result| result.unwrap_or_else(|p| panicked(&*p)));
        let outcome = match self.timeout {
            None => guarded.instrument(span.clone()).await,
            Some(limit) => tokio::time::timeout(limit, guarded.instrument(span.clone())).await.unwrap_or_else(|_| {
                failed("Timeout", format!("the handler ran longer than {limit:?}"), reason::TIMEOUT)
            }),
        };
        if let Outcome::Fail(failure) = &outcome {
            let _inside = span.enter();
            tracing::warn!(error_type = failure.error_types.first().map(String::as_str), "the handler failed");
        }
        outcome
    }
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> Outcome {
    let message =
        payload.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| payload.downcast_ref::<String>().cloned());
    failed("Panic", message.unwrap_or_else(|| "the handler panicked".to_owned()), reason::PANIC)
}

fn failed(error_type: &str, message: String, reason: &'static str) -> Outcome {
    Outcome::Fail(Failure::new([error_type], message).with_reason(reason))
}
