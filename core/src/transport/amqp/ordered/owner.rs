//! The owner at work: one loop over what arrives, what is confirmed, what comes due and what was settled.
//!
//! Whatever has to be written is sent at once, so that the order of the decisions is the order on the channel; what
//! follows from it happens when the broker has confirmed it. Anything that fails on the way to the journal or to a key's
//! queue ends the tenure: the connection is closed, and what is in the broker decides how the next owner goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::super::connection::{Live, answer_in_time};
use super::super::headers::name_of;
use super::super::outbound::{Batch, Destination, Outbound, Outcome, Reply};
use super::super::window::Window;
use super::consumer::{Deliveries, Kept, KeyDeliveries};
use super::event::{Event, Item};
use super::journal::{Entry, Journal, Record, Waits};
use super::key::KeyId;
use super::keys::Work;
use super::shared::{Shared, Wish};
use crate::event::Headers;
use crate::transport::Message;
use crate::{Error, ErrorKind, Result};

/// How often confirms that came out of order are looked for, while some are awaited.
const TICK: Duration = Duration::from_millis(10);
/// How often the whole is looked at: what has aged, what nobody wants any more.
const ROUND: Duration = Duration::from_secs(15);
/// With nothing in hand, a member that is paused or not asked for events lets go after this time.
const IDLE: Duration = Duration::from_secs(1);

/// What follows once something is confirmed. An error ends the tenure.
pub(super) type Then = Box<dyn FnOnce(&mut Owner) -> Result<()> + Send>;

/// How a tenure ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The session wants it so.
    LetGo,
    /// To be taken up again when somebody asks.
    NobodyAsks,
}

