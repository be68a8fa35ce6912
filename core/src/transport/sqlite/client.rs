//! One connection of a caller: what `close` ends, while others of the same file go on.

use std::sync::Arc;

use parking_lot::Mutex;

use super::owner;
use super::store::{Store, closed};
use crate::Result;

/// A caller's share of a store.
#[derive(Debug)]
pub(super) struct Client {
    /// Names it among the clients of the store.
    pub(super) id: u64,
    store: Mutex<Option<Arc<Store>>>,
}

impl Client {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { id: store.id(), store: Mutex::new(Some(store)) }
    }

    /// The store, until the client is closed.
    pub(super) fn store(&self) -> Result<Arc<Store>> {
        self.store.lock().clone().ok_or_else(closed)
    }

    /// Releases what the client's sources hold and lets go of the store; whoever is last waits until the file is closed.
    pub(super) async fn close(&self) -> Result<()> {
        let Some(store) = self.store.lock().take() else { return Ok(()) };
        let client = self.id;
        let released = store
            .call(0, move |tx| {
                let sources: Vec<u64> =
                    tx.state.ledger.iter().filter(|(_, source)| source.client == client).map(|(id, _)| id).collect();
                sources.into_iter().try_for_each(|source| owner::release(tx, source))
            })
            .await;
        let mut ended = store.ended();
        let others = Arc::downgrade(&store);
        drop(store);
        if others.strong_count() == 0 {
            // An error means that the thread is gone, which is what is waited for.
            drop(ended.wait_for(|ended| *ended).await);
        }
        released
    }
}
