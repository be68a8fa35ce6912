//! What the owner's task, the session and whoever looks at it share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::super::source::stale;
use super::super::url::Config;
use super::journal::Waits;
use super::key::{Head, KeyId};
use super::keys::{Keys, Request, Work};
use crate::event::Timestamp;
use crate::transport::{Incoming, OrderState, QueueType, Settlement, SourceHealth, SubscriptionSpec, Token};
use crate::{Error, Result};

/// What the session wants of the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Events may be handed over.
    pub(super) flows: bool,
    /// Nothing is handed over any more.
    pub(super) stopped: bool,
    /// The subscription is to be let go.
    pub(super) closed: bool,
    /// Some other member is to have it.
    pub(super) elsewhere: bool,
}

/// Where a member stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) connected: bool,
    /// It owns the subscription, or stands by.
    pub(super) joined: bool,
    /// How the owner is called, while it is this one.
    pub(super) owner: Option<String>,
    pub(super) recoveries: u64,
    pub(super) last_error: Option<String>,
    /// It has ended for this reason.
    pub(super) failure: Option<Error>,
}

/// One member's part in an ordered subscription.
pub(super) struct Shared {
    /// The queue.
    pub(super) queue: Arc<str>,
    /// The subscription, whose dead letters and bindings it has.
    pub(super) name: Arc<str>,
    pub(super) exchange: Arc<str>,
    pub(super) spec: SubscriptionSpec,
    pub(super) queue_type: QueueType,
    pub(super) infrastructure: QueueType,
    pub(super) config: Arc<Config>,
    pub(super) keys: Mutex<Keys>,
    /// Something is to be done by the owner.
    pub(super) work: Notify,
    /// Something can be handed over, by this member or another one of the source.
    pub(super) ready: Arc<Notify>,
    pub(super) wish: watch::Sender<Wish>,
    pub(super) standing: Mutex<Standing>,
    /// Keys whose queues did not answer: how often, and when to try again.
    pub(super) aside: Mutex<HashMap<KeyId, (u32, Instant)>>,
    /// When the question was sent that the broker answered last.
    pub(super) alive: Mutex<Option<Instant>>,
    /// When it was last asked for events.
    pub(super) asked: Mutex<Instant>,
    numbers: AtomicU64,
    /// Its place among the members of the source, and how many those are: deliveries are numbered accordingly.
    index: u64,
    of: u64,
}

impl Shared {
    pub(super) fn new(parts: Parts, index: u64, of: u64) -> Arc<Self> {
        let (wish, _) = watch::channel(Wish { flows: true, stopped: false, closed: false, elsewhere: false });
        let Parts { queue, spec, queue_type, infrastructure, config, ready } = parts;
        Arc::new(Self {
            queue: queue.into(),
            name: spec.name.as_str().into(),
            exchange: spec.exchange.as_str().into(),
            spec,
            queue_type,
            infrastructure,
            config,
            keys: Mutex::default(),
            work: Notify::new(),
            ready,
            wish,
            standing: Mutex::default(),
            aside: Mutex::default(),
            alive: Mutex::new(None),
            asked: Mutex::new(Instant::now()),
            numbers: AtomicU64::new(1),
            index,
            of,
        })
    }

    /// Whether it passes events on to the partitions, instead of owning keys.
    pub(super) fn splits(&self) -> bool {
        self.spec.partitions > 1 && self.queue == self.name
    }

