//! A consumer that is never cancelled.
//!
//! lapin cancels a consumer that is dropped, and `basic.cancel` with events unacked lets the next one start behind them.
//! Here a consumer ends with its channel, or with its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use parking_lot::Mutex;

use super::super::connection::{Live, answer_in_time};
use super::super::headers::name_of;
use super::super::source::close_channel;
use crate::Result;

const ACKS_PASS_WITHIN: Duration = Duration::from_millis(100);

/// Consumers of a connection that nobody reads any more, kept until it is closed.
pub(super) struct Kept {
    live: Arc<Live>,
    consumers: Mutex<Vec<(Channel, Consumer)>>,
}

impl Kept {
    pub(super) fn new(live: Arc<Live>) -> Arc<Self> {
        Arc::new(Self { live, consumers: Mutex::default() })
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    fn keep(&self, channel: Channel, consumer: Consumer) {
        let mut consumers = self.consumers.lock();
        // Those of closed channels have nothing left to cancel.
        consumers.retain(|(channel, _)| channel.status().connected());
        consumers.push((channel, consumer));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.live.connected() {
            // The task was ended from outside. The server sees the connection go, which is what is wanted.
            std::mem::forget(std::mem::take(&mut *self.consumers.lock()));
        }
    }
}

/// Closes a channel whose consumers were never cancelled: what is unacked goes back.
pub(super) async fn leave(channel: &Channel, acked_many: bool) {
    if acked_many {
        // A quorum queue's channel forgets acks that it has not passed on; a moment lets it.
        tokio::time::sleep(ACKS_PASS_WITHIN).await;
    }
    close_channel(channel).await;
}

/// What a queue delivers, each with the number of the consumer.
pub(super) struct Deliveries {
    number: u64,
    channel: Channel,
    consumer: Option<Consumer>,
    kept: Arc<Kept>,
}

impl Deliveries {
    /// Consumes from `queue`, at most `prefetch` unacked.
    pub(super) async fn open(
        channel: &Channel,
        kept: &Arc<Kept>,
        queue: &str,
        number: u64,
        prefetch: u16,
        exclusive: bool,
    ) -> Result<Self> {
        answer_in_time(channel.basic_qos(prefetch, BasicQosOptions::default()), "the prefetch").await?;
        let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
        let tag = name_of(format!("tidings-ordered-{number}"));
        let asked = channel.basic_consume(name_of(queue), tag, options, FieldTable::default());
        let consumer = answer_in_time(asked, &format!("consuming from queue {queue}")).await?;
        Ok(Self { number, channel: channel.clone(), consumer: Some(consumer), kept: kept.clone() })
    }
}

/// What the queue of a key delivers; `None` once the consumer has ended.
pub(super) type KeyDeliveries = BoxStream<'static, (u64, Option<lapin::Result<Delivery>>)>;

impl Deliveries {
    /// With an item for the end: among many streams it would be missed.
    pub(super) fn with_end(self) -> KeyDeliveries {
        let number = self.number;
        let end = stream::once(std::future::ready((number, None)));
        self.map(|(number, delivery)| (number, Some(delivery))).chain(end).boxed()
    }
}

impl Stream for Deliveries {
    type Item = (u64, lapin::Result<Delivery>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let number = self.number;
        let Some(consumer) = self.consumer.as_mut() else { return Poll::Ready(None) };
        Pin::new(consumer).poll_next(cx).map(|item| item.map(|delivery| (number, delivery)))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.kept.keep(self.channel.clone(), consumer);
        }
    }
}
