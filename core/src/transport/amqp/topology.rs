//! Exchanges, queues and bindings, and how they are declared.

use futures_util::future::try_join_all;
use lapin::options::{
    BasicCancelOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind, Queue};

use super::connection::{Connector, Live, answer_in_time};
use super::error;
use super::headers::{int, name_of, text};
use super::lattice;
use crate::Result;
use crate::event::name;
use crate::transport::{QueueType, SubscriptionSpec};

/// Returns that a quorum queue takes before it drops a message: never absent (4.x would drop after 20), never 0 or -1
/// (3.10 drops at the first return).
const DELIVERY_LIMIT: i64 = 1_000_000;

/// Argument of queues that one consumer at a time gets events from.
pub(super) const SINGLE_ACTIVE: &str = "x-single-active-consumer";

/// Argument of exchanges: where what they cannot route goes.
pub(super) const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// Exchange that brings events to one subscription, or to an exchange when their delay is over.
pub(super) const DELIVER: &str = "tidings-deliver";
/// What [`DELIVER`] could not route: kept, so that nothing holds up the lattice.
pub(super) const ORPHANS: &str = "tidings-orphans";
/// Forgets scheduled events once their exchange has had them: at-least-once dead-lettering retries what no queue takes.
const SINK: &str = "tidings-sink";

/// Value of `tidings-to` for a subscription.
pub(super) fn to_queue(subscription: &str) -> String {
    format!("queue:{subscription}")
}

/// Value of `tidings-to` for an exchange.
pub(super) fn to_exchange(exchange: &str) -> String {
    format!("exchange:{exchange}")
}

pub(super) fn dead_letter_exchange(subscription: &str) -> String {
    format!("{subscription}-dlx")
}

pub(super) fn dead_letter_queue(subscription: &str) -> String {
    format!("{subscription}-dl")
}

/// Arguments of a queue or binding.
pub(super) fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name_of(name), value);
    }
    table
}

/// Arguments of our durable queues that nothing may be lost from.
pub(super) fn safe_arguments(queue_type: QueueType) -> FieldTable {
    match queue_type {
        QueueType::Quorum => arguments([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", int(DELIVERY_LIMIT)),
            ("x-overflow", text("reject-publish")),
        ]),
        QueueType::Classic => FieldTable::default(),
    }
}

/// Arguments of a subscription's queue.
pub(super) fn queue_arguments(spec: &SubscriptionSpec, queue_type: QueueType) -> FieldTable {
    let dlx = dead_letter_exchange(&spec.name);
    let mut queue = FieldTable::default();
    if spec.compat {
        if spec.dead_letter {
            queue.insert(name_of("x-dead-letter-exchange"), text(&dlx));
        }
    } else if queue_type == QueueType::Quorum {
        queue = safe_arguments(queue_type);
        queue.insert(name_of("x-dead-letter-exchange"), text(&dlx));
        queue.insert(name_of("x-dead-letter-strategy"), text("at-least-once"));
    }
    queue
}

/// A channel for declarations only. The server closes it at the first refusal.
pub(super) struct Declarer {
    channel: Channel,
}

impl Declarer {
    /// Opens the channel on `connector`'s connection.
    pub(super) async fn open(connector: &Connector) -> Result<Self> {
        Ok(Self { channel: connector.channel().await?.0 })
    }

    /// Opens the channel on this very connection.
    pub(super) async fn on(live: &Live) -> Result<Self> {
        Ok(Self { channel: live.channel().await? })
    }

    pub(super) async fn close(self) {
        if let Err(error) = answer_in_time(self.channel.close(200, "done".into()), "closing a channel").await {
            tracing::debug!(%error, "a channel for declarations did not close in order");
        }
    }

    /// Closes the channel behind the last declaration, unless that has ended it.
    pub(super) async fn close_after<T>(self, declared: Result<T>) -> Result<T> {
        if declared.is_ok() {
            self.close().await;
        }
        declared
    }

