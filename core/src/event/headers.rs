//! Headers: everything about an event that is not one of the five body keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Most that the headers of one event may take together, in bytes.
pub const MAX_HEADERS: usize = 64 * 1024;

/// Lists and tables within each other that a header may have: a store must be able to read back what it wrote.
const MAX_DEPTH: usize = 16;

/// Names of the headers that Tidings gives a meaning (`tests/vectors/headers.json`).
pub mod name {
    /// Ordering key; where it is missing, the `domain_object_id` is the key.
    pub const KEY: &str = "tidings-key";
    /// Deliveries already tried and scheduled again.
    pub const ATTEMPT: &str = "tidings-attempt";
    /// De-duplication key; where it is missing, the event's id.
    pub const IDEMPOTENCY_KEY: &str = "tidings-idempotency-key";
    /// Id shared by everything that one request set off.
    pub const CORRELATION_ID: &str = "tidings-correlation-id";
    /// Id of the event that caused this one.
    pub const CAUSATION_ID: &str = "tidings-causation-id";
    /// Tenant that the event belongs to.
    pub const TENANT: &str = "tidings-tenant";
    /// W3C Trace Context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C Trace Context, vendor part.
    pub const TRACESTATE: &str = "tracestate";
    /// W3C Baggage.
    pub const BAGGAGE: &str = "baggage";
    /// Media type of the body.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The event has crashed its consumers and is run alone: 1 plus the crashes since, where the broker's count began anew.
    pub const SUSPECT: &str = "tidings-suspect";
    /// Deliveries without an outcome, where the broker does not count them.
    pub const DELIVERIES: &str = "tidings-deliveries";
    /// Where a delayed event goes when its delay is over.
    pub const TO: &str = "tidings-to";
    /// Prefix of the bits of a delay on RabbitMQ.
    pub const DELAY_PREFIX: &str = "tidings-delay-";
    /// Prefix of everything that describes a dead letter.
    pub const DEAD_PREFIX: &str = "tidings-dead-";
    /// Why the event was given up on.
    pub const DEAD_REASON: &str = "tidings-dead-reason";
    /// Type of the last error, most specific.
    pub const DEAD_ERROR_TYPE: &str = "tidings-dead-error-type";
    /// Message of the last error.
    pub const DEAD_ERROR: &str = "tidings-dead-error";
    /// Stack of the last error.
    pub const DEAD_STACK: &str = "tidings-dead-stack";
    /// How often the event was handled in all.
    pub const DEAD_ATTEMPTS: &str = "tidings-dead-attempts";
    /// When it failed first.
    pub const DEAD_FIRST_FAILED_AT: &str = "tidings-dead-first-failed-at";
    /// When it failed last.
    pub const DEAD_FAILED_AT: &str = "tidings-dead-failed-at";
    /// Subscription that gave up on it.
    pub const DEAD_SUBSCRIPTION: &str = "tidings-dead-subscription";
    /// The dead letter is a copy; the event itself waits at the head of its key.
    pub const PARKED: &str = "tidings-parked";
    /// `broker:topic` of an event that was published by way of the catalog.
    pub const EVENT_NAME: &str = "tidings-event-name";
    /// Product that published it by way of the catalog.
    pub const PRODUCT: &str = "tidings-product";
    /// Environment that it was published in by way of the catalog.
    pub const ENV: &str = "tidings-env";
    /// Tag of the session that it was published in. Never its token.
    pub const SESSION_TAG: &str = "tidings-session-tag";
    /// Subject of the session's token, if that was verified.
    pub const SESSION_SUBJECT: &str = "tidings-session-subject";
    /// Whether the session's token was verified.
    pub const SESSION_VERIFIED: &str = "tidings-session-verified";
    /// The event's routing key, while it travels under the name of a queue.
    pub const ROUTING_KEY: &str = "tidings-routing-key";

    /// All of them, in the order of the table.
    pub const ALL: &[&str] = &[
        KEY,
        ATTEMPT,
        IDEMPOTENCY_KEY,
        CORRELATION_ID,
        CAUSATION_ID,
        TENANT,
        TRACEPARENT,
        TRACESTATE,
        BAGGAGE,
        CONTENT_TYPE,
        SUSPECT,
        DELIVERIES,
        TO,
        DELAY_PREFIX,
        DEAD_PREFIX,
        DEAD_REASON,
        DEAD_ERROR_TYPE,
        DEAD_ERROR,
        DEAD_STACK,
        DEAD_ATTEMPTS,
        DEAD_FIRST_FAILED_AT,
        DEAD_FAILED_AT,
        DEAD_SUBSCRIPTION,
        PARKED,
        EVENT_NAME,
        PRODUCT,
        ENV,
        SESSION_TAG,
        SESSION_SUBJECT,
        SESSION_VERIFIED,
        ROUTING_KEY,
    ];
}

/// Value of a header. Text and numbers are what Tidings writes; the rest is kept for foreign events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeaderValue {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A binary fraction.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes that are not UTF-8.
    Bytes(Vec<u8>),
    /// Seconds since the Unix epoch, as AMQP has a type for it.
    Time(u64),
    /// A list.
    List(Vec<HeaderValue>),
    /// A table.
    Table(Headers),
}

