//! What an ordered subscription has on the broker.

use super::super::connection::{Connector, Live};
use super::super::topology::{Declarer, SINGLE_ACTIVE, safe_arguments};
use super::layout;
use super::names;
use super::shared::Shared;
use crate::transport::{QueueType, SubscriptionSpec};
use crate::{Error, ErrorKind, Result};

/// The connection to declare on.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    Connector(&'a Connector),
    Live(&'a Live),
}

impl On<'_> {
    pub(super) async fn declarer(self) -> Result<Declarer> {
        match self {
            Self::Connector(connector) => Declarer::open(connector).await,
            Self::Live(live) => Declarer::on(live).await,
        }
    }
}

/// Declares the queue of a member and its journal. Whether one consumer at a time is what the queue itself ensures.
pub(super) async fn declare(on: On<'_>, shared: &Shared) -> Result<bool> {
    let whole = shared.queue == shared.name;
    let single_active =
        if whole { subscription(on, &shared.spec, shared.queue_type, shared.infrastructure).await? } else { true };
    if !shared.spec.compat {
        layout::assert(on, &shared.spec).await?;
    }
    owned(on, shared).await?;
    Ok(single_active)
}

/// Declares the queues of keys that a member has, each with its journal: those of the partitions for the one that splits.
pub(super) async fn owned(on: On<'_>, shared: &Shared) -> Result<()> {
    let queues = if shared.splits() {
        layout::queues(&shared.name, shared.spec.partitions)
    } else {
        vec![shared.queue.to_string()]
    };
    let journals = queues.iter().map(|queue| names::journal(queue)).collect::<Vec<_>>();
    let all: Vec<_> = queues.into_iter().filter(|queue| **queue != *shared.name).chain(journals).collect();
    let declarer = on.declarer().await?;
    let mut made = declarer.all_single_active(&all, shared.queue_type).await;
    if made.is_ok() && shared.splits() {
        made = processes(&declarer, &shared.name, shared.queue_type).await;
    }
    declarer.close_after(made).await
}

/// Declares the queue whose consumers are the processes that take part.
pub(super) async fn processes(declarer: &Declarer, name: &str, queue_type: QueueType) -> Result<()> {
    declarer.durable_queue(&names::processes(name), safe_arguments(queue_type)).await.map(|_| ())
}

/// Declares the subscription's queue with all that belongs to it. `false`: it is a classic queue that somebody else has
/// declared, or declares alike, and is to be consumed exclusively.
pub(super) async fn subscription(
    on: On<'_>,
    spec: &SubscriptionSpec,
    queue_type: QueueType,
    infrastructure: QueueType,
) -> Result<bool> {
    let declare = async |single_active| {
        let declarer = on.declarer().await?;
        let made = declarer.subscription(spec, queue_type, infrastructure, single_active).await;
        declarer.close_after(made).await
    };
    if spec.compat {
        return declare(false).await.map(|()| false);
    }
    if spec.partitions > 1 {
        return declare(true).await.map(|()| true);
    }
    match declare(true).await {
        Err(error) if queue_type == QueueType::Classic && error.field_value() == Some(SINGLE_ACTIVE) => {
            declare(false).await?;
            nobody_else(on, &spec.name).await.map(|()| false)
        }
        declared => declared.map(|()| true),
    }
}

/// Refuses a queue that is consumed by others than members of the ordered subscription: it can never be had exclusively.
async fn nobody_else(on: On<'_>, queue: &str) -> Result<()> {
    let declarer = on.declarer().await?;
    let consumers = declarer.look(queue).await?.map_or(0, |queue| queue.consumer_count());
    let members = declarer.look(&names::journal(queue)).await?;
    if members.is_some() {
        declarer.close().await;
    }
    if consumers == 0 || members.is_some_and(|journal| journal.consumer_count() > 0) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::SubscriptionConflict, format!("queue {queue} is consumed without order"))
        .field("argument", SINGLE_ACTIVE)
        .remedy("stop its other consumers, or choose another name"))
}