    pub(super) async fn exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        durable: bool,
        arguments: FieldTable,
    ) -> Result<()> {
        let options = ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name_of(name), kind, options, arguments);
        answer_in_time(declared, &format!("exchange {name}")).await
    }

    pub(super) async fn queue(&self, name: &str, options: QueueDeclareOptions, arguments: FieldTable) -> Result<Queue> {
        answer_in_time(self.channel.queue_declare(name_of(name), options, arguments), &format!("queue {name}")).await
    }

    pub(super) async fn durable_queue(&self, name: &str, arguments: FieldTable) -> Result<Queue> {
        self.queue(name, QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }, arguments).await
    }

    pub(super) async fn bind(&self, queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> Result<()> {
        let what = format!("binding queue {queue} to exchange {exchange}");
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(name_of(queue), name_of(exchange), name_of(key), options, arguments);
        answer_in_time(bound, &what).await
    }

    pub(super) async fn bind_exchange(&self, to: &str, from: &str, arguments: FieldTable) -> Result<()> {
        let what = format!("binding exchange {to} to exchange {from}");
        let options = ExchangeBindOptions::default();
        let bound = self.channel.exchange_bind(name_of(to), name_of(from), name_of(""), options, arguments);
        answer_in_time(bound, &what).await
    }

    /// A queue of an ordered subscription: one consumer at a time has it, and the next one gets everything back in order.
    pub(super) async fn single_active(&self, name: &str, queue_type: QueueType) -> Result<()> {
        let mut arguments = safe_arguments(queue_type);
        arguments.insert(name_of(SINGLE_ACTIVE), AMQPValue::Boolean(true));
        self.durable_queue(name, arguments).await.map(|_| ())
    }

    /// Several of them, asked for at once.
    pub(super) async fn all_single_active(&self, names: &[String], queue_type: QueueType) -> Result<()> {
        try_join_all(names.iter().map(|name| self.single_active(name, queue_type))).await.map(|_| ())
    }

    /// The queue as it is; `None` if there is none, after which this channel is closed.
    pub(super) async fn look(&self, queue: &str) -> Result<Option<Queue>> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(name_of(queue), options, FieldTable::default()).await {
            Ok(queue) => Ok(Some(queue)),
            Err(e) if error::is_not_found(&e) => Ok(None),
            Err(e) => Err(error::answered(e, &format!("queue {queue}"))),
        }
    }

    pub(super) async fn delete_queue(&self, queue: &str) -> Result<()> {
        let deleted = self.channel.queue_delete(name_of(queue), QueueDeleteOptions::default());
        answer_in_time(deleted, &format!("deleting queue {queue}")).await.map(|_| ())
    }

    pub(super) async fn delete_exchange(&self, exchange: &str) -> Result<()> {
        let deleted = self.channel.exchange_delete(name_of(exchange), ExchangeDeleteOptions::default());
        answer_in_time(deleted, &format!("deleting exchange {exchange}")).await
    }

    /// An exchange that events are published to.
    pub(super) async fn topic(&self, exchange: &str) -> Result<()> {
        self.exchange(exchange, ExchangeKind::Topic, true, FieldTable::default()).await
    }

    /// The end of the lattice: [`DELIVER`] with what catches the events that it cannot route.
    pub(super) async fn deliver(&self, queue_type: QueueType) -> Result<()> {
        self.exchange(ORPHANS, ExchangeKind::Fanout, true, FieldTable::default()).await?;
        self.durable_queue(ORPHANS, safe_arguments(queue_type)).await?;
        self.bind(ORPHANS, ORPHANS, "", FieldTable::default()).await?;
        self.exchange(DELIVER, ExchangeKind::Headers, true, arguments([(ALTERNATE_EXCHANGE, text(ORPHANS))])).await
    }

    /// Lets events whose `tidings-to` names the subscription into its queue.
    pub(super) async fn bind_delivery(&self, subscription: &str) -> Result<()> {
        let to = arguments([("x-match", text("all")), (name::TO, text(to_queue(subscription)))]);
        self.bind(subscription, DELIVER, "", to).await
    }

    /// Lets events whose `tidings-to` names `exchange` into it when their delay is over.
    pub(super) async fn schedule_into(&self, exchange: &str) -> Result<()> {
        let to = || arguments([("x-match", text("all")), (name::TO, text(to_exchange(exchange)))]);
        self.topic(exchange).await?;
        self.bind_exchange(exchange, DELIVER, to()).await?;
        self.durable_queue(SINK, arguments([("x-message-ttl", int(0))])).await?;
        self.bind(SINK, DELIVER, "", to()).await
    }

    /// Everything that a delay passes through.
    pub(super) async fn lattice(&self, queue_type: QueueType) -> Result<()> {
        self.deliver(queue_type).await?;
        // A hundred answers one after the other would keep the first delayed event of a connection waiting.
        let levels = || 0..lattice::LEVELS;
        let exchanges = levels().map(|level| async move {
            self.exchange(&lattice::level_name(level), ExchangeKind::Headers, true, FieldTable::default()).await
        });
        try_join_all(exchanges).await?;
        try_join_all(levels().map(|level| self.level(level, queue_type))).await?;
        Ok(())
    }

    async fn level(&self, level: u32, queue_type: QueueType) -> Result<()> {
        let here = lattice::level_name(level);
        let below = level.checked_sub(1).map_or_else(|| DELIVER.to_owned(), lattice::level_name);
        let mut queue = safe_arguments(queue_type);
        if queue_type == QueueType::Quorum {
            queue.insert(name_of("x-dead-letter-strategy"), text("at-least-once"));
        }
        queue.insert(name_of("x-message-ttl"), int(lattice::level_millis(level)));
        queue.insert(name_of("x-dead-letter-exchange"), text(&below));
        self.durable_queue(&here, queue).await?;
        let bit = |value| arguments([("x-match", text("all")), (here.as_str(), int(value))]);
        self.bind(&here, &here, "", bit(1)).await?;
        self.bind_exchange(&below, &here, bit(0)).await
    }

    /// Everything that a subscription needs, and nothing that it has no binding for. `single_active`: its queue has one
    /// consumer at a time.
    pub(super) async fn subscription(
        &self,
        spec: &SubscriptionSpec,
        queue_type: QueueType,
        infrastructure: QueueType,
        single_active: bool,
    ) -> Result<()> {
        let (name, dlx, dl) = (spec.name.as_str(), dead_letter_exchange(&spec.name), dead_letter_queue(&spec.name));
        self.topic(&spec.exchange).await?;
        self.deliver(infrastructure).await?;
        if spec.compat {
            self.compat_dead_letters(spec, &dlx, &dl).await?;
        } else {
            self.exchange(&dlx, ExchangeKind::Topic, true, FieldTable::default()).await?;
            self.durable_queue(&dl, safe_arguments(queue_type)).await?;
            self.bind(&dl, &dlx, "#", FieldTable::default()).await?;
        }
        let mut queue = queue_arguments(spec, queue_type);
        if single_active {
            queue.insert(name_of(SINGLE_ACTIVE), AMQPValue::Boolean(true));
        }
        let options = QueueDeclareOptions {
            durable: spec.durable,
            exclusive: spec.exclusive,
            auto_delete: spec.auto_delete,
            ..QueueDeclareOptions::default()
        };
        self.queue(name, options, queue).await?;
        for key in &spec.binding_keys {
            self.bind(name, &spec.exchange, key, FieldTable::default()).await?;
        }
        if spec.compat {
            let retry = format!("{name}-retry");
            self.exchange(&retry, ExchangeKind::Topic, false, FieldTable::default()).await?;
            for key in &spec.binding_keys {
                self.bind(name, &retry, key, FieldTable::default()).await?;
            }
        }
        self.bind_delivery(name).await
    }

    /// The peer's dead-letter objects. Its exchange is transient; `#` keeps events whose key no longer matches.
    async fn compat_dead_letters(&self, spec: &SubscriptionSpec, dlx: &str, dl: &str) -> Result<()> {
        if !spec.dead_letter {
            return Ok(());
        }
        self.exchange(dlx, ExchangeKind::Topic, false, FieldTable::default()).await?;
        self.durable_queue(dl, FieldTable::default()).await?;
        for key in &spec.binding_keys {
            self.bind(dl, dlx, key, FieldTable::default()).await?;
        }
        self.bind(dl, dlx, "#", FieldTable::default()).await
    }
}

/// How a consumer is cancelled: the answer marks the end of its deliveries.
pub(super) const CANCEL: BasicCancelOptions = BasicCancelOptions { nowait: false };
