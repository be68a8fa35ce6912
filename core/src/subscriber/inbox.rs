//! Handlers with an inbox: in a transaction with their event's claim, or with one that is kept in memory.

use std::future::Future;
use std::sync::Arc;

use super::SubscriptionBuilder;
use super::handler::{Handler, erase, of_error};
use crate::inbox::{MemoryInbox, Rest, Transactions, Turn};
use crate::settlement::Outcome;
use crate::{BoxError, DomainEvent, Result};

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
            rest: Rest::default(),
        });
        let handler: Handler = Arc::new(move |event| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.handle(event).await })
        });
        self.handle_erased(handler)
    }

    /// Handles each of the subscription's events once for as long as `inbox` remembers it: for handlers without a
    /// database. What was processed is acknowledged without the handler; what somebody else is at goes back to the queue
    /// after a pause, no attempt spent. A handler that fails releases its event.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use std::time::Duration;
    /// use tidings::inbox::MemoryInbox;
    /// use tidings::Broker;
    ///
    /// let broker = Broker::connect("memory:").await?;
    /// let inbox = MemoryInbox::new(Duration::from_secs(3600), Duration::from_secs(30));
    /// let subscriber = broker.subscriber();
    /// subscriber.subscription("mails").bind("order.*").handle_once(inbox, async |event| {
    ///     println!("a mail about {}", event.routing_key());
    ///     Ok::<_, tidings::Error>(())
    /// })?;
    /// # Ok::<(), tidings::Error>(()) })?; Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Errors: as [`handle`](Self::handle).
    pub fn handle_once<F, Fut, E>(self, inbox: MemoryInbox, handler: F) -> Result<()>
    where
        F: Fn(DomainEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let (subscription, handler) = (Arc::<str>::from(self.name()), erase(handler));
        let once: Handler = Arc::new(move |event| {
            let turn = inbox.turn(&subscription, &event);
            let handler = handler.clone();
            Box::pin(async move {
                match turn {
                    Turn::Run(claim) => {
                        let outcome = handler(event).await;
                        if outcome == Outcome::Ok && !claim.complete() {
                            tracing::warn!("the claim of an event had ended before its handler did");
                        }
                        outcome
                    }
                    Turn::Skip => Outcome::Ok,
                    Turn::Rest(pause) => {
                        tokio::time::sleep(pause).await;
                        Outcome::Release
                    }
                }
            })
        });
        self.handle_erased(once)
    }
}

struct InTransaction<T, F> {
    transactions: T,
    handler: F,
    subscription: String,
    rest: Rest,
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
                self.rest.worked();
                Outcome::Ok
            }
            // It may have been committed all the same: then the next delivery finds the claim.
            Err(error) => self.pause("commit", &*error).await,
        }
    }

    /// Waits for a database that has failed, and gives the event back.
    async fn pause(&self, doing: &str, error: &(dyn std::error::Error + Send + Sync)) -> Outcome {
        let pause = self.rest.failed();
        tracing::warn!(subscription = self.subscription, doing, %error, ?pause, "the inbox's database failed");
        tokio::time::sleep(pause).await;
        Outcome::Release
    }
}
