//! [`BodyCodec`]: bodies that are not the JSON of the wire format.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::event::{DomainEvent, Headers, Payload, decode, name};
use crate::settlement::reason;
use crate::transport::Message;
use crate::{Error, ErrorKind, Result};

/// Reads (and, if it likes, writes) the bodies of one `content-type`. JSON needs none.
///
/// It is registered with [`Broker::codec`](crate::Broker::codec). A subscription hands it every event whose header
/// `content-type` names its media type; without one such an event is dead-lettered as `unsupported-content-type`. The
/// body stays what it was through retries, dead letter and replay.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::transport::Message;
/// use tidings::{BodyCodec, Broker, DomainEvent, Outcome, Payload, Result};
///
/// /// `name=Ada`, as an old program sends it.
/// struct Pairs;
///
/// impl BodyCodec for Pairs {
///     fn content_type(&self) -> &str {
///         "text/x-pairs"
///     }
///
///     fn decode(&self, message: &Message) -> Result<DomainEvent> {
///         let text = String::from_utf8_lossy(&message.body);
///         let (name, value) = text.split_once('=').unwrap_or((&text, ""));
///         DomainEvent::new(&message.routing_key, &serde_json::json!({ name: value }))?.with_id(&message.id)
///     }
///
///     fn encode(&self, event: &DomainEvent) -> Result<Payload> {
///         let data: std::collections::BTreeMap<String, String> = event.data()?;
///         Ok(data.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<String>().into())
///     }
/// }
///
/// let broker = Broker::connect("memory:").await?.codec(Pairs);
/// let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await?;
/// let event = DomainEvent::new("user.registered", &serde_json::json!({"name": "Ada"}))?;
/// broker.publisher().publish(event.with_header("content-type", "text/x-pairs")).await?;
///
/// let delivery = deliveries.next(1).await?.remove(0);
/// assert_eq!(delivery.event().data::<serde_json::Value>()?["name"], "Ada");
/// delivery.settle(Outcome::Ok).await?;
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BodyCodec: Send + Sync + 'static {
    /// The media type that it reads, without parameters: `application/cbor`.
    fn content_type(&self) -> &str;

    /// The event of a body. An error makes it a dead letter, `undecodable`.
    ///
    /// `message` has what the broker knows beside the body. Headers that the codec sets are added to those that came.
    fn decode(&self, message: &Message) -> Result<DomainEvent>;

    /// The body of an event that is published with this content type. Without an implementation that is `UNSUPPORTED`.
    fn encode(&self, event: &DomainEvent) -> Result<Payload> {
        Err(Error::new(ErrorKind::Unsupported, format!("the codec of {} only reads", self.content_type()))
            .field(name::CONTENT_TYPE, self.content_type())
            .remedy(format!("publish {} without this header: it travels as JSON", event.routing_key())))
    }
}

/// The codecs of a broker, beside JSON.
#[derive(Clone, Default)]
pub(crate) struct Codecs(Arc<[Arc<dyn BodyCodec>]>);

/// A body that could not be read, with what is known of its event all the same.
pub(crate) struct Unreadable {
    pub(crate) event: DomainEvent,
    /// One of [`reason`].
    pub(crate) reason: &'static str,
    pub(crate) error: Error,
}

impl Codecs {
    pub(crate) fn with(&self, codec: impl BodyCodec) -> Self {
        Self(self.0.iter().cloned().chain([Arc::new(codec) as _]).collect())
    }

    /// The event of a message's body, whatever its content type.
    pub(crate) fn decode(&self, message: Message) -> Result<DomainEvent, Box<Unreadable>> {
        if foreign(&message.headers).is_some() {
            return self.decode_foreign(message);
        }
        let Message { body, headers, routing_key, id, timestamp, .. } = message;
        decode(&body, headers).map_err(|(error, headers)| {
            let event = DomainEvent::from_parts(routing_key, body, None, id, timestamp, headers);
            Box::new(Unreadable { event, reason: reason::UNDECODABLE, error })
        })
    }

    #[cold]
    fn decode_foreign(&self, mut message: Message) -> Result<DomainEvent, Box<Unreadable>> {
        let content_type = foreign(&message.headers).unwrap_or_default();
        let (reason, error) = match self.find(content_type) {
            Some(codec) => {
                // It is not ours: its panic must not take the subscription with it.
                let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| codec.decode(&message)));
                match decoded.unwrap_or_else(|_| Err(panicked(codec))) {
                    Ok(mut event) => {
                        let added = std::mem::replace(event.headers_mut(), std::mem::take(&mut message.headers));
                        for (name, value) in added.iter() {
                            if event.headers().get(name).is_none() {
                                event.headers_mut().set(name, value.clone());
                            }
                        }
                        return Ok(event);
                    }
                    Err(error) => (reason::UNDECODABLE, error),
                }
            }
            None => (reason::UNSUPPORTED_CONTENT_TYPE, missing(content_type)),
        };
        let Message { body, headers, routing_key, id, timestamp, .. } = message;
        let event = DomainEvent::from_parts(routing_key, body, None, id, timestamp, headers);
        Err(Box::new(Unreadable { event, reason, error }))
    }

    /// The body of an event in its own content type; `None`: JSON.
    pub(crate) fn encode(&self, event: &DomainEvent) -> Result<Option<Payload>> {
        let Some(content_type) = foreign(event.headers()) else { return Ok(None) };
        let codec = self.find(content_type).ok_or_else(|| missing(content_type))?;
        std::panic::catch_unwind(AssertUnwindSafe(|| codec.encode(event)))
            .unwrap_or_else(|_| Err(panicked(codec)))
            .map(Some)
    }

    fn find(&self, content_type: &str) -> Option<&dyn BodyCodec> {
        let wanted = media_type(content_type);
        self.0.iter().find(|codec| codec.content_type().eq_ignore_ascii_case(wanted)).map(|codec| &**codec)
    }
}

fn missing(content_type: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("no codec for {content_type}"))
        .field(name::CONTENT_TYPE, content_type)
        .remedy("register one with Broker::codec, or leave the header out: JSON needs none")
}

fn panicked(codec: &dyn BodyCodec) -> Error {
    Error::new(ErrorKind::InvalidEvent, format!("the codec of {} panicked", codec.content_type()))
        .field(name::CONTENT_TYPE, codec.content_type())
        .remedy("an event that cannot be read is an error, not a panic")
}

/// The content type if it is not JSON.
fn foreign(headers: &Headers) -> Option<&str> {
    headers.text(name::CONTENT_TYPE).filter(|content_type| {
        let media_type = media_type(content_type);
        !media_type.is_empty() && !media_type.eq_ignore_ascii_case("application/json")
    })
}

fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}
