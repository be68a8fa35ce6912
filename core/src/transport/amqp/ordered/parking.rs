//! Keys that wait long get a queue of their own, and come back from it in order.
//!
//! ```text
//! Moving ─► record confirmed ─► Resting ─► due ─► Opening ─► Open ─► nothing left ─► Ending ─► marker ─► Ended ─► Leaving
//!           events follow          ▲                          │  the head is to be retried, or dead          queue, record
//!                                  └──────────────────────────┘                                              deleted
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use lapin::Channel;
use lapin::message::Delivery;

use super::super::connection::Live;
use super::super::outbound::Outbound;
use super::super::source::close_channel;
use super::super::topology::Declarer;
use super::super::unsettled::send_ack;
use super::aside::{answers, prove};
use super::consumer::{Deliveries, Kept};
use super::copied::Copied;
use super::event::{Event, Item, marker};
use super::journal::{Action, Record, Waits};
use super::key::{Head, Key, KeyId, Parked, Stage};
use super::names::key_queue;
use super::owner::{Owner, confirmed, gone, lost};
use super::settling::{Answer, tell};
use crate::Result;
use crate::event::{Headers, Timestamp};
use crate::transport::QueueType;

/// Events of a parked key that are fetched at a time.
const PREFETCH: u16 = 16;
/// Parked keys that are handled at a time: each has a channel.
const MAX_OPEN: usize = 128;

impl Parked {
    pub(super) fn new(stage: Stage, queue_type: QueueType) -> Self {
        Self {
            stage,
            opened: 0,
            fifo: VecDeque::new(),
            returned: HashSet::new(),
            under_way: 0,
            proven: false,
            copied: Copied::into_queue_of(queue_type),
        }
    }
}

impl Owner {
    pub(super) fn queue_of(&self, id: &KeyId) -> String {
        key_queue(&self.shared.queue, id.name())
    }

    /// Does something with a key that is there.
    pub(super) fn with<T>(&self, id: &KeyId, change: impl FnOnce(&mut Key) -> T) -> Option<T> {
        self.shared.keys.lock().all.get_mut(id).map(change)
    }

    /// Moves a key into a queue of its own: first its queue, then its record, then its events, each confirmed.
    pub(super) fn park(&mut self, id: KeyId, record: Record, reply: Option<Answer>) {
        let queue_type = self.shared.queue_type;
        self.with(&id, |key| {
            key.head = Head::Busy;
            key.parked = Some(Parked::new(Stage::Moving, queue_type));
        });
        let queue = self.queue_of(&id);
        let live = self.live.clone();
        let declaring = async move {
            let declarer = Declarer::on(&live).await?;
            let made = declarer.single_active(&queue, queue_type).await;
            declarer.close_after(made).await
        };
        self.when(declaring, move |owner, declared| {
            // Its record counts, also where its queue is not there yet: what there is of the key is held until it is.
            let failed = declared.err().map(|error| owner.alive_after(error)).transpose()?;
            let of = id.clone();
            owner.record(&id, record, move |owner| {
                if let Some(reply) = reply {
                    tell(reply, Ok(()));
                }
                owner.with(&of, |key| {
                    key.head = Head::Idle;
                    if let Some(parked) = &mut key.parked {
                        parked.stage = Stage::Resting;
                    }
                });
                if let Some(error) = failed {
                    owner.set_aside(&of, &error);
                    return Ok(());
                }
                owner.wait_for(&of);
                owner.divert(&of)
            })
        });
    }

    /// Parks a key without a change to what is known of its head.
    pub(super) fn park_as_it_is(&mut self, id: KeyId) {
        let now = Timestamp::now();
        let record = self.with(&id, |key| {
            let old = key.record.clone();
            let front = key.front()?;
            let (head, headers) = (front.message.id.clone(), front.message.headers.clone());
            Some(match old.filter(|record| record.id == head) {
                Some(record) => Record { state: Waits::Parked, ..record },
                None => {
                    Record { id: head, state: Waits::Parked, due: now, since: now, crashes: 0, skip: false, headers }
                }
            })
        });
        if let Some(record) = record.flatten() {
            self.park(id, record, None);
        }
    }

