//! [`Transactions`]: whose transactions handlers run in.

use async_trait::async_trait;

use crate::{BoxError, DomainEvent};

/// Opens transactions of a program's own database for handlers, and claims events in them.
///
/// A transaction that is dropped rolls back.
#[async_trait]
pub trait Transactions: Send + Sync + 'static {
    /// A transaction with the connection it needs.
    type Tx: Send + 'static;

    /// Opens one.
    async fn begin(&self) -> Result<Self::Tx, BoxError>;

    /// Runs the statement of [`InboxWriter::claim`](super::InboxWriter::claim) in it. `true` if it changed a row.
    async fn claim(&self, tx: &mut Self::Tx, subscription: &str, event: &DomainEvent) -> Result<bool, BoxError>;

    /// Commits it.
    async fn commit(&self, tx: Self::Tx) -> Result<(), BoxError>;
}
