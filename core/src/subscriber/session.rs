//! One subscription being consumed: what was fetched, what is in hand, what goes where.
//!
//! One task, the pump, keeps a single poll pending at the source and fills a buffer of at most `prefetch` events.
//! Hosts take from the buffer ([`Deliveries`](super::Deliveries)) and settle; the [`settler`](super::settler) carries
//! settlements out. All state is behind one lock that is never held across an await.

mod intake;
mod isolation;
mod lifecycle;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::isolation::Alone;
use super::builder::Wanted;
use super::delivery::{Delivery, Parts};
use super::keys::KeyGate;
use super::settler::{Completion, Item, Settler};
use crate::codec::Codecs;
use crate::host::Process;
use crate::metrics::SubscriptionCounters;
use crate::settlement::{Effect, Outcome, SettlementPolicy, decide};
use crate::transport::{OnDead, OnRetry, Settlement, Source, SubscriptionSpec, Transport};
use crate::{Error, Result};

pub(super) struct Session {
    pub(super) home: Process,
    pub(super) source: Arc<dyn Source>,
    pub(super) counters: Arc<SubscriptionCounters>,
    pub(super) spec: SubscriptionSpec,
    pub(super) settler: Settler,
    policy: SettlementPolicy,
    wanted: Option<Wanted>,
    codecs: Codecs,
    transport: Arc<dyn Transport>,
    state: Mutex<State>,
    /// Of the source, when it was last looked at.
    recoveries: AtomicU64,
    ready: Notify,
    room: Notify,
    idle: Notify,
    /// A suspect that ran alone is settled.
    over: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Waiting>,
    suspects: VecDeque<Waiting>,
    keys: KeyGate,
    /// Fetched and not settled.
    outstanding: usize,
    /// Of those, in the hands of a host.
    handed: usize,
    /// A suspect runs, or is about to: nothing else is fetched or started.
    alone: Alone,
    paused: bool,
    phase: Phase,
    /// Of the newest delivery: older ones are no longer ours.
    generation: u64,
    /// The source has: nothing comes any more.
    ended: bool,
    failure: Option<Error>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    Draining,
    Closed,
}

/// A fetched event that nobody has in hand.
pub(super) struct Waiting {
    parts: Parts,
    /// Decided before any handler sees it.
    verdict: Option<(Settlement, Effect)>,
}

/// What [`Session::take`] found.
pub(super) enum Taken {
    Some(Vec<Delivery>),
    Nothing,
    Ended(Option<Error>),
}

impl Session {
    pub(super) fn new(
        source: Arc<dyn Source>,
        transport: Arc<dyn Transport>,
        policy: SettlementPolicy,
        spec: SubscriptionSpec,
        counters: Arc<SubscriptionCounters>,
        codecs: Codecs,
    ) -> Self {
        let settler = Settler::new(source.ack_patience(), spec.prefetch);
        Self {
            home: Process::here(),
            source,
            counters,
            spec,
            settler,
            policy,
            wanted: None,
            codecs,
            transport,
            state: Mutex::default(),
            recoveries: AtomicU64::new(0),
            ready: Notify::new(),
            room: Notify::new(),
            idle: Notify::new(),
            over: Notify::new(),
        }
    }

    /// Discards what this does not want.
    pub(super) fn wanting(mut self, wanted: Option<Wanted>) -> Self {
        self.wanted = wanted;
        self
    }

    /// Waits for at least one event and hands over at most `max`; empty once the subscription is closed.
    pub(super) async fn next(self: &Arc<Self>, max: usize) -> Result<Vec<Delivery>> {
        let wake = self.ready.notified();
        tokio::pin!(wake);
        loop {
            wake.as_mut().enable();
            match self.take(max) {
                Taken::Some(deliveries) => return Ok(deliveries),
                Taken::Ended(None) => return Ok(Vec::new()),
                Taken::Ended(Some(error)) => return Err(error),
                Taken::Nothing => wake.as_mut().await,
            }
            wake.set(self.ready.notified());
        }
    }