    /// Parks a key whose head is unacked for too long, if there is room.
    pub(super) fn park_aged(&mut self, id: &KeyId) {
        if self.may_park() {
            self.park_as_it_is(id.clone());
            return;
        }
        let mut keys = self.shared.keys.lock();
        if let Some(front) = keys.all.get_mut(id).and_then(Key::front) {
            front.since = tokio::time::Instant::now();
        }
        if let Some(key) = keys.all.get_mut(id).filter(|key| key.head == Head::Busy) {
            key.head = Head::Idle;
        }
        keys.consider(id);
    }

    /// A parked key rests until its head is due, or for ever if that is dead.
    pub(super) fn wait_for(&self, id: &KeyId) {
        let due = self.with(id, |key| key.record.as_ref().map(|record| (record.state, record.due)));
        match due.flatten() {
            Some((Waits::Dead, _)) => {}
            Some((_, due)) => self.wake_when_due(id, due),
            None => self.wake_when_due(id, Timestamp::now()),
        }
    }

    /// A parked key is due: its queue is opened, now or when another one is done.
    pub(super) fn resume(&mut self, id: KeyId) {
        let stage = self.with(&id, |key| {
            key.parked.as_ref().map(|parked| (matches!(parked.stage, Stage::Resting), parked.stage.is_aside()))
        });
        match stage.flatten() {
            Some((_, true)) => return self.try_again(id),
            Some((true, _)) if !self.wait_aside(&id) => {}
            _ => return,
        }
        if self.open.len() >= MAX_OPEN {
            if !self.due.contains(&id) {
                self.due.push_back(id);
            }
            return;
        }
        self.opened += 1;
        let number = self.opened;
        self.open.insert(number, id.clone());
        self.with(&id, |key| {
            if let Some(parked) = &mut key.parked {
                (parked.stage, parked.opened) = (Stage::Opening, number);
            }
        });
        let (queue, live) = (self.queue_of(&id), self.live.clone());
        let (queue_type, kept) = (self.shared.queue_type, self.kept.clone());
        let opening = async move {
            if let Err(error) = prove(&live, &queue, queue_type).await {
                return Ok(Err(error));
            }
            open(&live, &kept, &queue, number).await.map(Ok)
        };
        self.when(opening, move |owner, opened| {
            let (channel, deliveries) = match opened {
                Ok(Ok(opened)) => opened,
                Ok(Err(error)) => {
                    let error = owner.alive_after(error)?;
                    owner.open.remove(&number);
                    owner.set_aside(&id, &error);
                    owner.next_due();
                    return Ok(());
                }
                // Its consumer may be there all the same, so the connection has to end; the next tenure tries others first.
                Err(error) => {
                    owner.put_off(&id);
                    return Err(error);
                }
            };
            owner.answers(&id);
            owner.key_queues.push(deliveries.with_end());
            owner.with(&id, |key| {
                if let Some(parked) = &mut key.parked {
                    parked.stage = Stage::Open(channel);
                }
            });
            // What the queue has comes before the marker that asks whether that was all.
            owner.shared.keys.lock().consider(&id);
            owner.divert(&id)
        });
    }

