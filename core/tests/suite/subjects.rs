//! The brokers of this build.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tidings::testkit::Subject;
use tidings::transport::memory::MemoryTransport;
use tidings::{Broker, Result};

/// This program, as the second process on a broker.
#[cfg(any(feature = "sqlite", feature = "amqp"))]
fn child(url: &str) -> Option<Command> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["child", url]);
    Some(command)
}

/// `memory:`, on the real clock or on a paused one.
pub(crate) struct Memory {
    virtual_time: bool,
    name: String,
}

impl Memory {
    pub(crate) fn new(virtual_time: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self { virtual_time, name: format!("memory:suite-{}", COUNT.fetch_add(1, Ordering::Relaxed)) }
    }
}

#[async_trait]
impl Subject for Memory {
    fn name(&self) -> String {
        if self.virtual_time { "memory (virtual time)".into() } else { "memory".into() }
    }

    async fn connect(&self) -> Result<Broker> {
        Broker::connect(&self.name).await
    }

    fn virtual_time(&self) -> bool {
        self.virtual_time
    }

    async fn crash(&self, subscription: &str) -> bool {
        MemoryTransport::open(&self.name).is_ok_and(|transport| transport.faults().crash(subscription) > 0)
    }
}

/// `sqlite:`, a file in a temporary folder.
#[cfg(feature = "sqlite")]
pub(crate) struct Sqlite {
    folder: tempfile::TempDir,
}

#[cfg(feature = "sqlite")]
impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("suite.db").display())
    }
}

#[cfg(feature = "sqlite")]
#[async_trait]
impl Subject for Sqlite {
    fn name(&self) -> String {
        "sqlite".into()
    }

    async fn connect(&self) -> Result<Broker> {
        Broker::connect(&self.url()).await
    }

    fn child(&self) -> Option<Command> {
        child(&self.url())
    }
}

/// RabbitMQ: a server and a kind of queue.
#[cfg(feature = "amqp")]
pub(crate) struct Amqp {
    name: &'static str,
    url: String,
    queue_type: tidings::transport::QueueType,
}

#[cfg(feature = "amqp")]
impl Amqp {
    /// The distribution's server with both kinds of queues, the newer one with quorum queues.
    pub(crate) fn all() -> Vec<Self> {
        use tidings::transport::QueueType::{Classic, Quorum};
        let url = |variable, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
        let old = url("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
        let new = url("AMQP4_URL", "amqp://guest:guest@127.0.0.1:5674");
        vec![
            Self { name: "amqp quorum", url: old.clone(), queue_type: Quorum },
            Self { name: "amqp classic", url: old, queue_type: Classic },
            Self { name: "amqp4 quorum", url: new, queue_type: Quorum },
        ]
    }
}

#[cfg(feature = "amqp")]
#[async_trait]
impl Subject for Amqp {
    fn name(&self) -> String {
        self.name.into()
    }

    async fn connect(&self) -> Result<Broker> {
        Broker::connect(&self.url).await
    }

    fn queue_type(&self) -> tidings::transport::QueueType {
        self.queue_type
    }

    fn child(&self) -> Option<Command> {
        child(&self.url)
    }

    fn parallel(&self) -> usize {
        4
    }

    async fn delete_exchange(&self, exchange: &str) {
        let Ok(connection) = lapin::Connection::connect(&self.url, lapin::ConnectionProperties::default()).await else {
            return;
        };
        if let Ok(channel) = connection.create_channel().await {
            let _best_effort =
                channel.exchange_delete(exchange.into(), lapin::options::ExchangeDeleteOptions::default()).await;
        }
        let _best_effort = connection.close(200, "done".into()).await;
    }
}
