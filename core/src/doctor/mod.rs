//! What could lose, stop or delay events on a broker, and what to do about it.
//!
//! [`Examination`] says what to look at, [`Examination::run`] reaches the broker and looks. Every transport examines
//! itself; what RabbitMQ shows to nobody but its operators comes in as an [`Inventory`].

mod examination;
mod finding;
mod inventory;
mod policies;
mod rabbitmqctl;
mod store;

pub use examination::{Examination, Report};
pub use finding::{Check, Finding, Level};
pub use inventory::{Inventory, Policy, QueueView};
