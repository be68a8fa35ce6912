//! What is remembered for a time: caches of publishers, idempotency keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::transport::RememberedKey;
use crate::{Broker, Error, ErrorKind, Result};

/// Keys that a process remembers where no store does: the oldest go first.
const MAX_KEYS: usize = 10_000;

/// Where something is remembered.
#[derive(Debug, Clone)]
pub(super) enum Memory {
    /// In a store: for every process that uses it, and over a restart.
    Store(Broker),
    /// In this process.
    Process(Arc<ProcessMemory>),
}

impl Memory {
    pub(super) async fn recall(&self, key: &RememberedKey, count: bool) -> Result<Option<String>> {
        match self {
            Self::Store(broker) => journal(broker)?.recall(key, count).await,
            Self::Process(memory) => Ok(memory.recall(key, count)),
        }
    }

    pub(super) async fn remember(&self, key: &RememberedKey, value: &str, time: Duration) -> Result<Option<String>> {
        match self {
            Self::Store(broker) => journal(broker)?.remember(key, value, time).await,
            Self::Process(memory) => Ok(memory.remember(key, value, time)),
        }
    }

    pub(super) async fn duplicates(&self, scope: &str) -> Result<u64> {
        match self {
            Self::Store(broker) => journal(broker)?.duplicates(scope).await,
            Self::Process(memory) => Ok(memory.duplicates(scope)),
        }
    }
}

/// The journal of a broker that is a store.
pub(super) fn journal(broker: &Broker) -> Result<&dyn crate::transport::Journal> {
    broker.transport().journal().ok_or_else(|| {
        let name = broker.capabilities().name;
        Error::new(ErrorKind::Unsupported, format!("{name}: keeps no record of events that were consumed"))
            .field("transport", name)
            .remedy("use a sqlite broker for what needs a record; dead letters and depths can be had on every broker")
    })
}

/// A bounded memory of this process.
#[derive(Debug, Default)]
pub(super) struct ProcessMemory(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    entries: HashMap<String, Entry>,
    /// In the order of their arrival, with their number.
    order: VecDeque<(u64, String)>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    scope: String,
    value: String,
    until: Option<Instant>,
    looks: u64,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }
}

impl ProcessMemory {
    fn recall(&self, key: &RememberedKey, count: bool) -> Option<String> {
        let mut keys = self.0.lock();
        let entry = keys.entries.get_mut(&key.key).filter(|entry| entry.is_live())?;
        entry.looks += u64::from(count);
        Some(entry.value.clone())
    }

    fn remember(&self, key: &RememberedKey, value: &str, time: Duration) -> Option<String> {
        if let Some(found) = self.recall(key, true) {
            return Some(found);
        }
        let mut keys = self.0.lock();
        keys.last += 1;
        let number = keys.last;
        let entry = Entry {
            number,
            scope: key.scope.clone(),
            value: value.to_owned(),
            until: Instant::now().checked_add(time),
            looks: 0,
        };
        keys.entries.insert(key.key.clone(), entry);
        keys.order.push_back((number, key.key.clone()));
        keys.trim();
        None
    }

    fn duplicates(&self, scope: &str) -> u64 {
        let keys = self.0.lock();
        keys.entries.values().filter(|entry| entry.scope == scope && entry.is_live()).map(|entry| entry.looks).sum()
    }
}

impl Keys {
    /// Forgets what has expired at the front, and the oldest beyond the limit.
    fn trim(&mut self) {
        while let Some((number, key)) = self.order.front() {
            let current = self.entries.get(key).filter(|entry| entry.number == *number);
            if current.is_some_and(Entry::is_live) && self.order.len() <= MAX_KEYS {
                break;
            }
            if current.is_some() {
                self.entries.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: usize) -> RememberedKey {
        RememberedKey { scope: "s".to_owned(), key: key.to_string() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_remembered_for_its_time() {
        let memory = ProcessMemory::default();
        let time = Duration::from_secs(5);
        assert_eq!(memory.remember(&key(1), "first", time), None);
        assert_eq!(memory.remember(&key(1), "second", time).as_deref(), Some("first"));
        assert_eq!(memory.duplicates("s"), 1);
        tokio::time::advance(time).await;
        assert_eq!(memory.recall(&key(1), false), None);
        assert_eq!(memory.remember(&key(1), "third", time), None);
        assert_eq!(memory.recall(&key(1), false).as_deref(), Some("third"));
    }

    #[tokio::test]
    async fn it_is_bounded() {
        let memory = ProcessMemory::default();
        for n in 0..MAX_KEYS + 100 {
            memory.remember(&key(n), "v", Duration::MAX);
        }
        let keys = memory.0.lock();
        assert_eq!((keys.entries.len(), keys.order.len()), (MAX_KEYS, MAX_KEYS));
        assert!(!keys.entries.contains_key("99") && keys.entries.contains_key("100"));
    }
}
