//! One subscription being consumed: what was fetched, what is in hand, what goes where.
//!
//! One task, the pump, keeps a single poll pending at the source and fills a buffer of at most `prefetch` events.
//! Hosts take from the buffer ([`Deliveries`](super::Deliveries)) and settle; the [`settler`](super::settler) carries
//! settlements out. All state is behind one lock that is never held across an await.

mod isolation;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::isolation::Alone;
use super::SubscriptionHealth;
use super::delivery::{Delivery, Parts};
use super::keys::KeyGate;
use super::settler::{Completion, Item, Settler};
use crate::event::{DomainEvent, decode, name};
use crate::metrics::{Gauged, Gauges, SubscriptionCounters};
use crate::settlement::{Effect, Outcome, SettlementPolicy, decide, is_suspect, put_back, reason, triage};
use crate::transport::{Incoming, OnDead, OnRetry, Settlement, Source, SubscriptionSpec, Transport};
use crate::{Error, Result};

pub(super) struct Session {
    pub(super) source: Arc<dyn Source>,
    pub(super) counters: Arc<SubscriptionCounters>,
    pub(super) spec: SubscriptionSpec,
    pub(super) settler: Settler,
    policy: SettlementPolicy,
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
    ) -> Self {
        Self {
            source,
            counters,
            spec,
            settler: Settler::default(),
            policy,
            transport,
            state: Mutex::default(),
            recoveries: AtomicU64::new(0),
            ready: Notify::new(),
            room: Notify::new(),
            idle: Notify::new(),
            over: Notify::new(),
        }
    }

    /// The task that fetches. Ends when the source does, and the subscription with it.
    pub(super) async fn pump(self: Arc<Self>) {
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
        let Incoming { token, message, lost_deliveries } = incoming;
        let now = || self.transport.now();
        let give_up = |headers: &_, reason: &str, message: String| {
            let outcome = Outcome::DeadLetter { reason: reason.into(), message: Some(message) };
            Some(decide(&self.policy, headers, outcome, now(), 0.0))
        };
        let mut verdict = None;
        if let Some(other) = message.headers.text(name::CONTENT_TYPE).filter(|t| !is_json(t)) {
            verdict = give_up(&message.headers, reason::UNSUPPORTED_CONTENT_TYPE, format!("no codec for {other}"));
        }
        let event = match decode(&message.body, message.headers) {
            Ok(event) => event,
            Err((error, headers)) => {
                verdict = verdict.or_else(|| give_up(&headers, reason::UNDECODABLE, error.to_string()));
                DomainEvent::from_parts(message.routing_key, message.body, None, message.id, message.timestamp, headers)
            }
        };
        let verdict = verdict.or_else(|| triage(&self.policy, event.headers(), lost_deliveries, now()));
        let key = self.spec.ordered.and_then(|_| message.key.or_else(|| event.shared_key()));
        Waiting { parts: Parts { event, token, key, since, lost_deliveries }, verdict }
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

    /// Gives back what has waited for a handler longer than `max_hold`: the broker's own patience is limited.
    pub(super) fn release_held(&self) {
        let Some(before) = Instant::now().checked_sub(self.spec.max_hold) else { return };
        let mut state = self.state.lock();
        // Oldest first, so everything before the first young one is old.
        let old = state.ready.iter().take_while(|waiting| waiting.parts.since < before).count();
        let old: Vec<_> = state.ready.drain(..old).collect();
        let items: Vec<_> = state.with_those_behind(old).into_iter().map(Waiting::release).collect();
        drop(state);
        self.settler.push(items);
    }

    pub(super) async fn pause(&self) -> Result<()> {
        let back = {
            let mut state = self.state.lock();
            state.paused = true;
            self.take_back(&mut state)
        };
        self.settler.push(back);
        self.source.set_flow(false).await
    }

    pub(super) async fn resume(&self) -> Result<()> {
        let alone = {
            let mut state = self.state.lock();
            state.paused = false;
            state.alone != Alone::No
        };
        if !alone {
            self.source.set_flow(true).await?;
        }
        self.room.notify_one();
        self.ready.notify_one();
        Ok(())
    }

    /// Starts nothing new and gives back what nobody has in hand.
    pub(super) fn begin_drain(&self) {
        let back = {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return;
            }
            state.phase = Phase::Draining;
            self.take_back(&mut state)
        };
        self.settler.push(back);
        self.room.notify_one();
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// Waits until no host has a delivery in hand.
    pub(super) async fn until_idle(&self) {
        let idle = self.idle.notified();
        tokio::pin!(idle);
        loop {
            idle.as_mut().enable();
            if self.state.lock().handed == 0 {
                return;
            }
            idle.as_mut().await;
            idle.set(self.idle.notified());
        }
    }

    pub(super) fn close(&self) {
        // A source that is closed may forget what it went through.
        self.health();
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        self.end_isolation(&mut state);
        drop(state);
        self.settler.wake();
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// How many deliveries hosts have in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.state.lock().handed
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    pub(super) fn health(&self) -> SubscriptionHealth {
        let source = self.source.health();
        let recoveries = self.recoveries.fetch_max(source.recoveries, Relaxed).max(source.recoveries);
        let state = self.state.lock();
        let waiting = state.waiting();
        let limited_by = if state.alone == Alone::No {
            (state.outstanding >= usize::from(self.spec.prefetch)).then_some("prefetch")
        } else {
            Some("suspect")
        };
        let consuming = source.consuming && !state.ended && state.phase == Phase::Open && !state.paused;
        SubscriptionHealth {
            subscription: self.spec.name.clone(),
            connected: source.connected,
            consuming,
            paused: state.paused,
            draining: state.phase == Phase::Draining,
            in_flight: state.handed,
            buffered: waiting,
            recoveries,
            last_error: state.failure.as_ref().map(ToString::to_string).or(source.last_error),
            limited_by,
        }
    }

    /// Everything that nobody has in hand, to be released.
    fn take_back(&self, state: &mut State) -> Vec<Item> {
        if state.alone != Alone::Running {
            self.end_isolation(state);
        }
        state.waiting_ones().into_iter().map(Waiting::release).collect()
    }
}

impl Gauged for Session {
    fn gauges(&self) -> Gauges {
        let health = self.health();
        Gauges {
            in_flight: health.in_flight as u64,
            buffered: health.buffered as u64,
            consuming: health.consuming.into(),
            recoveries: health.recoveries,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.counters.recoveries.fetch_add(self.recoveries.load(Relaxed), Relaxed);
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.ready.len() + self.suspects.len() + self.keys.behind()
    }

    /// An event whose turn it is: to a handler, or where it was decided that it goes.
    fn let_through(&mut self, mut waiting: Waiting, decided: &mut Vec<Item>) {
        match waiting.verdict.take() {
            Some(verdict) => decided.push(waiting.into_item(verdict)),
            None if is_suspect(waiting.parts.event.headers()) => self.suspects.push_back(waiting),
            None => self.ready.push_back(waiting),
        }
    }

    /// Takes out everything that nobody has in hand.
    fn waiting_ones(&mut self) -> Vec<Waiting> {
        let first: Vec<_> = self.ready.drain(..).chain(self.suspects.drain(..)).collect();
        let mut all = self.with_those_behind(first);
        all.extend(self.keys.drain());
        all
    }

    /// These, whose keys nobody has in hand, with what waits behind them: the keys are free again.
    fn with_those_behind(&mut self, first: Vec<Waiting>) -> Vec<Waiting> {
        let mut all = Vec::with_capacity(first.len());
        for waiting in first {
            let behind = waiting.parts.key.as_ref().map(|key| self.keys.give_up(key));
            all.push(waiting);
            all.extend(behind.into_iter().flatten());
        }
        all
    }
}

impl Waiting {
    fn into_item(self, (settlement, effect): (Settlement, Effect)) -> Item {
        let Parts { token, key, .. } = self.parts;
        Item { token, settlement, effect, key, handed: false, completion: None }
    }

    fn release(mut self) -> Item {
        let released = put_back(self.parts.event.headers(), self.parts.lost_deliveries);
        self.parts.key = None;
        self.into_item(released)
    }
}

pub(super) fn closed() -> Error {
    Error::new(crate::ErrorKind::Closed, "the subscription is closed")
        .remedy("the delivery was released and will be delivered again")
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}
