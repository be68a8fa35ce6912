//! Publishing that ends with its connection.
//!
//! The connection holds an exclusive queue with the owner's name. The server deletes it when the connection is gone, and
//! until then refuses it to everybody else: whoever can declare it knows that nothing of the old owner arrives any more.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use super::broker::{check, receipt};
use super::connection::{Connector, answer_in_time, open};
use super::error;
use super::outbound::Outbound;
use super::publisher::Publisher;
use super::url::Config;
use crate::host::Process;
use crate::transport::{
    Capabilities, DeadLetters, Message, Receipt, Source, SubscriptionInfo, SubscriptionSpec, Transport,
};
use crate::{Error, ErrorKind, Result};

/// A connection that publishes until it is lost.
#[derive(Debug)]
pub(super) struct Fenced {
    connector: Arc<Connector>,
    publisher: Publisher,
    home: Process,
}

fn queue(owner: &str) -> String {
    format!("tidings-relay-{owner}")
}

/// Declares the queue of `owner` for this channel's connection alone; it goes with the connection.
async fn declare(channel: &lapin::Channel, owner: &str) -> Result<()> {
    let options = QueueDeclareOptions { exclusive: true, durable: false, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(queue(owner).into(), options, FieldTable::default());
    answer_in_time(declaring, "the queue of a relay").await.map(drop)
}

impl Fenced {
    /// Opens a connection and fences it.
    pub(super) async fn open(config: Arc<Config>, owner: &str) -> Result<Self> {
        let live = Arc::new(open(&config).await?);
        let channel = live.channel().await?;
        declare(&channel, owner).await?;
        // The queue belongs to the connection, not to the channel.
        answer_in_time(channel.close(200, "declared".into()), "closing a channel").await?;
        let queue_type = config.queue_type;
        let connector = Arc::new(Connector::once(config, "relay", live));
        Ok(Self { publisher: Publisher::start(connector.clone(), queue_type), connector, home: Process::here() })
    }
}

/// Whether the connection of `owner` is gone, as the server sees it.
pub(super) async fn is_gone(connector: &Connector, owner: &str) -> Result<bool> {
    let (channel, _live) = connector.channel().await?;
    match declare(&channel, owner).await {
        Ok(()) => {
            let deleting = channel.queue_delete(queue(owner).into(), QueueDeleteOptions::default());
            answer_in_time(deleting, "deleting the queue of a relay").await?;
            answer_in_time(channel.close(200, "looked".into()), "closing a channel").await?;
            Ok(true)
        }
        // 405: the old connection lives. The server has closed the channel.
        Err(error) if error.kind() == ErrorKind::SubscriptionConflict => Ok(false),
        Err(error) => Err(error),
    }
}

fn only_publishes() -> Error {
    Error::new(ErrorKind::Unsupported, "a fenced connection only publishes").remedy("use the broker it was made from")
}

#[async_trait]
impl Transport for Fenced {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            multi_process: true,
            fenced_publish: true,
            prefix_publish: true,
            max_delay: super::lattice::MAX_DELAY,
            max_payload: super::broker::MAX_PAYLOAD,
            reports_routing: true,
            ..Capabilities::new("amqp")
        }
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

    async fn subscribe(&self, _: &SubscriptionSpec) -> Result<Arc<dyn Source>> {
        Err(only_publishes())
    }

    async fn dead_letters(&self, _: &str) -> Result<Box<dyn DeadLetters>> {
        Err(only_publishes())
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        Err(only_publishes())
    }

    async fn delete_subscription(&self, _: &str) -> Result<bool> {
        Err(only_publishes())
    }

    async fn ping(&self) -> Result<()> {
        self.home.check()?;
        match self.connector.live().await {
            Ok(_) => Ok(()),
            Err(_) => Err(error::closed()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.home.check()?;
        self.publisher.close().await;
        self.connector.close().await;
        Ok(())
    }
}
