//! RabbitMQ as a transport.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::connection::{Connector, Live, backoff, open};
use super::dead_letters::{Context, MAX_PREFETCH, Walk};
use super::error;
use super::lattice::MAX_DELAY;
use super::ordered::{self, OrderedSource};
use super::outbound::Outbound;
use super::publisher::Publisher;
use super::source::AmqpSource;
use super::topology::{Declarer, dead_letter_exchange, dead_letter_queue};
use super::url::Config;
use crate::doctor::{Examination, Finding};
use crate::event::Timestamp;
use crate::host::Process;
use crate::transport::spec::DEFAULT_EXCHANGE;
use crate::transport::{
    Capabilities, DeadLetters, Message, Ordered, QueueType, Receipt, Source, SubscriptionInfo, SubscriptionSpec,
    Transport,
};
use crate::{Error, ErrorKind, Result};

/// RabbitMQ 4 closes the channel for a larger body.
pub(super) const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// Queues of parked keys that are counted one by one.
const MOST_COUNTED: usize = 100;

/// Further attempts to delete a subscription whose connection ends meanwhile.
const DELETE_RETRIES: u32 = 3;
/// With this, what is held longest is settled within the server's `consumer_timeout` of 30 minutes.
const LONGEST_HOLD: Duration = Duration::from_secs(25 * 60);

/// One virtual host of a RabbitMQ.
pub(super) struct Broker {
    config: Arc<Config>,
    publish: Arc<Connector>,
    consume: Arc<Connector>,
    publisher: Arc<Publisher>,
    /// Subscriptions that this process has used, with the exchange of each.
    used: Mutex<BTreeMap<String, Arc<str>>>,
    sources: Mutex<Vec<std::sync::Weak<dyn Source>>>,
    closed: AtomicBool,
    home: Process,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker {
    /// Deletes what a subscription has on the broker; `there` turns true if its queue is found.
    async fn delete_once(&self, name: &str, there: &mut bool) -> Result<()> {
        let declarer = Declarer::open(&self.consume).await?;
        let found = declarer.look(name).await?.is_some();
        *there |= found;
        let declarer = if found { declarer } else { Declarer::open(&self.consume).await? };
        let queues = ordered::queues(&self.consume, name).await?;
        let found = ordered::survey(&self.consume, &queues).await?.unwrap_or_default();
        let deleted = async {
            declarer.delete_queue(name).await?;
            // The last partition first: what is left after a failure is found again.
            for queue in queues.iter().rev() {
                declarer.delete_queue(&ordered::journal(queue)).await?;
                declarer.delete_queue(queue).await?;
            }
            for queue in &found.key_queues {
                declarer.delete_queue(queue).await?;
            }
            if !queues.is_empty() {
                declarer.delete_queue(&ordered::processes(name)).await?;
                declarer.delete_exchange(&ordered::journal(name)).await?;
            }
            declarer.delete_queue(&dead_letter_queue(name)).await?;
            declarer.delete_exchange(&dead_letter_exchange(name)).await?;
            declarer.delete_exchange(&format!("{name}-retry")).await
        };
        let deleted = deleted.await;
        declarer.close_after(deleted).await
    }

    /// Connects once, to see whether it can be done.
    pub(super) async fn reach(url: &str) -> Result<Self> {
        let config = Arc::new(Config::parse(url)?);
        let first: Arc<Live> = Arc::new(open(&config).await?);
        let spare = Arc::new(Mutex::new(Some(first)));
        let publish = Arc::new(Connector::new(config.clone(), "publish", spare.clone()));
        let consume = Arc::new(Connector::new(config.clone(), "consume", spare));
        let publisher = Arc::new(Publisher::start(publish.clone(), config.queue_type));
        Ok(Self {
            config,
            publish,
            consume,
            publisher,
            used: Mutex::default(),
            sources: Mutex::default(),
            closed: AtomicBool::new(false),
            home: Process::here(),
        })
    }

    fn check_open(&self) -> Result<()> {
        self.home.check()?;
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(()) }
    }

    /// Deletes a queue and nothing else. `false` if there was none.
    pub(super) async fn delete_queue(&self, queue: &str) -> Result<bool> {
        let declarer = Declarer::open(&self.consume).await?;
        // The server closes the channel of a look that finds nothing.
        if declarer.look(queue).await?.is_none() {
            return Ok(false);
        }
        let deleted = declarer.delete_queue(queue).await;
        declarer.close_after(deleted).await.map(|()| true)
    }

    /// A walk over dead letters that reads `per_channel` of them from one channel at most.
    async fn walk(&self, subscription: &str, per_channel: u16) -> Result<Walk> {
        self.check_open()?;
        let exchange = self.used.lock().get(subscription).cloned().unwrap_or_else(|| DEFAULT_EXCHANGE.into());
        let context = Context {
            connector: self.consume.clone(),
            publisher: self.publisher.clone(),
            infrastructure: self.config.queue_type,
            exchange,
            per_channel,
        };
        let walk = Walk::open(context, subscription).await?;
        self.used.lock().entry(subscription.to_owned()).or_insert_with(|| DEFAULT_EXCHANGE.into());
        Ok(walk)
    }

