//! Sessions, one after the other, until the relay is stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Relay;
use super::health::Notes;
use super::options::Settings;
use super::session::Session;
use super::tenure::Tenure;
use crate::Result;
use crate::broker::Broker;
use crate::event::new_id;
use crate::outbox::counters::Counters;
use crate::outbox::{OutboxStore, WakeUp};

/// Pause after a failure: at first, and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest that giving back the entry may take.
const LEAVE: Duration = Duration::from_secs(5);

/// What all sessions of a relay have in common.
pub(super) struct Worker {
    pub(super) store: Arc<dyn OutboxStore>,
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) wake_up: Option<Box<dyn WakeUp>>,
    pub(super) counters: Arc<Counters>,
    pub(super) notes: Notes,
    pub(super) stopped: watch::Receiver<bool>,
    /// The store's tables are known to be of this version.
    checked: bool,
}

impl Worker {
    pub(super) fn new(
        relay: Relay,
        checked: bool,
        counters: Arc<Counters>,
        notes: Notes,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let Relay { store, broker, settings, wake_up } = relay;
        Self { store, broker, settings, wake_up, counters, notes, stopped, checked }
    }

    /// Works until it is stopped, whatever fails meanwhile.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE;
        while !self.is_stopped() {
            let started = Instant::now();
            let ended = self.session().await;
            self.notes.resting();
            if let Err(error) = ended {
                tracing::warn!(%error, "the relay begins anew");
                self.notes.failed(&error);
                if started.elapsed() > PAUSE_MAX {
                    pause = PAUSE;
                }
                self.rest(pause + pause.mul_f64(fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Sleeps, unless the relay is stopped meanwhile.
    pub(super) async fn rest(&mut self, time: Duration) {
        let stopped = self.stopped.wait_for(|stopped| *stopped);
        // Either way the caller looks for itself.
        let _slept = tokio::time::timeout(time, stopped).await;
    }

    /// One name, one entry, and on transports that have it one fence.
    async fn session(&mut self) -> Result<()> {
        if !self.checked {
            self.store.check().await?;
            self.checked = true;
        }
        let owner: Arc<str> = new_id();
        let fence = self.broker.transport().fence(&owner).await?;
        let broker = fence.as_ref().map_or_else(|| self.broker.clone(), |fence| self.broker.over(fence.clone()));
        let name = fence.as_ref().map_or("", |fence| fence.capabilities().name);
        let lease = self.settings.lease;
        let joined = Instant::now();
        let worked = match self.store.join(&owner, name, lease).await {
            Ok(()) => {
                let tenure = Tenure::keep(self.store.clone(), self.counters.clone(), owner.clone(), lease, joined);
                let worked = Session::new(self, broker, fence.is_some(), tenure)?.run().await;
                self.leave(&owner).await;
                worked
            }
            Err(error) => Err(error),
        };
        if let Some(fence) = fence
            && let Err(error) = fence.close().await
        {
            tracing::debug!(%error, "the fence did not close in order");
        }
        worked
    }

    /// Gives everything to the other relays at once; they would wait for the end of the lease.
    async fn leave(&self, owner: &str) {
        match tokio::time::timeout(LEAVE, self.store.leave(owner)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the relay's entry stays until its lease ends"),
            Err(_) => tracing::debug!("the relay's entry stays until its lease ends"),
        }
    }
}
