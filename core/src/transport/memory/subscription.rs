//! One subscription: what waits, what is due later, what is out, what is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::ordered::Keys;
use crate::transport::{Incoming, KeyOrder, Message, OrderState, SubscriptionInfo, SubscriptionSpec, Token};
use crate::{Error, ErrorKind, Result};

/// An event as a subscription keeps it.
#[derive(Debug)]
pub(super) struct Stored {
    /// Its place: smaller ones are handed over first.
    pub(super) sequence: u64,
    pub(super) message: Message,
    /// Deliveries that ended in a crash.
    pub(super) lost: u32,
    pub(super) ready: Ready,
    /// From when on it has been as `ready` says.
    pub(super) since: Instant,
}

/// When an event that is in its place can be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Now,
    At(Instant),
    /// Once its dead letter is replayed.
    Parked,
}

impl Ready {
    pub(super) fn is_due(self, now: Instant) -> bool {
        match self {
            Self::Now => true,
            Self::At(at) => at <= now,
            Self::Parked => false,
        }
    }
}

/// An event that was handed over and not settled.
#[derive(Debug)]
pub(super) struct Delivered {
    /// The connection of the source that has it.
    pub(super) generation: u64,
    pub(super) event: Stored,
}

/// A dead letter.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) message: Message,
    /// The key and the sequence of the head of which this is a copy.
    pub(super) parked: Option<(Arc<str>, u64)>,
}

/// A subscription's events. Everything that depends on time gets `now`, and [`advance`](Self::advance) comes first.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Tells it from an earlier one of the same name.
    pub(super) id: u64,
    pub(super) exchange: Arc<str>,
    pub(super) binding_keys: BTreeSet<String>,
    pub(super) ordered: Option<KeyOrder>,
    /// What has no key, or needs no order.
    ready: BTreeMap<u64, Stored>,
    pub(super) keys: Keys,
    /// What waits outside of any order for its retry.
    pub(super) delayed: BTreeMap<(Instant, u64), Stored>,
    pub(super) in_flight: BTreeMap<u64, Delivered>,
    pub(super) dead: BTreeMap<u64, Dead>,
    last_sequence: u64,
    last_delivery: u64,
    pub(super) last_dead: u64,
}

impl Subscription {
    pub(super) fn new(spec: &SubscriptionSpec, id: u64) -> Self {
        Self {
            id,
            exchange: spec.exchange.as_str().into(),
            binding_keys: BTreeSet::new(),
            ordered: spec.ordered,
            ready: BTreeMap::new(),
            keys: Keys::default(),
            delayed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            dead: BTreeMap::new(),
            last_sequence: 0,
            last_delivery: 0,
            last_dead: 0,
        }
    }

    /// Refuses a declaration with other settings than the stored ones.
    pub(super) fn check_same(&self, spec: &SubscriptionSpec) -> Result<()> {
        let conflict = |setting, asked: String, stored: String| {
            Err(Error::new(
                ErrorKind::SubscriptionConflict,
                format!("the subscription {} exists with another {setting}: {stored}", spec.name),
            )
            .field(setting, asked)
            .remedy("declare it as it is, choose another name, or delete it first"))
        };
        if *self.exchange != *spec.exchange {
            return conflict("exchange", spec.exchange.clone(), self.exchange.to_string());
        }
        if self.ordered != spec.ordered {
            return conflict("ordered", format!("{:?}", spec.ordered), format!("{:?}", self.ordered));
        }
        Ok(())
    }

    /// Everything that takes memory.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.keys.waiting() + self.delayed.len() + self.in_flight.len() + self.dead.len()
    }

    pub(super) fn info(&self, name: &str, now: Instant) -> SubscriptionInfo {
        // A parked head is its dead letter already.
        let waiting = self.keys.waiting() - self.keys.parked();
        let mut info = SubscriptionInfo::new(name);
        info.ready = (self.ready.len() + waiting + self.delayed.len()) as u64;
        info.in_flight = Some(self.in_flight.len() as u64);
        info.dead = self.dead.len() as u64;
        info.parked = Some(self.keys.parked() as u64);
        info.oldest = self.ready.first_key_value().map(|(_, event)| event.message.timestamp);
        info.order = self.order(now);
        info
    }

    /// What waits, if it is an ordered one.
    pub(super) fn order(&self, now: Instant) -> Option<OrderState> {
        self.ordered.map(|_| self.keys.state(now))
    }

    /// Accepts an event behind all others.
    pub(super) fn push(&mut self, message: Message, now: Instant) {
        self.last_sequence += 1;
        self.place(Stored { sequence: self.last_sequence, message, lost: 0, ready: Ready::Now, since: now }, now);
    }

    /// Puts an event where its sequence says.
    pub(super) fn place(&mut self, event: Stored, now: Instant) {
        match self.key_of(&event.message) {
            Some(key) => self.keys.put(&key, event, now),
            None => {
                self.ready.insert(event.sequence, event);
            }
        }
    }

    /// The key that orders this event here.
    pub(super) fn key_of(&self, message: &Message) -> Option<Arc<str>> {
        self.ordered.and_then(|_| message.key.clone())
    }

    /// Brings in what is due. A retry of an event without order goes behind what is there when it comes due.
    pub(super) fn advance(&mut self, now: Instant) {
        self.keys.advance(now);
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let mut event = first.remove();
            if self.key_of(&event.message).is_none() {
                self.last_sequence += 1;
                event.sequence = self.last_sequence;
            }
            self.place(event, now);
        }
    }

    /// Whether nothing can be handed over now, and nothing is out.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.keys.oldest().is_none() && self.in_flight.is_empty()
    }

    /// Whether something is out, or could be handed over at once.
    pub(super) fn is_busy(&self, consumed: bool) -> bool {
        !self.in_flight.is_empty() || (consumed && (!self.ready.is_empty() || self.keys.oldest().is_some()))
    }

    /// When something comes due next.
    pub(super) fn due(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        delayed.into_iter().chain(self.keys.due()).min()
    }

    /// Hands over at most `max` events, oldest first, to the connection `generation`.
    pub(super) fn take(&mut self, max: usize, generation: u64, now: Instant) -> Vec<Incoming> {
        let (mut taken, mut keys) = (Vec::new(), Vec::new());
        while taken.len() < max {
            let plain = self.ready.first_key_value().map(|(sequence, _)| *sequence);
            let event = match (plain, self.keys.oldest()) {
                (Some(plain), keyed) if keyed.is_none_or(|keyed| plain < keyed) => {
                    self.ready.pop_first().map(|(_, event)| event)
                }
                _ => self.keys.take(now).map(|(key, event)| {
                    keys.push(key);
                    event
                }),
            };
            let Some(event) = event else { break };
            taken.push(self.hand_over(event, generation));
        }
        // More of the same keys, in turn: they run one after the other, so a quarter of the room is kept for other keys.
        let most = max - max / 4;
        while taken.len() < most && !keys.is_empty() {
            keys.retain(|key| {
                let next = if taken.len() < most { self.keys.next_of(key, now) } else { None };
                let more = next.is_some();
                taken.extend(next.map(|event| self.hand_over(event, generation)));
                more
            });
        }
        taken
    }

    fn hand_over(&mut self, event: Stored, generation: u64) -> Incoming {
        self.last_delivery += 1;
        let token = Token { id: self.last_delivery, generation };
        let incoming = Incoming { token, message: event.message.clone(), lost_deliveries: event.lost };
        self.in_flight.insert(self.last_delivery, Delivered { generation, event });
        incoming
    }
}
