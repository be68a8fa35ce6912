//! What callers pass, in the shapes that they pass it in. Optional fields may be left out, `null`, empty or `{}`.

use std::collections::BTreeMap;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use super::session::{Session, VerifiedSession};
use crate::{Error, ErrorKind, Result};

/// One event to be published by its name.
///
/// ```
/// let request = tidings::catalog::PublishRequest::new("my_product", "prd", "orders:new-orders", &serde_json::json!({"id": 7}))?;
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Debug, Clone, serde::Deserialize)]
#[non_exhaustive]
pub struct PublishRequest {
    /// The product; what is configured, if empty.
    #[serde(default, alias = "product", deserialize_with = "optional")]
    pub product_tag: Option<String>,
    /// The environment; what is configured, if empty.
    #[serde(default, deserialize_with = "optional")]
    pub env: Option<String>,
    /// `broker:topic`.
    pub event: String,
    /// What is published.
    pub input: PublishInput,
    /// Tag of the cache in whose window the same message is published once.
    #[serde(default, deserialize_with = "optional")]
    pub cache: Option<String>,
    /// On whose behalf.
    #[serde(default, deserialize_with = "session")]
    pub session: Option<Session>,
    /// A session that the program has verified itself. Set by hosts, never from what a caller passes.
    #[serde(skip)]
    pub verified_session: Option<VerifiedSession>,
    /// Published once while this key is remembered.
    #[serde(default, rename = "idempotencyKey", alias = "idempotency_key", deserialize_with = "optional")]
    pub idempotency_key: Option<String>,
    /// Seconds that the key is remembered.
    #[serde(default, rename = "idempotencyTtl", alias = "idempotency_ttl")]
    pub idempotency_ttl: Option<u64>,
}

/// What is published.
#[derive(Debug, Clone, serde::Deserialize)]
#[non_exhaustive]
pub struct PublishInput {
    /// The data, any JSON.
    pub message: Box<RawValue>,
    /// Headers beside the data.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Ordering key.
    #[serde(default, deserialize_with = "optional")]
    pub key: Option<String>,
    /// Handed to subscriptions after so many milliseconds.
    #[serde(default, rename = "delayMs", alias = "delay_ms")]
    pub delay_ms: Option<u64>,
    /// De-duplication key of consumers' inboxes.
    #[serde(default, rename = "idempotencyKey", alias = "idempotency_key", deserialize_with = "optional")]
    pub idempotency_key: Option<String>,
}

impl PublishRequest {
    /// Publishes `message` as the event `broker:topic`.
    pub fn new<T: serde::Serialize + ?Sized>(product: &str, env: &str, event: &str, message: &T) -> Result<Self> {
        let message = serde_json::value::to_raw_value(message).map_err(|e| {
            Error::new(ErrorKind::InvalidEvent, format!("the message cannot be written as JSON: {e}"))
                .field("message", std::any::type_name::<T>())
                .remedy("JSON has no NaN and no Infinity, and the keys of its objects are text")
        })?;
        Ok(Self {
            product_tag: Some(product.to_owned()),
            env: Some(env.to_owned()),
            event: event.to_owned(),
            input: PublishInput { message, headers: BTreeMap::new(), key: None, delay_ms: None, idempotency_key: None },
            cache: None,
            session: None,
            verified_session: None,
            idempotency_key: None,
            idempotency_ttl: None,
        })
    }

    /// Sends it once in the window of this cache.
    pub fn cache(mut self, tag: impl Into<String>) -> Self {
        self.cache = Some(tag.into());
        self
    }

    /// Publishes on behalf of this session.
    pub fn session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Reads a request as hosts pass it: `{ env, event, product_tag, input, … }`, optional fields may be `{}`.
    pub fn from_json(json: &str) -> Result<Self> {
        read(json)
    }
}

/// A topic to be subscribed to by its name.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[non_exhaustive]
pub struct SubscribeRequest {
    /// The product; what is configured, if empty.
    #[serde(default, alias = "product", deserialize_with = "optional")]
    pub product_tag: Option<String>,
    /// The environment; what is configured, if empty.
    #[serde(default, deserialize_with = "optional")]
    pub env: Option<String>,
    /// `broker:topic`.
    pub event: String,
    /// How it is consumed.
    #[serde(default)]
    pub input: SubscribeInput,
    /// On whose behalf.
    #[serde(default, deserialize_with = "session")]
    pub session: Option<Session>,
    /// A session that the program has verified itself. Set by hosts, never from what a caller passes.
    #[serde(skip)]
    pub verified_session: Option<VerifiedSession>,
}

/// How a topic is consumed.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[non_exhaustive]
pub struct SubscribeInput {
    /// Processes of one group compete; each group gets its own copy of every event. Without one: all of the product.
    #[serde(default, deserialize_with = "optional")]
    pub group: Option<String>,
    /// Handlers that run at once.
    pub concurrency: Option<usize>,
    /// Most retries of one event.
    #[serde(rename = "maxRetries", alias = "max_retries")]
    pub max_retries: Option<u32>,
}

impl SubscribeRequest {
    /// Subscribes to the event `broker:topic`.
    pub fn new(product: &str, env: &str, event: &str) -> Self {
        Self {
            product_tag: Some(product.to_owned()),
            env: Some(env.to_owned()),
            event: event.to_owned(),
            ..Self::default()
        }
    }

    /// Competes with this group only.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.input.group = Some(group.into());
        self
    }

    /// Reads a request as hosts pass it: `{ env, event, product_tag, input, … }`, optional fields may be `{}`.
    pub fn from_json(json: &str) -> Result<Self> {
        read(json)
    }
}

/// Reads a request. What is wrong is named by its place; values are not repeated, a token could be among them.
pub(super) fn read<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| {
        let said = e.to_string();
        let shows_a_value = said.contains("string \"") || said.contains("invalid value");
        let said = if shows_a_value { "a field is of another type than is expected".to_owned() } else { said };
        Error::new(ErrorKind::InvalidOption, format!("the request cannot be read: {said}"))
            .field("request", format!("{} bytes", json.len()))
            .remedy("compare it with the guide on catalogs")
    })
}

/// Text that may be left out, `null`, empty or `{}`.
pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Value::Object(map) if map.is_empty() => Ok(None),
        _ => Err(D::Error::custom("a field that is text was given something else")),
    }
}

/// `{ tag, token }` or `"tag:token"`; may be left out, `null`, empty or `{}`.
fn session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Session>, D::Error> {
    let malformed = || D::Error::custom("the session has not the form { tag, token }");
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Object(map) if map.is_empty() => Ok(None),
        Value::Object(map) => match (map.get("tag"), map.get("token")) {
            (Some(Value::String(tag)), Some(Value::String(token))) => Ok(Some(Session::new(tag, token))),
            _ => Err(malformed()),
        },
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => {
            text.split_once(':').map(|(tag, token)| Some(Session::new(tag, token))).ok_or_else(malformed)
        }
        _ => Err(malformed()),
    }
}
