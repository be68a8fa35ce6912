//! The keys of an ordered subscription in the hands of its owner: which event is whose turn.
//!
//! ```text
//! arrives ─► behind its key ─► head: Idle ─► Listed ─► InHand ─┬─ acked, moved ──────► next of the key
//!                                      ▲                       ├─ released ──────────► Idle
//!                                      └── due ◄── Waiting ◄── Busy ◄── to be retried, dead: the owner writes it down
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::unsettled::{Unsettled, send_ack};
use super::event::Event;
use super::journal::Waits;
use super::key::{Head, Key, KeyId, Stage};
use crate::Result;
use crate::event::Timestamp;
use crate::transport::{Incoming, Settlement, Token};

/// An event that is unacked for so long is parked with its key: `consumer_timeout` would end the channel later on.
pub(super) const LONGEST_UNACKED: Duration = Duration::from_secs(10 * 60);

/// A settlement that takes more than an ack.
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) settlement: Settlement,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// What the owner has to do for a key.
pub(super) enum Work {
    Settle(Request),
    /// The head may have been started by an earlier owner.
    Count(KeyId),
    /// The head is unacked for too long.
    Park(KeyId),
    /// The record is about an event that is done with.
    Forget(Arc<str>),
    /// Nothing is left in hand of a parked key.
    Drained(KeyId),
}

/// All keys of a subscription that something is known of.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) all: HashMap<KeyId, Key>,
    ready: VecDeque<KeyId>,
    in_hand: HashMap<u64, KeyId>,
    timers: BTreeSet<(Instant, KeyId)>,
    pub(super) work: Vec<Work>,
    /// The channel of the subscription's queue, and what it delivered.
    main: Option<(Channel, Unsettled<()>)>,
    /// Delivered from the subscription's queue and not settled.
    pub(super) unacked: usize,
}

impl Keys {
    /// Begins with the deliveries of this channel.
    pub(super) fn deliver_from(&mut self, channel: Channel) {
        self.main = Some((channel, Unsettled::new()));
    }

    /// Forgets everything: the channels are gone, and all comes again to somebody.
    pub(super) fn clear(&mut self) -> Vec<Work> {
        let work = std::mem::take(&mut self.work);
        *self = Self::default();
        work
    }

    /// An event was delivered from the subscription's queue. Its key, if that is parked: the event has to go there.
    pub(super) fn arrived(&mut self, event: Event) -> Option<KeyId> {
        if let Some((_, unsettled)) = &mut self.main {
            unsettled.push(event.tag, ());
        }
        self.unacked += 1;
        let id = KeyId::of(&event);
        let key = self.all.entry(id.clone()).or_insert_with(Key::new);
        key.fifo.push_back(event);
        if let Some(parked) = &key.parked
            && matches!(parked.stage, Stage::Resting | Stage::Opening | Stage::Open(_))
        {
            return Some(id);
        }
        self.consider(&id);
        None
    }

    /// Looks whether the head of a key can be handled.
    pub(super) fn consider(&mut self, id: &KeyId) {
        let Some(key) = self.all.get_mut(id) else { return };
        if key.head != Head::Idle {
            return;
        }
        key.drop_surplus();
        let parked = key.parked.is_some();
        let Some(front) = key.front() else {
            if parked {
                if key.current().is_some() {
                    self.work.push(Work::Drained(id.clone()));
                }
            } else if key.record.is_none() {
                self.all.remove(id);
            }
            return;
        };
        let (uncounted, since) = (front.uncounted, front.since);
        let record = key.of_head().map(|record| (record.skip, record.due));
        if record.is_none() && !parked && key.record.take().is_some() {
            self.forget(id);
        }
        let Some(key) = self.all.get_mut(id) else { return };
        match record {
            Some((true, _)) => {
                self.pop(id);
                self.consider(id);
            }
            Some((false, due)) if due > Timestamp::now() => {
                let at = Instant::now() + due.since(Timestamp::now());
                key.head = Head::Waiting(at);
                self.timers.insert((at, id.clone()));
            }
            _ if id.is_named() && !parked && since.elapsed() >= LONGEST_UNACKED => {
                key.head = Head::Busy;
                self.work.push(Work::Park(id.clone()));
            }
            _ if uncounted => {
                key.head = Head::Busy;
                self.work.push(Work::Count(id.clone()));
            }
            _ => {
                key.head = Head::Listed;
                self.ready.push_back(id.clone());
            }
        }
    }

