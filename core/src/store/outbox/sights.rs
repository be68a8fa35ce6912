//! When a relay counts as gone, whatever happens to the database's clock.
//!
//! An entry tells by the database's clock what is left of its lease. That clock may be set; how long an entry has stood
//! unchanged is known by our own, which runs evenly. What the database says counts between the bounds that this sets.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::duration;
use crate::outbox::Member;

/// An entry as it is in the table; times in microseconds.
pub(super) struct Entry {
    pub(super) owner: String,
    pub(super) fence: String,
    /// By the database's clock.
    pub(super) left: i64,
    /// Changes with each renewal.
    pub(super) until: i64,
    pub(super) lease: i64,
}

/// The entries, as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Sights(HashMap<String, Sight>);

#[derive(Debug, Clone, Copy)]
struct Sight {
    until: i64,
    since: Instant,
    ends: Instant,
}

impl Sights {
    /// All entries that there are, at this moment.
    pub(super) fn look(&mut self, entries: Vec<Entry>) -> Vec<Member> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.0);
        let member = |entry: Entry| {
            let same = before.get(&entry.owner).filter(|sight| sight.until == entry.until);
            let since = same.map_or(now, |sight| sight.since);
            let left = left(&entry, now - since);
            self.0.insert(entry.owner.clone(), Sight { until: entry.until, since, ends: now + left });
            Member { owner: entry.owner, fence: entry.fence, left }
        };
        entries.into_iter().map(member).collect()
    }

    /// What the entry said when it was last seen, if its time has passed since.
    pub(super) fn ended(&self, owner: &str) -> Option<i64> {
        self.0.get(owner).filter(|sight| sight.ends <= Instant::now()).map(|sight| sight.until)
    }
}

/// What is left of an entry that has not changed for `silence`.
fn left(entry: &Entry, silence: Duration) -> Duration {
    let lease = duration(entry.lease);
    // A clock that was set back adds nothing to a lease.
    let at_most = lease.saturating_sub(silence);
    // One that was set forward ends none: who lives renews at a third. Where a fence tells who is gone, it is asked.
    let at_least = if entry.fence.is_empty() { (lease / 2).saturating_sub(silence) } else { Duration::ZERO };
    duration(entry.left).clamp(at_least, at_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    fn entry(left: i64, fence: &str) -> Entry {
        let lease = 30_000_000;
        Entry { owner: "a".to_owned(), fence: fence.to_owned(), left: left * 1_000_000, until: 7, lease }
    }

    #[test]
    fn the_database_is_believed_within_bounds() {
        let left =
            |left: i64, fence: &str, silence: u64| super::left(&entry(left, fence), Duration::from_secs(silence));
        assert_eq!(left(20, "", 10), SECOND * 20);
        // An hour back, an hour forward.
        assert_eq!(left(3620, "", 10), SECOND * 20);
        assert_eq!(left(3620, "amqp", 30), Duration::ZERO);
        assert_eq!(left(-3580, "", 10), SECOND * 5);
        assert_eq!(left(-3580, "", 15), Duration::ZERO);
        assert_eq!(left(-3580, "amqp", 0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_ends_when_it_was_silent_for_its_lease() {
        let mut sights = Sights::default();
        assert_eq!(sights.ended("a"), None);
        assert_eq!(sights.look(vec![entry(3600, "")])[0].left, LEASE);
        tokio::time::advance(SECOND * 29).await;
        assert_eq!(sights.look(vec![entry(3571, "")])[0].left, SECOND);
        assert_eq!(sights.ended("a"), None);
        tokio::time::advance(SECOND).await;
        assert_eq!(sights.ended("a"), Some(7));
        // It was only slow.
        sights.look(vec![Entry { until: 8, ..entry(30, "") }]);
        assert_eq!(sights.ended("a"), None);
        assert!(sights.look(Vec::new()).is_empty() && sights.0.is_empty());
    }
}
