//! [`World`]: what a scenario has in its hands.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Subject;
use super::seen::Seen;
use crate::event::{Headers, Payload, Timestamp, new_id};
use crate::transport::{Message, SubscriptionInfo};
use crate::{
    BoxError, Broker, DeadLetterEntry, DeadLetterFilter, Deliveries, Delivery, DomainEvent, Outcome, PublishOptions,
    Receipt, Result, Subscriber, SubscriptionBuilder,
};

/// A broker, names that nobody else uses, and waiting with a deadline.
pub(super) struct World {
    pub(super) subject: Arc<dyn Subject>,
    pub(super) broker: Broker,
    id: String,
    subscriptions: Mutex<Vec<String>>,
    exchanges: Mutex<Vec<String>>,
    others: Mutex<Vec<Broker>>,
}

impl World {
    pub(super) async fn new(subject: Arc<dyn Subject>) -> Result<Self> {
        let broker = subject.connect().await?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        // The random end of the id tells scenarios apart that began in the same millisecond.
        let id = format!("t{}", &id[id.len() - 14..]);
        Ok(Self {
            subject,
            broker,
            id,
            subscriptions: Mutex::default(),
            exchanges: Mutex::default(),
            others: Mutex::default(),
        })
    }

    /// Another handle to the broker.
    pub(super) async fn connect(&self) -> Result<Broker> {
        let broker = self.subject.connect().await?;
        self.others.lock().push(broker.clone());
        Ok(broker)
    }

    /// So many of the subject's shortest delays.
    pub(super) fn units(&self, count: u32) -> Duration {
        self.subject.unit() * count
    }

    /// How long to wait for what must happen.
    pub(super) fn patience(&self) -> Duration {
        (self.subject.unit() * 100).max(Duration::from_secs(15))
    }

    /// A subscription name of this scenario, deleted when it ends.
    pub(super) fn name(&self, what: &str) -> String {
        let name = format!("{}-{what}", self.id);
        self.subscriptions.lock().push(name.clone());
        name
    }

    /// An exchange name of this scenario, deleted when it ends.
    pub(super) fn exchange(&self, what: &str) -> String {
        let name = format!("{}-{what}", self.id);
        self.exchanges.lock().push(name.clone());
        name
    }

