//! A delivery of the broker as a message of ours.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;

use super::headers::{BrokerNotes, has_extra, incoming, timestamp};
use crate::event::{Payload, name};
use crate::transport::Message;

/// What a delivery brought.
pub(super) struct Received {
    pub(super) message: Message,
    /// What a foreign publisher had set and the message has no place for.
    pub(super) extra: Option<Arc<BasicProperties>>,
    pub(super) notes: BrokerNotes,
}

/// Reads a delivery of `subscription`, whose events come from `exchange`.
pub(super) fn received(delivery: Delivery, routing_key: Arc<str>, exchange: &Arc<str>, subscription: &str) -> Received {
    let (headers, notes) = incoming(&delivery.properties, subscription);
    let extra = has_extra(&delivery.properties).then(|| Arc::new(delivery.properties.clone()));
    let message = Message {
        exchange: exchange.clone(),
        routing_key,
        id: delivery.properties.message_id().as_ref().map_or_else(|| "".into(), |id| id.as_str().into()),
        key: headers.text(name::KEY).map(Into::into),
        timestamp: timestamp(&delivery.properties),
        body: Payload::from(delivery.data),
        headers,
        deliver_at: None,
        require_route: false,
        deadline: None,
    };
    Received { message, extra, notes }
}
