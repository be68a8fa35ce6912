//! Handlers that run in a transaction with their event's claim.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::SubscriptionBuilder;
use super::handler::{Handler, of_error};
use crate::inbox::Transactions;
use crate::settlement::Outcome;
use crate::{BoxError, DomainEvent, Result};

/// Pause after the database has failed: at first, and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

impl SubscriptionBuilder<'_> {
    /// Handles the subscription's events inside transactions, each with the claim of its event: effects happen once,
    /// although an event may be delivered again.
    ///
    /// The handler gets the transaction, and gives it back to be committed; only then is the event acknowledged. An
    /// error, whatever it asks for, rolls back. An event that was processed before is acknowledged without the handler. Where
    /// `begin`, `claim` or `commit` fails, the handler's place pauses with growing back-off and the event goes back to the
    /// queue: no attempt is spent.
    ///
    /// Errors: as [`handle`](Self::handle).
    pub fn handle_in<T, F, Fut, E>(self, transactions: T, handler: F) -> Result<()>
    where
        T: Transactions,
        F: Fn(DomainEvent, T::Tx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T::Tx, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let inbox = Arc::new(InTransaction {
            transactions,
            handler,
            subscription: self.name().to_owned(),
            failures: AtomicU32::new(0),
        });
        let handler: Handler = Arc::new(move |event| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.handle(event).await })
        });
        self.handle_erased(handler)
    }
}

struct InTransaction<T, F> {
    transactions: T,
    handler: F,
    subscription: String,
    /// Failures of the database since it last worked.
    failures: AtomicU32,
}

impl<T: Transactions, F> InTransaction<T, F> {
    async fn handle<Fut, E>(&self, event: DomainEvent) -> Outcome
    where
        F: Fn(DomainEvent, T::Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T::Tx, E>> + Send,
        E: Into<BoxError> + Send,
    {
        let mut tx = match self.transactions.begin().await {
            Ok(tx) => tx,
            Err(error) => return self.pause("begin", &*error).await,
        };
        match self.transactions.claim(&mut tx, &self.subscription, &event).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Ok,
            Err(error) => return self.pause("claim", &*error).await,
        }
        let tx = match (self.handler)(event, tx).await {
            Ok(tx) => tx,
            Err(error) => return of_error::<E>(error),
        };
        match self.transactions.commit(tx).await {
            Ok(()) => {
                self.failures.store(0, Relaxed);
                Outcome::Ok
            }
            // It may have been committed all the same: then the next delivery finds the claim.
            Err(error) => self.pause("commit", &*error).await,
        }
    }

    /// Waits for a database that has failed, and gives the event back.
    async fn pause(&self, doing: &str, error: &(dyn std::error::Error + Send + Sync)) -> Outcome {
        let failures = self.failures.fetch_add(1, Relaxed);
        let pause = PAUSE.saturating_mul(1 << failures.min(9)).min(PAUSE_MAX);
        tracing::warn!(subscription = self.subscription, doing, %error, ?pause, "the inbox's database failed");
        tokio::time::sleep(pause + pause.mul_f64(fastrand::f64() / 5.0)).await;
        Outcome::Release
    }
}