    /// A delivery from the queue of a parked key.
    pub(super) fn taken_from_key_queue(&mut self, item: (u64, Option<lapin::Result<Delivery>>)) -> Result<()> {
        let (number, delivery) = item;
        // Closed by us: it is back in its place.
        let Some(id) = self.open.get(&number).cloned() else { return Ok(()) };
        let delivery = delivery.ok_or_else(|| gone("the queue of a key was deleted"))?.map_err(|e| lost(&e))?;
        let item = Event::read(delivery, &self.shared.exchange, &self.shared.name);
        let mut keys = self.shared.keys.lock();
        let Some(key) = keys.all.get_mut(&id) else { return Ok(()) };
        let Some(parked) = &mut key.parked else { return Ok(()) };
        match item {
            Item::Event(mut event) => {
                event.uncounted &= !parked.returned.remove(&event.message.id);
                parked.fifo.push_back(event);
            }
            Item::Marker(mark, tag) => {
                if let Some(channel) = parked.stage.channel() {
                    send_ack(channel, tag, false);
                }
                if let Stage::Ending { channel, marker } = &parked.stage
                    && *marker == mark
                {
                    parked.stage = Stage::Ended(channel.clone());
                }
            }
        }
        keys.consider(&id);
        drop(keys);
        self.shared.ready.notify_one();
        Ok(())
    }

    /// Nothing is in hand of a parked key: a marker finds out whether its queue is empty, and one that came says it is.
    pub(super) fn drained(&mut self, id: &KeyId) -> Result<()> {
        let mark = crate::event::new_id();
        let ended = self.with(id, |key| {
            let idle = key.head == Head::Idle && key.current().is_some_and(|fifo| fifo.is_empty());
            let parked = key.parked.as_mut().filter(|_| idle)?;
            match &parked.stage {
                Stage::Open(channel) => {
                    parked.stage = Stage::Ending { channel: channel.clone(), marker: mark.to_string() };
                    Some(false)
                }
                Stage::Ended(_) => Some(true),
                _ => None,
            }
        });
        match ended.flatten() {
            Some(true) => self.leave(id.clone()),
            Some(false) => {
                let queue = self.queue_of(id);
                let make = move |reply| -> Outbound { marker(&queue, &mark, reply) };
                self.publish(vec![Box::new(make)], |_, outcomes| confirmed(&outcomes))
            }
            None => Ok(()),
        }
    }

    /// The key is no longer parked: that is written down, then its queue goes, then the record, then it is handled where
    /// it was.
    ///
    /// The deletion may outlive this owner. One who does not know of it would put events into a queue that goes away.
    fn leave(&mut self, id: KeyId) -> Result<()> {
        let channel = self.close_stage(&id, Stage::Leaving);
        let Some(old) = self.with(&id, |key| key.record.clone()).flatten() else {
            self.vacate(id, channel);
            return Ok(());
        };
        let of = id.clone();
        self.record(&id, Record { state: Waits::Leaving, ..old }, move |owner| {
            owner.vacate(of, channel);
            Ok(())
        })
    }

    /// Deletes the empty queue of a key, then its record.
    pub(super) fn vacate(&mut self, id: KeyId, channel: Option<Channel>) {
        let (queue, live) = (self.queue_of(&id), self.live.clone());
        let leaving = async move {
            if let Some(channel) = channel {
                close_channel(&channel).await;
            }
            answers(&live, &queue).await?;
            let declarer = Declarer::on(&live).await?;
            let deleted = declarer.delete_queue(&queue).await;
            declarer.close_after(deleted).await
        };
        self.when(leaving, move |owner, left| {
            if let Err(error) = left {
                let error = owner.alive_after(error)?;
                owner.set_aside_leaving(id, &error);
                return Ok(());
            }
            owner.answers(&id);
            owner.journal.forget(id.name());
            let parked = owner.with(&id, |key| {
                (key.record, key.head) = (None, Head::Idle);
                key.parked.take()
            });
            let mut keys = owner.shared.keys.lock();
            keys.ack(&parked.flatten().map(|parked| parked.copied.all()).unwrap_or_default());
            keys.consider(&id);
            drop(keys);
            owner.next_due();
            Ok(())
        });
    }