/// The one member that runs the keys.
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) kept: Arc<Kept>,
    /// Of the subscription's queue and of everything that is published.
    pub(super) channel: Channel,
    pub(super) journal: Journal,
    pub(super) window: Window,
    pub(super) under_way: FuturesUnordered<BoxFuture<'static, Then>>,
    /// The queues of parked keys.
    pub(super) key_queues: SelectAll<KeyDeliveries>,
    /// Parked keys that are due while others are handled.
    pub(super) due: VecDeque<KeyId>,
    /// Parked keys that are handled from their queues, by the numbers of their consumers.
    pub(super) open: HashMap<u64, KeyId>,
    /// Channels opened for them so far.
    pub(super) opened: u64,
    pub(super) lattice: bool,
    /// Keys whose head is among the dead letters already, while that is not in its record yet.
    pub(super) dying: HashSet<KeyId>,
    name: String,
    /// When it is looked at whether the broker still answers.
    probe_at: Instant,
    probing: bool,
    round_at: Instant,
    idle_since: Option<Instant>,
    wish: watch::Receiver<Wish>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, kept: Arc<Kept>, channel: Channel, journal: Journal, name: String) -> Self {
        let window = Window::new(channel.clone(), Arc::new(Semaphore::new(0)));
        let wish = shared.wish.subscribe();
        Self {
            shared,
            live: kept.live().clone(),
            kept,
            channel,
            journal,
            window,
            under_way: FuturesUnordered::new(),
            key_queues: SelectAll::new(),
            due: VecDeque::new(),
            open: HashMap::new(),
            opened: 0,
            lattice: false,
            dying: HashSet::new(),
            name,
            probe_at: Instant::now(),
            probing: false,
            round_at: Instant::now() + ROUND,
            idle_since: None,
            wish,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends messages in order, and goes on with `then` when all of them have their outcomes.
    pub(super) fn publish(
        &mut self,
        make: Vec<Box<dyn FnOnce(Reply) -> Outbound + Send>>,
        then: impl FnOnce(&mut Self, Vec<Outcome>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let batch = Batch::new(make.len());
        let mut sent = Ok(());
        for (at, make) in make.into_iter().enumerate() {
            let mut out = make(batch.reply(at));
            match out.frame(self.live.frame_max()) {
                Ok(frame) if sent.is_ok() => sent = self.window.send(out, frame).map_err(|e| lost(&e)),
                Ok(_) => {}
                Err(error) => out.reply.finish(Err(error)),
            }
        }
        self.when(async move { batch.outcomes().await }, then);
        sent
    }

    /// Goes on with `then` when `work` is done.
    pub(super) fn when<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(&mut Self, T) -> Result<()> + Send + 'static,
    ) {
        let work = async move {
            let result = work.await;
            let then: Then = Box::new(move |owner: &mut Self| then(owner, result));
            then
        };
        self.under_way.push(work.boxed());
    }

    /// Writes an entry into the journal; `headers` go with it.
    pub(super) fn note(
        &mut self,
        entry: &Entry,
        headers: Headers,
        then: impl FnOnce(&mut Self) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let make = entry_for(&self.shared.queue, entry, headers)?;
        self.publish(vec![Box::new(make)], move |owner, outcomes| {
            confirmed(&outcomes)?;
            then(owner)
        })
    }

    /// Writes a key's record, and goes on once that is confirmed.
    pub(super) fn record(
        &mut self,
        id: &KeyId,
        record: Record,
        then: impl FnOnce(&mut Self) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if record.state == Waits::Dead {
            self.dying.remove(id);
        }
        let headers = record.headers.clone();
        let entry = self.journal.write(id.name(), record.clone());
        if let Some(key) = self.shared.keys.lock().all.get_mut(id) {
            key.record = Some(record);
        }
        self.note(&entry, headers, then)
    }

    /// Runs until the tenure ends, in order or with the error that ended it.
    pub(super) async fn run(&mut self, journal: &mut Deliveries, events: &mut Deliveries) -> Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet = 0u32;
        loop {
            self.do_work()?;
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            let until = self.next_look();
            let busy = self.window.len() > 0 || self.journal.any_leaving();
            let (window, under_way, key_queues) = (&mut self.window, &mut self.under_way, &mut self.key_queues);
            let unconfirmed = window.len() > 0;
            tokio::select! {
                item = events.next() => {
                    self.arrived(item)?;
                    // Many at once, so that whoever waits for events is woken once.
                    while let Some(item) = events.next().now_or_never() {
                        self.arrived(item)?;
                    }
                    self.shared.ready.notify_one();
                }
                item = journal.next() => self.journalled(item)?,
                Some(item) = key_queues.next(), if !key_queues.is_empty() => self.taken_from_key_queue(item)?,
                Some(then) = under_way.next(), if !under_way.is_empty() => then(self)?,
                confirms = std::future::poll_fn(|cx| window.poll_oldest(cx)), if unconfirmed => {
                    confirms.map_err(|e| lost(&e))?;
                    quiet = 0;
                }
                () = self.shared.work.notified() => {}
                _ = self.wish.changed() => {}
                () = tokio::time::sleep_until(until) => self.look()?,
                _ = tick.tick(), if busy => {
                    quiet += 1;
                    if quiet.is_power_of_two() || quiet.is_multiple_of(8) {
                        quiet = if self.window.sweep() > 0 { 0 } else { quiet };
                    }
                    self.journal.sweep(false);
                    if self.window.ended() {
                        return Err(gone("its channel was closed"));
                    }
                }
            }
        }
    }

    /// An event of the subscription's queue.
    fn arrived(&mut self, item: Option<(u64, lapin::Result<Delivery>)>) -> Result<()> {
        let (_, delivery) = item.ok_or_else(|| gone("the broker cancelled its consumer"))?;
        let delivery = delivery.map_err(|e| lost(&e))?;
        match Event::read(delivery, &self.shared.exchange, &self.shared.name) {
            Item::Event(event) => {
                let parked = self.shared.keys.lock().arrived(event);
                if let Some(id) = parked {
                    self.divert(&id)?;
                }
                self.relieve();
                Ok(())
            }
            Item::Marker(_, tag) => {
                self.shared.keys.lock().ack(&[tag]);
                Ok(())
            }
        }
    }

    /// An entry of the journal.
    pub(super) fn journalled(&mut self, item: Option<(u64, lapin::Result<Delivery>)>) -> Result<()> {
        let (_, delivery) = item.ok_or_else(|| gone("the broker cancelled the journal's consumer"))?;
        let delivery = delivery.map_err(|e| lost(&e))?;
        let Some((entry, headers)) = read(&delivery) else { return Ok(()) };
        let tag = delivery.delivery_tag;
        match entry {
            Entry::Token { epoch, .. } => self.journal.token(epoch, tag),
            Entry::Record { key, epoch, sequence, .. } => self.journal.arrived(&key, epoch, sequence, tag),
            Entry::Command { key, id, action } => self.command(&key, &id, action, headers, tag)?,
            Entry::Marker { .. } => self.journal.ack(tag),
            Entry::Ask { id, reply_to } => self.answer(&id, &reply_to, tag)?,
        }
        Ok(())
    }

    /// What the keys have found to be done.
    fn do_work(&mut self) -> Result<()> {
        loop {
            let work = std::mem::take(&mut self.shared.keys.lock().work);
            if work.is_empty() {
                return Ok(());
            }
            for one in work {
                match one {
                    Work::Settle(request) => self.settle(request)?,
                    Work::Count(id) => self.count(&id)?,
                    Work::Park(id) => self.park_aged(&id),
                    Work::Forget(key) => self.journal.forget(&key),
                    Work::Drained(id) => self.drained(&id)?,
                }
            }
            if self.shared.keys.lock().any_ready() {
                self.shared.ready.notify_one();
            }
        }
    }

    fn next_look(&self) -> Instant {
        let first = self.probe_at.min(self.round_at);
        let idle = self.idle_since.map(|since| since + IDLE);
        let timer = self.shared.keys.lock().next_timer();
        first.min(idle.unwrap_or(first)).min(timer.unwrap_or(first))
    }

    /// What is due by the clock.
    fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        let resting = self.shared.keys.lock().due(now);
        for id in resting {
            self.resume(id);
        }
        self.shared.ready.notify_one();
        if now >= self.probe_at {
            self.probe();
        }
        if now >= self.round_at {
            self.round_at = now + ROUND;
            self.round()?;
        }
        Ok(())
    }

    /// Asks the broker for an answer: as long as it gives one, nobody else has the subscription.
    fn probe(&mut self) {
        let asked = Instant::now();
        self.probe_at = asked + self.shared.patience() / 4;
        if std::mem::replace(&mut self.probing, true) {
            return;
        }
        let (channel, queue) = (self.channel.clone(), super::names::journal(&self.shared.queue));
        let question = async move {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asking = channel.queue_declare(name_of(&*queue), options, FieldTable::default());
            answer_in_time(asking, &format!("queue {queue}")).await
        };
        self.when(question, move |owner, answer| {
            answer?;
            owner.probing = false;
            *owner.shared.alive.lock() = Some(asked);
            owner.shared.ready.notify_one();
            Ok(())
        });
    }

    /// Writes anew what has aged, parks what was held too long, drops records whose events never came.
    fn round(&mut self) -> Result<()> {
        if self.journal.token_aged() {
            self.token(|_| Ok(()))?;
        }
        let aged_keys = self.shared.keys.lock().aged();
        for id in aged_keys {
            self.park_aged(&id);
        }
        for name in self.journal.aged() {
            let id = KeyId::in_journal(&name);
            let record = {
                let mut keys = self.shared.keys.lock();
                let saturated = keys.unacked >= usize::from(self.shared.spec.prefetch);
                let Some(key) = keys.all.get_mut(&id) else { continue };
                if key.parked.is_none() && key.fifo.is_empty() && !saturated {
                    // There was room all the time, so its event is not in the queue.
                    key.record = None;
                    keys.consider(&id);
                    None
                } else {
                    key.record.clone()
                }
            };
            match record {
                Some(record) => self.record(&id, record, |_| Ok(()))?,
                None => self.journal.forget(&name),
            }
        }
        Ok(())
    }

    /// Writes the token of this tenure.
    pub(super) fn token(&mut self, then: impl FnOnce(&mut Self) -> Result<()> + Send + 'static) -> Result<()> {
        let entry = Entry::Token { epoch: self.journal.epoch(), owner: self.name.clone() };
        self.note(&entry, Headers::new(), then)
    }

    /// Whether the tenure is over.
    fn ended(&mut self) -> Option<Ended> {
        let wish = *self.wish.borrow();
        if wish.closed {
            return Some(Ended::LetGo);
        }
        let settled = self.shared.keys.lock().in_hand() == 0 && self.under_way.len() <= usize::from(self.probing);
        if wish.elsewhere && settled {
            return Some(Ended::LetGo);
        }
        let unasked = self.shared.asked.lock().elapsed() >= self.shared.spec.max_hold / 2;
        if !settled || (wish.flows && !wish.stopped && !unasked) {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= IDLE).then_some(Ended::NobodyAsks)
    }

    /// Finishes what is under way, for a while, before the channels are closed.
    pub(super) async fn finish(&mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(TICK);
        while self.window.len() > 0 || !self.under_way.is_empty() {
            self.do_work()?;
            let (window, under_way) = (&mut self.window, &mut self.under_way);
            let unconfirmed = window.len() > 0;
            tokio::select! {
                Some(then) = under_way.next(), if !under_way.is_empty() => then(self)?,
                confirms = std::future::poll_fn(|cx| window.poll_oldest(cx)), if unconfirmed => {
                    confirms.map_err(|e| lost(&e))?;
                }
                _ = tick.tick() => { self.window.sweep(); }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.do_work()?;
        self.journal.sweep(true);
        Ok(())
    }
}

/// An entry as it goes into the journal of `queue`.
pub(super) fn entry_for(
    queue: &str,
    entry: &Entry,
    headers: Headers,
) -> Result<impl FnOnce(Reply) -> Outbound + Send + use<>> {
    let body = serde_json::to_vec(entry)
        .map_err(|e| Error::new(ErrorKind::Internal, "an entry of the journal cannot be written").source(e))?;
    let message = Message::new(super::names::journal(queue), crate::event::new_id(), body).with_headers(headers);
    Ok(move |reply| {
        let mut out = Outbound { to: Destination::Queue, ..Outbound::event(message, reply) };
        out.fit();
        out
    })
}

/// Reads an entry. One of a newer version is left alone.
pub(super) fn read(delivery: &Delivery) -> Option<(Entry, Headers)> {
    let (headers, _) = super::super::headers::incoming(&delivery.properties, "");
    match serde_json::from_slice::<Entry>(&delivery.data) {
        Ok(Entry::Record { key, epoch, sequence, mut record }) => {
            record.headers = headers.clone();
            Some((Entry::Record { key, epoch, sequence, record }, headers))
        }
        Ok(entry) => Some((entry, headers)),
        Err(error) => {
            tracing::warn!(%error, "the journal has an entry that this version cannot read");
            None
        }
    }
}

/// Everything was taken by the queue it was for.
pub(super) fn confirmed(outcomes: &[Outcome]) -> Result<()> {
    for outcome in outcomes {
        match outcome {
            Ok(Some(false)) => return Err(gone("a queue of the subscription is missing")),
            Ok(_) => {}
            Err(error) => return Err(error.duplicate()),
        }
    }
    Ok(())
}

pub(super) fn lost(error: &lapin::Error) -> Error {
    Error::new(ErrorKind::ConnectionFailed, format!("the ordered subscription lost its connection: {error}"))
}

pub(super) fn gone(why: &str) -> Error {
    Error::new(ErrorKind::ConnectionFailed, format!("the ordered subscription is no longer owned: {why}"))
}
