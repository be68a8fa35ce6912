//! The outbox: the scenarios of `tests/conformance/outbox` on each database, and what only relays can show.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "outbox/clocks.rs"]
mod clocks;
#[path = "../../tests/conformance/outbox/connection.rs"]
mod connection;
#[path = "outbox/database.rs"]
mod database;
#[path = "outbox/inbox.rs"]
mod inbox;
#[path = "outbox/kills.rs"]
mod kills;
#[cfg(unix)]
#[path = "outbox/pooler.rs"]
mod pooler;
#[path = "outbox/relays.rs"]
mod relays;
#[path = "outbox/scenario.rs"]
mod scenario;
#[path = "outbox/schema.rs"]
mod schema;
#[path = "outbox/transactions.rs"]
mod transactions;
