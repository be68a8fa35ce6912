//! The sources of this process and what each of them holds.
//!
//! Changes are undone with the transaction that they belong to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;
use crate::transport::{SourceHealth, SubscriptionSpec};

/// Where a delivery that is held came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// The row of `tidings_delivery` with this `ready`.
    Plain(i64),
    /// The row of `tidings_ordered` under this key.
    Keyed(Arc<str>),
}

/// A row of `tidings_owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) id: i64,
    pub(super) until: i64,
}

/// The lease of a source, for who cannot wait for the writer thread.
pub(super) type Lease = Arc<Mutex<Option<Owner>>>;

/// A source as the writer thread knows it.
pub(super) struct SourceState {
    pub(super) client: u64,
    pub(super) spec: Arc<SubscriptionSpec>,
    pub(super) subscription: i64,
    pub(super) owner: Option<Owner>,
    /// The same.
    shown: Lease,
    held: HashMap<i64, Held>,
    keys: HashMap<Arc<str>, u32>,
    /// Fetching.
    pub(super) flowing: bool,
    /// Fetches nothing any more.
    pub(super) stopped: bool,
    /// Why it was stopped although nobody asked for that.
    pub(super) failure: Option<Error>,
    /// Whether events without order were claimed first last time.
    pub(super) plain_first: bool,
    pub(super) health: Arc<Mutex<SourceHealth>>,
}

impl SourceState {
    pub(super) fn new(
        client: u64,
        spec: Arc<SubscriptionSpec>,
        subscription: i64,
        health: Arc<Mutex<SourceHealth>>,
        shown: Lease,
    ) -> Self {
        Self {
            client,
            spec,
            subscription,
            owner: None,
            shown,
            held: HashMap::new(),
            keys: HashMap::new(),
            flowing: true,
            stopped: false,
            failure: None,
            plain_first: false,
            health,
        }
    }

    /// Lease in microseconds.
    pub(super) fn lease(&self) -> i64 {
        i64::try_from(self.spec.lease.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// The deliveries that are held without order.
    pub(super) fn held_plain(&self) -> bool {
        self.held.values().any(|held| matches!(held, Held::Plain(_)))
    }

    /// The keys that are held.
    pub(super) fn held_keys(&self) -> Vec<Arc<str>> {
        self.keys.keys().cloned().collect()
    }

    /// Deliveries of `key` that are held.
    pub(super) fn held_of(&self, key: &str) -> u32 {
        self.keys.get(key).copied().unwrap_or(0)
    }

    fn own(&mut self, owner: Option<Owner>) {
        self.owner = owner;
        *self.shown.lock() = owner;
    }

    fn add(&mut self, event: i64, held: Held) {
        if let Held::Keyed(key) = &held {
            *self.keys.entry(key.clone()).or_insert(0) += 1;
        }
        self.held.insert(event, held);
    }

    fn remove(&mut self, event: i64) -> Option<Held> {
        let held = self.held.remove(&event)?;
        if let Held::Keyed(key) = &held
            && let Some(count) = self.keys.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(key);
            }
        }
        Some(held)
    }
}

enum Undo {
    Added(u64),
    Removed(u64, Box<SourceState>),
    Held(u64, i64),
    LetGo(u64, i64, Held),
    Owner(u64, Option<Owner>),
    Lost(u64, HashMap<i64, Held>, HashMap<Arc<str>, u32>),
}

/// The sources by their number.
#[derive(Default)]
pub(super) struct Ledger {
    sources: HashMap<u64, SourceState>,
    undo: Vec<Undo>,
}

impl Ledger {
    pub(super) fn get(&self, source: u64) -> Option<&SourceState> {
        self.sources.get(&source)
    }

    /// For what a rollback need not undo: flow, health, turns.
    pub(super) fn get_mut(&mut self, source: u64) -> Option<&mut SourceState> {
        self.sources.get_mut(&source)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &SourceState)> {
        self.sources.iter().map(|(id, source)| (*id, source))
    }

    pub(super) fn add(&mut self, id: u64, source: SourceState) {
        self.sources.insert(id, source);
        self.undo.push(Undo::Added(id));
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(source) = self.sources.remove(&id) {
            self.undo.push(Undo::Removed(id, Box::new(source)));
        }
    }

    pub(super) fn hold(&mut self, source: u64, event: i64, held: Held) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.add(event, held);
            self.undo.push(Undo::Held(source, event));
        }
    }

    /// Takes a delivery out of the hands of its source, if it is held under this lease.
    pub(super) fn let_go(&mut self, source: u64, owner: i64, event: i64) -> Option<Held> {
        let state = self.sources.get_mut(&source)?;
        if state.owner?.id != owner {
            return None;
        }
        let held = state.remove(event)?;
        self.undo.push(Undo::LetGo(source, event, held.clone()));
        Some(held)
    }

    pub(super) fn set_owner(&mut self, source: u64, owner: Option<Owner>) {
        if let Some(state) = self.sources.get_mut(&source) {
            self.undo.push(Undo::Owner(source, state.owner));
            state.own(owner);
        }
    }

    /// Forgets all that the source holds: its lease is over.
    pub(super) fn lose(&mut self, source: u64) {
        self.set_owner(source, None);
        if let Some(state) = self.sources.get_mut(&source) {
            let (held, keys) = (std::mem::take(&mut state.held), std::mem::take(&mut state.keys));
            self.undo.push(Undo::Lost(source, held, keys));
        }
    }

    /// The transaction is durable.
    pub(super) fn commit(&mut self) {
        self.undo.clear();
    }

    /// The transaction is void.
    pub(super) fn rollback(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Added(id) => drop(self.sources.remove(&id)),
                Undo::Removed(id, source) => drop(self.sources.insert(id, *source)),
                Undo::Held(id, event) => {
                    self.sources.get_mut(&id).and_then(|source| source.remove(event));
                }
                Undo::LetGo(id, event, held) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        source.add(event, held);
                    }
                }
                Undo::Owner(id, owner) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        source.own(owner);
                    }
                }
                Undo::Lost(id, held, keys) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        (source.held, source.keys) = (held, keys);
                    }
                }
            }
        }
    }
}
