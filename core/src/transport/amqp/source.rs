//! The consuming side of one subscription, and how it comes back after every way to lose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::barrier::acks_passed_on;
use super::connection::{Connector, Live, answer_in_time};
use super::prefetch::Prefetch;
use super::publisher::Publisher;
use super::received::{Received, received};
use super::topology::CANCEL;
use super::unsettled::{Kept, Unsettled};
use crate::event::name;
use crate::host::Process;
use crate::settlement::{is_suspect, put_back};
use crate::transport::{Incoming, Message, QueueType, Settlement, Source, SourceHealth, SubscriptionSpec, Token};
use crate::{Error, ErrorKind, Result};

/// Time for counting what a classic queue delivers once more, after fetching was stopped.
const COUNT_AFTER_STOP: Duration = Duration::from_secs(2);

/// A channel that delivers, or has delivered, and what it delivered.
pub(super) struct Link {
    pub(super) generation: u64,
    pub(super) channel: Channel,
    pub(super) unsettled: Mutex<Unsettled>,
    pub(super) live: Arc<Live>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Control {
    pub(super) open: bool,
    pub(super) stopped: bool,
}

/// What only `next` works with.
pub(super) struct Intake {
    pub(super) consumer: Option<Consumer>,
    /// Consumers so far, for their tags.
    pub(super) consumers: u64,
    pub(super) control: watch::Receiver<Control>,
    pub(super) prefetch: Prefetch,
    last_key: Arc<str>,
}

/// What went wrong and how often it was put right.
#[derive(Default)]
pub(super) struct Troubles {
    pub(super) recoveries: u64,
    pub(super) last_error: Option<String>,
}

/// A source of one subscription's events.
pub(super) struct AmqpSource {
    pub(super) spec: SubscriptionSpec,
    pub(super) queue_type: QueueType,
    pub(super) infrastructure: QueueType,
    pub(super) connector: Arc<Connector>,
    pub(super) publisher: Arc<Publisher>,
    exchange: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) link: Mutex<Option<Arc<Link>>>,
    pub(super) generations: AtomicU64,
    intake: tokio::sync::Mutex<Intake>,
    control: watch::Sender<Control>,
    pub(super) consuming: AtomicBool,
    pub(super) troubles: Mutex<Troubles>,
    /// When `next` was last asked.
    asked: Mutex<Instant>,
    home: Process,
}

impl AmqpSource {
    /// Declares the subscription and starts to consume.
    pub(super) async fn open(
        spec: SubscriptionSpec,
        queue_type: QueueType,
        infrastructure: QueueType,
        connector: Arc<Connector>,
        publisher: Arc<Publisher>,
    ) -> Result<Arc<Self>> {
        let (control, receiver) = watch::channel(Control { open: true, stopped: false });
        let prefetch = Prefetch::new(spec.prefetch);
        let intake = Intake { consumer: None, consumers: 0, control: receiver, prefetch, last_key: "".into() };
        let source = Arc::new(Self {
            exchange: spec.exchange.as_str().into(),
            name: spec.name.as_str().into(),
            spec,
            queue_type,
            infrastructure,
            connector,
            publisher,
            link: Mutex::new(None),
            generations: AtomicU64::new(0),
            intake: tokio::sync::Mutex::new(intake),
            control,
            consuming: AtomicBool::new(false),
            troubles: Mutex::new(Troubles::default()),
            asked: Mutex::new(Instant::now()),
            home: Process::here(),
        });
        source.declare().await?;
        source.consume(&mut *source.intake.lock().await).await?;
        tokio::spawn(bound_hold(Arc::downgrade(&source)));
        Ok(source)
    }

    /// The channel that deliveries come from now.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    /// Ends the consumer and gives back what it had fetched and not handed over.
    async fn park(&self, intake: &mut Intake) {
        let Some(mut consumer) = intake.consumer.take() else { return };
        self.consuming.store(false, Ordering::Release);
        let Some(link) = self.link() else { return };
        if let Err(error) =
            answer_in_time(link.channel.basic_cancel(consumer.tag(), CANCEL), "cancelling the consumer").await
        {
            tracing::debug!(subscription = %self.name, %error, "the consumer ended with its channel");
            return;
        }
        let (mut tags, mut suspects) = (Vec::new(), Vec::new());
        while let Some(Ok(delivery)) = consumer.next().await {
            let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
            let (kept, message, count) = self.read(&mut intake.last_key, delivery);
            link.unsettled.lock().push(tag, kept);
            if is_suspect(&message.headers) {
                intake.prefetch.saw(true);
                let uncounted = u32::from(redelivered && self.queue_type == QueueType::Classic);
                let lost = lost_deliveries(&message, count).saturating_add(uncounted);
                // A return would count as a crash, and it has not run.
                let token = Token { id: tag, generation: link.generation };
                suspects.push((token, put_back(&message.headers, lost).0));
            } else {
                tags.push(tag);
            }
        }
        link.unsettled.lock().release(&link.channel, &tags);
        if !suspects.is_empty() {
            for result in super::settle::settle(self, suspects).await {
                if let Err(error) = result {
                    tracing::debug!(subscription = %self.name, %error, "a suspect was not written anew");
                }
            }
        }
    }