    /// The head of a parked key waits: its queue is closed, which puts back what was fetched, until it is due.
    pub(super) fn rest(&mut self, id: &KeyId) -> Result<()> {
        let channel = self.close_stage(id, Stage::Opening);
        // What has waited for the marker goes before what arrives from here on.
        self.divert(id)?;
        let of = id.clone();
        let closing = async move {
            if let Some(channel) = channel {
                close_channel(&channel).await;
            }
        };
        self.when(closing, move |owner, ()| {
            owner.with(&of, |key| {
                key.head = Head::Idle;
                if let Some(parked) = &mut key.parked {
                    parked.stage = Stage::Resting;
                }
            });
            owner.wait_for(&of);
            owner.next_due();
            Ok(())
        });
        Ok(())
    }

    /// Ends what is read from a parked key's queue. The channel that is to be closed for that.
    fn close_stage(&mut self, id: &KeyId, stage: Stage) -> Option<Channel> {
        let mut keys = self.shared.keys.lock();
        let parked = keys.all.get_mut(id)?.parked.as_mut()?;
        let channel = parked.stage.channel().cloned();
        parked.stage = stage;
        let fifo = std::mem::take(&mut parked.fifo);
        parked.returned.extend(fifo.into_iter().filter(|event| !event.uncounted).map(|event| event.message.id));
        self.open.remove(&parked.opened);
        channel
    }

    pub(super) fn next_due(&mut self) {
        if let Some(id) = self.due.pop_front() {
            self.resume(id);
        }
    }

    /// A dead head is replayed or discarded. Whatever is not dead any more, or was never, is left as it is.
    pub(super) fn command(
        &mut self,
        name: &Arc<str>,
        head: &Arc<str>,
        action: Action,
        headers: Headers,
        tag: u64,
    ) -> Result<()> {
        let id = KeyId::in_journal(name);
        let moves =
            |key: &mut Key| key.parked.as_ref().is_some_and(|p| matches!(p.stage, Stage::Moving | Stage::Opening));
        let old = self.with(&id, |key| key.record.clone()).flatten();
        let dead = old.filter(|record| record.state == Waits::Dead && record.id == *head);
        if self.dying.contains(&id) || dead.is_some() && self.with(&id, moves) == Some(true) {
            // Seen among the dead letters, and on its way to where it can be woken.
            let (name, head) = (name.clone(), head.clone());
            let soon = tokio::time::sleep(std::time::Duration::from_millis(20));
            self.when(soon, move |owner, ()| owner.command(&name, &head, action, headers, tag));
            return Ok(());
        }
        let Some(old) = dead else {
            self.journal.ack(tag);
            return Ok(());
        };
        let skip = action == Action::Discard;
        let record = Record { state: Waits::Parked, due: Timestamp::now(), skip, crashes: 0, headers, ..old };
        let of = id.clone();
        self.record(&id, record, move |owner| {
            owner.journal.ack(tag);
            owner.wait_for(&of);
            Ok(())
        })
    }

    /// Takes over what an earlier owner knew of a key.
    pub(super) fn inherit(&mut self, name: &Arc<str>, record: Record, tag: u64) {
        self.journal.adopt(name, tag);
        let id = KeyId::in_journal(name);
        let mut key = Key::new();
        let (state, queue_type) = (record.state, self.shared.queue_type);
        key.parked = match state {
            Waits::Held => None,
            Waits::Parked | Waits::Dead => Some(Parked::new(Stage::Resting, queue_type)),
            Waits::Leaving => Some(Parked::new(Stage::Leaving, queue_type)),
        };
        key.record = Some(record);
        self.shared.keys.lock().all.insert(id.clone(), key);
        match state {
            Waits::Held => {}
            Waits::Parked | Waits::Dead => self.wait_for(&id),
            Waits::Leaving => self.vacate(id, None),
        }
    }
}

/// Opens a key's queue.
async fn open(live: &Live, kept: &Arc<Kept>, queue: &str, number: u64) -> Result<(Channel, Deliveries)> {
    let channel = live.channel().await?;
    let deliveries = Deliveries::open(&channel, kept, queue, number, PREFETCH, false).await?;
    if channel.status().connected() { Ok((channel, deliveries)) } else { Err(gone("a key's queue could not be read")) }
}
