//! The one error type, its codes, and what a caller may do about it.

use std::fmt;

use crate::replay::ReplayReport;

/// A boxed error of any kind, as handlers return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retryable:literal;)*) => {
        /// What went wrong. Stable: codes are only ever added (`tests/vectors/errors.json`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind there is, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code that is the same in every language.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Whether the same call can succeed later without being changed.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

kinds! {
    /// The broker URL cannot be understood, or has a parameter that does not exist.
    InvalidUrl = "INVALID_URL", false;
    /// No transport of this build serves the URL's scheme.
    UnsupportedTransport = "UNSUPPORTED_TRANSPORT", false;
    /// The transport cannot do what was asked of it (see its `Capabilities`).
    Unsupported = "UNSUPPORTED", false;
    /// The broker or store cannot be reached, or the connection was lost.
    ConnectionFailed = "CONNECTION_FAILED", true;
    /// The broker refused the user, the password, the virtual host or the permission.
    AccessRefused = "ACCESS_REFUSED", false;
    /// The TLS handshake failed: certificate, name or protocol.
    TlsFailed = "TLS_FAILED", false;
    /// A queue, exchange or subscription of this name exists with other settings.
    SubscriptionConflict = "SUBSCRIPTION_CONFLICT", false;
    /// No subscription of this name exists.
    SubscriptionNotFound = "SUBSCRIPTION_NOT_FOUND", false;
    /// The event or its body does not follow the wire format.
    InvalidEvent = "INVALID_EVENT", false;
    /// The routing key is empty, too long, or has wildcards.
    InvalidRoutingKey = "INVALID_ROUTING_KEY", false;
    /// The binding key is empty, too long, or has a wildcard inside a word.
    InvalidBindingKey = "INVALID_BINDING_KEY", false;
    /// A subscription's or exchange's name does not follow the rules.
    InvalidName = "INVALID_NAME", false;
    /// A header's name or value cannot be carried.
    InvalidHeader = "INVALID_HEADER", false;
    /// A delay is negative or longer than the transport can keep.
    InvalidDelay = "INVALID_DELAY", false;
    /// An option has a value that makes no sense, alone or beside another one.
    InvalidOption = "INVALID_OPTION", false;
    /// The headers of one event exceed 64 KiB.
    HeadersTooLarge = "HEADERS_TOO_LARGE", false;
    /// The body exceeds `max_payload`.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", false;
    /// No subscription wanted the event and `require_route` was set.
    Unroutable = "UNROUTABLE", false;
    /// The broker answered that it did not take the event.
    Rejected = "REJECTED", true;
    /// The time-out passed. See [`Error::outcome_unknown`].
    Timeout = "TIMEOUT", true;
    /// The publisher, subscriber or broker handle was closed.
    Closed = "CLOSED", false;
    /// The delivery is no longer ours: its connection or lease is gone and it will be delivered again.
    StaleDelivery = "STALE_DELIVERY", false;
    /// The file is not a database, or is damaged.
    StoreCorrupt = "STORE_CORRUPT", false;
    /// The file or its folder cannot be written.
    StoreReadOnly = "STORE_READ_ONLY", false;
    /// The disk is full.
    StoreFull = "STORE_FULL", true;
    /// Another process held the file's lock for longer than the busy time-out.
    StoreBusy = "STORE_BUSY", true;
    /// The host's own SQLite has this file open in the same process, which would corrupt it.
    StoreSharedInProcess = "STORE_SHARED_IN_PROCESS", false;
    /// The store was written by a newer version of Tidings.
    SchemaTooNew = "SCHEMA_TOO_NEW", false;
    /// The handle was made before a `fork` and is used in the child.
    ForkedClient = "FORKED_CLIENT", false;
    /// A defect of Tidings itself.
    Internal = "INTERNAL", false;
    /// The catalog's file cannot be read, or declares what makes no sense.
    CatalogInvalid = "CATALOG_INVALID", false;
    /// The catalog has an entry of this tag with other content.
    CatalogConflict = "CATALOG_CONFLICT", false;
    /// The event's name is not of the form `broker:topic`.
    InvalidEventName = "INVALID_EVENT_NAME", false;
    /// The catalog declares products, and not this one.
    ProductNotFound = "PRODUCT_NOT_FOUND", false;
    /// No environment was named.
    EnvRequired = "ENV_REQUIRED", false;
    /// The catalog does not declare this broker.
    BrokerNotFound = "BROKER_NOT_FOUND", false;
    /// The broker is not declared for this environment.
    BrokerEnvNotFound = "BROKER_ENV_NOT_FOUND", false;
    /// The broker lists its topics, and not this one.
    TopicNotFound = "TOPIC_NOT_FOUND", false;
    /// No transport of this build serves the provider that the catalog names.
    ProviderUnsupported = "PROVIDER_UNSUPPORTED", false;
    /// An environment variable that the catalog refers to is not set.
    SecretNotFound = "SECRET_NOT_FOUND", false;
    /// The catalog does not declare this cache.
    CacheNotFound = "CACHE_NOT_FOUND", false;
    /// The session's token was rejected; nothing was sent.
    SessionInvalid = "SESSION_INVALID", false;
    /// An event could not be published; the cause says why, and whether trying again can help.
    PublishFailed = "PUBLISH_FAILED", false;
    /// A subscription could not be opened; the cause says why, and whether trying again can help.
    SubscribeFailed = "SUBSCRIBE_FAILED", false;
    /// Events could not be listed or counted.
    GetEventsFailed = "GET_EVENTS_FAILED", false;
    /// An event could not be looked up.
    GetEventFailed = "GET_EVENT_FAILED", false;
    /// An event could not be published again.
    ReplayEventFailed = "REPLAY_EVENT_FAILED", false;
    /// Dead letters could not be put back.
    ReprocessDlqFailed = "REPROCESS_DLQ_FAILED", false;
    /// An idempotency key could not be looked up.
    CheckIdempotencyFailed = "CHECK_IDEMPOTENCY_FAILED", false;
    /// An event with an idempotency key could not be published.
    PublishIdempotentFailed = "PUBLISH_IDEMPOTENT_FAILED", false;
    /// The package was loaded in a browser, where no broker can be reached.
    BrowserNotSupported = "BROWSER_NOT_SUPPORTED", false;
    /// The native part of the package could not be loaded.
    BrokerServiceLoadFailed = "BROKER_SERVICE_LOAD_FAILED", false;
    /// An outbox or inbox was to write on a connection without an open transaction.
    NoTransaction = "NO_TRANSACTION", false;
}

