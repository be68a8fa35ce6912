//! The transport itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::client::Client;
use super::events::NewEvent;
use super::journal::SqliteJournal;
use super::source::SqliteSource;
use super::url::Options;
use super::{admin, dead_letters, publish, registry};
use crate::doctor::{Examination, Finding};
use crate::transport::{
    Capabilities, DeadLetters, Journal, Message, Ordered, Receipt, Source, SubscriptionInfo, SubscriptionSpec,
    Transport,
};
use crate::{Error, ErrorKind, Result};

/// Longest delay: beyond it a typing error is likelier than a plan.
const MAX_DELAY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Largest body that can be configured.
const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// Whether a `sqlite:` URL can be understood. The file is not looked at.
pub fn check_url(url: &str) -> Result<()> {
    Options::parse(url).map(drop)
}

/// Opens the store that `url` names, creating it if it is not there.
///
/// `sqlite:path.db` (relative to the working directory) or `sqlite:///absolute/path.db`, with the parameters
/// `synchronous=full|normal` (`full`; `normal` loses the last moments on power loss), `busy_timeout=<milliseconds>`
/// (5,000: how long other processes may hold the lock), `retention=<seconds>` (0: settled events are kept so long),
/// `mode=rwc|rw` (`rwc`; `rw` fails where there is no file) and `shared=true|false` (`false`; `true`: the program has the
/// file open too, through the very copy of SQLite that this crate is built with, as Rust programs with rusqlite or sqlx do:
/// two copies in one process corrupt the file).
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    let options = Options::parse(url)?;
    let retention = options.retention;
    let open = tokio::task::spawn_blocking(move || registry::open(&options));
    let store = open.await.map_err(|e| Error::new(ErrorKind::Internal, "opening the store failed").source(e))??;
    let client = Arc::new(Client::new(store));
    Ok(Arc::new(Sqlite { journal: SqliteJournal::new(client.clone(), retention), client }))
}

#[derive(Debug)]
struct Sqlite {
    client: Arc<Client>,
    journal: SqliteJournal,
}

#[async_trait]
impl Transport for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            multi_process: true,
            ordered: Ordered::Keyed,
            fenced_settle: true,
            max_delay: MAX_DELAY,
            max_payload: MAX_PAYLOAD,
            reports_routing: true,
            counts_in_flight: true,
            prefix_publish: true,
            ..Capabilities::new("sqlite")
        }
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<Receipt>> {
        let count = batch.len();
        // One transaction for all of them, so the most patient must not wait longer than the least patient wants.
        let deadline = batch.iter().filter_map(Message::gives_up_at).min();
        let stored = async {
            let batch = batch.into_iter().map(NewEvent::new).collect::<Result<Vec<_>>>()?;
            let size = batch.iter().map(NewEvent::size).sum();
            let store = self.client.store()?;
            let run = move |tx: &mut super::tx::Tx<'_>| publish::publish(tx, &batch);
            match deadline {
                Some(deadline) => store.call_until(size, deadline, run).await,
                None => store.call(size, run).await,
            }
        };
        stored.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.duplicate())).collect())
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<Arc<dyn Source>> {
        spec.check()?;
        Ok(Arc::new(SqliteSource::open(self.client.clone(), spec.clone()).await?))
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Box<dyn DeadLetters>> {
        Ok(Box::new(dead_letters::Walk::open(self.client.clone(), subscription).await?))
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        self.client.store()?.call(0, |tx| admin::list(tx)).await
    }

    async fn examine(&self, about: &Examination) -> Result<Vec<Finding>> {
        super::doctor::examine(self.client.store()?, about).await
    }

    async fn delete_subscription(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.client.store()?.call(0, move |tx| admin::delete(tx, &name)).await
    }

    fn journal(&self) -> Option<&dyn Journal> {
        Some(&self.journal)
    }

    async fn ping(&self) -> Result<()> {
        self.client.store()?.call(0, |_| Ok(())).await
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await
    }
}
