//! What wakes a relay.

use async_trait::async_trait;

/// Tells a relay that rows may have been committed: notifications of a database, the tail of its log, a socket.
///
/// The relay also looks by itself from time to time, so a wake-up that is lost costs time, never an event.
#[async_trait]
pub trait WakeUp: Send + Sync + 'static {
    /// Returns when something may have been committed since the last call. Must not lose that when it is dropped.
    async fn wait(&mut self);
}