/// Why an operation failed: a stable [code](ErrorKind::code), the field and value at fault, and the remedy.
///
/// `Display` is one line; `Debug` adds the chain of causes. Neither ever holds a password: URLs are redacted before
/// they get here.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    field: Option<&'static str>,
    value: Option<String>,
    remedy: Option<String>,
    outcome_unknown: bool,
    replayed: Option<ReplayReport>,
    /// Where it differs from the kind's.
    retryable: Option<bool>,
    source: Option<BoxError>,
}

/// Longest piece of a rejected value that an error repeats, in bytes.
const VALUE_SHOWN: usize = 120;

impl Error {
    /// Makes an error of `kind`; `message` says what happened in one sentence without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            field: None,
            value: None,
            remedy: None,
            outcome_unknown: false,
            replayed: None,
            retryable: None,
            source: None,
        }))
    }

    /// Names the field or option at fault and the value it had (cut to 120 bytes).
    pub fn field(mut self, field: &'static str, value: impl fmt::Display) -> Self {
        self.0.field = Some(field);
        self.0.value = Some(shorten(&value.to_string(), VALUE_SHOWN));
        self
    }

    /// Says what the reader can do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Keeps the error that caused this one.
    pub fn source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same failure under the code of the operation that it ended: message, field, remedy and advice stay, and the
    /// cause is kept.
    #[cfg(feature = "catalog")]
    pub(crate) fn under(self, kind: ErrorKind) -> Self {
        let mut outer = self.duplicate();
        outer.0.kind = kind;
        outer.0.message = format!("{} ({})", self.0.message, self.code());
        outer.0.retryable = Some(self.retryable());
        outer.0.source = Some(self.into());
        outer
    }

    /// Says what the sentence is about, in front of it.
    #[cfg(feature = "catalog")]
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// Marks that the operation may have taken effect all the same.
    pub fn with_unknown_outcome(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// Says what a replay had done until then.
    pub(crate) fn with_replayed(mut self, report: ReplayReport) -> Self {
        self.0.replayed = Some(report);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code, the same in every language: `"INVALID_ROUTING_KEY"`.
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// Whether the same call can succeed later without being changed.
    pub fn retryable(&self) -> bool {
        self.0.retryable.unwrap_or(self.0.kind.retryable())
    }

    /// Whether the operation may have taken effect although it failed (a publish whose confirm never came).
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// What a replay had done until it met this error; `None` where no dead letter had been looked at.
    pub fn replayed(&self) -> Option<&ReplayReport> {
        self.0.replayed.as_ref()
    }

    /// The sentence without field and remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The name of the field or option at fault.
    pub fn field_name(&self) -> Option<&'static str> {
        self.0.field
    }

    /// The value that the field had, shortened.
    pub fn field_value(&self) -> Option<&str> {
        self.0.value.as_deref()
    }

    /// What to do about it.
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The same error for a second receiver; the cause is kept as text.
    pub(crate) fn duplicate(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            field: self.0.field,
            value: self.0.value.clone(),
            remedy: self.0.remedy.clone(),
            outcome_unknown: self.0.outcome_unknown,
            replayed: self.0.replayed,
            retryable: self.0.retryable,
            source: self.0.source.as_ref().map(|s| s.to_string().into()),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.0;
        write!(f, "{}: {}", e.kind.code(), e.message)?;
        if let (Some(field), Some(value)) = (e.field, &e.value) {
            write!(f, " ({field} = {value:?})")?;
        }
        if let Some(remedy) = &e.remedy {
            write!(f, "; {remedy}")?;
        }
        if e.outcome_unknown {
            f.write_str(" [outcome unknown]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

/// Cuts `text` to at most `max` bytes at a character boundary, with a mark where something is missing.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let Some(mut end) = max.checked_sub(MARK.len()) else { return String::new() };
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_field_value_and_remedy() {
        let error = Error::new(ErrorKind::InvalidRoutingKey, "the routing key has a wildcard")
            .field("routing_key", "user.*")
            .remedy("publish with a concrete key");
        assert_eq!(
            error.to_string(),
            "INVALID_ROUTING_KEY: the routing key has a wildcard (routing_key = \"user.*\"); publish with a concrete key"
        );
    }

    #[test]
    fn shorten_respects_characters() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("äöüäöü", 7), "äö…");
    }
}