    /// Takes what has arrived, at most `max`; nothing if the consumer ended or fetching was stopped. Apart from the
    /// others: what a classic queue delivers once more and has to be counted.
    async fn fetch(&self, intake: &mut Intake, max: usize) -> (Vec<Incoming>, Vec<Incoming>) {
        let (mut ready, mut returned) = (Vec::new(), Vec::new());
        let Some(link) = self.link() else { return (ready, returned) };
        let Intake { consumer: Some(consumer), control, prefetch, last_key, .. } = intake else {
            return (ready, returned);
        };
        let mut item = consumer.next().now_or_never();
        if item.is_none() {
            item = tokio::select! {
                biased;
                item = consumer.next() => Some(item),
                _ = control.changed() => return (ready, returned),
            };
        }
        while let Some(delivery) = item {
            match delivery {
                Some(Ok(delivery)) => {
                    let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
                    let (kept, message, count) = self.read(last_key, delivery);
                    link.unsettled.lock().push(tag, kept);
                    prefetch.saw(is_suspect(&message.headers));
                    let lost_deliveries = lost_deliveries(&message, count);
                    let event =
                        Incoming { token: Token { id: tag, generation: link.generation }, message, lost_deliveries };
                    let uncounted = redelivered && self.queue_type == QueueType::Classic;
                    if uncounted { returned.push(event) } else { ready.push(event) }
                }
                // What came before is delivered again, on the next channel.
                Some(Err(error)) => {
                    self.lose(intake, Some(error)).await;
                    return (Vec::new(), Vec::new());
                }
                None => {
                    self.lose(intake, None).await;
                    return (Vec::new(), Vec::new());
                }
            }
            if ready.len() + returned.len() >= max {
                break;
            }
            item = consumer.next().now_or_never();
        }
        (ready, returned)
    }

    /// Like [`count`](Self::count), but once fetching has ended for good it is not waited for long: what is not done
    /// then goes back with the channel.
    async fn count_unless_stopped(&self, returned: Vec<Incoming>) -> Vec<Incoming> {
        let mut control = self.control.subscribe();
        let stopped = async {
            // The sender is `self`'s.
            let _ = control.wait_for(|control| control.stopped).await;
            tokio::time::sleep(COUNT_AFTER_STOP).await;
        };
        tokio::select! {
            biased;
            failed = self.count(returned) => failed,
            () = stopped => Vec::new(),
        }
    }

    /// What to keep of a delivery until it is settled, what to hand over, and the broker's count of deliveries.
    fn read(&self, last_key: &mut Arc<str>, delivery: Delivery) -> (Kept, Message, Option<u32>) {
        if **last_key != *delivery.routing_key.as_str() {
            *last_key = delivery.routing_key.as_str().into();
        }
        let Received { message, extra, notes } = received(delivery, last_key.clone(), &self.exchange, &self.name);
        let (routing_key, id) = (last_key.clone(), message.id.clone());
        let kept = Kept { routing_key, id, timestamp: message.timestamp, body: message.body.clone(), extra };
        (kept, message, notes.delivery_count)
    }

    /// Classic queues do not count: what was delivered before goes back with one more in its header, and comes again.
    /// What cannot be written is handed over.
    async fn count(&self, returned: Vec<Incoming>) -> Vec<Incoming> {
        let again = returned.iter().map(|event| {
            let mut headers = event.message.headers.clone();
            headers.set(name::DELIVERIES, event.lost_deliveries.saturating_add(1));
            (event.token, Settlement::Suspect { headers })
        });
        let results = super::settle::settle(self, again.collect()).await;
        let failed = returned
            .into_iter()
            .zip(results)
            .filter(|(_, result)| result.as_ref().is_err_and(|error| error.kind() != ErrorKind::StaleDelivery));
        failed
            .map(|(event, _)| Incoming { lost_deliveries: event.lost_deliveries.saturating_add(1), ..event })
            .collect()
    }

    async fn change(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
        let flows = || {
            let control = *self.control.borrow();
            control.open && !control.stopped
        };
        // To go on is `next`'s own affair: it may be waiting for events already, and keeps the lock until one comes.
        if flows() {
            return;
        }
        // A waiting `next` sees the change and lets go.
        let mut intake = self.intake.lock().await;
        if !flows() {
            self.park(&mut intake).await;
        }
    }
}

