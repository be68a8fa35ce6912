//! What a session knows, behind its lock.

use tokio::time::Instant;

use super::{Item, Parts, State, Waiting};
use crate::settlement::{Effect, is_suspect, put_back};
use crate::transport::Settlement;

impl State {
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.suspects.len() + self.keys.behind()
    }

    /// An event whose turn it is: to a handler, or where it was decided that it goes.
    pub(super) fn let_through(&mut self, mut waiting: Waiting, decided: &mut Vec<Item>) {
        match waiting.verdict.take() {
            Some(verdict) => decided.push(waiting.into_item(verdict)),
            None if is_suspect(waiting.parts.event.headers()) => self.suspects.push_back(waiting),
            None => self.ready.push_back(waiting),
        }
    }

    /// Takes out everything that nobody has in hand.
    pub(super) fn waiting_ones(&mut self) -> Vec<Waiting> {
        let first: Vec<_> = self.ready.drain(..).chain(self.suspects.drain(..)).collect();
        let mut all = self.with_those_behind(first);
        all.extend(self.keys.drain());
        all
    }

    /// These, whose keys nobody has in hand, with what waits behind them: the keys are free again.
    pub(super) fn with_those_behind(&mut self, first: Vec<Waiting>) -> Vec<Waiting> {
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
    /// Whether it was fetched before this time.
    pub(in crate::subscriber) fn is_older(&self, before: Instant) -> bool {
        self.parts.since < before
    }

    pub(super) fn into_item(self, (settlement, effect): (Settlement, Effect)) -> Item {
        let Parts { token, key, .. } = self.parts;
        Item { token, settlement, effect, key, handed: false, completion: None }
    }

    pub(super) fn release(mut self) -> Item {
        let released = put_back(self.parts.event.headers(), self.parts.lost_deliveries);
        self.parts.key = None;
        self.into_item(released)
    }
}
