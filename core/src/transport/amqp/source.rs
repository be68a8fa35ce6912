//! The consuming side of one subscription, and how it comes back after every way to lose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connector, Live, answer_in_time, backoff};
use super::headers::{has_extra, incoming, name_of, timestamp};
use super::publisher::Publisher;
use super::topology::{CANCEL, Declarer};
use super::unsettled::{Kept, Unsettled};
use crate::event::name;
use crate::transport::{Incoming, Message, QueueType, Settlement, Source, SourceHealth, SubscriptionSpec, Token};
use crate::{Error, ErrorKind, Result};

/// A channel that delivers, or has delivered, and what it delivered.
pub(super) struct Link {
    pub(super) generation: u64,
    pub(super) channel: Channel,
    pub(super) unsettled: Mutex<Unsettled>,
    live: Arc<Live>,
}

#[derive(Debug, Clone, Copy)]
struct Control {
    open: bool,
    stopped: bool,
}

/// What only `next` works with.
struct Intake {
    consumer: Option<Consumer>,
    consumers: u64,
    control: watch::Receiver<Control>,
    last_key: Arc<str>,
}

/// What went wrong and how often it was put right.
#[derive(Default)]
struct Troubles {
    recoveries: u64,
    last_error: Option<String>,
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
    link: Mutex<Option<Arc<Link>>>,
    generations: AtomicU64,
    intake: tokio::sync::Mutex<Intake>,
    control: watch::Sender<Control>,
    consuming: AtomicBool,
    troubles: Mutex<Troubles>,
    /// When `next` was last asked.
    asked: Mutex<Instant>,
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
        let intake = Intake { consumer: None, consumers: 0, control: receiver, last_key: "".into() };
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
        });
        source.declare().await?;
        source.consume(&mut *source.intake.lock().await).await?;
        tokio::spawn(bound_hold(Arc::downgrade(&source)));
        Ok(source)
    }

    /// Declares the subscription with all that belongs to it.
    pub(super) async fn declare(&self) -> Result<()> {
        let declarer = Declarer::open(&self.connector).await?;
        let declared = declarer.subscription(&self.spec, self.queue_type, self.infrastructure).await;
        declarer.close_after(declared).await
    }

    /// The channel that deliveries come from now.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    /// Starts a consumer, on the channel there is or on a new one.
    async fn consume(&self, intake: &mut Intake) -> Result<()> {
        let link = match self.link().filter(|link| link.channel.status().connected()) {
            Some(link) => link,
            None => self.new_link().await?,
        };
        intake.consumers += 1;
        let tag = format!("tidings-{}-{}", link.generation, intake.consumers);
        let options = BasicConsumeOptions::default();
        let consuming = link.channel.basic_consume(name_of(&*self.name), name_of(tag), options, FieldTable::default());
        let consumer = answer_in_time(consuming, &format!("consuming from queue {}", self.name)).await?;
        intake.consumer = Some(consumer);
        self.consuming.store(true, Ordering::Release);
        Ok(())
    }

    async fn new_link(&self) -> Result<Arc<Link>> {
        let (channel, live) = self.connector.channel().await?;
        answer_in_time(channel.basic_qos(self.spec.prefetch, BasicQosOptions::default()), "the prefetch").await?;
        let generation = self.generations.fetch_add(1, Ordering::AcqRel) + 1;
        let link = Arc::new(Link { generation, channel, unsettled: Mutex::new(Unsettled::new()), live });
        *self.link.lock() = Some(link.clone());
        Ok(link)
    }

    /// Gets a consumer, whatever that takes. An error is final; `false`: fetching was stopped meanwhile.
    async fn recover(&self, intake: &mut Intake) -> Result<bool> {
        let mut attempt = 0;
        loop {
            let error = match self.consume(intake).await {
                Ok(()) => {
                    if attempt > 0 {
                        tracing::info!(subscription = %self.name, "consuming again");
                    }
                    return Ok(true);
                }
                Err(error) => error,
            };
            let missing = error.kind() == ErrorKind::SubscriptionNotFound;
            let error = if missing {
                tracing::warn!(subscription = %self.name, "the queue is gone, declaring it again");
                match self.declare().await {
                    Ok(()) if attempt == 0 => {
                        attempt = 1;
                        continue;
                    }
                    Ok(()) => error,
                    Err(error) => error,
                }
            } else {
                error
            };
            self.trouble(&error.to_string());
            // An exclusive queue may still belong to the connection that was lost.
            let conflict = error.kind() == ErrorKind::SubscriptionConflict && error.field_value() != Some("exclusive");
            if conflict || error.kind() == ErrorKind::Closed {
                return Err(error);
            }
            if attempt == 0 {
                tracing::warn!(subscription = %self.name, %error, "not consuming, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff(attempt)) => {}
                changed = intake.control.changed() => {
                    let control = *intake.control.borrow();
                    if changed.is_err() || control.stopped || !control.open {
                        return Ok(false);
                    }
                }
            }
            attempt += 1;
        }
    }

    fn trouble(&self, text: &str) {
        self.troubles.lock().last_error = Some(text.to_owned());
    }

    /// The consumer has ended by itself: its channel with all that it delivered is given up.
    async fn lose(&self, intake: &mut Intake, error: Option<lapin::Error>) {
        intake.consumer = None;
        self.consuming.store(false, Ordering::Release);
        let text = error.map_or_else(|| "the broker cancelled the consumer".to_owned(), |error| error.to_string());
        tracing::warn!(subscription = %self.name, error = %text, "lost the consumer, recovering");
        {
            let mut troubles = self.troubles.lock();
            troubles.recoveries += 1;
            troubles.last_error = Some(text);
        }
        let link = self.link.lock().take();
        if let Some(link) = link.filter(|link| link.channel.status().connected()) {
            close_channel(&link.channel).await;
        }
    }

    /// Ends the consumer and gives back what it had fetched and not handed over.
    async fn park(&self, intake: &mut Intake) {
        let Some(mut consumer) = intake.consumer.take() else { return };
        self.consuming.store(false, Ordering::Release);
        let Some(link) = self.link() else { return };
        if let Err(error) = answer_in_time(link.channel.basic_cancel(consumer.tag(), CANCEL), "cancelling the consumer").await {
            tracing::debug!(subscription = %self.name, %error, "the consumer ended with its channel");
            return;
        }
        let mut tags = Vec::new();
        while let Some(Ok(delivery)) = consumer.next().await {
            tags.push(delivery.delivery_tag);
            let (kept, _, _) = self.read(intake, delivery);
            link.unsettled.lock().push(tags[tags.len() - 1], kept);
        }
        link.unsettled.lock().release(&link.channel, &tags);
    }

    /// Takes what has arrived, at most `max`; an empty vector if the consumer ended or fetching was stopped.
    async fn fetch(&self, intake: &mut Intake, max: usize) -> Vec<Delivery> {
        let Some(consumer) = intake.consumer.as_mut() else { return Vec::new() };
        let first = match consumer.next().now_or_never() {
            Some(item) => item,
            None => tokio::select! {
                biased;
                item = consumer.next() => item,
                _ = intake.control.changed() => return Vec::new(),
            },
        };
        let mut batch = Vec::with_capacity(max.min(64));
        let mut item = first;
        loop {
            match item {
                Some(Ok(delivery)) => batch.push(delivery),
                Some(Err(error)) => {
                    self.lose(intake, Some(error)).await;
                    return Vec::new();
                }
                None => {
                    self.lose(intake, None).await;
                    return Vec::new();
                }
            }
            if batch.len() >= max {
                return batch;
            }
            match consumer.next().now_or_never() {
                Some(next) => item = next,
                None => return batch,
            }
        }
    }

    /// What to keep of a delivery until it is settled, and what to hand over.
    fn read(&self, intake: &mut Intake, delivery: Delivery) -> (Kept, Message, Option<u32>) {
        if *intake.last_key != *delivery.routing_key.as_str() {
            intake.last_key = delivery.routing_key.as_str().into();
        }
        let (headers, notes) = incoming(&delivery.properties, &self.name);
        let id: Arc<str> = delivery.properties.message_id().as_ref().map_or_else(|| "".into(), |id| id.as_str().into());
        let extra = has_extra(&delivery.properties).then(|| Arc::new(delivery.properties.clone()));
        let timestamp = timestamp(&delivery.properties);
        let body = Bytes::from(delivery.data);
        let kept = Kept { routing_key: intake.last_key.clone(), id: id.clone(), timestamp, body: body.clone(), extra };
        let message = Message {
            exchange: self.exchange.clone(),
            routing_key: intake.last_key.clone(),
            id,
            key: headers.text(name::KEY).map(Into::into),
            timestamp,
            body,
            headers,
            deliver_at: None,
            require_route: false,
            deadline: None,
        };
        (kept, message, notes.delivery_count)
    }

    /// Turns deliveries into what is handed over.
    async fn hand_over(&self, intake: &mut Intake, batch: Vec<Delivery>) -> Vec<Incoming> {
        let Some(link) = self.link() else { return Vec::new() };
        let mut ready = Vec::with_capacity(batch.len());
        let mut returned = Vec::new();
        {
            let mut unsettled = link.unsettled.lock();
            for delivery in batch {
                let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
                let (kept, message, count) = self.read(intake, delivery);
                unsettled.push(tag, kept);
                let count = count.or_else(|| message.headers.int(name::DELIVERIES).and_then(|n| u32::try_from(n).ok()));
                let token = Token { id: tag, generation: link.generation };
                let event = Incoming { token, message, lost_deliveries: count.unwrap_or(0) };
                if redelivered && self.queue_type == QueueType::Classic {
                    returned.push(event);
                } else {
                    ready.push(event);
                }
            }
        }
        if !returned.is_empty() {
            ready.extend(self.count(returned).await);
        }
        ready
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
        let failed = returned.into_iter().zip(results).filter(|(_, result)| {
            result.as_ref().is_err_and(|error| error.kind() != ErrorKind::StaleDelivery)
        });
        failed.map(|(event, _)| Incoming { lost_deliveries: event.lost_deliveries.saturating_add(1), ..event }).collect()
    }

    async fn change(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
        // A waiting `next` sees the change and lets go.
        let mut intake = self.intake.lock().await;
        let control = *self.control.borrow();
        if control.stopped || !control.open {
            self.park(&mut intake).await;
        }
    }
}

