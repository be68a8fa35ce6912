//! Fetching: one poll pending at the source, what comes is examined and let through when it is its turn.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Alone, Parts, Phase, Session, State, Waiting};
use crate::codec::Unreadable;
use crate::settlement::{Outcome, decide, triage};
use crate::transport::Incoming;
use crate::{Error, Result};

impl Session {
    /// The task that fetches. Ends when the source does, and the subscription with it.
    pub(in crate::subscriber) async fn pump(self: Arc<Self>) {
        let fetched = AssertUnwindSafe(self.fetch()).catch_unwind().await;
        let fetched = fetched.unwrap_or_else(|_| Err(Error::new(crate::ErrorKind::Internal, "the transport panicked")));
        let back = {
            let mut state = self.state.lock();
            state.ended = true;
            if let Err(error) = fetched {
                tracing::error!(subscription = %self.policy.subscription, %error, "the subscription has ended");
                state.failure = Some(error);
            }
            self.take_back(&mut state)
        };
        self.settler.push(back);
        self.ready.notify_waiters();
    }

    async fn fetch(self: &Arc<Self>) -> Result<()> {
        while let Some(room) = self.room().await {
            let batch = self.source.next(room).await?;
            if batch.is_empty() {
                break;
            }
            self.accept(batch);
        }
        Ok(())
    }

    /// Waits until it is worth fetching, and says how much; `None` when nothing is fetched any more.
    async fn room(&self) -> Option<usize> {
        let prefetch = usize::from(self.spec.prefetch);
        loop {
            {
                let state = self.state.lock();
                if state.phase != Phase::Open {
                    return None;
                }
                // A quarter at a time, so that a fast host does not make us fetch one by one; any number once nothing waits.
                let room = prefetch.saturating_sub(state.outstanding);
                if !state.paused
                    && state.alone == Alone::No
                    && room > 0
                    && (room >= prefetch / 4 || state.ready.is_empty())
                {
                    return Some(room);
                }
            }
            self.room.notified().await;
        }
    }

    fn accept(self: &Arc<Self>, batch: Vec<Incoming>) {
        self.counters.delivered.fetch_add(batch.len() as u64, Relaxed);
        let since = Instant::now();
        let waiting: Vec<_> = batch.into_iter().map(|incoming| self.examine(incoming, since)).collect();
        let mut decided = Vec::new();
        let mut state = self.state.lock();
        if let Some(newest) = waiting.iter().map(|w| w.parts.token.generation).max() {
            self.forget_older(&mut state, newest);
        }
        state.outstanding += waiting.len();
        for waiting in waiting {
            match waiting.parts.key.clone() {
                Some(key) => {
                    if let Some(waiting) = state.keys.enter(&key, waiting) {
                        state.let_through(waiting, &mut decided);
                    }
                }
                None => state.let_through(waiting, &mut decided),
            }
        }
        if state.phase != Phase::Open || state.paused {
            decided.extend(self.take_back(&mut state));
        }
        decided.extend(self.isolate(&mut state));
        if !matches!(state.alone, Alone::No | Alone::Closing | Alone::Clearing | Alone::Ready) {
            // A poll that was under way when the suspect began.
            decided.extend(state.waiting_ones().into_iter().map(Waiting::release));
        }
        drop(state);
        self.settler.push(decided);
        self.ready.notify_one();
    }

    /// The connection or lease is a new one: what waits from before comes again, so nobody should run it now.
    fn forget_older(&self, state: &mut State, newest: u64) {
        if newest <= state.generation {
            return;
        }
        state.generation = newest;
        let is_old = |waiting: &Waiting| waiting.parts.token.generation < newest;
        let (mut old, ready): (VecDeque<_>, VecDeque<_>) = state.ready.drain(..).partition(is_old);
        let (old_suspects, suspects): (VecDeque<_>, VecDeque<_>) = state.suspects.drain(..).partition(is_old);
        (state.ready, state.suspects) = (ready, suspects);
        if !old_suspects.is_empty() && state.suspects.is_empty() && state.alone != Alone::Running {
            self.end_isolation(state);
        }
        old.extend(old_suspects);
        let gone = state.with_those_behind(old.into()).len();
        state.outstanding = state.outstanding.saturating_sub(gone);
        self.counters.stale.fetch_add(gone as u64, Relaxed);
    }

    /// Decodes, and decides about what no handler may see (yet).
    fn examine(&self, incoming: Incoming, since: Instant) -> Waiting {
        let Incoming { token, mut message, lost_deliveries } = incoming;
        let given_key = message.key.take();
        let unwanted = self.wanted.as_ref().is_some_and(|wanted| !wanted(&message.headers));
        let (event, unreadable) = match self.codecs.decode(message) {
            Ok(event) => (event, None),
            Err(unreadable) => {
                let Unreadable { event, reason, error } = *unreadable;
                (event, Some(Outcome::DeadLetter { reason: reason.into(), message: Some(error.to_string()) }))
            }
        };
        let now = || self.transport.now();
        let outcome = if unwanted { Some(Outcome::Discard) } else { unreadable };
        let verdict = outcome
            .map(|outcome| decide(&self.policy, event.headers(), outcome, now(), 0.0))
            .or_else(|| triage(&self.policy, event.headers(), lost_deliveries, now()));
        let key = self.spec.ordered.and_then(|_| given_key.or_else(|| event.shared_key()));
        Waiting { parts: Parts { event, token, key, since, lost_deliveries }, verdict }
    }
}
