//! The `amqp` transport: RabbitMQ 3.10 to 4.x, older servers and `LavinMQ` with `?queue_type=classic`.
//!
//! ```text
//! publish ──► publisher ──► pipeline ──► window (confirms) ──► exchange ──► queue of each subscription
//!                              ▲                                               │
//! settle ──────────────────────┘ retry, dead letter, suspect                   ▼
//!    └──► ack, nack ◄── unsettled ◄────────────────────────────────── source (next)
//! ```
//!
//! Two connections, one to publish and one to consume: when the server blocks the one that publishes, acks still get
//! through. `driver` says who polls the pipeline. `topology` declares, `lattice` delays, `dead_letters` browses and replays.

mod barrier;
mod broker;
mod connection;
mod dead_letters;
mod doctor;
mod driver;
mod error;
mod fence;
mod headers;
mod lane;
mod lattice;
mod nesting;
mod network;
mod ordered;
mod outbound;
mod pipeline;
mod prefetch;
mod publisher;
mod received;
mod recovery;
mod settle;
mod source;
mod topology;
mod unsettled;
mod url;
mod window;

use std::sync::Arc;

use super::Transport;
use crate::Result;

/// Reaches the broker that `url` names: `amqp[s]://user:password@host:port/vhost?parameters`.
///
/// Parameters: `cacertfile` (a PEM file of authorities, trusted instead of Mozilla's), `certfile` and `keyfile` (this side's
/// certificate), `verify` (`verify_peer`), `heartbeat` (seconds, default 10),
/// `connection_timeout` (milliseconds, default 10,000), `queue_type` (`classic` for servers without quorum queues).
///
/// Errors: `INVALID_URL`, `ACCESS_REFUSED`, `CONNECTION_FAILED`, `TLS_FAILED`, all without the password.
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(broker::Broker::reach(url).await?))
}

/// Headers as they come back from the wire; `None`: they are refused.
#[cfg(feature = "testkit")]
pub(crate) fn carry(headers: &crate::Headers) -> Option<crate::Headers> {
    let table = headers::to_table(headers).ok()?;
    Some(headers::from_table(&table, "carried").0)
}

/// The virtual host that a broker URL names. `INVALID_URL` if it is none of RabbitMQ's.
pub fn virtual_host(url: &str) -> Result<String> {
    Ok(url::Config::parse(url)?.vhost)
}

/// Deletes this one queue, whatever it is, and nothing that belongs to it. `false` if there was none.
///
/// For programs written for other libraries, which delete queues by name; a subscription is deleted whole by
/// [`Broker::delete_subscription`](crate::Broker::delete_subscription).
pub async fn delete_queue(url: &str, queue: &str) -> Result<bool> {
    let broker = broker::Broker::reach(url).await?;
    let deleted = broker.delete_queue(queue).await;
    broker.close().await.and(deleted)
}
