//! [`DomainEvent`]: routing key, data, id, time.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{HeaderValue, Headers, Payload, Timestamp, codec, finite, id, name};
use crate::routing::check_routing_key;
use crate::{Error, ErrorKind, Result};

/// What happened. Immutable once published; cheap to clone.
///
/// `data` is any JSON. It is kept as the bytes that travel and only parsed when [`data`](Self::data) asks for a type.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::DomainEvent;
///
/// #[derive(Serialize, Deserialize)]
/// struct Registered { user_id: u64 }
///
/// let event = DomainEvent::new("user.registered", &Registered { user_id: 7 })?.with_domain_object_id("7");
/// assert_eq!(event.data::<Registered>()?.user_id, 7);
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct DomainEvent {
    routing_key: Arc<str>,
    data: Payload,
    domain_object_id: Option<Arc<str>>,
    id: Arc<str>,
    timestamp: Timestamp,
    headers: Headers,
}

impl DomainEvent {
    /// Announces that `routing_key` happened, with `data` serialized to JSON, a new `UUIDv7` and the time now.
    ///
    /// Errors: `INVALID_ROUTING_KEY`; `INVALID_EVENT` if `data` has no JSON form (NaN, Infinity, a map whose keys are no
    /// strings).
    pub fn new<T: Serialize + ?Sized>(routing_key: &str, data: &T) -> Result<Self> {
        let refuse = |why: &dyn fmt::Display| {
            Error::new(ErrorKind::InvalidEvent, format!("the data cannot be written as JSON: {why}"))
                .field("data", std::any::type_name::<T>())
                .remedy("JSON has no NaN and no Infinity, and the keys of its objects are text")
        };
        let json = serde_json::to_vec(data).map_err(|e| refuse(&e))?;
        // What is no number was written as null.
        if json.windows(4).any(|four| four == b"null") {
            finite::check(data).map_err(|e| refuse(&e))?;
        }
        Self::with_data(routing_key, json.into())
    }

    /// Like [`new`](Self::new), with `data` already written as JSON. Refuses what is not JSON, NaN and Infinity too.
    pub fn from_json(routing_key: &str, data: impl Into<String>) -> Result<Self> {
        let data = data.into();
        serde_json::from_str::<&serde_json::value::RawValue>(&data).map_err(|e| {
            Error::new(ErrorKind::InvalidEvent, format!("the data is not JSON: {e}"))
                .field("data", format!("{} bytes", data.len()))
                .remedy("JSON has no NaN, no Infinity and no trailing commas")
        })?;
        // Surrounding white space is not part of the value, and the golden form has none.
        let data = Payload::from(data);
        let trimmed = data.trim_ascii();
        let trimmed = data.part(trimmed);
        Self::with_data(routing_key, trimmed)
    }

    fn with_data(routing_key: &str, data: Payload) -> Result<Self> {
        check_routing_key(routing_key)?;
        Ok(Self::from_parts(routing_key.into(), data, None, id::new_id(), Timestamp::now(), Headers::new()))
    }

    /// Puts an event together from parts that were checked where they came from.
    pub(crate) fn from_parts(
        routing_key: Arc<str>,
        data: Payload,
        domain_object_id: Option<Arc<str>>,
        id: Arc<str>,
        timestamp: Timestamp,
        headers: Headers,
    ) -> Self {
        Self { routing_key, data, domain_object_id, id, timestamp, headers }
    }

    /// What is left where an event was moved out of; costs no allocation beyond two shared empty strings.
    pub(crate) fn nothing() -> Self {
        let empty: Arc<str> = Arc::default();
        Self::from_parts(empty.clone(), Payload::new(), None, empty, Timestamp::EPOCH, Headers::new())
    }

    /// Reads an event's body, as [`to_json`](Self::to_json) or a peer wrote it.
    pub fn from_body(body: impl Into<Payload>) -> Result<Self> {
        codec::decode(&body.into(), Headers::new()).map_err(|(error, _)| error)
    }

    /// The event's body on the wire.
    pub fn to_json(&self) -> Payload {
        codec::encode(self)
    }

