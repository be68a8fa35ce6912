//! The broker: subscriptions, bindings, and what is scheduled to be published.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pipeline::Pipeline;
use super::script::{Fault, Script, When};
use super::settling::MAX_DELAY;
use super::source::MemorySource;
use super::sources::SourceState;
use super::subscription::Subscription;
use crate::event::Timestamp;
use crate::routing::Trie;
use crate::transport::{Message, Receipt, SubscriptionSpec};
use crate::{Error, ErrorKind, Result};

/// Events that a subscription keeps unless told otherwise.
pub(super) const MAX_EVENTS: usize = 1_000_000;

/// A broker of this process; shared by transports and sources.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<State>,
    pub(super) script: Mutex<Script>,
    pub(super) pipeline: Mutex<Pipeline>,
    clock: Clock,
}

pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the broker did not confirm the event in time").with_unknown_outcome()
}

/// Wall time that runs with Tokio's clock, so that it stands still and jumps as that does; or that a test moves.
#[derive(Debug)]
struct Clock {
    wall: Timestamp,
    instant: Instant,
    /// Where a clock stands that only moves when it is told to.
    stopped: Mutex<Option<Instant>>,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Timestamp::now(), instant: Instant::now(), stopped: Mutex::new(None) }
    }

    fn now(&self) -> Instant {
        self.stopped.lock().unwrap_or_else(Instant::now)
    }

    fn wall(&self, at: Instant) -> Timestamp {
        self.wall.after(at.saturating_duration_since(self.instant))
    }
}

/// What the mutex guards. Maps that are walked are sorted, so that a seed replays.
#[derive(Debug)]
pub(super) struct State {
    pub(super) subscriptions: BTreeMap<Arc<str>, Subscription>,
    /// By subscription; they outlive its deletion.
    pub(super) sources: BTreeMap<Arc<str>, BTreeMap<u64, SourceState>>,
    pub(super) max_events: usize,
    /// Everything that was accepted, where a test wants to know.
    pub(super) accepted: Option<Vec<Message>>,
    /// No connection to be had (scripted).
    pub(super) unreachable: bool,
    /// By exchange.
    bindings: HashMap<Arc<str>, Trie<Arc<str>>>,
    /// To be routed when due, in the order of time, then of acceptance.
    scheduled: BTreeMap<(Instant, u64), Message>,
    last_id: u64,
}

impl Broker {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            subscriptions: BTreeMap::new(),
            sources: BTreeMap::new(),
            max_events: MAX_EVENTS,
            accepted: None,
            unreachable: false,
            bindings: HashMap::new(),
            scheduled: BTreeMap::new(),
            last_id: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            script: Mutex::new(Script::default()),
            pipeline: Mutex::new(Pipeline::new()),
            clock: Clock::start(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.wall(self.clock.now())
    }

    /// Stops the clock, and keeps what is published from now on.
    pub(super) fn begin_test(&self) {
        let mut stopped = self.clock.stopped.lock();
        stopped.get_or_insert_with(Instant::now);
        drop(stopped);
        self.with(|state, _| state.accepted.get_or_insert_default().clear());
    }

    /// Moves a stopped clock on; `false` if it runs by itself.
    pub(super) fn advance(&self, by: Duration) -> bool {
        match self.clock.stopped.lock().as_mut() {
            Some(at) => *at += by,
            None => return false,
        }
        self.with(|state, _| state.sources.values().flat_map(BTreeMap::values).for_each(|it| it.wake.notify_one()));
        true
    }

    /// Whether time passes by itself.
    pub(super) fn runs(&self) -> bool {
        self.clock.stopped.lock().is_none()
    }

