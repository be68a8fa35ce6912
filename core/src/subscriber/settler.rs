//! Carries settlements out, many at a time.
//!
//! Handlers finish one by one; the settler takes all that are done since it last looked, so that a broker sees one
//! `multiple` acknowledgement and a file one transaction. Where the source asks for it, an ack that nothing waits for is kept
//! a little for others to go with. A settlement that fails is tried again, while others go on,
//! until it succeeds or the delivery is no longer ours.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::session::{Phase, Session, closed};
use crate::settlement::Effect;
use crate::transport::{Settlement, Token};
use crate::{Error, ErrorKind, Result};

/// Acks that are worth a frame of their own, however many more there may be.
const ENOUGH: usize = 64;

/// One delivery to settle.
pub(super) struct Item {
    pub(super) token: Token,
    pub(super) settlement: Settlement,
    pub(super) effect: Effect,
    /// Set on ordered subscriptions: what happens to the key's next event depends on this settlement.
    pub(super) key: Option<Arc<str>>,
    /// A host had it in hand.
    pub(super) handed: bool,
    pub(super) completion: Option<Arc<Completion>>,
}

impl Item {
    /// Whether nothing waits for it: no host, and no later event of its key.
    fn may_wait(&self) -> bool {
        matches!(self.settlement, Settlement::Ack) && self.key.is_none() && self.completion.is_none()
    }

    fn complete(&self, error: Option<Error>) {
        if let Some(completion) = &self.completion {
            completion.done(error);
        }
    }
}

/// Tells the host that all deliveries of one call are settled, or the first error.
pub(super) struct Completion(Mutex<Outstanding>);

struct Outstanding {
    count: usize,
    error: Option<Error>,
    sender: Option<oneshot::Sender<Result<()>>>,
}

impl Completion {
    pub(super) fn new(count: usize) -> (Arc<Self>, oneshot::Receiver<Result<()>>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self(Mutex::new(Outstanding { count, error: None, sender: Some(sender) }))), receiver)
    }

    fn done(&self, error: Option<Error>) {
        let mut state = self.0.lock();
        state.count = state.count.saturating_sub(1);
        if state.error.is_none() {
            state.error = error;
        }
        if state.count == 0
            && let Some(sender) = state.sender.take()
        {
            // The host may have stopped waiting; the settlement stands all the same.
            let _nobody_waits = sender.send(state.error.take().map_or(Ok(()), Err));
        }
    }
}

/// What is to be settled. Bounded by the prefetch: every item is a delivery that counts against it.
pub(super) struct Settler {
    queue: Mutex<Queue>,
    wake: Notify,
    /// How long an ack may wait for others.
    patience: Duration,
    /// So many do not wait for more.
    enough: usize,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    /// Since when there are any.
    since: Option<Instant>,
    /// Not to be kept any longer.
    due: bool,
    /// The settler is gone: nothing is settled any more, the source has released what was left.
    ended: bool,
}

impl Settler {
    /// `prefetch`: of the subscription, 0 for no limit.
    pub(super) fn new(patience: Duration, prefetch: u16) -> Self {
        let enough = if prefetch == 0 { ENOUGH } else { usize::from(prefetch).div_ceil(2).min(ENOUGH) };
        Self { queue: Mutex::default(), wake: Notify::new(), patience, enough }
    }

    /// Whether acks are kept at all.
    pub(super) fn is_patient(&self) -> bool {
        !self.patience.is_zero()
    }