    /// Names the entity that the event is about. It is also the ordering key unless [`with_key`](Self::with_key) says otherwise.
    pub fn with_domain_object_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.domain_object_id = Some(id.into());
        self
    }

    /// Sets the id: 1 to 255 bytes, unique for this event.
    pub fn with_id(mut self, id: &str) -> Result<Self> {
        id::check_id(id)?;
        self.id = id.into();
        Ok(self)
    }

    /// Sets the time at which it happened.
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Sets the ordering key: `ordered` subscriptions handle the events of one key one at a time, in order.
    pub fn with_key(self, key: impl Into<Arc<str>>) -> Self {
        self.with_header(name::KEY, key.into())
    }

    /// Sets the tenant that the event belongs to.
    pub fn with_tenant(self, tenant: impl Into<Arc<str>>) -> Self {
        self.with_header(name::TENANT, tenant.into())
    }

    /// Sets the de-duplication key; without one the event's id is the key.
    pub fn with_idempotency_key(self, key: impl Into<Arc<str>>) -> Self {
        self.with_header(name::IDEMPOTENCY_KEY, key.into())
    }

    /// Sets a header. Names and sizes are checked when the event is published.
    pub fn with_header(mut self, name: impl AsRef<str> + Into<Arc<str>>, value: impl Into<HeaderValue>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Says that `cause` led to this event: takes over its correlation id (its id, if it has none) and its trace.
    pub fn caused_by(mut self, cause: &Self) -> Self {
        let correlation = cause.headers.get(name::CORRELATION_ID).cloned().unwrap_or_else(|| cause.id.clone().into());
        self.headers.set(name::CORRELATION_ID, correlation);
        self.headers.set(name::CAUSATION_ID, cause.id.clone());
        for inherited in [name::TRACEPARENT, name::TRACESTATE, name::BAGGAGE, name::TENANT] {
            if let (None, Some(value)) = (self.headers.get(inherited), cause.headers.get(inherited)) {
                self.headers.set(inherited, value.clone());
            }
        }
        self
    }

    /// `<domain>.<event type>`, words separated by dots.
    pub fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// Parses the data as `T`. `INVALID_EVENT` says where it does not fit.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.data).map_err(|e| {
            Error::new(ErrorKind::InvalidEvent, format!("the data is not a {}: {e}", std::any::type_name::<T>()))
                .field("data", format!("{} bytes", self.data.len()))
        })
    }

    /// The data as the JSON text that travelled.
    pub fn data_json(&self) -> &str {
        // Both ways in check that the data is JSON, which is UTF-8.
        std::str::from_utf8(&self.data).unwrap_or_default()
    }

    pub(crate) fn data_bytes(&self) -> &[u8] {
        &self.data
    }

    /// Identifier of the entity that the event is about.
    pub fn domain_object_id(&self) -> Option<&str> {
        self.domain_object_id.as_deref()
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it happened.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The ordering key: header `tidings-key`, else the `domain_object_id`.
    pub fn key(&self) -> Option<&str> {
        self.headers.text(name::KEY).or(self.domain_object_id())
    }

    /// The tenant, if the event belongs to one.
    pub fn tenant(&self) -> Option<&str> {
        self.headers.text(name::TENANT)
    }

    /// What the inbox remembers: the idempotency key, else the id.
    pub fn idempotency_key(&self) -> &str {
        self.headers.text(name::IDEMPOTENCY_KEY).unwrap_or(&self.id)
    }

    /// How often the subscription that got this event has already tried it: 0 on the first delivery.
    pub fn retries(&self) -> u32 {
        crate::settlement::attempt(&self.headers)
    }

    pub(crate) fn shared_routing_key(&self) -> Arc<str> {
        self.routing_key.clone()
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        self.id.clone()
    }

    pub(crate) fn shared_key(&self) -> Option<Arc<str>> {
        match self.headers.get(name::KEY) {
            Some(HeaderValue::Text(key)) => Some(key.clone()),
            _ => self.domain_object_id.clone(),
        }
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }
}

impl fmt::Debug for DomainEvent {
    /// Leaves out data and headers: they may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainEvent")
            .field("routing_key", &self.routing_key)
            .field("id", &self.id)
            .field("domain_object_id", &self.domain_object_id)
            .field("timestamp", &self.timestamp.as_secs_f64())
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}
