//! [`RunningRelay`]: a started relay.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::health::Notes;
use super::worker::Worker;
use super::{Relay, RelayHealth};
use crate::outbox::OutboxStore;
use crate::outbox::counters::Counters;
use crate::{Error, ErrorKind, Metric, Result};

/// How often kept rows are looked through for old ones, and how many go at once.
const PURGE_EVERY: Duration = Duration::from_secs(60);
const PURGE: usize = 1000;

/// A relay that runs. Dropping it ends it where it is, and others wait for its lease; [`stop`](Self::stop) hands over.
#[derive(Debug)]
pub struct RunningRelay {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    janitor: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    notes: Notes,
}

impl RunningRelay {
    pub(super) fn start(relay: Relay, checked: bool) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (counters, notes) = (Arc::new(Counters::default()), Notes::default());
        relay.broker.registry().watch_relay(&counters);
        let janitor = relay.settings.keep.map(|age| tokio::spawn(tidy(relay.store.clone(), age)));
        let worker = Worker::new(relay, checked, counters.clone(), notes.clone(), stopped);
        let task = Mutex::new(Some(tokio::spawn(worker.run())));
        Self { stop, task, janitor, counters, notes }
    }

    /// What it is doing.
    pub fn health(&self) -> RelayHealth {
        RelayHealth { oldest: self.counters.oldest(), ..self.notes.read() }
    }

    /// Its counters and gauges; first of all `tidings_outbox_oldest_seconds`. The broker's snapshot has them too.
    pub fn metrics(&self) -> Vec<Metric> {
        self.counters.snapshot()
    }

    /// Finishes what is on its way, gives its parts to the other relays and ends.
    pub async fn stop(&self) -> Result<()> {
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        match task {
            None => Ok(()),
            Some(task) => task.await.map_err(|e| Error::new(ErrorKind::Internal, "the relay's task failed").source(e)),
        }
    }
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        let task = self.task.lock().take();
        for task in task.into_iter().chain(self.janitor.take()) {
            task.abort();
        }
    }
}

/// Removes kept rows that are older than `age`, a few at a time.
async fn tidy(store: Arc<dyn OutboxStore>, age: Duration) {
    loop {
        match store.purge(age, PURGE).await {
            Ok(removed) if removed >= PURGE as u64 => tokio::task::yield_now().await,
            Ok(_) => tokio::time::sleep(PURGE_EVERY).await,
            Err(error) => {
                tracing::warn!(%error, "cannot remove old rows of the outbox, trying again");
                tokio::time::sleep(PURGE_EVERY).await;
            }
        }
    }
}