#[async_trait]
impl Source for AmqpSource {
    async fn next(&self, max: usize) -> Result<Vec<Incoming>> {
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
            if intake.consumer.is_none() && !self.recover(&mut intake).await? {
                continue;
            }
            let batch = self.fetch(&mut intake, max.max(1)).await;
            if batch.is_empty() {
                continue;
            }
            let events = self.hand_over(&mut intake, batch).await;
            *self.asked.lock() = Instant::now();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        super::settle::settle(self, batch).await
    }

    async fn set_flow(&self, open: bool) -> Result<()> {
        self.change(|control| control.open = open).await;
        Ok(())
    }

    fn health(&self) -> SourceHealth {
        let link = self.link();
        let alive = link.as_ref().is_some_and(|link| link.channel.status().connected());
        let troubles = self.troubles.lock();
        let mut health = SourceHealth::default();
        health.connected = link.is_some_and(|link| link.live.connected());
        health.consuming = alive && self.consuming.load(Ordering::Acquire);
        health.recoveries = troubles.recoveries;
        health.last_error.clone_from(&troubles.last_error);
        health
    }

    async fn stop(&self) {
        self.change(|control| control.stopped = true).await;
    }

    async fn close(&self) {
        self.stop().await;
        let link = self.link.lock().take();
        let Some(link) = link.filter(|link| link.channel.status().connected()) else { return };
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

/// The delivery is not ours any more.
pub(super) fn stale() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the delivery's channel is gone, it will be delivered again")
}