    /// A routing or binding key of this scenario.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.id)
    }

    /// An event with a number as its data.
    pub(super) fn event(&self, key: &str, number: u64) -> Result<DomainEvent> {
        DomainEvent::new(&self.key(key), &number)
    }

    /// Publishes an event with a number as its data.
    pub(super) async fn publish(&self, key: &str, number: u64) -> Result<Receipt> {
        self.broker.publisher().publish(self.event(key, number)?).await
    }

    /// Publishes a numbered event with an ordering key.
    pub(super) async fn publish_keyed(&self, key: &str, object: &str, number: u64) -> Result<Receipt> {
        let event = self.event(key, number)?.with_domain_object_id(object);
        self.broker.publisher().publish(event).await
    }

    /// Publishes a numbered event after a delay.
    pub(super) async fn publish_after(&self, key: &str, number: u64, delay: Duration) -> Result<Receipt> {
        let options = PublishOptions::new().delay(delay);
        self.broker.publisher().publish_with(self.event(key, number)?, options).await
    }

    /// Publishes any bytes, as a foreign program would.
    pub(super) async fn publish_raw(&self, key: &str, body: &[u8], headers: Headers) -> Result<(), BoxError> {
        let message = Message::new(self.key(key), new_id(), Payload::copy_from_slice(body))
            .with_timestamp(Timestamp::now())
            .with_headers(headers)
            .with_deadline(Some((Instant::now() + self.patience()).into_std()));
        self.broker.transport().publish(vec![message]).await.pop().ok_or("no result")??;
        Ok(())
    }

    /// Begins a subscription as this subject wants it, bound to a key of this scenario.
    pub(super) fn subscribe<'a>(&self, subscriber: &'a Subscriber, name: &str, key: &str) -> SubscriptionBuilder<'a> {
        subscriber
            .subscription(name)
            .bind(self.key(key))
            .queue_type(self.subject.queue_type())
            .lease(Duration::from_secs(1))
    }

    /// Declares a subscription and consumes it.
    pub(super) async fn open(&self, name: &str, key: &str) -> Result<Deliveries> {
        self.subscribe(&self.broker.subscriber(), name, key).deliveries().await
    }

    /// Waits for exactly so many deliveries, or fails.
    pub(super) async fn take(&self, deliveries: &Deliveries, count: usize) -> Result<Vec<Delivery>, BoxError> {
        let mut taken = Vec::new();
        let until = Instant::now() + self.patience();
        while taken.len() < count {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, deliveries.next(count - taken.len())).await {
                Ok(Ok(some)) if some.is_empty() => return Err("the subscription has ended".into()),
                Ok(Ok(some)) => taken.extend(some),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    let (health, numbers) = (deliveries.health(), numbers(&taken));
                    let known = self.info(&health.subscription).await;
                    let came = taken.len();
                    return Err(format!("{came} of {count} events came: {numbers:?}; {health:?}; {known:?}").into());
                }
            }
        }
        Ok(taken)
    }

    /// Takes so many deliveries, acknowledges them as they come, and gives their numbers.
    pub(super) async fn handle(&self, deliveries: &Deliveries, count: usize) -> Result<Vec<u64>, BoxError> {
        let mut handled = Vec::new();
        while handled.len() < count {
            let mut taken = self.take(deliveries, 1).await.map_err(|e| format!("after {handled:?}: {e}"))?;
            let more = count - handled.len() - 1;
            if more > 0 {
                taken.extend(deliveries.try_next(more)?.unwrap_or_default());
            }
            handled.extend(numbers(&taken));
            deliveries.settle(taken.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
        }
        Ok(handled)
    }

    /// Publishes numbered events and makes dead letters of them, for a reason each.
    pub(super) async fn bury(
        &self,
        deliveries: &Deliveries,
        events: &[(&str, u64, &str)],
    ) -> Result<Vec<String>, BoxError> {
        let mut ids = Vec::new();
        for (key, number, reason) in events {
            ids.push(self.publish(key, *number).await?.id.to_string());
            let delivery = self.take(deliveries, 1).await?.remove(0);
            delivery.settle(Outcome::DeadLetter { reason: (*reason).to_owned(), message: None }).await?;
        }
        Ok(ids)
    }

    /// All dead letters of a subscription.
    pub(super) async fn dead(&self, name: &str) -> Result<Vec<DeadLetterEntry>> {
        self.broker.dead_letters(name, &DeadLetterFilter::new(), usize::MAX).await
    }

    /// Waits until a subscription has so many dead letters, and gives them.
    pub(super) async fn wait_dead(&self, name: &str, count: usize) -> Result<Vec<DeadLetterEntry>, BoxError> {
        self.eventually(|| async { Ok(self.dead(name).await?.len() >= count) })
            .await
            .map_err(|e| format!("{count} dead letters of {name}: {e}"))?;
        let dead = self.dead(name).await?;
        same!(dead.len(), count, "dead letters");
        Ok(dead)
    }

    /// What the broker knows of a subscription.
    pub(super) async fn info(&self, name: &str) -> Result<SubscriptionInfo, BoxError> {
        let all = self.broker.subscriptions().await?;
        Ok(all.into_iter().find(|info| info.name == name).ok_or_else(|| format!("{name} is not listed"))?)
    }

    /// Waits until the condition holds, or fails.
    pub(super) async fn eventually<F, Fut>(&self, holds: F) -> Result<(), BoxError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool, BoxError>>,
    {
        eventually(self.patience(), holds).await
    }

    /// Somewhere to note what handlers are called with.
    pub(super) fn seen(&self) -> Seen {
        Seen::new(self.patience())
    }

    /// Deletes what the scenario has made.
    pub(super) async fn clean_up(&self) {
        let names = std::mem::take(&mut *self.subscriptions.lock());
        // Deleting is best effort: the scenario's verdict stands, and names are never used again.
        if let Ok(broker) = self.subject.connect().await {
            for name in names {
                let _best_effort = broker.delete_subscription(&name).await;
            }
            let _best_effort = broker.close().await;
        }
        let exchanges = std::mem::take(&mut *self.exchanges.lock());
        for exchange in exchanges {
            self.subject.delete_exchange(&exchange).await;
        }
        let others = std::mem::take(&mut *self.others.lock());
        for broker in others.iter().chain([&self.broker]) {
            let _best_effort = broker.close().await;
        }
    }
}

/// Looks again and again until the condition holds, or fails once patience is over.
pub(super) async fn eventually<F, Fut>(patience: Duration, mut holds: F) -> Result<(), BoxError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool, BoxError>>,
{
    let until = Instant::now() + patience;
    let pause = patience / 1000;
    while !holds().await? {
        if Instant::now() > until {
            return Err(format!("did not happen within {patience:?}").into());
        }
        sleep(pause).await;
    }
    Ok(())
}

/// The numbers that events carry.
pub(super) fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.event().data().unwrap_or(u64::MAX)).collect()
}

/// Numbers in order, for where the order of arrival does not matter.
pub(super) fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

/// The value of a metric that counts things. `u64::MAX` if there is no such metric.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and whole")]
pub(super) fn metric(broker: &Broker, name: &str, subscription: Option<&str>) -> u64 {
    let all = broker.metrics();
    let one = all.iter().find(|metric| metric.name == name && metric.subscription.as_deref() == subscription);
    one.map_or(u64::MAX, |metric| metric.value as u64)
}
