//! One key of an ordered subscription: what waits of it, what its head does, and how far it is parked.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use lapin::Channel;
use tokio::time::Instant;

use super::super::unsettled::send_ack;
use super::copied::Copied;
use super::event::Event;
use super::journal::Record;

/// Events of a key that are on their way into its queue at a time: with 32 unconfirmed ones the server stops reading the
/// connection until the queue has a leader.
const MOST_UNDER_WAY: usize = 16;

/// What is handled one event at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum KeyId {
    /// The events of a key.
    Named(Arc<str>),
    /// An event without a key, by its id.
    Lone(Arc<str>),
}

/// What a lone event's name in the journal begins with.
const LONE: char = '\0';

impl KeyId {
    pub(super) fn of(event: &Event) -> Self {
        match &event.message.key {
            Some(key) => Self::Named(key.clone()),
            None if event.message.id.is_empty() => Self::Lone(format!("{LONE}#{}", event.tag).into()),
            None => Self::Lone(format!("{LONE}{}", event.message.id).into()),
        }
    }

    /// The one that the journal calls so.
    pub(super) fn in_journal(name: &Arc<str>) -> Self {
        if name.starts_with(LONE) { Self::Lone(name.clone()) } else { Self::Named(name.clone()) }
    }

    /// Its name in the journal.
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Self::Named(name) | Self::Lone(name) => name,
        }
    }

    pub(super) fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }
}

/// What the head of a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing, or there is none.
    Idle,
    /// It waits for a handler.
    Listed,
    /// A handler has it, under this number.
    InHand(u64),
    /// The owner writes down what becomes of it.
    Busy,
    /// For its retry.
    Waiting(Instant),
}

/// How far a parked key is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its record is being written; what arrives waits.
    Moving,
    /// Until it is due, or a command comes; what arrives goes into its queue.
    Resting,
    /// Its queue does not answer, and is tried again at this time; what arrives waits.
    Aside(Instant),
    /// Its queue is being opened.
    Opening,
    /// It is handled from its queue.
    Open(Channel),
    /// As before; a marker is in its queue, and what arrives waits for it.
    Ending { channel: Channel, marker: String },
    /// The marker has come: once nothing is left of what came before it, the key is no longer parked.
    Ended(Channel),
    /// Its queue is being deleted; what arrives waits.
    Leaving,
}

impl Stage {
    pub(super) fn is_aside(&self) -> bool {
        matches!(self, Self::Aside(_))
    }

    pub(super) fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Open(channel) | Self::Ending { channel, .. } | Self::Ended(channel) => Some(channel),
            _ => None,
        }
    }
}

/// A key that has a queue of its own.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) stage: Stage,
    /// Of its queue's channels: deliveries of an older one are void.
    pub(super) opened: u64,
    /// Delivered from its queue.
    pub(super) fifo: VecDeque<Event>,
    /// Went back with a channel that this owner closed: not crashed.
    pub(super) returned: HashSet<Arc<str>>,
    /// Events on their way into its queue.
    pub(super) under_way: usize,
    /// Its queue has taken an event on this connection.
    pub(super) proven: bool,
    /// Events that its queue has taken, and which stay unacked where they were until the queue is old enough.
    pub(super) copied: Copied,
}

/// A key of which something is known.
#[derive(Debug)]
pub(super) struct Key {
    /// Delivered from the subscription's queue.
    pub(super) fifo: VecDeque<Event>,
    pub(super) head: Head,
    pub(super) record: Option<Record>,
    pub(super) parked: Option<Parked>,
}

impl Key {
    pub(super) fn new() -> Self {
        Self { fifo: VecDeque::new(), head: Head::Idle, record: None, parked: None }
    }

    /// The events that are handled now.
    pub(super) fn current(&mut self) -> Option<&mut VecDeque<Event>> {
        match &mut self.parked {
            None => Some(&mut self.fifo),
            Some(parked) => parked.stage.channel().is_some().then_some(&mut parked.fifo),
        }
    }

    /// The next event that goes into the key's queue, if one may.
    pub(super) fn next_to_divert(&mut self) -> Option<Event> {
        let parked = self.parked.as_mut()?;
        let most = if parked.proven { MOST_UNDER_WAY } else { 1 };
        if !matches!(parked.stage, Stage::Resting | Stage::Opening | Stage::Open(_)) || parked.under_way >= most {
            return None;
        }
        let mut event = self.fifo.pop_front()?;
        event.copy = parked.copied.is_young();
        parked.under_way += 1;
        Some(event)
    }

    /// Drops further copies of what is done with.
    pub(super) fn drop_surplus(&mut self) {
        let Some(Parked { stage, fifo, copied, .. }) = &mut self.parked else { return };
        let Some(channel) = stage.channel() else { return };
        while let Some(event) = fifo.front().filter(|event| copied.is_surplus(event)) {
            send_ack(channel, event.tag, false);
            fifo.pop_front();
        }
    }

    pub(super) fn front(&mut self) -> Option<&mut Event> {
        self.current()?.front_mut()
    }

    /// The record, if it is about the head.
    pub(super) fn of_head(&mut self) -> Option<&Record> {
        let id = self.front()?.message.id.clone();
        self.record.as_ref().filter(|record| record.id == id)
    }
}
