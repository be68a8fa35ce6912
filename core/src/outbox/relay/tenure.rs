//! A relay's entry in the store, kept alive by a task of its own: publishing may take longer than a third of the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::outbox::counters::Counters;
use crate::outbox::{Member, OutboxStore};

/// Pause after a renewal that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a relay that waits for parts looks whether there are any.
const HUNGRY: Duration = Duration::from_millis(500);

/// What the last renewal said.
#[derive(Debug, Clone)]
pub(super) struct News {
    /// Renewals so far.
    pub(super) round: u64,
    /// All relays that have an entry.
    pub(super) members: Vec<Member>,
    /// By our own clock, counted from before the renewal was sent.
    pub(super) until: Instant,
    /// The entry is gone: somebody has taken over.
    pub(super) lost: bool,
}

/// The entry of one session.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) owner: Arc<str>,
    pub(super) news: watch::Receiver<News>,
    hungry: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Tenure {
    /// Keeps the entry that was made at `joined`.
    pub(super) fn keep(
        store: Arc<dyn OutboxStore>,
        counters: Arc<Counters>,
        owner: Arc<str>,
        lease: Duration,
        joined: Instant,
    ) -> Self {
        let first = News { round: 0, members: Vec::new(), until: joined + lease, lost: false };
        let (sender, news) = watch::channel(first);
        let hungry = Arc::new(AtomicBool::new(true));
        let task = tokio::spawn(keep(store, counters, owner.clone(), lease, sender, hungry.clone())).abort_handle();
        Self { owner, news, hungry, task }
    }

    /// Whether the entry is gone.
    pub(super) fn lost(&self) -> bool {
        self.news.borrow().lost
    }

    /// What is left of the lease, by our own clock.
    pub(super) fn left(&self) -> Duration {
        self.news.borrow().until.saturating_duration_since(Instant::now())
    }

    /// Whether to look for parts more often.
    pub(super) fn set_hungry(&self, hungry: bool) {
        self.hungry.store(hungry, Relaxed);
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    store: Arc<dyn OutboxStore>,
    counters: Arc<Counters>,
    owner: Arc<str>,
    lease: Duration,
    sender: watch::Sender<News>,
    hungry: Arc<AtomicBool>,
) {
    let mut looked: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let pause = match store.renew(&owner, lease).await {
            Ok(members) => {
                let lost = !members.iter().any(|member| *member.owner == *owner);
                let next = next(&members, &owner, lease, hungry.load(Relaxed));
                sender.send_modify(|news| {
                    *news = News { round: news.round + 1, members, until: started + lease, lost };
                });
                if lost {
                    return;
                }
                next
            }
            Err(error) => {
                tracing::warn!(%error, "cannot renew the relay's entry, trying again");
                AGAIN.min(lease / 6)
            }
        };
        if looked.is_none_or(|looked| looked.elapsed() >= lease / 4) {
            looked = Some(Instant::now());
            match store.oldest().await {
                Ok(age) => counters.set_oldest(age),
                Err(error) => tracing::debug!(%error, "cannot ask for the age of the oldest row"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// When to renew next: at a third of the lease, sooner where somebody else's time ends or parts are awaited.
fn next(members: &[Member], owner: &str, lease: Duration, hungry: bool) -> Duration {
    let third = lease / 3;
    let others = members.iter().filter(|member| *member.owner != *owner);
    let ends = others.map(|member| member.left + Duration::from_millis(20)).min().unwrap_or(third);
    let soonest = if hungry { HUNGRY.min(third) } else { third };
    // One whose time has passed is looked at again and again until its fence is gone.
    soonest.min(ends.max(Duration::from_millis(200)))
}
