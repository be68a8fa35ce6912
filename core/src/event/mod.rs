//! The event: what happened, and how the wire writes it.

mod codec;
mod domain_event;
mod finite;
mod headers;
mod id;
mod payload;
mod timestamp;

pub use codec::{decode, encode};
pub use domain_event::DomainEvent;
pub use headers::{HeaderValue, Headers, MAX_HEADERS, name};
pub(crate) use id::HeldIds;
pub use id::{MAX_ID, new_id};
pub use payload::Payload;
pub use timestamp::Timestamp;
