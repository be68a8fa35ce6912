//! Subscribing: what a subscription asks for, the batch interface for hosts, and handlers on top of it.

mod builder;
mod deliveries;
mod delivery;
mod handler;
mod health;
mod inbox;
mod keys;
#[cfg(feature = "tower")]
mod layer;
mod middleware;
mod runner;
mod running;
mod session;
mod settler;
#[allow(clippy::module_inception, reason = "`subscriber::Subscriber` lives in the file of its name")]
mod subscriber;

pub use builder::{SubscriptionBuilder, SubscriptionOptions, Wanted};
pub use deliveries::Deliveries;
pub use delivery::Delivery;
pub use handler::{DeadLetter, Discard, Retry};
pub use health::SubscriptionHealth;
#[cfg(feature = "tower")]
pub use layer::{HandleRequest, HandleService};
pub use middleware::{Middleware, Next};
pub use running::Running;
pub use subscriber::Subscriber;
