//! The relay: publishes rows in the order of their keys, however many relays there are.
//!
//! ```text
//! worker ─► session (one name, one fence) ─► page: sort out ─► publish a chunk ─► settle it, while the next is sent
//!              └── tenure: renews the entry, knows the other relays
//! ```

mod gate;
mod health;
mod options;
mod page;
mod running;
mod session;
mod tenure;
mod worker;

pub use health::RelayHealth;
pub use options::{OnFailed, Relay};
pub use running::RunningRelay;