    /// Runs `f` on the state as it is now: what was scheduled for a time that has passed is routed first.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.state.lock();
        let now = self.clock.now();
        state.advance(now);
        f(&mut state, now)
    }

    /// Accepts a batch, all of it at one instant.
    pub(super) fn publish(&self, batch: Vec<Message>, faults: Vec<Option<Fault>>) -> Vec<Result<Receipt>> {
        self.with(|state, now| {
            // An event that is to be sent again must not be overtaken by later ones of its key.
            let mut held = HashSet::new();
            batch
                .into_iter()
                .zip(faults)
                .map(|(message, fault)| self.accept(state, now, message, fault, &mut held))
                .collect()
        })
    }

    fn accept(
        &self,
        state: &mut State,
        now: Instant,
        message: Message,
        fault: Option<Fault>,
        held: &mut HashSet<Arc<str>>,
    ) -> Result<Receipt> {
        if message.gives_up_at().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(timed_out());
        }
        let key = message.key.clone();
        if key.as_ref().is_some_and(|key| held.contains(key)) {
            return Err(Error::new(
                ErrorKind::Rejected,
                "an earlier event of the same key in this batch was not accepted",
            )
            .remedy("publish both again, in order"));
        }
        let before = fault.filter(|fault| fault.when == When::Before);
        let copy = state.accepted.is_some().then(|| message.clone());
        let result = before.map_or_else(|| self.store(state, now, message), |fault| Err(fault.error()));
        if let (Ok(_), Some(copy), Some(accepted)) = (&result, copy, &mut state.accepted) {
            accepted.push(copy);
        }
        if let (Err(error), Some(key)) = (&result, key)
            && error.retryable()
        {
            held.insert(key);
        }
        let after = fault.filter(|fault| fault.when == When::After && result.is_ok());
        after.map_or(result, |fault| Err(fault.error().with_unknown_outcome()))
    }

    fn store(&self, state: &mut State, now: Instant, mut message: Message) -> Result<Receipt> {
        let (id, required) = (message.id.clone(), std::mem::take(&mut message.require_route));
        message.deadline = None;
        let wait = message.deliver_at.take().map(|at| (at, at.since(self.clock.wall(now))));
        let subscriptions = state.matching(&message);
        let scheduled = wait.is_some_and(|(_, wait)| !wait.is_zero());
        // What is scheduled may be routed anywhere, so it takes room everywhere.
        let taken = if scheduled { state.scheduled.len() } else { 0 };
        let full = subscriptions.iter().find(|name| {
            state.subscriptions.get(*name).is_some_and(|subscription| subscription.len() + taken >= state.max_events)
        });
        if full.is_some() || taken >= state.max_events {
            let full = full.map_or("(scheduled events)", |name| name);
            return Err(Error::new(
                ErrorKind::Rejected,
                format!("{full} holds {} events, its limit", state.max_events),
            )
            .field("subscription", full)
            .remedy("consume or remove some, or raise MemoryTransport::max_events"));
        }
        match wait {
            Some((at, wait)) if scheduled => {
                let due = now.checked_add(wait).filter(|_| wait <= MAX_DELAY).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidDelay, "the event is scheduled further ahead than can be kept")
                        .field("deliver_at", at)
                        .remedy("schedule it within 100 years")
                })?;
                state.schedule(due, message);
                Ok(Receipt::new(id, None))
            }
            _ if required && subscriptions.is_empty() => {
                Err(Error::new(ErrorKind::Unroutable, "no subscription wants the event")
                    .field("routing_key", &message.routing_key)
                    .remedy("bind a subscription to it, or publish without require_route"))
            }
            _ => {
                state.route(&message, &subscriptions, now);
                Ok(Receipt::new(id, Some(!subscriptions.is_empty())))
            }
        }
    }

    /// Declares a subscription and opens a source of it.
    pub(super) fn subscribe(self: &Arc<Self>, spec: &SubscriptionSpec, handle: u64) -> Result<MemorySource> {
        self.with(|state, _| {
            let name = state.declare(spec)?;
            let (id, wake) = (state.fresh_id(), Arc::new(Notify::new()));
            let source = SourceState {
                spec: spec.clone(),
                handle,
                generation: id,
                wake: wake.clone(),
                flow: true,
                stopped: false,
                crashed: false,
                down: None,
                recoveries: 0,
                last_error: None,
            };
            state.sources.entry(name.clone()).or_default().insert(id, source);
            Ok(MemorySource { broker: self.clone(), name, id, wake })
        })
    }
}

impl State {
    /// A number that nothing else of this broker has.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Makes the subscription, or adds binding keys to it.
    pub(super) fn declare(&mut self, spec: &SubscriptionSpec) -> Result<Arc<str>> {
        let name: Arc<str> = spec.name.as_str().into();
        let id = self.fresh_id();
        let subscription = self.subscriptions.entry(name.clone()).or_insert_with(|| Subscription::new(spec, id));
        subscription.check_same(spec)?;
        subscription.binding_keys.extend(spec.binding_keys.iter().cloned());
        let trie = self.bindings.entry(subscription.exchange.clone()).or_default();
        for key in &spec.binding_keys {
            trie.insert(key, name.clone());
        }
        Ok(name)
    }

    /// Forgets a subscription with everything in it.
    pub(super) fn delete(&mut self, name: &str) -> bool {
        let Some(deleted) = self.subscriptions.remove(name) else { return false };
        let mut trie = Trie::new();
        for (name, other) in self.subscriptions.iter().filter(|(_, other)| other.exchange == deleted.exchange) {
            for key in &other.binding_keys {
                trie.insert(key, name.clone());
            }
        }
        self.bindings.insert(deleted.exchange, trie);
        for source in self.sources.get_mut(name).into_iter().flat_map(BTreeMap::values_mut) {
            // Tokens of what is gone must not name what comes.
            self.last_id += 1;
            source.generation = self.last_id;
            source.recoveries += 1;
            source.last_error = Some("the subscription was deleted".to_owned());
        }
        self.wake(name);
        true
    }

    /// Wakes the sources of a subscription.
    pub(super) fn wake(&self, name: &str) {
        for source in self.sources.get(name).into_iter().flat_map(BTreeMap::values) {
            source.wake.notify_one();
        }
    }

    /// When something is to be routed next.
    pub(super) fn scheduled_due(&self) -> Option<Instant> {
        self.scheduled.first_key_value().map(|((at, _), _)| *at)
    }

    fn schedule(&mut self, due: Instant, message: Message) {
        let id = self.fresh_id();
        if self.scheduled_due().is_none_or(|first| due < first) {
            self.sources.values().flat_map(BTreeMap::values).for_each(|source| source.wake.notify_one());
        }
        self.scheduled.insert((due, id), message);
    }

    fn advance(&mut self, now: Instant) {
        while let Some(first) = self.scheduled.first_entry() {
            let due = first.key().0;
            if due > now {
                break;
            }
            let message = first.remove();
            let subscriptions = self.matching(&message);
            self.route(&message, &subscriptions, due);
        }
    }

    fn matching(&self, message: &Message) -> Vec<Arc<str>> {
        self.bindings.get(&message.exchange).map(|trie| trie.matches(&message.routing_key)).unwrap_or_default()
    }

    fn route(&mut self, message: &Message, subscriptions: &[Arc<str>], now: Instant) {
        for name in subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(name) {
                subscription.advance(now);
                subscription.push(message.clone(), now);
            }
            self.wake(name);
        }
    }
}