#[async_trait]
impl Source for AmqpSource {
    async fn next(&self, max: usize) -> Result<Vec<Incoming>> {
        self.home.check()?;
        loop {
            let mut intake = self.intake.lock().await;
            *self.asked.lock() = Instant::now();
            let control = *intake.control.borrow_and_update();
            if control.stopped {
                return Ok(Vec::new());
            }
            if !control.open {
                let mut control = intake.control.clone();
                drop(intake);
                if control.changed().await.is_err() {
                    return Ok(Vec::new());
                }
                continue;
            }
            if intake.consumer.is_some() && intake.prefetch.is_too_small() {
                self.park(&mut intake).await;
            }
            if intake.consumer.is_none() && !self.recover(&mut intake).await? {
                continue;
            }
            let (mut events, returned) = self.fetch(&mut intake, max.max(1)).await;
            // What follows publishes, which may take long: `stop` and `set_flow` must not wait for it.
            drop(intake);
            if !returned.is_empty() {
                events.extend(self.count_unless_stopped(returned).await);
            }
            *self.asked.lock() = Instant::now();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        if let Err(error) = self.home.check() {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        super::settle::settle(self, batch).await
    }

    async fn set_flow(&self, open: bool) -> Result<()> {
        self.home.check()?;
        self.change(|control| control.open = open).await;
        Ok(())
    }

    /// A broker that gets its acks in small parts sends small parts, and goes on so: each costs it a frame, and the queue a
    /// command in its log.
    fn ack_patience(&self) -> Duration {
        Duration::from_millis(2)
    }

    fn health(&self) -> SourceHealth {
        if let Err(error) = self.home.check() {
            return SourceHealth { last_error: Some(error.to_string()), ..SourceHealth::default() };
        }
        let link = self.link();
        let alive = link.as_ref().is_some_and(|link| link.channel.status().connected());
        let troubles = self.troubles.lock();
        SourceHealth {
            connected: link.is_some_and(|link| link.live.connected()),
            consuming: alive && self.consuming.load(Ordering::Acquire),
            recoveries: troubles.recoveries,
            last_error: troubles.last_error.clone(),
            ..SourceHealth::default()
        }
    }

    async fn stop(&self) {
        if self.home.check().is_err() {
            return;
        }
        self.change(|control| control.stopped = true).await;
    }

    async fn close(&self) {
        if self.home.check().is_err() {
            return;
        }
        self.stop().await;
        let link = self.link.lock().take();
        let Some(link) = link.filter(|link| link.channel.status().connected()) else { return };
        let many = self.queue_type == QueueType::Quorum && link.unsettled.lock().acked_many();
        if many && let Err(error) = acks_passed_on(&link.channel, &self.name).await {
            tracing::debug!(subscription = %self.name, %error, "the last acks may not have arrived");
        }
        {
            let mut unsettled = link.unsettled.lock();
            if unsettled.any() && !unsettled.release_all(&link.channel) {
                return;
            }
        }
        close_channel(&link.channel).await;
    }
}

pub(super) async fn close_channel(channel: &Channel) {
    if let Err(error) = answer_in_time(channel.close(200, "done".into()), "closing a channel").await {
        tracing::debug!(%error, "a channel did not close in order");
    }
}

/// Gives back what a source has fetched while nobody asks it for events, before the server's `consumer_timeout` closes
/// the channel for it.
async fn bound_hold(source: std::sync::Weak<AmqpSource>) {
    let Some(max_hold) = source.upgrade().map(|source| source.spec.max_hold) else { return };
    let pause = (max_hold / 4).clamp(Duration::from_millis(20), Duration::from_secs(60));
    loop {
        tokio::time::sleep(pause).await;
        let Some(source) = source.upgrade() else { return };
        if source.control.borrow().stopped {
            return;
        }
        let idle = source.asked.lock().elapsed();
        if idle >= max_hold / 2
            && let Ok(mut intake) = source.intake.try_lock()
            && intake.consumer.is_some()
        {
            tracing::debug!(subscription = %source.name, ?idle, "nobody asks for events, giving back what was fetched");
            source.park(&mut intake).await;
        }
    }
}

/// The broker's count, else ours.
fn lost_deliveries(message: &Message, count: Option<u32>) -> u32 {
    let counted = || message.headers.int(name::DELIVERIES).and_then(|count| u32::try_from(count).ok());
    count.or_else(counted).unwrap_or(0)
}

/// The delivery is not ours any more.
pub(super) fn stale() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the delivery's channel is gone, it will be delivered again")
}