impl HeaderValue {
    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, also where it is written as text.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        1 + match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) | Self::Time(_) => 8,
            Self::Text(text) => 4 + text.len(),
            Self::Bytes(bytes) => 4 + bytes.len(),
            Self::List(list) => 4 + list.iter().map(Self::size).sum::<usize>(),
            Self::Table(table) => table.size(),
        }
    }

    /// Whether it has more than `levels` lists and tables within each other.
    fn is_deeper_than(&self, levels: usize) -> bool {
        let inner = levels.checked_sub(1);
        match self {
            Self::List(list) => inner.is_none_or(|inner| list.iter().any(|value| value.is_deeper_than(inner))),
            Self::Table(table) => inner.is_none_or(|inner| table.iter().any(|(_, value)| value.is_deeper_than(inner))),
            _ => false,
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for HeaderValue {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for HeaderValue {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for HeaderValue {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// Header names and values in the order they were set. Names are unique.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(Vec<(Arc<str>, HeaderValue)>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.0.iter().find(|(n, _)| **n == *name).map(|(_, value)| value)
    }

    /// The value of `name` if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(HeaderValue::as_str)
    }

    /// The value of `name` if it is a whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(HeaderValue::as_i64)
    }

    /// Sets `name`, in its old place if there was one.
    pub fn set(&mut self, name: impl AsRef<str> + Into<Arc<str>>, value: impl Into<HeaderValue>) {
        match self.0.iter_mut().find(|(n, _)| **n == *name.as_ref()) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
    }

    /// Removes `name` and returns what it was.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        let at = self.0.iter().position(|(n, _)| **n == *name)?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the headers whose name passes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that the headers take on the wire, as AMQP counts them.
    pub fn size(&self) -> usize {
        4 + self.0.iter().map(|(name, value)| 1 + name.len() + value.size()).sum::<usize>()
    }

    /// Refuses names that AMQP cannot carry, values that nest too deep and totals beyond [`MAX_HEADERS`].
    pub fn check(&self) -> Result<()> {
        if let Some((name, _)) = self.iter().find(|(name, _)| name.is_empty() || name.len() > 255) {
            return Err(Error::new(ErrorKind::InvalidHeader, format!("a header's name has {} bytes", name.len()))
                .field("headers", name)
                .remedy("use 1 to 255 bytes"));
        }
        if let Some((name, _)) = self.iter().find(|(name, _)| is_the_brokers(name)) {
            return Err(Error::new(ErrorKind::InvalidHeader, "a header has a name that brokers give a meaning")
                .field("headers", name)
                .remedy("choose a name that does not begin with x- and is not CC or BCC"));
        }
        if let Some((name, _)) = self.iter().find(|(_, value)| value.is_deeper_than(MAX_DEPTH)) {
            let message = format!("a header has more than {MAX_DEPTH} lists and tables within each other");
            return Err(Error::new(ErrorKind::InvalidHeader, message)
                .field("headers", name)
                .remedy("move nested values into the event's data"));
        }
        let size = self.size();
        if size > MAX_HEADERS {
            let (name, _) = self.iter().max_by_key(|(_, value)| value.size()).unwrap_or(("", &HeaderValue::Null));
            return Err(Error::new(
                ErrorKind::HeadersTooLarge,
                format!("the headers take {size} bytes, at most {MAX_HEADERS} can be sent"),
            )
            .field("headers", name)
            .remedy("move large values into the event's data"));
        }
        Ok(())
    }
}

/// Whether a broker acts on a header of this name: counts, routes or expires by it.
fn is_the_brokers(name: &str) -> bool {
    name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-")) || ["CC", "BCC"].contains(&name)
}

impl<N: Into<Arc<str>> + AsRef<str>, V: Into<HeaderValue>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in iter {
            headers.set(name, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_in_place() {
        let mut headers: Headers = [("a", "1"), ("b", "2")].into_iter().collect();
        headers.set("a", 3i64);
        assert_eq!(headers.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(headers.int("a"), Some(3));
        assert_eq!(headers.remove("a"), Some(HeaderValue::Int(3)));
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn the_brokers_own_names_are_refused() {
        for name in ["x-delivery-count", "X-Death", "CC", "BCC"] {
            let headers: Headers = [(name, "1")].into_iter().collect();
            assert_eq!(headers.check().unwrap_err().code(), "INVALID_HEADER", "{name}");
        }
        let headers: Headers = [("x", "1"), ("xy-z", "2"), ("cc", "3")].into_iter().collect();
        headers.check().unwrap();
    }

    #[test]
    fn too_large_names_the_largest() {
        let headers: Headers = [("small", "x".to_owned()), ("large", "x".repeat(MAX_HEADERS))].into_iter().collect();
        let error = headers.check().unwrap_err();
        assert_eq!((error.code(), error.field_value()), ("HEADERS_TOO_LARGE", Some("large")));
    }

    #[test]
    fn what_is_accepted_is_not_nested_too_deep_to_be_read_back() {
        let nested = |depth: usize| {
            let value = (0..depth).fold(HeaderValue::Null, |inner, level| match level % 2 {
                0 => HeaderValue::List(vec![inner]),
                _ => HeaderValue::Table([("t", inner)].into_iter().collect()),
            });
            [("deep", value)].into_iter().collect::<Headers>()
        };
        let deepest = nested(MAX_DEPTH);
        deepest.check().unwrap();
        let json = serde_json::to_string(&deepest).unwrap();
        assert_eq!(serde_json::from_str::<Headers>(&json).unwrap(), deepest);
        assert_eq!(nested(MAX_DEPTH + 1).check().unwrap_err().code(), "INVALID_HEADER");
    }
}
