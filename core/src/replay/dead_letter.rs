//! [`DeadLetterEntry`]: an event that a subscription gave up on, with its story.

use std::fmt;

use crate::codec::Codecs;
use crate::event::{DomainEvent, Headers, Payload, Timestamp, name};
use crate::settlement::{reason, time};
use crate::transport::{Message, StoredDeadLetter, Token};
use crate::{Error, Result};

/// A dead letter as `Broker::dead_letters` shows it. A copy: looking changes nothing.
pub struct DeadLetterEntry {
    event: Result<DomainEvent, Error>,
    message: Message,
    token: Token,
}

impl DeadLetterEntry {
    pub(super) fn new(stored: StoredDeadLetter, codecs: &Codecs) -> Self {
        let StoredDeadLetter { token, message } = stored;
        let event = codecs.decode(message.clone()).map_err(|unreadable| unreadable.error);
        Self { event, message, token }
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The event; the error says what is wrong with it if it was dead-lettered as undecodable.
    pub fn event(&self) -> Result<&DomainEvent, &Error> {
        self.event.as_ref()
    }

    /// The body as it travelled.
    pub fn body(&self) -> &Payload {
        &self.message.body
    }

    /// All headers, those of the event and `tidings-dead-*`.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> &str {
        &self.message.routing_key
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        self.event().map_or(&self.message.id, DomainEvent::id)
    }

    /// Why it was given up on: one of [`settlement::reason`](crate::settlement::reason), or the handler's words.
    pub fn reason(&self) -> &str {
        self.headers().text(name::DEAD_REASON).unwrap_or(reason::BROKER)
    }

    /// Type of the last error.
    pub fn error_type(&self) -> Option<&str> {
        self.headers().text(name::DEAD_ERROR_TYPE)
    }

    /// Message of the last error, at most 2 KiB.
    pub fn error(&self) -> Option<&str> {
        self.headers().text(name::DEAD_ERROR)
    }

    /// Stack of the last error, at most 8 KiB.
    pub fn stack(&self) -> Option<&str> {
        self.headers().text(name::DEAD_STACK)
    }

    /// How often it was handled in all; 0 if that is not known.
    pub fn attempts(&self) -> u32 {
        self.headers().int(name::DEAD_ATTEMPTS).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// When it failed first.
    pub fn first_failed_at(&self) -> Option<Timestamp> {
        time(self.headers(), name::DEAD_FIRST_FAILED_AT)
    }

    /// When it failed last.
    pub fn failed_at(&self) -> Option<Timestamp> {
        time(self.headers(), name::DEAD_FAILED_AT)
    }

    /// Whether it is the head of an ordered key, which waits until this is replayed or discarded.
    pub fn is_parked(&self) -> bool {
        self.headers().get(name::PARKED).is_some()
    }
}

impl fmt::Debug for DeadLetterEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterEntry")
            .field("id", &self.id())
            .field("routing_key", &self.routing_key())
            .field("reason", &self.reason())
            .field("attempts", &self.attempts())
            .finish_non_exhaustive()
    }
}
