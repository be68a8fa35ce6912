//! Domain events that arrive.
//!
//! A service announces `user.registered`; every named subscription bound to `user.*` gets its own durable copy, decides
//! for itself about retry, dead letter and replay, and none of it is lost when a process, a broker or a network dies.
#![forbid(unsafe_code)]

mod error;
pub mod event;
pub mod policy;
pub mod routing;
pub mod settlement;
pub mod transport;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use event::{DomainEvent, HeaderValue, Headers, Timestamp};
pub use policy::{Backoff, RetryPolicy};
pub use settlement::{Failure, Outcome};