    async fn count(&self, name: &str) -> Result<Option<SubscriptionInfo>> {
        let declarer = Declarer::open(&self.consume).await?;
        let Some(queue) = declarer.look(name).await? else { return Ok(None) };
        let mut info = SubscriptionInfo::new(name);
        info.ready = queue.message_count().into();
        info.consumers = Some(queue.consumer_count().into());
        let Some(dead) = declarer.look(&dead_letter_queue(name)).await? else { return Ok(Some(info)) };
        info.dead = dead.message_count().into();
        let queues = ordered::queues(&self.consume, name).await?;
        if !queues.is_empty() {
            self.count_ordered(&mut info, &queues, &declarer).await?;
        }
        declarer.close().await;
        Ok(Some(info))
    }

    /// Adds what an ordered subscription has elsewhere.
    async fn count_ordered(&self, info: &mut SubscriptionInfo, queues: &[String], declarer: &Declarer) -> Result<()> {
        let Some(found) = ordered::survey(&self.consume, queues).await? else { return Ok(()) };
        info.in_flight = Some(found.held);
        let partitions = queues.iter().filter(|queue| **queue != info.name);
        for queue in partitions.chain(found.key_queues.iter().take(MOST_COUNTED)) {
            // One that has gone meanwhile ends the channel, and with it the counting.
            let Some(queue) = declarer.look(queue).await? else { break };
            info.ready += u64::from(queue.message_count());
        }
        info.parked = Some(found.order.dead_keys);
        info.order = Some(found.order);
        Ok(())
    }
}

/// Refuses what would make the server end the channel or the connection.
pub(super) fn check(message: &Message) -> Result<()> {
    message.headers.check()?;
    if message.body.len() > MAX_PAYLOAD {
        return Err(Error::new(ErrorKind::PayloadTooLarge, format!("the body has {} bytes", message.body.len()))
            .field("max_payload", MAX_PAYLOAD)
            .remedy("publish a reference to the data instead"));
    }
    if let Some(at) = message.deliver_at {
        let delay = at.since(Timestamp::now());
        if delay > MAX_DELAY {
            return Err(super::lattice::too_long(delay));
        }
    }
    Ok(())
}

pub(super) fn receipt(message: (Arc<str>, Arc<str>, bool), routed: Option<bool>) -> Result<Receipt> {
    let (id, routing_key, require_route) = message;
    if require_route && routed == Some(false) {
        return Err(Error::new(ErrorKind::Unroutable, "no subscription wants the event, and it was not stored")
            .field("routing_key", routing_key)
            .remedy("subscribe first, check the binding keys, or publish without require_route"));
    }
    Ok(Receipt::new(id, routed))
}

