//! The event that everybody publishes: built and encoded anew each time, 225–252 bytes of JSON.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidings::DomainEvent;
use uuid::Uuid;

use crate::measure::BoxError;

/// Routing key of all events.
pub(crate) const ROUTING_KEY: &str = "user.registered";
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The payload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) user_id: u64,
    name: String,
    email: String,
    /// Nanoseconds on this process's clock when it was made.
    pub(crate) made: u64,
}

impl Payload {
    /// Number `n`, made now.
    pub(crate) fn new(n: usize) -> Self {
        Self {
            user_id: n as u64,
            name: format!("User Number {n}"),
            email: format!("user-{n}@example.com"),
            made: now(),
        }
    }
}

/// Nanoseconds on this process's clock.
pub(crate) fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The five keys as hand-written code has them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<'a> {
    routing_key: &'a str,
    pub(crate) data: Payload,
    domain_object_id: Option<String>,
    uuid_string: String,
    timestamp: f64,
}

/// Event number `n` as a hand-written publisher builds and encodes it: id, key and body.
pub(crate) fn by_hand(n: usize) -> Result<(String, String, Vec<u8>), BoxError> {
    let (id, key) = (Uuid::now_v7().to_string(), n.to_string());
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let envelope = Envelope {
        routing_key: ROUTING_KEY,
        data: Payload::new(n),
        domain_object_id: Some(key.clone()),
        uuid_string: id.clone(),
        timestamp,
    };
    let body = serde_json::to_vec(&envelope)?;
    Ok((id, key, body))
}

/// Event number `n` as a user of Tidings builds it; the publisher encodes it.
pub(crate) fn ours(n: usize) -> tidings::Result<DomainEvent> {
    Ok(DomainEvent::new(ROUTING_KEY, &Payload::new(n))?.with_domain_object_id(n.to_string()))
}
