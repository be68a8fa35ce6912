//! Waking up by NOTIFY.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_postgres::AsyncMessage;

use super::error;
use super::url::Target;
use crate::Result;
use crate::outbox::WakeUp;

/// Pause before a lost connection is opened again: at first, and at most.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A connection of its own that listens.
pub(super) struct Listener {
    told: Arc<Notify>,
    task: AbortHandle,
}

impl Listener {
    /// Listens to `channel` from now on, also after the connection was lost and is back.
    pub(super) async fn start(target: Arc<Target>, channel: &str) -> Result<Self> {
        let listen = format!("LISTEN {}", crate::store::Dialect::Postgres.quote(channel));
        let told = Arc::new(Notify::new());
        let first = subscribe(&target, &listen, &told).await?;
        let task = tokio::spawn(keep(first, target, listen, told.clone())).abort_handle();
        Ok(Self { told, task })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl WakeUp for Listener {
    async fn wait(&mut self) {
        // Any number of notifications since the last call are one.
        self.told.notified().await;
    }
}

type Listening = (tokio_postgres::Client, tokio::task::JoinHandle<()>);

async fn subscribe(target: &Target, listen: &str, told: &Arc<Notify>) -> Result<Listening> {
    let told = told.clone();
    let (client, task) = target
        .open_with(move |message| {
            if let AsyncMessage::Notification(_) = message {
                told.notify_one();
            }
        })
        .await?;
    client.batch_execute(listen).await.map_err(error::of)?;
    Ok((client, task))
}

async fn keep(first: Listening, target: Arc<Target>, listen: String, told: Arc<Notify>) {
    let (mut _client, mut task) = first;
    loop {
        let _ended = (&mut task).await;
        let mut pause = PAUSE;
        (_client, task) = loop {
            tokio::time::sleep(pause + pause.mul_f64(fastrand::f64() / 2.0)).await;
            match subscribe(&target, &listen, &told).await {
                Ok(listening) => break listening,
                Err(error) => tracing::debug!(%error, "cannot listen, trying again"),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        };
        // Something may have been said while nobody listened.
        told.notify_one();
    }
}