#[async_trait]
impl Transport for Broker {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("amqp");
        capabilities.durable = true;
        capabilities.multi_process = true;
        capabilities.ordered = Ordered::Single;
        capabilities.partitioned = true;
        capabilities.fenced_settle = true;
        capabilities.fenced_publish = true;
        capabilities.prefix_publish = true;
        capabilities.max_delay = MAX_DELAY;
        capabilities.max_payload = MAX_PAYLOAD;
        capabilities.reports_routing = true;
        capabilities
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<Receipt>> {
        if let Err(error) = self.home.check() {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        let asked: Vec<_> = batch.iter().map(|m| (m.id.clone(), m.routing_key.clone(), m.require_route)).collect();
        let outcomes = self.publisher.publish(batch, |message, reply| match check(&message) {
            Ok(()) => Ok(Outbound::event(message, reply)),
            Err(error) => Err((reply, error)),
        });
        outcomes.await.into_iter().zip(asked).map(|(outcome, asked)| receipt(asked, outcome?)).collect()
    }

    async fn fence(&self, owner: &str) -> Result<Option<Arc<dyn Transport>>> {
        self.check_open()?;
        Ok(Some(Arc::new(super::fence::Fenced::open(self.config.clone(), owner).await?)))
    }

    async fn fence_is_gone(&self, owner: &str) -> Result<bool> {
        self.check_open()?;
        super::fence::is_gone(&self.consume, owner).await
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<Arc<dyn Source>> {
        self.check_open()?;
        spec.check()?;
        if spec.max_hold > LONGEST_HOLD {
            tracing::warn!(
                subscription = %spec.name,
                max_hold = ?spec.max_hold,
                "RabbitMQ closes a channel that holds an event for 30 minutes, unless its consumer_timeout was raised: \
                 raise it there too, or lower max_hold to 25 minutes"
            );
        }
        let queue_type = match self.config.queue_type {
            QueueType::Classic => QueueType::Classic,
            QueueType::Quorum => spec.effective_queue_type(),
        };
        let infrastructure = self.config.queue_type;
        let source: Arc<dyn Source> = if spec.ordered.is_some() {
            OrderedSource::open(spec, queue_type, infrastructure, &self.config, &self.consume).await?
        } else {
            let (consume, publisher) = (self.consume.clone(), self.publisher.clone());
            AmqpSource::open(spec.clone(), queue_type, infrastructure, consume, publisher).await?
        };
        self.used.lock().insert(spec.name.clone(), spec.exchange.as_str().into());
        let mut sources = self.sources.lock();
        sources.retain(|source| source.strong_count() > 0);
        sources.push(Arc::downgrade(&source));
        drop(sources);
        Ok(source)
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Box<dyn DeadLetters>> {
        Ok(Box::new(self.walk(subscription, MAX_PREFETCH).await?))
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        self.check_open()?;
        let names: Vec<String> = self.used.lock().keys().cloned().collect();
        let mut infos = Vec::with_capacity(names.len());
        for name in names {
            infos.extend(self.count(&name).await?);
        }
        Ok(infos)
    }

    async fn subscription(&self, name: &str) -> Result<Option<SubscriptionInfo>> {
        self.check_open()?;
        self.count(name).await
    }

    async fn examine(&self, about: &Examination) -> Result<Vec<Finding>> {
        self.check_open()?;
        Ok(super::doctor::examine(&self.config, &self.consume, about).await)
    }

    async fn delete_subscription(&self, name: &str) -> Result<bool> {
        self.check_open()?;
        let (mut there, mut attempt) = (false, 0);
        loop {
            match self.delete_once(name, &mut there).await {
                // RabbitMQ 4 may end a connection with 541 where a consumer begins while its queue is deleted. What is
                // deleted already stays so.
                Err(error) if error.kind() == ErrorKind::ConnectionFailed && attempt < DELETE_RETRIES => {
                    tracing::debug!(subscription = %name, %error, "deleting it is tried again");
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.used.lock().remove(name);
                    return Ok(there);
                }
            }
        }
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        Declarer::open(&self.publish).await?.close().await;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.home.check()?;
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.publisher.close().await;
        let sources: Vec<_> = self.sources.lock().drain(..).filter_map(|source| source.upgrade()).collect();
        for source in sources {
            source.close().await;
        }
        self.consume.close().await;
        self.publish.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbound::Destination;
    use super::*;
    use crate::Headers;

    /// Acks give a channel new room, and more letters than it was to read; a later channel does not see those.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_walk_over_several_channels_misses_nothing() {
        let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned());
        let broker = match Broker::reach(&url).await {
            Ok(broker) => broker,
            Err(error) => return println!("SKIPPED: no RabbitMQ: {error}"),
        };
        let name: Arc<str> = format!("walk.{}", crate::event::new_id()).into();
        let mut spec = SubscriptionSpec::new(&*name);
        spec.binding_keys = vec![format!("{name}.x")];
        broker.subscribe(&spec).await.unwrap().close().await;
        for discarded in [0, 1, 3, 4] {
            let letters = (0..50).collect();
            let published = broker.publisher.publish(letters, |n: u32, reply| {
                let message = Message {
                    exchange: DEFAULT_EXCHANGE.into(),
                    routing_key: "user.registered".into(),
                    id: n.to_string().into(),
                    key: None,
                    timestamp: Timestamp::EPOCH,
                    body: crate::event::Payload::from_static(b"{}"),
                    headers: Headers::new(),
                    deliver_at: None,
                    require_route: false,
                    deadline: None,
                };
                Ok(Outbound { to: Destination::DeadLetters(name.clone()), ..Outbound::event(message, reply) })
            });
            assert!(published.await.into_iter().all(|outcome| outcome.is_ok()));
            let mut walk = broker.walk(&name, 10).await.unwrap();
            assert_eq!(walk.depth(), 50);
            let (mut ids, mut left) = (Vec::new(), 0);
            loop {
                let letters = walk.next(4).await.unwrap();
                if letters.is_empty() {
                    break;
                }
                ids.extend(letters.iter().map(|letter| letter.message.id.to_string()));
                let tokens: Vec<_> = letters.iter().map(|letter| letter.token).take(discarded).collect();
                left += letters.len() - tokens.len();
                assert!(walk.discard(tokens).await.into_iter().all(|result| result.is_ok()));
                // For what the acks make room for.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(ids, (0..50).map(|n| n.to_string()).collect::<Vec<_>>(), "{discarded} of 4 discarded");
            Box::new(walk).close().await.unwrap();
            let mut rest = broker.walk(&name, MAX_PREFETCH).await.unwrap();
            assert_eq!(rest.depth(), left as u64, "{discarded} of 4 discarded");
            while let letters = rest.next(100).await.unwrap()
                && !letters.is_empty()
            {
                rest.discard(letters.into_iter().map(|letter| letter.token).collect()).await;
            }
            Box::new(rest).close().await.unwrap();
        }
        assert!(broker.delete_subscription(&name).await.unwrap());
        broker.close().await.unwrap();
    }
}
