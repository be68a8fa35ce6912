//! The RabbitMQ servers, and what a hand-written client does before it works: connect, declare, fill a queue.

use std::collections::VecDeque;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm};
use tidings_test_client::usage;

use crate::event::{ROUTING_KEY, by_hand};
use crate::measure::BoxError;

/// Exchange of the benchmarks, for nobody else's events.
pub(crate) const EXCHANGE: &str = "bench-events";
/// Publishes in flight.
pub(crate) const WINDOW: usize = 1000;

/// What lapin sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    /// The body, persistent.
    Bare,
    /// What Tidings sends, too: id and type as properties, and `mandatory`.
    Same,
}

/// One RabbitMQ.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// Its process, if it runs on this machine.
    pub(crate) pid: Option<String>,
}

/// The servers that the environment names.
pub(crate) fn servers() -> Vec<Server> {
    let all = [("rabbitmq3", "AMQP_URL"), ("rabbitmq4", "AMQP4_URL")];
    let found = all.into_iter().filter_map(|(name, variable)| {
        let url = std::env::var(variable).map_err(|_| println!("SKIPPED {name}: {variable} is not set")).ok()?;
        let pid = process(&url, 5672);
        Some(Server { name, url, pid })
    });
    found.collect()
}

/// The process of the server that a URL names, if it runs on this machine; `usual`: its port where the URL names none.
pub(crate) fn process(url: &str, usual: u16) -> Option<String> {
    usage::listener_pid(port(url, usual)?)
}

fn port(url: &str, usual: u16) -> Option<u16> {
    let host = url.split_once("//")?.1.split(['/', '?']).next()?;
    host.rsplit('@').next()?.split_once(':').map_or(Some(usual), |(_, port)| port.parse().ok())
}

/// A connection of hand-written code with one channel.
pub(crate) struct ByHand {
    connection: Connection,
    pub(crate) channel: Channel,
}

impl ByHand {
    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel })
    }

    pub(crate) async fn confirming(url: &str) -> Result<Self, BoxError> {
        let by_hand = Self::connect(url).await?;
        by_hand.channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(by_hand)
    }

    /// Declares a durable queue of this kind that gets everything from the exchange of the benchmarks.
    pub(crate) async fn declare(&self, queue: &str, classic: bool) -> Result<(), BoxError> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
        let mut arguments = FieldTable::default();
        if !classic {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), durable, arguments).await?;
        let bind = QueueBindOptions::default();
        self.channel.queue_bind(queue.into(), EXCHANGE.into(), "#".into(), bind, FieldTable::default()).await?;
        Ok(())
    }

    /// Publishes events `0..count`, `WINDOW` unconfirmed.
    pub(crate) async fn publish(&self, count: usize) -> Result<(), BoxError> {
        let mut unconfirmed = VecDeque::with_capacity(WINDOW);
        for n in 0..count {
            if unconfirmed.len() == WINDOW
                && let Some(confirm) = unconfirmed.pop_front()
            {
                confirmed(confirm).await?;
            }
            unconfirmed.push_back(self.send(n).await?);
        }
        for confirm in unconfirmed {
            confirmed(confirm).await?;
        }
        Ok(())
    }

    /// Builds, encodes and writes event `n`, in one of two ways.
    pub(crate) async fn send_as(&self, sent: Sent, n: usize) -> Result<PublisherConfirm, BoxError> {
        match sent {
            Sent::Bare => self.send(n).await,
            Sent::Same => self.send_same(n).await,
        }
    }

    /// Builds, encodes and writes event `n`.
    pub(crate) async fn send(&self, n: usize) -> Result<PublisherConfirm, BoxError> {
        let (_, _, body) = by_hand(n)?;
        self.write(body, BasicProperties::default().with_delivery_mode(2), false).await
    }

    /// Like [`send`](Self::send), with what Tidings promises on top: id and type as properties, and `mandatory`, so that
    /// the broker says whether anybody wanted the event.
    async fn send_same(&self, n: usize) -> Result<PublisherConfirm, BoxError> {
        let (id, _, body) = by_hand(n)?;
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.into());
        self.write(body, properties.with_content_type("application/json".into()), true).await
    }

    async fn write(
        &self,
        body: Vec<u8>,
        properties: BasicProperties,
        mandatory: bool,
    ) -> Result<PublisherConfirm, BoxError> {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        Ok(self.channel.basic_publish(EXCHANGE.into(), ROUTING_KEY.into(), options, &body, properties).await?)
    }

    /// Binds the queue to another exchange, which is there for everybody and stays.
    pub(crate) async fn bind(&self, queue: &str, exchange: &str) -> Result<(), BoxError> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
        let (bind, key) = (QueueBindOptions::default(), ROUTING_KEY);
        self.channel.queue_bind(queue.into(), exchange.into(), key.into(), bind, FieldTable::default()).await?;
        Ok(())
    }

    /// How many consumers the queue has.
    pub(crate) async fn consumers(&self, queue: &str) -> Result<u32, BoxError> {
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        Ok(self.channel.queue_declare(queue.into(), look, FieldTable::default()).await?.consumer_count())
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<(), BoxError> {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
        Ok(())
    }

    /// Deletes the queue and the exchange.
    pub(crate) async fn remove(&self, queue: &str) -> Result<(), BoxError> {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        self.channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await?;
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), BoxError> {
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}

/// Waits for a confirm that must be an ack.
pub(crate) async fn confirmed(confirm: PublisherConfirm) -> Result<(), BoxError> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        other => Err(format!("not confirmed: {other:?}").into()),
    }
}
