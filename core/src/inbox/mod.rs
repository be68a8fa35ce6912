//! The inbox: effects once, although an event may be delivered again.
//!
//! A subscription remembers what it has processed. With a database the memory is a row of the handler's own transaction,
//! so that effects and memory commit together: [`InboxWriter`] renders the statement, and
//! [`handle_in`](crate::SubscriptionBuilder::handle_in) runs handlers inside such transactions. Handlers without a database
//! have [`MemoryInbox`], which remembers for a time and within its process, and
//! [`handle_once`](crate::SubscriptionBuilder::handle_once).

mod facade;
mod memory;
mod rest;
mod transactions;
mod writer;

pub use facade::Inbox;
pub use memory::{Claim, MemoryInbox, Turn};
pub use rest::Rest;
pub use transactions::Transactions;
pub use writer::InboxWriter;
