//! [`Subject`]: how the suite reaches a broker.

use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;

use crate::transport::QueueType;
use crate::{Broker, Result};

/// A broker to be tested, and what the suite has to know to do so.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Its name in what is printed.
    fn name(&self) -> String;

    /// A new handle to the same broker, independent of those before: a second connection, not a clone.
    async fn connect(&self) -> Result<Broker>;

    /// Whether time is Tokio's and paused: it jumps wherever everything waits. Scenarios then run one after the other.
    fn virtual_time(&self) -> bool {
        false
    }

    /// The shortest delay that scenarios use; all others are multiples of it. Default: 100 ms, in virtual time 10 s.
    fn unit(&self) -> Duration {
        if self.virtual_time() { Duration::from_secs(10) } else { Duration::from_millis(100) }
    }

    /// RabbitMQ: the kind of queue to test with.
    fn queue_type(&self) -> QueueType {
        QueueType::default()
    }

    /// A command whose process calls [`serve`](super::serve) with a handle to the same broker. `None`: the broker
    /// belongs to this process.
    fn child(&self) -> Option<Command> {
        None
    }

    /// Ends every consumer of the subscription as the death of its process would. Needed only where there is no
    /// [`child`](Self::child) to kill; `false` if that cannot be done.
    async fn crash(&self, _subscription: &str) -> bool {
        false
    }

    /// Deletes an exchange that a scenario has used. Subscriptions are deleted by the suite itself.
    async fn delete_exchange(&self, _exchange: &str) {}

    /// How many scenarios run at once. In virtual time it is always one.
    fn parallel(&self) -> usize {
        8
    }
}
