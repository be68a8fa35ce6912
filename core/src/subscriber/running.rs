//! [`Running`]: a started subscriber.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::runner::{Around, Runner};
use super::subscriber::Registered;
use super::{Deliveries, SubscriptionHealth};
use crate::host::Process;
use crate::{Error, ErrorKind, Result};

/// Time for a handler to end once it is aborted: at its next `await`.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A started subscriber. Dropping it ends handlers where they are and releases their events; [`stop`](Self::stop) drains.
pub struct Running {
    home: Process,
    subscriptions: Vec<(String, Arc<Deliveries>)>,
    workers: Mutex<JoinSet<Result<()>>>,
    drain_timeout: Duration,
}

impl Running {
    pub(super) fn start(
        opened: impl Iterator<Item = (Registered, Deliveries)>,
        around: &Around,
        drain_timeout: Duration,
    ) -> Self {
        let mut workers = JoinSet::new();
        let mut subscriptions = Vec::new();
        for (Registered { options, handler }, deliveries) in opened {
            let deliveries = Arc::new(deliveries);
            subscriptions.push((options.spec.name, deliveries.clone()));
            let runner = Arc::new(Runner {
                deliveries,
                handler,
                around: around.clone(),
                timeout: options.timeout,
                concurrency: options.concurrency,
            });
            for _ in 0..options.concurrency {
                workers.spawn(runner.clone().work());
            }
        }
        Self { home: Process::here(), subscriptions, workers: Mutex::new(workers), drain_timeout }
    }

    /// What each subscription is doing.
    pub fn health(&self) -> Vec<SubscriptionHealth> {
        self.subscriptions.iter().map(|(_, deliveries)| deliveries.health()).collect()
    }

    /// Stops handing events of this subscription to its handler; those fetched go back.
    pub async fn pause(&self, subscription: &str) -> Result<()> {
        self.find(subscription)?.pause().await
    }

    /// Goes on after a pause.
    pub async fn resume(&self, subscription: &str) -> Result<()> {
        self.find(subscription)?.resume().await
    }

    /// Waits until the subscriber has ended: by [`stop`](Self::stop), or by an error that it cannot recover from.
    ///
    /// For one caller at a time; may be cancelled and called again.
    pub async fn wait(&self) -> Result<()> {
        self.home.check()?;
        // The workers stay where they are, so that a caller that stops waiting does not end them.
        while let Some(ended) = poll_fn(|context| self.workers.lock().poll_join_next(context)).await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(error) if error.is_cancelled() => {}
                Err(error) => return Err(Error::new(ErrorKind::Internal, "a worker ended unexpectedly").source(error)),
            }
        }
        Ok(())
    }

    /// Drains: nothing new starts, handlers get `drain_timeout` to finish, the rest is released.
    ///
    /// Returns how many events were released unfinished. May be called twice.
    pub async fn stop(&self) -> Result<usize> {
        self.home.check()?;
        let draining = self.subscriptions.iter().map(|(_, deliveries)| deliveries.drain(self.drain_timeout));
        let unfinished = join_all(draining).await.into_iter().sum();
        // Handlers end before their events go to somebody else.
        self.workers.lock().abort_all();
        let grace = if unfinished > 0 { ABORT_TIMEOUT } else { Duration::ZERO };
        join_all(self.subscriptions.iter().map(|(_, deliveries)| deliveries.drain(grace))).await;
        join_all(self.subscriptions.iter().map(|(_, deliveries)| deliveries.finish(self.drain_timeout))).await;
        Ok(unfinished)
    }

    fn find(&self, subscription: &str) -> Result<&Deliveries> {
        self.subscriptions.iter().find(|(name, _)| name == subscription).map(|(_, d)| &**d).ok_or_else(|| {
            Error::new(ErrorKind::SubscriptionNotFound, "this subscriber has no such subscription")
                .field("subscription", subscription)
                .remedy("add a handler for it before start()")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // The workers are the parent's, and so is their runtime.
            std::mem::forget(std::mem::take(self.workers.get_mut()));
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("subscriptions", &self.health()).finish_non_exhaustive()
    }
}
