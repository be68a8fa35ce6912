//! Code around every publish.

use async_trait::async_trait;

use super::{PublishOptions, Publisher};
use crate::transport::Receipt;
use crate::{DomainEvent, Result};

/// Runs around every publish of a publisher: the one added first is the outermost.
///
/// It may change the event, look at the receipt, or not call `next` at all.
#[async_trait]
pub trait PublishMiddleware: Send + Sync + 'static {
    /// Publishes `event` by way of `next`.
    async fn publish(&self, event: DomainEvent, options: PublishOptions, next: PublishNext<'_>) -> Result<Receipt>;
}

/// What comes after a middleware: the next one, in the end the broker.
pub struct PublishNext<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) at: usize,
}

impl PublishNext<'_> {
    /// Goes on with this event.
    pub async fn run(self, event: DomainEvent, options: PublishOptions) -> Result<Receipt> {
        match self.publisher.middlewares().get(self.at).cloned() {
            Some(middleware) => {
                let next = PublishNext { publisher: self.publisher, at: self.at + 1 };
                middleware.publish(event, options, next).await
            }
            None => self.publisher.send(event, &options).await,
        }
    }
}