    pub(super) fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut queue = self.queue.lock();
        if queue.ended {
            drop(queue);
            for item in items {
                item.complete(Some(closed()));
            }
            return;
        }
        let before = queue.items.len();
        queue.items.extend(items);
        if queue.items.len() == before {
            return;
        }
        let was_due = queue.due;
        queue.due |= !self.is_patient()
            || queue.items.len() >= self.enough
            || queue.items[before..].iter().any(|item| !item.may_wait());
        let wake = before == 0 || (queue.due && !was_due);
        if before == 0 {
            queue.since = Some(Instant::now());
        }
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// What is there is to be settled now: something waits for it.
    pub(super) fn hurry(&self) {
        let mut queue = self.queue.lock();
        if queue.items.is_empty() || std::mem::replace(&mut queue.due, true) {
            return;
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Everything that is to be settled now, or until when what there is may wait.
    fn take(&self, now: Instant, closed: bool) -> Result<Vec<Item>, Option<Instant>> {
        let mut queue = self.queue.lock();
        let until = queue.since.map(|since| since + self.patience);
        if !closed && !queue.due && until.is_none_or(|until| now < until) {
            return Err(until);
        }
        (queue.since, queue.due) = (None, false);
        Ok(std::mem::take(&mut queue.items))
    }

    /// Ends the queue unless something came in meanwhile.
    fn end(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.ended = queue.items.is_empty();
        queue.ended
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// The task that settles. Ends once the session is closed and nothing is left to settle.
pub(super) async fn run(session: Arc<Session>) {
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    const LONGEST_PAUSE: Duration = Duration::from_secs(2);
    let mut again: Vec<Item> = Vec::new();
    let (mut pause, mut again_at) = (FIRST_PAUSE, Instant::now());
    let hold_check = session.spec.max_hold / 4;
    let mut check_at = Instant::now() + hold_check;
    loop {
        let now = Instant::now();
        if now >= check_at {
            session.release_held();
            check_at = now + hold_check;
        }
        let closed = session.phase() == Phase::Closed;
        // What failed waits for its next try; what is new does not wait for it.
        let mut batch = if closed || now >= again_at { std::mem::take(&mut again) } else { Vec::new() };
        let mut look_at = if again.is_empty() { check_at } else { check_at.min(again_at) };
        match session.settler.take(now, closed) {
            Ok(mut items) => batch.append(&mut items),
            Err(until) => look_at = until.map_or(look_at, |until| look_at.min(until)),
        }
        if batch.is_empty() {
            if !closed {
                // Whichever it was, there is something to look at.
                let _woken = tokio::time::timeout_at(look_at, session.settler.wake.notified()).await;
            } else if session.settler.end() {
                return;
            }
            continue;
        }
        let failed = settle(&session, batch).await;
        if failed.is_empty() {
            if again.is_empty() {
                pause = FIRST_PAUSE;
            }
        } else if session.phase() == Phase::Closed {
            // The source is about to release whatever is not settled.
            abandon(&session, failed);
        } else {
            again.extend(failed);
            again_at = Instant::now() + pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Settles a batch and returns what has to be tried again.
async fn settle(session: &Arc<Session>, batch: Vec<Item>) -> Vec<Item> {
    let work = batch.iter().map(|item| (item.token, item.settlement.clone())).collect();
    let results = session.source.settle(work).await;
    let mut again = Vec::new();
    let mut settled = Vec::with_capacity(batch.len());
    let mut ends = Vec::with_capacity(batch.len());
    let missing = std::iter::repeat_with(|| Err(Error::new(ErrorKind::Internal, "the transport gave no result")));
    for (mut item, result) in batch.into_iter().zip(results.into_iter().chain(missing)) {
        match result {
            Ok(()) => {
                session.counters.count(item.effect);
                ends.push((item.completion.clone(), None));
                settled.push((item, true));
            }
            Err(error) if [ErrorKind::StaleDelivery, ErrorKind::Closed].contains(&error.kind()) => {
                session.counters.stale.fetch_add(1, Relaxed);
                tracing::debug!(subscription = %session.spec.name, "a delivery is no longer ours and comes again");
                ends.push((item.completion.clone(), Some(error)));
                settled.push((item, false));
            }
            Err(error) => {
                session.counters.settle_failures.fetch_add(1, Relaxed);
                tracing::warn!(subscription = %session.spec.name, %error, effect = ?item.effect, "could not settle; trying again");
                if !error.retryable() {
                    // The host need not wait. The delivery is still ours, and counts as such, until this succeeds.
                    item.complete(Some(error));
                    item.completion = None;
                }
                again.push(item);
            }
        }
    }
    session.settled(&settled);
    // Hosts go on only now, so that what they ask of the session knows of it.
    for (completion, error) in ends {
        if let Some(completion) = completion {
            completion.done(error);
        }
    }
    again
}

fn abandon(session: &Arc<Session>, items: Vec<Item>) {
    let items: Vec<_> = items.into_iter().map(|item| (item, false)).collect();
    for (item, _) in &items {
        item.complete(Some(closed()));
    }
    session.settled(&items);
}
