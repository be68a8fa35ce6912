//! The deliveries of one channel that are not settled yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{BasicProperties, Channel};
use tokio::time::Instant;

use crate::event::{Payload, Timestamp};

/// What is needed to publish a delivery once more.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) routing_key: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) timestamp: Timestamp,
    pub(super) body: Payload,
    pub(super) extra: Option<Arc<BasicProperties>>,
}

/// Acks that the server always passes on to the queue at once: 32 and more may be kept.
const ACKS_PASSED_ON: u32 = 24;
/// After this time without another ack the queue has all of them.
const ACKS_SETTLE: Duration = Duration::from_secs(5);

enum Slot<K> {
    Open(K),
    /// Its next place is being written.
    Busy(K),
    Settled,
}

/// Delivery tags count up from 1 on a channel; the slots are those from the oldest unsettled one on.
pub(super) struct Unsettled<K = Kept> {
    /// Tag of the first slot.
    first: u64,
    slots: VecDeque<Slot<K>>,
    /// Acks that were sent, the last of them less than [`ACKS_SETTLE`] after the one before, and when that was.
    acks: u32,
    last_ack: Option<Instant>,
}

impl<K: Clone> Unsettled<K> {
    pub(super) fn new() -> Self {
        Self { first: 1, slots: VecDeque::new(), acks: 0, last_ack: None }
    }

    /// Notes a delivery.
    pub(super) fn push(&mut self, tag: u64, kept: K) {
        let at = usize::try_from(tag.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.slots.len() < at {
            self.slots.push_back(Slot::Settled);
        }
        if at == self.slots.len() {
            self.slots.push_back(Slot::Open(kept));
        }
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot<K>> {
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Whether the delivery can be settled.
    pub(super) fn is_open(&mut self, tag: u64) -> bool {
        matches!(self.slot(tag), Some(Slot::Open(_)))
    }

    /// Takes a delivery aside while its next place is written.
    pub(super) fn begin(&mut self, tag: u64) -> Option<K> {
        let slot = self.slot(tag)?;
        let Slot::Open(kept) = slot else { return None };
        let kept = kept.clone();
        *slot = Slot::Busy(kept.clone());
        Some(kept)
    }

    /// Its next place could not be written: it can be settled again.
    pub(super) fn abandon(&mut self, tag: u64) {
        if let Some(slot) = self.slot(tag)
            && let Slot::Busy(kept) = std::mem::replace(slot, Slot::Settled)
        {
            *slot = Slot::Open(kept);
        }
    }

    /// Whether any delivery is left.
    pub(super) fn any(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether the server may not have passed on all acks to the queue yet.
    pub(super) fn acked_many(&self) -> bool {
        self.acks > ACKS_PASSED_ON && self.last_ack.is_some_and(|last| last.elapsed() < ACKS_SETTLE)
    }

    fn note_acks(&mut self, count: usize) {
        let now = Instant::now();
        if self.last_ack.replace(now).is_none_or(|last| now - last >= ACKS_SETTLE) {
            self.acks = 0;
        }
        self.acks = self.acks.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Acks deliveries: the settled beginning with one frame, the rest each with its own. `false`: the channel is gone.
    ///
    /// The frames are handed to lapin before this returns, in the order in which tags were forgotten: an ack for a tag
    /// that a `multiple` has covered already would close the channel.
    pub(super) fn ack(&mut self, channel: &Channel, tags: &[u64]) -> bool {
        for tag in tags {
            if let Some(slot) = self.slot(*tag) {
                *slot = Slot::Settled;
            }
        }
        self.forget();
        let prefix = tags.iter().copied().filter(|tag| *tag < self.first).max();
        let mut alive = prefix.is_none_or(|tag| send_ack(channel, tag, true));
        let mut frames = usize::from(prefix.is_some());
        for tag in tags.iter().filter(|tag| **tag >= self.first) {
            alive &= send_ack(channel, *tag, false);
            frames += 1;
        }
        self.note_acks(frames);
        alive
    }

    /// Gives deliveries back to the queue. `false`: the channel is gone.
    pub(super) fn release(&mut self, channel: &Channel, tags: &[u64]) -> bool {
        let mut alive = true;
        for tag in tags {
            if let Some(slot) = self.slot(*tag) {
                *slot = Slot::Settled;
            }
            alive &= hand_over(channel.basic_nack(*tag, BasicNackOptions { multiple: false, requeue: true }));
        }
        self.forget();
        alive
    }

    /// Gives everything back. `false`: the channel is gone.
    pub(super) fn release_all(&mut self, channel: &Channel) -> bool {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        // Tag 0 with `multiple` means all there are.
        hand_over(channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }))
    }

    fn forget(&mut self) {
        while let Some(Slot::Settled) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

/// Acks one delivery, or all up to it. `false`: the channel is gone.
pub(super) fn send_ack(channel: &Channel, tag: u64, multiple: bool) -> bool {
    hand_over(channel.basic_ack(tag, BasicAckOptions { multiple }))
}

/// Puts a frame into lapin's queue, which the first poll does. That it left is not waited for: an ack that is lost with
/// the connection means one more delivery, like any that was not written.
fn hand_over(frame: impl Future<Output = lapin::Result<()>>) -> bool {
    let frame = std::pin::pin!(frame);
    !matches!(frame.poll(&mut Context::from_waker(Waker::noop())), std::task::Poll::Ready(Err(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept {
            routing_key: "a.b".into(),
            id: "1".into(),
            timestamp: Timestamp::EPOCH,
            body: Payload::new(),
            extra: None,
        }
    }

    #[test]
    fn deliveries_are_open_until_settled_once() {
        let mut unsettled = Unsettled::new();
        for tag in 1..=3 {
            unsettled.push(tag, kept());
        }
        assert!(unsettled.is_open(2) && !unsettled.is_open(4) && !unsettled.is_open(0));
        assert!(unsettled.begin(2).is_some());
        assert!(unsettled.begin(2).is_none(), "settled twice at the same time");
        unsettled.abandon(2);
        assert!(unsettled.is_open(2));
        *unsettled.slot(1).unwrap() = Slot::Settled;
        unsettled.forget();
        assert_eq!((unsettled.first, unsettled.slots.len()), (2, 2));
        assert!(!unsettled.is_open(1) && unsettled.is_open(3));
    }
}
