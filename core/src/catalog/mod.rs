//! The catalog: `broker:topic` instead of URLs and routing keys, with Ductape's calls on top of it.
//!
//! ```text
//! product_tag ─► broker ─► envs[].slug ─► topic        what a call names
//!      │            │           │           │
//!      ▼            ▼           ▼           ▼
//!  Catalog::resolve: URL, exchange, routing key, name of the subscription
//!      │
//!      ├─► MessageBroker: publish, subscribe; caches and sessions
//!      └─► BrokersService: looking back, replay, idempotency
//! ```
//!
//! The guide is in `core/docs/catalog.md`.

mod canonical;
#[allow(clippy::module_inception, reason = "`catalog::Catalog` lives in the file of its name")]
mod catalog;
mod digest;
mod discover;
mod document;
mod edit;
mod event_name;
mod file;
mod jwt;
mod memory;
mod message_broker;
mod names;
mod provider;
mod request;
mod secrets;
mod service;
mod session;
mod time;
mod tracking;

pub use catalog::{Catalog, CatalogOptions, ENV_VARIABLE, PRODUCT_VARIABLE, Resolved};
pub use discover::CONFIG_VARIABLE;
pub use event_name::EventName;
pub use message_broker::{MessageBroker, Published};
pub use provider::Provider;
pub use request::{PublishInput, PublishRequest, SubscribeInput, SubscribeRequest};
pub use secrets::SecretResolver;
pub use service::BrokersService;
pub use session::{Session, SessionVerifier, VerifiedSession};
