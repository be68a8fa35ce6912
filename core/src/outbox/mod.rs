//! The outbox: an event is published if and only if the transaction that wrote it commits.
//!
//! ```text
//! your transaction ──► INSERT … tidings_outbox ──► COMMIT ──► relay: poll ─► publish, confirmed ─► delete
//! ```
//!
//! [`OutboxWriter`] renders what the program runs in its own transaction. [`Outbox`] is the table as relays and
//! operators see it; [`Outbox::relay`] moves its rows to a broker. [`OutboxStore`] is what a database must do for that.

mod calls;
mod counters;
mod event;
mod facade;
mod relay;
mod store;
mod wake;

pub use crate::store::{
    Dialect, OutboxWriter, ParamStyle, SCHEMA_VERSION, Statement, Tables, Value, outbox_insert, outbox_schema,
};
pub(crate) use counters::Counters as RelayCounters;
pub use counters::METRICS;
pub use event::OutboxEvent;
pub use facade::Outbox;
pub use relay::{OnFailed, Relay, RelayHealth, RunningRelay};
pub use store::{Failed, FailedRow, Member, OutboxRow, OutboxStatus, OutboxStore, Page, PollLimit, Settled};
pub use wake::WakeUp;
