//! The `sqlite` transport: a durable broker in one file, for several processes of one machine, without a server.
//!
//! ```text
//! callers ──► queue ──► writer thread: one BEGIN IMMEDIATE … COMMIT for all that wait ──► answers
//! ```
//!
//! `writer` runs what `publish`, `claim`, `settle`, `dead_letters` and `admin` put into its queue, and wakes by itself
//! for what falls due: retries, scheduled events, leases. `registry` gives every opener of a file in this process the
//! same store, since SQLite's file locks belong to the process. The tables are explained in `migrations/`.

mod admin;
mod bindings;
mod claim;
mod client;
mod clock;
mod dead_letters;
mod doctor;
mod error;
mod events;
mod headers;
mod journal;
mod ledger;
mod open;
mod ordered;
mod owner;
mod publish;
mod purge;
mod queue;
mod registry;
mod scheduled;
mod schema;
mod settle;
mod source;
mod statements;
mod store;
mod transport;
mod tx;
mod url;
mod waiting;
mod writer;

pub(crate) use registry::HeldFiles;
pub(crate) use statements::{Answer, Statements};
pub use transport::{check_url, connect};

/// Headers as they come back from their column; `None`: they are refused.
#[cfg(feature = "testkit")]
pub(crate) fn carry(headers: &crate::Headers) -> Option<crate::Headers> {
    let column = headers::encode(headers).ok()?;
    Some(read_column(column.as_deref()))
}

/// The headers of a column.
#[cfg(feature = "testkit")]
pub(crate) fn read_column(text: Option<&str>) -> crate::Headers {
    headers::decode(text)
}
