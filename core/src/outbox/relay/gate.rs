//! Keys that wait behind a failed row.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::options::OnFailed;
use crate::outbox::{OutboxStore, Settled};
use crate::{Error, ErrorKind, Result};

/// Blocked keys that are kept in mind at most. Beyond, almost nothing can be published anyway.
const MAX_BLOCKED: usize = 100_000;
/// How often the store is asked whether somebody has retried or discarded failed rows: at most a tenth of the time.
const REFRESH: Duration = Duration::from_secs(1);

/// Which keys wait.
#[derive(Debug)]
pub(super) struct Gate {
    on_failed: OnFailed,
    blocked: HashSet<String>,
    due: Instant,
}

impl Gate {
    pub(super) fn new(on_failed: OnFailed) -> Self {
        Self { on_failed, blocked: HashSet::new(), due: Instant::now() }
    }

    /// Whether rows of this key wait.
    pub(super) fn holds(&self, key: Option<&str>) -> bool {
        key.is_some_and(|key| self.blocked.contains(key))
    }

    /// A row of this key has failed. Whether it is the first, the one that is tried again.
    pub(super) fn block(&mut self, key: Option<&str>) -> bool {
        match key {
            Some(key) if self.on_failed == OnFailed::Block => self.blocked.insert(key.to_owned()),
            _ => true,
        }
    }

    /// A failed row was published: ask soon whether its key may go on.
    pub(super) fn freed(&mut self) {
        self.due = Instant::now();
    }

    /// When the store is to be asked again, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.blocked.is_empty()).then_some(self.due)
    }

    /// Asks the store which keys are blocked, and lets those go on that are not any more. `fresh`: the relay has parts
    /// that it did not have before, and what waits in them is not known.
    pub(super) async fn refresh(
        &mut self,
        store: &dyn OutboxStore,
        owner: &str,
        parts: &[u16],
        fresh: bool,
    ) -> Result<()> {
        if self.on_failed == OnFailed::Pass && !fresh {
            return Ok(());
        }
        let started = Instant::now();
        let mut waiting = std::mem::take(&mut self.blocked);
        if fresh {
            waiting = store.waiting(parts).await?.into_iter().collect();
        }
        let blocked: HashSet<String> = match self.on_failed {
            OnFailed::Pass => HashSet::new(),
            OnFailed::Block => store.blocked(parts, MAX_BLOCKED + 1).await?.into_iter().collect(),
        };
        let too_many = blocked.len() > MAX_BLOCKED;
        let unblocked: Vec<String> = waiting.difference(&blocked).cloned().collect();
        self.blocked = blocked;
        if !unblocked.is_empty() {
            store.settle(owner, Settled { unblocked, ..Settled::default() }).await?;
        }
        self.due = Instant::now() + REFRESH.max(started.elapsed() * 10);
        if too_many {
            let message = format!("more than {MAX_BLOCKED} keys wait behind a failed row");
            return Err(Error::new(ErrorKind::Rejected, message)
                .remedy("see failed(): the broker refuses nearly everything; then retry or discard"));
        }
        Ok(())
    }
}
