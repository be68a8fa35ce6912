//! The consuming side: a source asks the writer thread and holds nothing itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::client::Client;
use super::clock::Clock;
use super::error::Step;
use super::settle::{Verdict, settle};
use super::tx::Tx;
use super::{admin, bindings::Bindings, ledger, ledger::SourceState, ordered, owner};
use crate::transport::{Incoming, Settlement, Source, SourceHealth, SubscriptionSpec, Token};
use crate::{ErrorKind, Result};

/// A source of one subscription.
pub(super) struct SqliteSource {
    client: Arc<Client>,
    id: u64,
    health: Arc<Mutex<SourceHealth>>,
    closed: AtomicBool,
    lease: ledger::Lease,
    clock: OnceLock<Clock>,
    /// Of an ordered one: what waits is being looked up.
    looking: Option<Arc<AtomicBool>>,
}

impl SqliteSource {
    /// Declares the subscription and joins its consumers.
    pub(super) async fn open(client: Arc<Client>, spec: SubscriptionSpec) -> Result<Self> {
        let store = client.store()?;
        let (id, client_id, spec) = (store.id(), client.id, Arc::new(spec));
        let health = Arc::new(Mutex::new(SourceHealth { connected: true, consuming: true, ..SourceHealth::default() }));
        let looking = spec.ordered.map(|_| Arc::default());
        let lease = ledger::Lease::default();
        let source = Self {
            client,
            id,
            health: health.clone(),
            closed: AtomicBool::new(false),
            lease: lease.clone(),
            clock: OnceLock::new(),
            looking,
        };
        let clock = store
            .call(0, move |tx| {
                let subscription = admin::declare(tx, &spec)?;
                if spec.ordered.is_some() {
                    health.lock().order = Some(ordered::state(tx.conn, subscription, tx.now)?);
                }
                Bindings::reload(tx)?;
                tx.state
                    .ledger
                    .add(id, SourceState::new(client_id, spec.clone(), subscription, health.clone(), lease.clone()));
                Ok(tx.clock)
            })
            .await?;
        source.clock.get_or_init(|| clock);
        Ok(source)
    }

    /// Looks up what waits of an ordered subscription, for the next time.
    fn look(&self) {
        let Some(looking) = self.looking.as_ref().filter(|looking| !looking.swap(true, Ordering::AcqRel)) else {
            return;
        };
        let Ok(store) = self.client.store() else { return };
        let (id, looking) = (self.id, looking.clone());
        store.post(move |tx| {
            looking.store(false, Ordering::Release);
            if let Some(source) = tx.state.ledger.get(id) {
                source.health.lock().order = Some(ordered::state(tx.conn, source.subscription, tx.now)?);
            }
            Ok(())
        });
    }

    /// Changes what the writer knows of this source.
    async fn change(&self, change: impl Fn(&mut SourceState) + Send + 'static) -> Result<()> {
        let id = self.id;
        self.client
            .store()?
            .call(0, move |tx| -> Step<()> {
                if let Some(source) = tx.state.ledger.get_mut(id) {
                    change(source);
                    let subscription = source.subscription;
                    tx.state.touch(subscription);
                }
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn next(&self, max: usize) -> Result<Vec<Incoming>> {
        let next = match self.client.store() {
            Ok(store) => store.next(self.id, max).await,
            Err(error) => Err(error),
        };
        match next {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(Vec::new()),
            next => next,
        }
    }

    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        let (id, count) = (self.id, batch.len());
        let verdicts: Result<Vec<_>> =
            batch.into_iter().map(|(token, settlement)| Ok((token, Verdict::new(settlement)?))).collect();
        let settled = async {
            let verdicts = verdicts?;
            let size = verdicts.iter().map(|(_, verdict)| verdict.size()).sum();
            self.client.store()?.call(size, move |tx: &mut Tx<'_>| settle(tx, id, &verdicts)).await
        };
        settled.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.duplicate())).collect())
    }

    /// A process that was frozen may find others at work on what it holds.
    fn may_begin(&self, token: Token) -> bool {
        let Some(clock) = self.clock.get() else { return false };
        let now = clock.now();
        self.lease.lock().is_some_and(|owner| owner.id.cast_unsigned() == token.generation && now < owner.until)
    }

    async fn set_flow(&self, open: bool) -> Result<()> {
        self.change(move |source| {
            source.flowing = open;
            source.health.lock().consuming = open && !source.stopped;
        })
        .await
    }

    /// What it says of keys is as old as the last call: only who asks has it looked up, and nobody waits for the file.
    fn health(&self) -> SourceHealth {
        self.look();
        self.health.lock().clone()
    }

    async fn stop(&self) {
        self.health.lock().consuming = false;
        if let Err(error) = self.change(|source| source.stopped = true).await {
            tracing::debug!(%error, "a source was stopped on a store that is closed");
        }
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        {
            let mut health = self.health.lock();
            (health.connected, health.consuming) = (false, false);
        }
        let id = self.id;
        let released = async { self.client.store()?.call(0, move |tx| owner::release(tx, id)).await };
        match released.await {
            Ok(()) => {}
            // The client was closed before, and released everything.
            Err(error) if error.kind() == ErrorKind::Closed => {}
            Err(error) => {
                tracing::warn!(%error, "a source could not release what it held; its lease will end");
                self.closed.store(false, Ordering::Release);
            }
        }
    }
}

impl Drop for SqliteSource {
    fn drop(&mut self) {
        if !*self.closed.get_mut()
            && let Ok(store) = self.client.store()
        {
            let id = self.id;
            store.post(move |tx| owner::release(tx, id));
        }
    }
}
