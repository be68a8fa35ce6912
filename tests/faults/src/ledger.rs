//! The ledger: what was handed out, what publishers were told is durable, and what handlers did. Kept outside of all.
//!
//! An event is *lost* if its publish was confirmed and no handler ever finished it; *invented* if a handler saw one that
//! was never handed out. One that a killed publisher did not report may have been published or not: both are right.

use std::collections::HashMap;

/// What is known of one event.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    confirmed: bool,
    /// Of a transaction that was rolled back: nobody may ever see it.
    forbidden: bool,
    finished: u32,
}

/// All events of one case.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Per publisher, by the prefix of its ids.
    publishers: HashMap<String, Vec<Entry>>,
    /// Confirmed.
    pub(crate) confirmed: u64,
    /// Confirmed and not finished.
    pub(crate) missing: u64,
    /// Publishes that failed; whether they took effect is unknown.
    pub(crate) failed: u64,
    /// Runs of handlers that ended in a retry.
    pub(crate) retried: u64,
    /// Finished once more than needed.
    pub(crate) duplicated: u64,
    /// Rolled back.
    pub(crate) forbidden: u64,
    /// Seen, but never handed out, or rolled back.
    pub(crate) invented: Vec<String>,
    /// Said to be confirmed twice, or without having been handed out.
    pub(crate) nonsense: Vec<String>,
}

impl Ledger {
    /// A publisher was told to publish `count` events.
    pub(crate) fn hand_out(&mut self, prefix: &str, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.publishers.insert(prefix.to_owned(), vec![Entry::default(); count]);
    }

    /// A publisher said that this event is durable.
    pub(crate) fn confirm(&mut self, id: &str) {
        match self.entry(id) {
            Some(entry) if !entry.confirmed => {
                entry.confirmed = true;
                let missing = entry.finished == 0;
                self.confirmed += 1;
                self.missing += u64::from(missing);
            }
            _ => self.nonsense.push(id.to_owned()),
        }
    }

    /// A handler finished this event. Whether it was the first time.
    pub(crate) fn finish(&mut self, id: &str) -> bool {
        let Some(entry) = self.entry(id) else {
            self.invented.push(id.to_owned());
            return false;
        };
        entry.finished += 1;
        let (first, confirmed) = (entry.finished == 1, entry.confirmed);
        if entry.forbidden {
            self.invented.push(id.to_owned());
            return first;
        }
        if !first {
            self.duplicated += 1;
        } else if confirmed {
            self.missing -= 1;
        }
        first
    }

    /// The transaction of this event was rolled back. Seen before or after, it is invented.
    pub(crate) fn forbid(&mut self, id: &str) {
        match self.entry(id) {
            Some(entry) if !entry.confirmed && !entry.forbidden => {
                entry.forbidden = true;
                if entry.finished > 0 {
                    self.invented.push(id.to_owned());
                }
                self.forbidden += 1;
            }
            _ => self.nonsense.push(id.to_owned()),
        }
    }

    /// A handler asked for a retry of this event.
    pub(crate) fn retry(&mut self, id: &str) {
        self.retried += 1;
        if self.entry(id).is_none() {
            self.invented.push(id.to_owned());
        }
    }

    /// How many events of a publisher were confirmed.
    pub(crate) fn confirmed_of(&self, prefix: &str) -> u64 {
        self.publishers.get(prefix).map_or(0, |all| all.iter().filter(|e| e.confirmed).count() as u64)
    }

    /// How many events of a publisher were confirmed or rolled back.
    pub(crate) fn told_of(&self, prefix: &str) -> u64 {
        let told = |entry: &&Entry| entry.confirmed || entry.forbidden;
        self.publishers.get(prefix).map_or(0, |all| all.iter().filter(told).count() as u64)
    }

    /// The same events, to be seen by somebody else, who must see at least those that were confirmed or seen here.
    pub(crate) fn anew(&self) -> Self {
        let anew = |entry: &Entry| Entry { confirmed: entry.confirmed || entry.finished > 0, finished: 0, ..*entry };
        let publishers: HashMap<String, Vec<Entry>> =
            self.publishers.iter().map(|(prefix, all)| (prefix.clone(), all.iter().map(anew).collect())).collect();
        let confirmed = publishers.values().flatten().filter(|entry| entry.confirmed).count() as u64;
        Self { publishers, confirmed, missing: confirmed, ..Self::default() }
    }

    /// Some of the confirmed events that nobody finished.
    pub(crate) fn examples_of_missing(&self) -> Vec<String> {
        let all = self.publishers.iter().flat_map(|(prefix, entries)| {
            entries
                .iter()
                .enumerate()
                .filter(|(_, e)| e.confirmed && e.finished == 0)
                .map(move |(i, _)| format!("{prefix}{i}"))
        });
        all.take(10).collect()
    }

    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        let (prefix, seq) = id.rsplit_once('.')?;
        let seq: usize = seq.parse().ok()?;
        // The dot belongs to the prefix.
        self.publishers.get_mut(&id[..=prefix.len()])?.get_mut(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn counts_what_is_lost_invented_and_duplicated() {
        let mut ledger = Ledger::default();
        ledger.hand_out("r.1.", 3);
        ledger.confirm("r.1.0");
        ledger.confirm("r.1.1");
        assert!(ledger.finish("r.1.0"));
        assert!(!ledger.finish("r.1.0"));
        assert!(ledger.finish("r.1.2"), "published by a killed publisher and never reported: not invented");
        ledger.finish("r.1.3");
        ledger.finish("other");
        assert_eq!((ledger.confirmed, ledger.missing, ledger.duplicated), (2, 1, 1));
        assert_eq!(ledger.invented, ["r.1.3", "other"]);
        assert_eq!(ledger.examples_of_missing(), ["r.1.1"]);
        ledger.confirm("r.1.2");
        assert_eq!(ledger.missing, 1, "an effect may be heard of before its confirm");
        let anew = ledger.anew();
        assert_eq!((anew.confirmed, anew.missing, anew.duplicated), (3, 3, 0), "what was seen is expected");
    }

    #[test]
    fn what_was_rolled_back_and_is_seen_is_invented() {
        let mut ledger = Ledger::default();
        ledger.hand_out("r.1.", 3);
        ledger.forbid("r.1.0");
        ledger.finish("r.1.0");
        ledger.finish("r.1.1");
        ledger.forbid("r.1.1");
        ledger.forbid("r.1.2");
        assert_eq!(ledger.invented, ["r.1.0", "r.1.1"]);
        assert!(ledger.nonsense.is_empty() && ledger.forbidden == 3);
    }
}
