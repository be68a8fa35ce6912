//! One event of a key at a time: the gate in front of handlers on ordered subscriptions.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::session::Waiting;

/// Keys that have an event under way, each with the events behind it.
#[derive(Default)]
pub(super) struct KeyGate {
    busy: HashMap<Arc<str>, VecDeque<Waiting>>,
    behind: usize,
}

impl KeyGate {
    /// Lets `waiting` through if its key is free; keeps it behind the key's running event otherwise.
    pub(super) fn enter(&mut self, key: &Arc<str>, waiting: Waiting) -> Option<Waiting> {
        if let Some(queue) = self.busy.get_mut(key) {
            queue.push_back(waiting);
            self.behind += 1;
            return None;
        }
        self.busy.insert(key.clone(), VecDeque::new());
        Some(waiting)
    }

    /// The key's event is settled for good: the next one of the key, if one waits.
    pub(super) fn advance(&mut self, key: &str) -> Option<Waiting> {
        let next = self.busy.get_mut(key)?.pop_front();
        match next {
            Some(_) => self.behind -= 1,
            None => drop(self.busy.remove(key)),
        }
        next
    }

    /// The key's event comes again later: those behind it go back to the transport, which keeps their places.
    pub(super) fn give_up(&mut self, key: &str) -> VecDeque<Waiting> {
        let behind = self.busy.remove(key).unwrap_or_default();
        self.behind -= behind.len();
        behind
    }

    /// What has waited behind a running event since before this time, and what is behind it: it must not run earlier.
    pub(super) fn held_since(&mut self, before: Instant) -> Vec<Waiting> {
        let queues = self.busy.values_mut().filter(|queue| queue.front().is_some_and(|first| first.is_older(before)));
        let held: Vec<_> = queues.flat_map(std::mem::take).collect();
        self.behind -= held.len();
        held
    }

    /// Everything that waits behind a running event; the keys stay busy.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.behind = 0;
        self.busy.values_mut().flat_map(std::mem::take).collect()
    }

    /// How many wait behind a running event.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }
}
