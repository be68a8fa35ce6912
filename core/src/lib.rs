//! Domain events that arrive.
//!
//! A service announces `user.registered`; every named subscription bound to `user.*` gets its own durable copy, decides
//! for itself about retry, dead letter and replay, and none of it is lost when a process, a broker or a network dies.
//! Change the URL and the same program runs on an embedded file or on RabbitMQ.
//!
//! Start with [`Publisher`] and [`Subscriber`]; [`Broker`] is what both share.
#![forbid(unsafe_code)]

mod broker;
#[cfg(feature = "catalog")]
pub mod catalog;
mod codec;
pub mod doctor;
mod error;
pub mod event;
pub mod host;
pub mod inbox;
mod metrics;
pub mod outbox;
mod policy;
mod publisher;
mod replay;
pub mod routing;
pub mod settlement;
mod store;
mod subscriber;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(any(feature = "amqp", feature = "postgres"))]
mod tls;
pub mod trace;
pub mod transport;

/// The code of the README and the guides compiles, and runs where it can.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
    #[cfg(feature = "catalog")]
    #[doc = include_str!("../docs/catalog.md")]
    struct Catalog;
    #[doc = include_str!("../docs/outbox.md")]
    struct Outbox;
}

pub use broker::{BROKER_URL_VARIABLE, Broker, DEFAULT_URL, REQUIRE_BROKER_VARIABLE};
pub use codec::BodyCodec;
pub use error::{BoxError, Error, ErrorKind, Result};
pub use event::{DomainEvent, HeaderValue, Headers, Payload, Timestamp};
pub use metrics::{Metric, MetricKind};
pub use policy::{Backoff, RetryPolicy};
pub use publisher::{PublishMiddleware, PublishNext, PublishOptions, Publisher};
pub use replay::{DeadLetterEntry, DeadLetterFilter, Replay, ReplayAction, ReplayReport};
pub use settlement::{Failure, Outcome};
pub use subscriber::{
    DeadLetter, Deliveries, Delivery, Discard, Middleware, Next, Retry, Running, Subscriber, SubscriptionBuilder,
    SubscriptionHealth, SubscriptionOptions, Wanted,
};
#[cfg(feature = "tower")]
pub use subscriber::{HandleRequest, HandleService};
pub use trace::{Propagator, TraceContext};
pub use transport::{KeyOrder, OnDead, OnRetry, QueueType, Receipt};
