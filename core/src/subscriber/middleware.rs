//! Code around every handler.

use std::sync::Arc;

use async_trait::async_trait;

use super::handler::Handler;
use crate::event::DomainEvent;
use crate::settlement::Outcome;

/// Runs around every handler of a subscriber: the one added first is the outermost.
///
/// It may change the event, look at the outcome or replace it, or not call `next` at all. It runs inside the handler's
/// time-out, and its panic is the handler's panic.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles `event` by way of `next`.
    async fn handle(&self, event: DomainEvent, next: Next<'_>) -> Outcome;
}

/// What comes after a middleware: the next one, in the end the handler.
pub struct Next<'a> {
    pub(super) middleware: &'a Arc<[Arc<dyn Middleware>]>,
    pub(super) at: usize,
    pub(super) handler: &'a Handler,
}

impl Next<'_> {
    /// Goes on with this event.
    pub async fn run(self, event: DomainEvent) -> Outcome {
        match self.middleware.get(self.at) {
            Some(middleware) => middleware.handle(event, Next { at: self.at + 1, ..self }).await,
            None => (self.handler)(event).await,
        }
    }
}
