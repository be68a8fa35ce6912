//! An event of an ordered subscription, as its owner holds it.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use tokio::time::Instant;

use super::super::outbound::{Destination, Outbound, Reply};
use super::super::received::{Received, received};
use crate::event::{Headers, decode, name};
use crate::transport::Message;

/// Type of a message that marks the end of what was in a key's queue.
pub(super) const MARKER: &str = "tidings-marker";

/// Marks a copy of an event whose original may come again. By its prefix it goes when it is read.
const COPY: &str = "tidings-delay-copy";

/// A delivery that is not settled.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) tag: u64,
    pub(super) message: Message,
    pub(super) extra: Option<Arc<BasicProperties>>,
    /// An earlier owner may have started it: that has to be written down before it starts again.
    pub(super) uncounted: bool,
    /// There may be more of it in the queue of its key.
    pub(super) copy: bool,
    pub(super) since: Instant,
}

/// What a delivery turned out to be.
pub(super) enum Item {
    Event(Event),
    /// Its id, and the tag to ack.
    Marker(String, u64),
}

impl Event {
    /// Reads a delivery from a subscription's queue or the queue of a key.
    pub(super) fn read(delivery: Delivery, exchange: &Arc<str>, subscription: &str) -> Item {
        let properties = &delivery.properties;
        let tag = delivery.delivery_tag;
        if properties.kind().as_ref().is_some_and(|kind| kind.as_str() == MARKER) {
            let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
            return Item::Marker(id, tag);
        }
        let uncounted = delivery.redelivered;
        let copy = properties.headers().as_ref().is_some_and(|headers| headers.inner().contains_key(COPY));
        let routing_key = match properties.headers().as_ref().and_then(|h| h.inner().get(name::ROUTING_KEY)) {
            Some(AMQPValue::LongString(key)) => String::from_utf8_lossy(key.as_bytes()).as_ref().into(),
            _ => delivery.routing_key.as_str().into(),
        };
        let Received { mut message, extra, .. } = received(delivery, routing_key, exchange, subscription);
        identify(&mut message);
        Item::Event(Self { tag, message, extra, uncounted, copy, since: Instant::now() })
    }

    /// The event on its way into a queue.
    pub(super) fn outbound(&self, queue: &str, reply: Reply) -> Outbound {
        let mut message = self.message.clone();
        message.headers.set(name::ROUTING_KEY, message.routing_key);
        if self.copy {
            message.headers.set(COPY, 1i64);
        }
        message.routing_key = queue.into();
        outbound(message, self.extra.clone(), Destination::Queue, reply)
    }

    /// An event on its way to where it is not in order.
    pub(super) fn copy(
        message: Message,
        extra: Option<Arc<BasicProperties>>,
        headers: Headers,
        to: Destination,
        reply: Reply,
    ) -> Outbound {
        outbound(message.with_headers(headers), extra, to, reply)
    }
}

fn outbound(message: Message, extra: Option<Arc<BasicProperties>>, to: Destination, reply: Reply) -> Outbound {
    let timestamp = message.timestamp;
    let mut out = Outbound { to, extra, timestamp, deadline: None, ..Outbound::event(message, reply) };
    out.fit();
    out
}

/// Finds key and id in the body where the headers do not have them. What cannot be read has no key.
pub(in super::super) fn identify(message: &mut Message) {
    if message.key.is_some() && !message.id.is_empty() {
        return;
    }
    if let Ok(event) = decode(&message.body, Headers::new()) {
        message.key = message.key.take().or_else(|| event.shared_key());
        if message.id.is_empty() {
            message.id = event.id().into();
        }
    }
}

/// A marker on its way into a queue.
pub(super) fn marker(queue: &str, id: &str, reply: Reply) -> Outbound {
    let message = Message::new(queue, id, Vec::new());
    let kind = BasicProperties::default().with_type(MARKER.into());
    outbound(message, Some(Arc::new(kind)), Destination::Queue, reply)
}