    /// Time without an answer after which the broker may have given the subscription to somebody else.
    pub(super) fn patience(&self) -> Duration {
        match self.config.heartbeat {
            0 => Duration::from_secs(60),
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// Whether the broker has answered so lately that it cannot have given the subscription away.
    pub(super) fn is_fresh(&self) -> bool {
        self.alive.lock().is_some_and(|alive| alive.elapsed() < self.patience())
    }

    /// Heads whose turn it is, at most `max`.
    pub(super) fn take(&self, max: usize) -> Vec<Incoming> {
        let wish = *self.wish.borrow();
        if !wish.flows || wish.stopped || wish.elsewhere || !self.is_fresh() {
            return Vec::new();
        }
        let number = || self.numbers.fetch_add(1, Ordering::Relaxed) * self.of + self.index;
        self.keys.lock().take(max, number)
    }

    pub(super) fn may_begin(&self, token: Token) -> bool {
        self.is_fresh() && self.keys.lock().is_in_hand(token.id)
    }

    /// Settles deliveries; results in the order of the batch.
    pub(super) async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = Vec::with_capacity(batch.len());
        results.resize_with(batch.len(), || Ok(()));
        let (mut acks, mut places, mut awaited) = (Vec::new(), Vec::new(), Vec::new());
        let (more, work) = {
            let mut keys = self.keys.lock();
            for (place, (token, settlement)) in batch.into_iter().enumerate() {
                match settlement {
                    Settlement::Ack => {
                        acks.push(token.id);
                        places.push(place);
                    }
                    Settlement::Release => {
                        if !keys.released(token.id) {
                            results[place] = Err(stale());
                        }
                    }
                    settlement if keys.is_in_hand(token.id) => {
                        let (reply, answer) = oneshot::channel();
                        keys.work.push(Work::Settle(Request { number: token.id, settlement, reply }));
                        awaited.push((place, answer));
                    }
                    _ => results[place] = Err(stale()),
                }
            }
            for (place, done) in places.into_iter().zip(keys.acked(&acks)) {
                if !done {
                    results[place] = Err(stale());
                }
            }
            (keys.any_ready(), !keys.work.is_empty())
        };
        if work {
            self.work.notify_one();
        }
        if more {
            self.ready.notify_one();
        }
        for (place, answer) in awaited {
            results[place] = answer.await.unwrap_or_else(|_| Err(stale()));
        }
        results
    }

    /// The tenure has ended: nothing that was handed over is ours any more.
    pub(super) fn clear(&self) {
        *self.alive.lock() = None;
        // Whoever waits for a settlement is told by the channel that goes with it.
        let unsettled = self.keys.lock().clear();
        drop(unsettled);
        let mut standing = self.standing.lock();
        (standing.connected, standing.joined, standing.owner) = (false, false, None);
    }

    pub(super) fn trouble(&self, error: &Error) {
        self.standing.lock().last_error = Some(error.to_string());
    }

    /// A member that had let go because nobody asked joins again.
    pub(super) fn wake_unless_joined(&self) {
        if !self.standing.lock().joined {
            self.work.notify_one();
        }
    }

    /// Who owns it as far as this process knows, and what waits.
    pub(super) fn order(&self) -> OrderState {
        let mut state =
            OrderState { owners: self.standing.lock().owner.iter().cloned().collect(), ..OrderState::default() };
        let now = Timestamp::now();
        for key in self.keys.lock().all.values() {
            let Some(record) = &key.record else { continue };
            match record.state {
                Waits::Held if matches!(key.head, Head::Waiting(_)) => state.waiting_keys += 1,
                Waits::Held | Waits::Leaving => continue,
                Waits::Parked => state.parked_keys += 1,
                Waits::Dead => (state.parked_keys, state.dead_keys) = (state.parked_keys + 1, state.dead_keys + 1),
            }
            state.oldest_waiting = state.oldest_waiting.max(Some(now.since(record.since)));
        }
        state
    }

    /// Keys that have a queue of their own.
    pub(super) fn parked(&self) -> usize {
        self.keys.lock().all.values().filter(|key| key.parked.is_some()).count()
    }

    pub(super) fn health(&self) -> SourceHealth {
        let order = self.order();
        let (unacked, in_hand) = {
            let keys = self.keys.lock();
            (keys.unacked, keys.in_hand())
        };
        let limited_by = if order.parked_keys >= u64::from(self.spec.max_parked) {
            Some("max_parked")
        } else {
            (unacked >= usize::from(self.spec.prefetch)).then_some("prefetch")
        };
        let standing = self.standing.lock();
        SourceHealth {
            connected: standing.connected,
            consuming: standing.joined,
            recoveries: standing.recoveries,
            last_error: standing.last_error.clone(),
            order: (!self.splits()).then_some(order),
            held: unacked.saturating_sub(in_hand),
            limited_by,
        }
    }
}

/// What a member is made of.
pub(super) struct Parts {
    pub(super) queue: String,
    pub(super) spec: SubscriptionSpec,
    pub(super) queue_type: QueueType,
    pub(super) infrastructure: QueueType,
    pub(super) config: Arc<Config>,
    pub(super) ready: Arc<Notify>,
}
