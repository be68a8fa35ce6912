//! A walk over the dead letters of a subscription.
//!
//! Everything that was looked at stays unacked until the walk ends; closing the channels then puts it back in its place.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::Instant;

use super::barrier::acks_passed_on;
use super::connection::{Connector, answer_in_time};
use super::headers::name_of;
use super::ordered::{Action, command, identify};
use super::outbound::{Destination, Outbound};
use super::publisher::Publisher;
use super::received::{Received, received};
use super::source::{close_channel, stale};
use super::topology::{CANCEL, Declarer, dead_letter_queue};
use crate::event::name;
use crate::host::Process;
use crate::settlement::reason;
use crate::transport::{DeadLetters, Message, QueueType, StoredDeadLetter, Token};
use crate::{Error, ErrorKind, Result};

/// Most that one channel can have unacked.
pub(super) const MAX_PREFETCH: u16 = u16::MAX;
/// When nothing has come for this long, what was counted at the start is gone.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the queue is asked whether what was held is back, and for how long.
const BACK_INTERVAL: Duration = Duration::from_millis(5);
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// Acks under way at once; with 32 the channel begins to keep them back.
const ACKS_AT_ONCE: usize = 8;
/// Time for a replay to be confirmed.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a walk needs of the transport.
pub(super) struct Context {
    pub(super) connector: Arc<Connector>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) infrastructure: QueueType,
    /// Exchange that the subscription's events came from.
    pub(super) exchange: Arc<str>,
    /// Most that one channel reads; [`MAX_PREFETCH`] but in tests.
    pub(super) per_channel: u16,
}

/// Places in a batch, each with what is there.
type Places<T> = Vec<(usize, T)>;

/// A dead letter that is neither replayed nor discarded.
struct Held {
    extra: Option<Arc<BasicProperties>>,
    /// It is the copy of a dead head that waits in this ordered queue, with its event's id and key.
    parked: Option<Arc<str>>,
    id: Arc<str>,
    key: Option<Arc<str>>,
}

/// Dead letters, oldest first.
pub(super) struct Walk {
    context: Context,
    name: Arc<str>,
    queue: String,
    depth: u64,
    seen: u64,
    /// Of those counted at the start, the ones that will not be there after the walk.
    gone: u64,
    /// Channels whose deliveries are held, oldest first.
    channels: Vec<Channel>,
    consumer: Option<Consumer>,
    /// Deliveries that the current channel has still room for.
    room: u64,
    /// Read from a channel that is full, and not handed over yet.
    surplus: VecDeque<StoredDeadLetter>,
    /// Deliveries that are neither replayed nor discarded, with what a foreign publisher had set.
    held: HashMap<Token, Held>,
    can_replay: bool,
    /// Acks were sent while the queue had more than what is ours, so that a `get` could not tell that they arrived.
    unsure: AtomicBool,
    home: Process,
}

impl Walk {
    /// Counts the dead letters. `SUBSCRIPTION_NOT_FOUND` without the subscription; one without dead letters is empty.
    pub(super) async fn open(context: Context, name: &str) -> Result<Self> {
        let queue = dead_letter_queue(name);
        let declarer = Declarer::open(&context.connector).await?;
        if declarer.look(name).await?.is_none() {
            return Err(Error::new(ErrorKind::SubscriptionNotFound, "there is no subscription of this name")
                .field("subscription", name)
                .remedy("check the name and the virtual host"));
        }
        let depth = declarer.look(&queue).await?.map(|queue| u64::from(queue.message_count()));
        if depth.is_some() {
            declarer.close().await;
        }
        Ok(Self {
            context,
            name: name.into(),
            queue,
            depth: depth.unwrap_or(0),
            seen: 0,
            gone: 0,
            channels: Vec::new(),
            consumer: None,
            room: 0,
            surplus: VecDeque::new(),
            held: HashMap::new(),
            can_replay: false,
            unsure: AtomicBool::new(false),
            home: Process::here(),
        })
    }

    /// Ends the consumer of a channel that is full. Acks have made room on it for more than was asked for: what came
    /// is held there, so no later channel would see it.
    async fn finish_channel(&mut self) -> Result<()> {
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        if let Some(channel) = self.channels.last() {
            answer_in_time(channel.basic_cancel(consumer.tag(), CANCEL), "ending a walk's consumer").await?;
        }
        while let Some(delivery) = consumer.next().await {
            let delivery =
                delivery.map_err(|error| super::error::answered(error, &format!("reading queue {}", self.queue)))?;
            if self.seen < self.depth {
                let letter = self.read(delivery);
                self.surplus.push_back(letter);
            }
        }
        Ok(())
    }

