//! The journal of an ordered subscription: the token of its owner, a record for each waiting key, commands from outside.
//!
//! It is a queue. The owner holds everything in it unacked; when it dies, all of that goes to the next one. A record is
//! changed by writing a newer one and acking the older, so at every moment at least one of both is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::unsettled::send_ack;
use crate::event::{Headers, Timestamp};

/// After this time an entry is written anew: the server's `consumer_timeout` counts from its delivery.
pub(super) const REWRITE_AFTER: Duration = Duration::from_secs(5 * 60);
/// A record that is no longer needed is acked this long after its event, whose ack takes another way.
const FORGET_AFTER: Duration = Duration::from_millis(200);

/// What the journal holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Entry {
    /// Whoever receives it owns the subscription.
    Token { epoch: u64, owner: String },
    /// What is known of a key's head.
    Record { key: Arc<str>, epoch: u64, sequence: u64, record: Record },
    /// What is to be done with a dead head.
    Command { key: Arc<str>, id: Arc<str>, action: Action },
    /// The end of what was there when it was written.
    Marker { id: String },
    /// The owner is asked how it is.
    Ask { id: String, reply_to: String },
}

/// What is known of the head of a key beyond what its event says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The head's event.
    pub(super) id: Arc<str>,
    pub(super) state: Waits,
    /// Not before this time.
    #[serde(with = "micros")]
    pub(super) due: Timestamp,
    /// Since when it waits.
    #[serde(with = "micros")]
    pub(super) since: Timestamp,
    /// Starts that may have ended without an outcome.
    pub(super) crashes: u32,
    /// The head is to be dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) skip: bool,
    /// What the event is handled with, in the headers of the entry.
    #[serde(skip)]
    pub(super) headers: Headers,
}

mod micros {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::event::Timestamp;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.as_micros())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp::from_micros)
    }
}

/// Where a key waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Waits {
    /// In the subscription's queue, held by the owner.
    Held,
    /// In a queue of its own.
    Parked,
    /// In a queue of its own until a command comes.
    Dead,
    /// In the subscription's queue again: its own is empty, and being deleted.
    Leaving,
}

/// What becomes of a dead head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Action {
    Replay,
    Discard,
}

/// A record's entries on their way and in hand.
struct Slot {
    /// Sequence of the newest one written.
    newest: u64,
    written: Instant,
    gone: bool,
    /// Written, and not delivered back yet.
    under_way: u32,
    /// Sequence and delivery tag of those in hand.
    held: Vec<(u64, u64)>,
}

/// The owner's side of the journal: which entries are in hand, and which of them are needed.
pub(super) struct Journal {
    channel: Channel,
    epoch: u64,
    sequence: u64,
    slots: HashMap<Arc<str>, Slot>,
    token: Option<u64>,
    token_written: Instant,
    /// Records to be acked, the oldest first.
    leaving: Vec<(Instant, Arc<str>, u64)>,
}

impl Journal {
    /// An empty one for the owner of this epoch.
    pub(super) fn new(channel: Channel, epoch: u64) -> Self {
        Self {
            channel,
            epoch,
            sequence: 0,
            slots: HashMap::new(),
            token: None,
            token_written: Instant::now(),
            leaving: Vec::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes over a record of an earlier owner.
    pub(super) fn adopt(&mut self, key: &Arc<str>, tag: u64) {
        let slot = Slot { newest: 0, written: Instant::now(), gone: false, under_way: 0, held: vec![(0, tag)] };
        self.slots.insert(key.clone(), slot);
    }

    /// A new entry for the key's record, to be published.
    pub(super) fn write(&mut self, key: &Arc<str>, record: Record) -> Entry {
        self.sequence += 1;
        let now = Instant::now();
        let slot = self.slots.entry(key.clone()).or_insert_with(|| Slot {
            newest: 0,
            written: now,
            gone: false,
            under_way: 0,
            held: Vec::new(),
        });
        (slot.newest, slot.written, slot.gone) = (self.sequence, now, false);
        slot.under_way += 1;
        Entry::Record { key: key.clone(), epoch: self.epoch, sequence: self.sequence, record }
    }

    /// A record was delivered. One of another owner comes too late to count.
    pub(super) fn arrived(&mut self, key: &Arc<str>, epoch: u64, sequence: u64, tag: u64) {
        let Some(slot) = self.slots.get_mut(key).filter(|_| epoch == self.epoch) else {
            self.ack(tag);
            return;
        };
        slot.under_way = slot.under_way.saturating_sub(1);
        slot.held.push((sequence, tag));
        self.tidy(key);
    }

    /// Acks what a newer entry has replaced.
    fn tidy(&mut self, key: &Arc<str>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let newest = slot.held.iter().map(|(sequence, _)| *sequence).max();
        let gone = slot.gone;
        let (old, kept) =
            std::mem::take(&mut slot.held).into_iter().partition::<Vec<_>, _>(|(s, _)| gone || Some(*s) < newest);
        slot.held = kept;
        if slot.gone && slot.under_way == 0 {
            self.slots.remove(key);
        }
        for (_, tag) in old {
            self.ack(tag);
        }
    }

    /// The record is no longer needed.
    pub(super) fn forget(&mut self, key: &Arc<str>) {
        if let Some(slot) = self.slots.get(key) {
            self.leaving.push((Instant::now(), key.clone(), slot.newest));
        }
    }

    /// Acks the records that are no longer needed; all of them, or those whose event was acked a while ago.
    pub(super) fn sweep(&mut self, all: bool) {
        let now = Instant::now();
        let count = self.leaving.iter().take_while(|(at, ..)| all || now - *at >= FORGET_AFTER).count();
        for (_, key, newest) in self.leaving.drain(..count).collect::<Vec<_>>() {
            if let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.newest == newest) {
                slot.gone = true;
                self.tidy(&key);
            }
        }
    }

    /// Whether records wait to be acked.
    pub(super) fn any_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The keys whose records have to be written anew.
    pub(super) fn aged(&self) -> Vec<Arc<str>> {
        let aged = self.slots.iter().filter(|(_, slot)| !slot.gone && slot.written.elapsed() >= REWRITE_AFTER);
        aged.map(|(key, _)| key.clone()).collect()
    }

    /// A token was delivered: ours replaces what is in hand, any other is superfluous.
    pub(super) fn token(&mut self, epoch: u64, tag: u64) {
        if epoch == self.epoch {
            if let Some(old) = self.token.replace(tag) {
                self.ack(old);
            }
        } else {
            self.ack(tag);
        }
    }

    /// Whether the token has to be written anew. Says so once.
    pub(super) fn token_aged(&mut self) -> bool {
        let aged = self.token_written.elapsed() >= REWRITE_AFTER;
        if aged {
            self.token_written = Instant::now();
        }
        aged
    }

    /// Done with an entry. Where the ack gets lost it comes again, to the next owner.
    pub(super) fn ack(&self, tag: u64) {
        send_ack(&self.channel, tag, false);
    }
}