    fn forget(&mut self, id: &KeyId) {
        self.work.push(Work::Forget(id.name().clone()));
    }

    /// Hands over heads whose turn it is, at most `max`; `number` numbers them.
    pub(super) fn take(&mut self, max: usize, mut number: impl FnMut() -> u64) -> Vec<Incoming> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(key) = self.all.get_mut(&id).filter(|key| key.head == Head::Listed) else { continue };
            let overlay = key.of_head().map(|record| (record.headers.clone(), record.crashes));
            let Some(front) = key.front() else { continue };
            let mut message = front.message.clone();
            let mut lost = 0;
            if let Some((headers, crashes)) = overlay {
                (message.headers, lost) = (headers, crashes);
            }
            let number = number();
            key.head = Head::InHand(number);
            self.in_hand.insert(number, id);
            taken.push(Incoming::new(Token::new(number, 1), message).with_lost_deliveries(lost));
        }
        taken
    }

    pub(super) fn is_in_hand(&self, number: u64) -> bool {
        self.in_hand.contains_key(&number)
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.len()
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Handled. `false`: it is no longer ours.
    pub(super) fn acked(&mut self, numbers: &[u64]) -> Vec<bool> {
        let mut tags = Vec::with_capacity(numbers.len());
        let mut done = Vec::with_capacity(numbers.len());
        let mut next = Vec::with_capacity(numbers.len());
        for number in numbers {
            let id = self.in_hand.remove(number);
            done.push(id.is_some());
            let Some(id) = id else { continue };
            if let Some(key) = self.all.get_mut(&id) {
                key.head = Head::Idle;
            }
            tags.extend(self.take_out(&id));
            next.push(id);
        }
        self.ack(&tags);
        for id in next {
            self.consider(&id);
        }
        done
    }

    /// Given back without an outcome: it is next again. `false`: it is no longer ours.
    pub(super) fn released(&mut self, number: u64) -> bool {
        let Some(id) = self.in_hand.remove(&number) else { return false };
        if let Some(key) = self.all.get_mut(&id) {
            key.head = Head::Idle;
            if let Some(front) = key.front() {
                // This owner knows what became of it.
                front.uncounted = false;
            }
        }
        self.consider(&id);
        true
    }

    /// The owner takes care of it from here on: the key, if it is still ours.
    pub(super) fn begin(&mut self, number: u64) -> Option<KeyId> {
        let id = self.in_hand.remove(&number)?;
        self.all.get_mut(&id)?.head = Head::Busy;
        Some(id)
    }

    /// What was begun did not succeed: it can be settled again.
    pub(super) fn undo(&mut self, id: &KeyId, number: u64) {
        if let Some(key) = self.all.get_mut(id) {
            key.head = Head::InHand(number);
            self.in_hand.insert(number, id.clone());
        }
    }

    /// The head is where it belongs: it is acked, and the next one is looked at.
    pub(super) fn finished(&mut self, id: &KeyId) {
        self.pop(id);
        if let Some(key) = self.all.get_mut(id) {
            key.head = Head::Idle;
        }
        self.consider(id);
    }

    /// Acks the head and takes it out.
    fn pop(&mut self, id: &KeyId) {
        let tag = self.take_out(id);
        self.ack(tag.as_slice());
    }

    /// Takes out the head, and its record with it. The tag that remains to be acked, unless that is done.
    fn take_out(&mut self, id: &KeyId) -> Option<u64> {
        let key = self.all.get_mut(id)?;
        let event = key.current()?.pop_front()?;
        if let Some(parked) = key.parked.as_mut().filter(|parked| parked.stage.channel().is_some()) {
            parked.copied.finished(&event);
            if let Some(channel) = parked.stage.channel() {
                send_ack(channel, event.tag, false);
            }
            return None;
        }
        if key.record.take().is_some() {
            self.forget(id);
        }
        Some(event.tag)
    }

    /// Acks deliveries of the subscription's queue.
    pub(super) fn ack(&mut self, tags: &[u64]) {
        if let Some((channel, unsettled)) = self.main.as_mut().filter(|_| !tags.is_empty()) {
            // Where the channel is gone its deliveries come again, and the owner learns of it from its consumer.
            let _alive = unsettled.ack(channel, tags);
            self.unacked = self.unacked.saturating_sub(tags.len());
        }
    }

    /// Whether the server may not have passed on all acks to the queue yet.
    pub(super) fn acked_many(&self) -> bool {
        self.main.as_ref().is_some_and(|(_, unsettled)| unsettled.acked_many())
    }

    /// When something is due next.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Looks at a key again at this time.
    pub(super) fn wake_at(&mut self, at: Instant, id: &KeyId) {
        self.timers.insert((at, id.clone()));
    }

    /// The keys whose time has come: held ones are looked at, parked ones that rest are returned.
    pub(super) fn due(&mut self, now: Instant) -> Vec<KeyId> {
        let (mut resting, mut acked) = (Vec::new(), Vec::new());
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, id)) = self.timers.pop_first() else { break };
            let Some(key) = self.all.get_mut(&id) else { continue };
            acked.extend(key.parked.as_mut().map(|parked| parked.copied.trusted(now)).unwrap_or_default());
            if key.head == Head::Waiting(at) {
                key.head = Head::Idle;
                self.consider(&id);
            } else if let Some(Stage::Aside(until)) = key.parked.as_ref().map(|parked| &parked.stage) {
                if *until <= now {
                    resting.push(id);
                }
            } else if key.parked.as_ref().is_some_and(|parked| matches!(parked.stage, Stage::Resting)) {
                let left = match &key.record {
                    Some(record) if record.state == Waits::Dead => continue,
                    Some(record) => record.due.since(Timestamp::now()),
                    None => Duration::ZERO,
                };
                if left.is_zero() {
                    resting.push(id);
                } else {
                    // The wall clock was set back, or goes slower.
                    self.timers.insert((Instant::now() + left, id));
                }
            }
        }
        self.ack(&acked);
        resting
    }

    /// The held key with the most events, if all held keys together have more than half of `prefetch`.
    pub(super) fn largest_beyond_half(&self, prefetch: u16) -> Option<KeyId> {
        let held = self.timers.iter().filter_map(|(at, id)| {
            let key = self.all.get(id)?;
            (key.head == Head::Waiting(*at) && key.parked.is_none()).then_some((key.fifo.len(), id))
        });
        let held: Vec<_> = held.collect();
        let total: usize = held.iter().map(|(count, _)| count).sum();
        let largest = held.into_iter().filter(|(_, id)| id.is_named()).max_by_key(|(count, _)| *count);
        (total > usize::from(prefetch) / 2).then(|| largest.map(|(_, id)| id.clone())).flatten()
    }

    /// Keys that nobody handles and whose head is unacked for too long.
    pub(super) fn aged(&self) -> Vec<KeyId> {
        let old = |events: &VecDeque<Event>| events.front().is_some_and(|e| e.since.elapsed() >= LONGEST_UNACKED);
        let idle = |head: Head| matches!(head, Head::Listed | Head::Waiting(_));
        let aged = self
            .all
            .iter()
            .filter(|(id, key)| id.is_named() && key.parked.is_none() && idle(key.head) && old(&key.fifo));
        aged.map(|(id, _)| id.clone()).collect()
    }
}