    /// Hands over what is there, at most `max`. Never waits, so nothing can be lost by not waiting for it.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Taken {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Taken::Ended(None);
        }
        if let Some(error) = &state.failure {
            return Taken::Ended(Some(error.duplicate()));
        }
        if state.ended {
            return Taken::Ended(None);
        }
        if state.paused {
            return Taken::Nothing;
        }
        let mut taken = Vec::new();
        match state.alone {
            Alone::No => {
                let count = state.ready.len().min(max);
                taken.extend(state.ready.drain(..count));
            }
            Alone::Ready => {
                state.alone = Alone::Running;
                taken.extend(state.suspects.pop_front());
            }
            _ => {}
        }
        let lapsed = if self.spec.ordered.is_some() { self.lapsed(&mut state, &mut taken) } else { Vec::new() };
        if !lapsed.is_empty() {
            self.settler.push(lapsed);
        }
        if taken.is_empty() {
            return Taken::Nothing;
        }
        state.handed += taken.len();
        let more = !state.ready.is_empty();
        drop(state);
        if more {
            self.ready.notify_one();
        } else {
            self.room.notify_one();
        }
        Taken::Some(taken.into_iter().map(|waiting| Delivery::new(waiting.parts, self.clone())).collect())
    }

    /// Takes out what the source may have lost to another owner: it goes back to where it came from.
    fn lapsed(&self, state: &mut State, taken: &mut Vec<Waiting>) -> Vec<Item> {
        let (current, lapsed) =
            std::mem::take(taken).into_iter().partition(|waiting| self.source.may_begin(waiting.parts.token));
        *taken = current;
        if taken.is_empty() && state.alone == Alone::Running {
            self.end_isolation(state);
        }
        state.with_those_behind(lapsed).into_iter().map(Waiting::release).collect()
    }

    /// Settles deliveries and waits until that is durable; the first error, if any.
    pub(super) async fn settle(self: &Arc<Self>, batch: Vec<(Delivery, Outcome)>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (completion, done) = Completion::new(batch.len());
        self.push(batch, Some(&completion));
        done.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Settles deliveries in the background; failures are counted and logged.
    pub(super) fn settle_soon(self: &Arc<Self>, batch: impl IntoIterator<Item = (Delivery, Outcome)>) {
        self.push(batch, None);
    }

    fn push(
        self: &Arc<Self>,
        batch: impl IntoIterator<Item = (Delivery, Outcome)>,
        completion: Option<&Arc<Completion>>,
    ) {
        let mut items = Vec::new();
        for (delivery, outcome) in batch {
            // A token means something else to another source: each is settled where it came from.
            match delivery.other_session(self) {
                None => items.push(self.item(delivery.into_parts(), outcome, completion.cloned())),
                Some(other) => other.settler.push([other.item(delivery.into_parts(), outcome, completion.cloned())]),
            }
        }
        self.settler.push(items);
        if self.settler.is_patient() && self.is_starved() {
            self.settler.hurry();
        }
    }

    /// Whether nothing can begin before something is settled.
    fn is_starved(&self) -> bool {
        let state = self.state.lock();
        let full = self.spec.prefetch != 0 && state.outstanding >= usize::from(self.spec.prefetch);
        state.alone != Alone::No || (full && state.ready.is_empty())
    }

    fn item(&self, parts: Parts, outcome: Outcome, completion: Option<Arc<Completion>>) -> Item {
        let Parts { event, token, key, .. } = parts;
        let (settlement, effect) = match outcome {
            Outcome::Ok => (Settlement::Ack, Effect::Acked),
            outcome => decide(&self.policy, event.headers(), outcome, self.transport.now(), fastrand::f64()),
        };
        if effect != Effect::Acked {
            tracing::debug!(subscription = %self.policy.subscription, id = event.id(), routing_key = event.routing_key(),
                retries = event.retries(), ?effect, "settled");
        }
        Item { token, settlement, effect, key, handed: true, completion }
    }

    /// A delivery was dropped unsettled.
    pub(super) fn give_back(&self, parts: Parts) {
        self.settler.push([self.item(parts, Outcome::Release, None)]);
    }

    /// Takes back what a host has not begun with: to the front, in its order.
    pub(super) fn put_back(&self, deliveries: impl DoubleEndedIterator<Item = Delivery>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Open || state.paused || state.ended || state.alone != Alone::No {
            drop(state);
            // Dropping them gives them back to the broker.
            return deliveries.for_each(drop);
        }
        for delivery in deliveries.rev() {
            state.handed = state.handed.saturating_sub(1);
            state.ready.push_front(Waiting { parts: delivery.into_parts(), verdict: None });
        }
    }

    /// The settler is done with these deliveries: `true` where the settlement was carried out.
    pub(super) fn settled(self: &Arc<Self>, items: &[(Item, bool)]) {
        let mut more = Vec::new();
        let mut state = self.state.lock();
        for (item, done) in items {
            state.outstanding = state.outstanding.saturating_sub(1);
            if item.handed {
                state.handed = state.handed.saturating_sub(1);
                if state.alone == Alone::Running {
                    self.end_isolation(&mut state);
                }
            }
            if let Some(key) = &item.key {
                if *done && self.advances(item.effect) {
                    if let Some(next) = state.keys.advance(key) {
                        state.let_through(next, &mut more);
                    }
                } else {
                    more.extend(state.keys.give_up(key).into_iter().map(Waiting::release));
                }
            }
        }
        more.extend(self.isolate(&mut state));
        let wake = !state.ready.is_empty() || !state.suspects.is_empty();
        let idle = state.handed == 0;
        drop(state);
        self.settler.push(more);
        self.room.notify_one();
        if wake {
            self.ready.notify_one();
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// Whether the next event of the key may run after an event of it was settled like this.
    fn advances(&self, effect: Effect) -> bool {
        let ordering = self.spec.ordered.unwrap_or_default();
        match effect {
            Effect::Acked | Effect::Discarded => true,
            Effect::Retried => ordering.on_retry == OnRetry::Pass,
            Effect::DeadLettered => ordering.on_dead == OnDead::Skip,
            Effect::Released => false,
        }
    }
}

pub(super) fn closed() -> Error {
    Error::new(crate::ErrorKind::Closed, "the subscription is closed")
        .remedy("the delivery was released and will be delivered again")
}
