//! Order per key: which keys can be handed over, which wait, which are parked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::subscription::{Ready, Stored};
use crate::event::Headers;
use crate::transport::OrderState;

/// Most events of one key that are handed to a source at once.
const BURST: usize = 8;

/// The keys of an ordered subscription.
///
/// A key is handed to one source at a time, from its oldest event on, and goes on once nothing of it is out.
#[derive(Debug, Default)]
pub(super) struct Keys {
    states: HashMap<Arc<str>, Key>,
    /// Keys that can be handed over now, the one with the oldest head first.
    ready: BTreeSet<(u64, Arc<str>)>,
    /// When to look at a key again whose head waits for its retry. May hold times that are no longer needed.
    timers: BTreeSet<(Instant, Arc<str>)>,
    waiting: usize,
    parked: usize,
}

#[derive(Debug, Default)]
struct Key {
    waiting: BTreeMap<u64, Stored>,
    /// Deliveries handed over and not settled.
    out: usize,
    /// Its entry in `ready`.
    listed: Option<u64>,
}

impl Keys {
    /// Events that wait, parked heads included.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Heads that are dead.
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Who has keys, and what waits.
    pub(super) fn state(&self, now: Instant) -> OrderState {
        let mut state = OrderState { whole: true, ..OrderState::default() };
        let mut oldest = None;
        for key in self.states.values() {
            if key.out > 0 {
                state.owners = vec![format!("process {}", std::process::id())];
                continue;
            }
            let Some(head) = key.waiting.first_key_value().map(|(_, head)| head) else { continue };
            match head.ready {
                Ready::Parked => (state.parked_keys, state.dead_keys) = (state.parked_keys + 1, state.dead_keys + 1),
                ready if !ready.is_due(now) => state.waiting_keys += 1,
                _ => continue,
            }
            oldest = oldest.max(Some(now.saturating_duration_since(head.since)));
        }
        OrderState { oldest_waiting: oldest, ..state }
    }

    /// The sequence of the oldest head that can be handed over.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.ready.first().map(|(sequence, _)| *sequence)
    }

    /// When a waiting head is due next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Puts an event into its place among those of its key.
    pub(super) fn put(&mut self, key: &Arc<str>, event: Stored, now: Instant) {
        self.waiting += 1;
        self.parked += usize::from(event.ready == Ready::Parked);
        self.states.entry(key.clone()).or_default().waiting.insert(event.sequence, event);
        self.refresh(key, now);
    }

    /// Hands over the head of the key with the oldest one.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Arc<str>, Stored)> {
        let (_, name) = self.ready.pop_first()?;
        self.states.get_mut(&name)?.listed = None;
        let head = self.next_of(&name, now)?;
        Some((name, head))
    }

    /// Hands over one more event of a key of which some are out, unless those are a [`BURST`].
    pub(super) fn next_of(&mut self, name: &Arc<str>, now: Instant) -> Option<Stored> {
        let key = self.states.get_mut(name).filter(|key| key.out < BURST)?;
        let head = key.waiting.first_entry().filter(|head| head.get().ready.is_due(now))?.remove();
        key.out += 1;
        self.waiting -= 1;
        Some(head)
    }

    /// One delivery of the key is no longer out; what is to come of it has been put back before.
    pub(super) fn settled(&mut self, name: &Arc<str>, now: Instant) {
        if let Some(key) = self.states.get_mut(name) {
            key.out = key.out.saturating_sub(1);
        }
        self.refresh(name, now);
    }

    /// Looks at the keys again whose time has come.
    pub(super) fn advance(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.refresh(&key, now);
            }
        }
    }

    /// Lets a parked head run again, with other headers. `false` if it is not there.
    pub(super) fn resume(&mut self, name: &Arc<str>, sequence: u64, headers: Headers, now: Instant) -> bool {
        let Some(head) = self.states.get_mut(name).and_then(|key| key.waiting.get_mut(&sequence)) else { return false };
        head.ready = Ready::Now;
        head.message.headers = headers;
        head.lost = 0;
        self.parked -= 1;
        self.refresh(name, now);
        true
    }

    /// Drops a parked head, so that the key goes on without it. `false` if it is not there.
    pub(super) fn drop_parked(&mut self, name: &Arc<str>, sequence: u64, now: Instant) -> bool {
        let removed = self.states.get_mut(name).and_then(|key| key.waiting.remove(&sequence)).is_some();
        if removed {
            self.waiting -= 1;
            self.parked -= 1;
            self.refresh(name, now);
        }
        removed
    }

    /// Lists the key where it belongs: among the ready ones, behind a timer, or nowhere.
    fn refresh(&mut self, name: &Arc<str>, now: Instant) {
        let Some(key) = self.states.get_mut(name) else { return };
        if let Some(listed) = key.listed.take() {
            self.ready.remove(&(listed, name.clone()));
        }
        if key.out > 0 {
            return;
        }
        match key.waiting.first_key_value().map(|(sequence, head)| (*sequence, head.ready)) {
            None => {
                self.states.remove(name);
            }
            Some((_, Ready::Parked)) => {}
            Some((_, Ready::At(at))) if at > now => {
                self.timers.insert((at, name.clone()));
            }
            Some((sequence, _)) => {
                key.listed = Some(sequence);
                self.ready.insert((sequence, name.clone()));
            }
        }
    }
}
