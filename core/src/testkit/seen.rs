//! [`Seen`]: what handlers were called with, in order.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::world::eventually;
use crate::{BoxError, DomainEvent};

/// One call of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) retries: u32,
    pub(super) at: Instant,
}

/// The calls of one or more handlers. Clones share them.
#[derive(Clone)]
pub(super) struct Seen {
    calls: Arc<Mutex<Vec<Call>>>,
    patience: Duration,
}

impl Seen {
    pub(super) fn new(patience: Duration) -> Self {
        Self { calls: Arc::default(), patience }
    }

    /// Notes a call.
    pub(super) fn note(&self, event: &DomainEvent) -> u64 {
        let number = event.data().unwrap_or(u64::MAX);
        self.calls.lock().push(Call { number, retries: event.retries(), at: Instant::now() });
        number
    }

    /// All calls so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// The numbers of all calls so far.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.calls.lock().iter().map(|call| call.number).collect()
    }

    /// Waits until there were at least so many calls, and gives their numbers.
    pub(super) async fn wait(&self, calls: usize) -> Result<Vec<u64>, BoxError> {
        let enough = eventually(self.patience, || async { Ok(self.calls.lock().len() >= calls) }).await;
        enough.map_err(|e| format!("{calls} calls of the handler, of which came {:?}: {e}", self.numbers()))?;
        Ok(self.numbers())
    }
}
