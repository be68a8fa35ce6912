//! Events of a parked key that its queue has confirmed, and that are not yet acked where they were.
//!
//! RabbitMQ writes down which quorum queues there are some seconds late. One that is killed before that brings the queue
//! back, empty: what it had confirmed is gone. So for as long as the queue is that young, the originals stay. If the
//! broker dies they come again, and go behind the copies that survived. They come again to the next owner, too, who does
//! not know whether the broker has died meanwhile. Of what is there several times, it finishes one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event::Event;
use crate::transport::QueueType;

/// From when on a quorum queue survives its broker: its directory is written within 6 s.
const YOUNG: Duration = Duration::from_secs(8);

/// The originals, by their delivery tags, all of them from the subscription's queue: no more than its prefetch.
#[derive(Debug)]
pub(super) struct Copied {
    /// When the queue is old enough. `None`: of a kind that need not be.
    trusted: Option<Instant>,
    tags: Vec<u64>,
    /// Ids of copies from the queue that this owner has finished.
    done: HashSet<Arc<str>>,
}

impl Copied {
    /// Into a queue of this kind that is, as far as is known, made now.
    pub(super) fn into_queue_of(queue_type: QueueType) -> Self {
        let mut copied = Self { trusted: None, tags: Vec::new(), done: HashSet::new() };
        if queue_type != QueueType::Classic {
            copied.trusted = Some(Instant::now() + YOUNG);
        }
        copied
    }

    /// The queue did not answer for a while: it may have been made anew.
    pub(super) fn begin_anew(&mut self) {
        self.trusted = self.trusted.map(|_| Instant::now() + YOUNG);
    }

    /// One was copied. Until when its original is to be kept; `None`: it can be acked.
    pub(super) fn keep(&mut self, tag: u64) -> Option<Instant> {
        let until = self.trusted.filter(|_| self.is_young())?;
        self.tags.push(tag);
        Some(until)
    }

    /// Whether what goes into the queue now is a copy of an original that stays.
    pub(super) fn is_young(&self) -> bool {
        self.trusted.is_some_and(|until| until > Instant::now())
    }

    /// One from the queue is done with.
    pub(super) fn finished(&mut self, event: &Event) {
        if event.copy {
            self.done.insert(event.message.id.clone());
        }
    }

    /// Whether one from the queue is a further copy of what is done with.
    pub(super) fn is_surplus(&self, event: &Event) -> bool {
        event.copy && self.done.contains(&event.message.id)
    }

    /// The originals that are no longer needed.
    pub(super) fn trusted(&mut self, now: Instant) -> Vec<u64> {
        let old_enough = self.trusted.is_none_or(|until| until <= now);
        if old_enough { std::mem::take(&mut self.tags) } else { Vec::new() }
    }

    /// All originals: nothing is left in the queue.
    pub(super) fn all(self) -> Vec<u64> {
        self.tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Message;

    #[tokio::test(start_paused = true)]
    async fn originals_are_kept_while_the_queue_is_young() {
        let mut copied = Copied::into_queue_of(QueueType::Quorum);
        let until = copied.keep(1).unwrap();
        assert!(copied.keep(2).is_some());
        assert!(copied.trusted(Instant::now()).is_empty());
        tokio::time::advance(YOUNG).await;
        assert_eq!(copied.trusted(until), [1, 2]);
        assert_eq!(copied.keep(3), None, "acked at once from here on");
        copied.begin_anew();
        assert!(copied.keep(4).is_some());
        assert_eq!(copied.all(), [4]);
        assert_eq!(Copied::into_queue_of(QueueType::Classic).keep(1), None);
    }

    #[test]
    fn only_further_copies_are_dropped() {
        let event = |id: &str, copy| Event {
            tag: 1,
            message: Message::new("a.b", id, Vec::new()),
            extra: None,
            uncounted: false,
            copy,
            since: Instant::now(),
        };
        let mut copied = Copied::into_queue_of(QueueType::Quorum);
        copied.finished(&event("a", true));
        copied.finished(&event("b", false));
        assert!(copied.is_surplus(&event("a", true)));
        assert!(!copied.is_surplus(&event("a", false)), "published twice under one id");
        assert!(!copied.is_surplus(&event("b", true)));
    }
}
