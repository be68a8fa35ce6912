//! [`Victim`]: a consumer that will crash.

use super::child::Child;
use super::world::World;
use crate::settlement::is_suspect;
use crate::transport::QueueType;
use crate::{BoxError, Deliveries, Delivery, Outcome};

/// What a victim says of a delivery that it has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) number: u64,
    pub(super) retries: u32,
    pub(super) suspect: bool,
}

impl Handed {
    fn of(delivery: &Delivery) -> Self {
        let event = delivery.event();
        let number = event.data().unwrap_or(u64::MAX);
        Self { number, retries: event.retries(), suspect: is_suspect(event.headers()) }
    }

    pub(super) fn parse(word: &str) -> Result<Self, BoxError> {
        let parts: Vec<&str> = word.split(':').collect();
        let [number, retries, suspect] = parts[..] else { return Err(format!("unexpected: {word}").into()) };
        Ok(Self { number: number.parse()?, retries: retries.parse()?, suspect: suspect.parse()? })
    }
}

/// A consumer in a process of its own, or, where the broker belongs to this process, one whose connection is ended.
pub(super) struct Victim {
    name: String,
    body: Body,
}

enum Body {
    Child(Child),
    Local(Deliveries, Vec<Delivery>),
}

impl Victim {
    /// Consumes the subscription.
    pub(super) async fn open(
        world: &World,
        name: &str,
        key: &str,
        prefetch: u16,
        max_deliveries: u32,
    ) -> Result<Self, BoxError> {
        let body = if world.subject.child().is_some() {
            let mut child = Child::start(&*world.subject, world.patience())?;
            let queue_type = if world.subject.queue_type() == QueueType::Classic { "classic" } else { "quorum" };
            let key = world.key(key);
            child.ask(&format!("subscribe {name} {key} {queue_type} {prefetch} {max_deliveries}")).await?;
            Body::Child(child)
        } else {
            let subscriber = world.broker.subscriber();
            let subscription = world.subscribe(&subscriber, name, key).prefetch(prefetch);
            Body::Local(subscription.max_deliveries(max_deliveries).deliveries().await?, Vec::new())
        };
        Ok(Self { name: name.to_owned(), body })
    }

    /// Takes at least one delivery into its hands.
    pub(super) async fn next(&mut self, world: &World, max: usize) -> Result<Vec<Handed>, BoxError> {
        match &mut self.body {
            Body::Child(child) => child.next(max).await,
            Body::Local(deliveries, hand) => {
                let mut taken = world.take(deliveries, 1).await?;
                if max > 1 {
                    taken.extend(deliveries.try_next(max - 1)?.unwrap_or_default());
                }
                let handed = taken.iter().map(Handed::of).collect();
                hand.extend(taken);
                Ok(handed)
            }
        }
    }

    /// Acknowledges everything in hand.
    pub(super) async fn ack(&mut self) -> Result<(), BoxError> {
        match &mut self.body {
            Body::Child(child) => child.ask("ack").await.map(drop),
            Body::Local(deliveries, hand) => {
                let batch = hand.drain(..).map(|delivery| (delivery, Outcome::Ok)).collect();
                Ok(deliveries.settle(batch).await?)
            }
        }
    }

    /// Dies with everything in hand.
    pub(super) async fn crash(self, world: &World) -> Result<(), BoxError> {
        match self.body {
            Body::Child(child) => child.kill(),
            Body::Local(..) => {
                ensure!(world.subject.crash(&self.name).await, "the subject cannot crash its consumers");
                Ok(())
            }
        }
    }
}