    /// A consumer with room for the next delivery.
    async fn consumer(&mut self) -> Result<&mut Consumer> {
        if self.consumer.is_none() {
            let room = (self.depth - self.seen).min(self.context.per_channel.into());
            let (channel, _) = self.context.connector.channel().await?;
            let prefetch = u16::try_from(room).unwrap_or(u16::MAX);
            answer_in_time(channel.basic_qos(prefetch, BasicQosOptions::default()), "the prefetch").await?;
            let tag = name_of(format!("tidings-walk-{}", self.channels.len()));
            let asked = channel.basic_consume(
                name_of(&*self.queue),
                tag,
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            self.consumer = Some(answer_in_time(asked, &format!("reading queue {}", self.queue)).await?);
            self.channels.push(channel);
            self.room = room;
        }
        self.consumer.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "a walk has no consumer"))
    }

    fn read(&mut self, delivery: Delivery) -> StoredDeadLetter {
        let token = Token { id: delivery.delivery_tag, generation: self.channels.len() as u64 };
        let routing_key = delivery.routing_key.as_str().into();
        let Received { mut message, extra, notes } =
            received(delivery, routing_key, &self.context.exchange, &self.name);
        let parked: Option<Arc<str>> = message.headers.text(name::PARKED).map(Into::into);
        if parked.is_some() {
            identify(&mut message);
        }
        self.held.insert(token, Held { extra, parked, id: message.id.clone(), key: message.key.clone() });
        self.seen += 1;
        self.room = self.room.saturating_sub(1);
        if message.headers.get(name::DEAD_REASON).is_none() {
            message.headers.set(name::DEAD_REASON, notes.death_reason.unwrap_or_else(|| reason::BROKER.to_owned()));
        }
        StoredDeadLetter { token, message }
    }

    /// Acks, one result each: in one command what no older delivery holds back, the rest a few at a time.
    async fn remove(&mut self, tokens: &[Token]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(tokens.len());
        let mut channels: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        for (at, token) in tokens.iter().enumerate() {
            let held = self.channel(token.generation).is_some() && self.held.remove(token).is_some();
            results.push(if held { Ok(()) } else { Err(stale()) });
            if held {
                channels.entry(token.generation).or_default().push((token.id, at));
            }
        }
        for (generation, mut tags) in channels {
            tags.sort_unstable();
            match self.ack(generation, &tags.iter().map(|(tag, _)| *tag).collect::<Vec<_>>()).await {
                Ok(()) => self.gone += tags.len() as u64,
                Err(error) => {
                    for (_, at) in tags {
                        results[at] = Err(error.duplicate());
                    }
                }
            }
        }
        results
    }

    fn channel(&self, generation: u64) -> Option<&Channel> {
        let at = usize::try_from(generation).ok()?.checked_sub(1)?;
        self.channels.get(at).filter(|channel| channel.status().connected())
    }

    async fn ack(&self, generation: u64, tags: &[u64]) -> Result<()> {
        let channel = self.channel(generation).ok_or_else(stale)?;
        let kept = self.held.keys().filter(|token| token.generation == generation).map(|token| token.id).min();
        let (prefix, others) = tags.split_at(tags.partition_point(|tag| kept.is_none_or(|kept| *tag < kept)));
        if let Some(last) = prefix.last() {
            let acking = channel.basic_ack(*last, BasicAckOptions { multiple: true });
            answer_in_time(acking, "removing dead letters").await?;
            self.until_applied(channel).await?;
        }
        for few in others.chunks(ACKS_AT_ONCE) {
            for tag in few {
                answer_in_time(channel.basic_ack(*tag, BasicAckOptions::default()), "removing a dead letter").await?;
            }
            self.until_applied(channel).await?;
        }
        Ok(())
    }

    /// Waits until the queue has carried out the acks so far.
    ///
    /// Acks have no answer. The channel of a quorum queue passes on 32 commands, keeps further acks until some of those
    /// are carried out, and forgets them if it is closed before: 365 of 400 dead letters that were removed one by one
    /// came back (3.10.8 and 4.0.5). A `get` is answered after what was sent before it. It finds nothing, because all
    /// that was counted is ours; a dead letter that is new goes back with the others.
    async fn until_applied(&self, channel: &Channel) -> Result<()> {
        if self.seen + self.room >= self.depth {
            let asking = channel.basic_get(name_of(&*self.queue), BasicGetOptions::default());
            answer_in_time(asking, "removing dead letters").await?;
        } else {
            self.unsure.store(true, Relaxed);
        }
        Ok(())
    }

    /// Nothing more comes: somebody else has the rest.
    fn give_up(&mut self) {
        self.gone += self.depth - self.seen;
        self.seen = self.depth;
    }

    /// Waits until the queue shows again what was held. The server puts it back after it has answered the close, and
    /// another walk, opened at once, would find an empty queue.
    async fn wait_until_back(&self) -> Result<()> {
        let declarer = Declarer::open(&self.context.connector).await?;
        let deadline = Instant::now() + BACK_WITHIN;
        while let Some(queue) = declarer.look(&self.queue).await? {
            // Who reads the queue meanwhile, on purpose or by another walk, would keep us here for ever.
            if u64::from(queue.message_count()) >= self.depth - self.gone || Instant::now() >= deadline {
                declarer.close().await;
                break;
            }
            tokio::time::sleep(BACK_INTERVAL).await;
        }
        Ok(())
    }

    /// Lets the owner of the subscription replay or discard dead heads, which wait in their keys' queues, and then removes
    /// the copies. One result each, in order.
    async fn command(&mut self, batch: Vec<(Token, Message)>, action: Action) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut tokens = Vec::with_capacity(batch.len());
        let mut commands = Vec::with_capacity(batch.len());
        for (token, message) in batch {
            let held = self.held.get(&token).and_then(|held| held.parked.clone());
            let command = match (held, message.key) {
                (Some(queue), Some(key)) => command(&queue, &key, &message.id, action, message.headers),
                _ => Err(stale()),
            };
            match command {
                Ok(command) => {
                    results.push(Ok(()));
                    tokens.push(token);
                    commands.push(command);
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let deadline = Instant::now() + REPLAY_TIMEOUT;
        let written = self
            .context
            .publisher
            .publish(commands, |command, reply| Ok(Outbound { deadline: Some(deadline), ..command(reply) }));
        let mut removable = Vec::with_capacity(tokens.len());
        let mut outcomes = Vec::with_capacity(tokens.len());
        for (token, outcome) in tokens.into_iter().zip(written.await) {
            outcomes.push(match outcome {
                Ok(Some(false)) => {
                    Err(Error::new(ErrorKind::Rejected, "the subscription whose key waits for the event is gone")
                        .field("subscription", &self.name)
                        .remedy("subscribe again, then replay"))
                }
                Ok(_) => {
                    removable.push(token);
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        let mut removed = self.remove(&removable).await.into_iter();
        let mut outcomes =
            outcomes.into_iter().map(|outcome| outcome.and_then(|()| removed.next().unwrap_or_else(|| Err(stale()))));
        for result in &mut results {
            if result.is_ok() {
                *result = outcomes.next().unwrap_or_else(|| Err(stale()));
            }
        }
        results
    }

    /// The place of each delivery in a batch, those of dead heads apart from the others.
    fn split<T>(&self, batch: Vec<T>, token: impl Fn(&T) -> Token) -> (Places<T>, Places<T>) {
        batch
            .into_iter()
            .enumerate()
            .partition(|(_, one)| self.held.get(&token(one)).is_some_and(|held| held.parked.is_some()))
    }

    /// Lets replayed events into the subscription's queue, also where only the peer has declared it.
    async fn prepare_replay(&mut self) -> Result<()> {
        if !self.can_replay {
            let declarer = Declarer::open(&self.context.connector).await?;
            let result = match declarer.deliver(self.context.infrastructure).await {
                Ok(()) => declarer.bind_delivery(&self.name).await,
                Err(error) => Err(error),
            };
            declarer.close_after(result).await?;
            self.can_replay = true;
        }
        Ok(())
    }

    /// Publishes dead letters into the subscription's queue, and then removes them. One result each, in order.
    async fn put_back(&mut self, batch: Vec<(Token, Message)>) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = std::iter::repeat_with(|| Ok(())).take(batch.len()).collect();
        if let Err(error) = self.prepare_replay().await {
            results.fill_with(|| Err(error.duplicate()));
            return results;
        }
        let deadline = Instant::now() + REPLAY_TIMEOUT;
        let name = self.name.clone();
        let tokens: Vec<Token> = batch.iter().map(|(token, _)| *token).collect();
        let mut indexes = Vec::with_capacity(batch.len());
        let mut publishable = Vec::with_capacity(batch.len());
        for (at, (token, message)) in batch.into_iter().enumerate() {
            match self.held.get(&token) {
                Some(held) => {
                    indexes.push(at);
                    publishable.push((message, held.extra.clone()));
                }
                None => results[at] = Err(stale()),
            }
        }
        let publishing = self.context.publisher.publish(publishable, |(message, extra), reply| {
            let mut out =
                Outbound::event(Message { deadline: Some(deadline.into_std()), deliver_at: None, ..message }, reply);
            out.extra = extra;
            out.to = Destination::Subscription(name.clone());
            out.fit();
            Ok(out)
        });
        let mut written = Vec::with_capacity(indexes.len());
        for (at, outcome) in indexes.into_iter().zip(publishing.await) {
            match outcome {
                Ok(Some(false)) => {
                    results[at] =
                        Err(Error::new(ErrorKind::Rejected, "the broker has no queue for the replayed event")
                            .field("subscription", &self.name)
                            .remedy("subscribe again, then replay"));
                }
                Ok(_) => written.push(at),
                Err(error) => results[at] = Err(error),
            }
        }
        let removed = self.remove(&written.iter().map(|at| tokens[*at]).collect::<Vec<_>>()).await;
        for (at, result) in written.into_iter().zip(removed) {
            results[at] = result;
        }
        results
    }
}

/// Results in the places of a batch that they belong to.
fn put(results: &mut [Result<()>], places: Vec<usize>, found: Vec<Result<()>>) {
    for (place, result) in places.into_iter().zip(found) {
        results[place] = result;
    }
}

#[async_trait]
impl DeadLetters for Walk {
    fn depth(&self) -> u64 {
        self.depth
    }

    async fn next(&mut self, max: usize) -> Result<Vec<StoredDeadLetter>> {
        self.home.check()?;
        let mut letters = Vec::new();
        while letters.len() < max {
            if let Some(letter) = self.surplus.pop_front() {
                letters.push(letter);
                continue;
            }
            if self.seen >= self.depth {
                break;
            }
            if self.room == 0 {
                self.finish_channel().await?;
                if !self.surplus.is_empty() || self.seen >= self.depth {
                    continue;
                }
            }
            // Whoever waits gets what is there; only the first one is worth waiting for.
            let patience = if letters.is_empty() { PATIENCE } else { Duration::from_millis(50) };
            match tokio::time::timeout(patience, self.consumer().await?.next()).await {
                Ok(Some(Ok(delivery))) => letters.push(self.read(delivery)),
                Ok(Some(Err(error))) => {
                    return Err(super::error::answered(error, &format!("reading queue {}", self.queue)));
                }
                Ok(None) => self.give_up(),
                Err(_) if letters.is_empty() => self.give_up(),
                Err(_) => break,
            }
        }
        Ok(letters)
    }

    async fn replay(&mut self, batch: Vec<(Token, Message)>) -> Vec<Result<()>> {
        if let Err(error) = self.home.check() {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        let count = batch.len();
        let (heads, others) = self.split(batch, |(token, _)| *token);
        let (head_places, heads): (Vec<_>, Vec<_>) = heads.into_iter().unzip();
        let (places, others): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        let mut results: Vec<Result<()>> = std::iter::repeat_with(|| Err(stale())).take(count).collect();
        if !others.is_empty() {
            put(&mut results, places, self.put_back(others).await);
        }
        if !heads.is_empty() {
            put(&mut results, head_places, self.command(heads, Action::Replay).await);
        }
        results
    }

    async fn discard(&mut self, batch: Vec<Token>) -> Vec<Result<()>> {
        if let Err(error) = self.home.check() {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        let count = batch.len();
        let (heads, others) = self.split(batch, |token| *token);
        let (places, others): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        let mut results: Vec<Result<()>> = std::iter::repeat_with(|| Err(stale())).take(count).collect();
        let (mut head_places, mut commands) = (Vec::new(), Vec::new());
        for (place, token) in heads {
            if let Some(held) = self.held.get(&token) {
                head_places.push(place);
                commands.push((token, Message::new("", held.id.clone(), Vec::new()).with_key(held.key.clone())));
            }
        }
        if !commands.is_empty() {
            put(&mut results, head_places, self.command(commands, Action::Discard).await);
        }
        put(&mut results, places, self.remove(&others).await);
        results
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.home.check()?;
        self.consumer = None;
        for channel in &self.channels {
            if channel.status().connected() {
                if self.unsure.load(Relaxed)
                    && let Err(error) = acks_passed_on(channel, &self.queue).await
                {
                    tracing::debug!(subscription = %self.name, %error, "the last removals may not have arrived");
                }
                close_channel(channel).await;
            }
        }
        if self.channels.is_empty() || self.gone == self.depth {
            return Ok(());
        }
        self.wait_until_back().await
    }
}
