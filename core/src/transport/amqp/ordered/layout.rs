//! Into how many partitions a subscription is divided.
//!
//! An exchange that nothing is published to says so: its alternate exchange is named after the number, and the server
//! refuses a declaration with another one. The number decides where a key's events go, so only who splits may change it,
//! and only while nothing is left where they went before.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::ExchangeKind;
use lapin::options::ConfirmSelectOptions;

use super::super::connection::{Connector, Live, answer_in_time, open};
use super::super::headers::text;
use super::super::source::close_channel;
use super::super::topology::{ALTERNATE_EXCHANGE, Declarer, arguments};
use super::super::unsettled::send_ack;
use super::super::url::Config;
use super::consumer::{Deliveries, Kept};
use super::declaring::{On, processes};
use super::journal::{Entry, Waits};
use super::member::send;
use super::names::{self, journal, partition};
use super::owner::read;
use super::survey::survey_queue;
use crate::transport::{QueueType, SubscriptionSpec};
use crate::{Error, ErrorKind, Result};

/// Whoever has the journal receives what was in it within this time.
const RECEIVE_WITHIN: Duration = Duration::from_secs(3);

/// The queues that the owners of a subscription consume from, with a journal each.
pub(super) fn queues(name: &str, partitions: u16) -> Vec<String> {
    match partitions {
        0 | 1 => vec![name.to_owned()],
        _ => (0..u64::from(partitions)).map(|index| partition(name, index)).collect(),
    }
}

/// What stands for the number, as the name of an exchange that the subscription's permissions cover.
fn mark(name: &str, partitions: u16) -> String {
    partition(name, partitions.into())
}

/// Says that the subscription has this many partitions. Another number is `SUBSCRIPTION_CONFLICT`.
pub(super) async fn assert(on: On<'_>, spec: &SubscriptionSpec) -> Result<()> {
    let declarer = on.declarer().await?;
    let made = declare(&declarer, spec).await.map_err(|error| {
        if is_another(&error) { conflict(spec, None, "other processes have changed it") } else { error }
    });
    declarer.close_after(made).await
}

async fn declare(declarer: &Declarer, spec: &SubscriptionSpec) -> Result<()> {
    let number = arguments([(ALTERNATE_EXCHANGE, text(mark(&spec.name, spec.partitions)))]);
    declarer.exchange(&journal(&spec.name), ExchangeKind::Fanout, true, number).await
}

/// Whether the server says that it has another number. Which one is cut off where the subscription's name is long.
fn is_another(error: &Error) -> bool {
    error.kind() == ErrorKind::SubscriptionConflict && error.field_value() == Some(ALTERNATE_EXCHANGE)
}

fn conflict(spec: &SubscriptionSpec, there: Option<&Vec<String>>, why: &str) -> Error {
    let has = match there.map(|queues| number(&spec.name, queues)) {
        Some(number) => format!("has {number} partitions, not {}", spec.partitions),
        None => format!("does not have {} partitions", spec.partitions),
    };
    Error::new(ErrorKind::SubscriptionConflict, format!("subscription {} {has}: {why}", spec.name))
        .field("partitions", spec.partitions)
        .remedy("let processes with the old number handle what is in its partitions, stop them all, then change it")
}

/// The number of partitions that these queues are.
fn number(name: &str, queues: &[String]) -> usize {
    queues.iter().filter(|queue| *queue != name).count().max(1)
}

/// Like [`assert`], and changes the number if it is another one that nothing and nobody needs any more.
pub(super) async fn settle(
    connector: &Connector,
    config: &Arc<Config>,
    spec: &SubscriptionSpec,
    queue_type: QueueType,
) -> Result<()> {
    let declarer = Declarer::open(connector).await?;
    match declare(&declarer, spec).await {
        Err(error) if is_another(&error) => {
            let live = Arc::new(open(config).await?);
            let changed = change(connector, &live, spec, queue_type).await;
            live.close().await;
            changed
        }
        made => declarer.close_after(made).await,
    }
}

/// While it consumes from the subscription's queue nobody else splits it, and while it has the journal nobody else owns it
/// undivided. Whoever is next looks at the number again.
async fn change(connector: &Connector, live: &Arc<Live>, spec: &SubscriptionSpec, queue_type: QueueType) -> Result<()> {
    let there = super::survey::queues(connector, &spec.name).await?;
    let kept = Kept::new(live.clone());
    let channel = live.channel().await?;
    let declarer = Declarer::on(live).await?;
    let changed = async {
        processes(&declarer, &spec.name, queue_type).await?;
        // Looked at before any of it is received here.
        let empty = declarer.look(&spec.name).await?.is_some_and(|queue| queue.message_count() == 0);
        let _queue = Deliveries::open(&channel, &kept, &spec.name, 0, 1, false).await?;
        let _takes_part = Deliveries::open(&channel, &kept, &names::processes(&spec.name), 1, 1, false).await?;
        let users = declarer.look(&names::processes(&spec.name)).await?.map_or(0, |queue| queue.consumer_count());
        if users > 1 {
            return Err(conflict(spec, Some(&there), "other processes use it"));
        }
        let _journal =
            if there.contains(&spec.name) { Some(undivided(live, &kept, spec, &there, empty).await?) } else { None };
        if let Some(why) = left(connector, spec, &there).await? {
            return Err(conflict(spec, Some(&there), &why));
        }
        move_to(&declarer, spec, &there).await
    };
    let changed = changed.await;
    close_channel(&channel).await;
    changed
}

/// Receives the journal of a subscription that is not divided, as its owner would, and refuses if keys wait in it. Of an
/// `empty` one, records of keys that are not parked are about events that are done with.
async fn undivided(
    live: &Arc<Live>,
    kept: &Arc<Kept>,
    spec: &SubscriptionSpec,
    there: &Vec<String>,
    empty: bool,
) -> Result<Deliveries> {
    let (queue, channel) = (journal(&spec.name), live.channel().await?);
    answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
    let mut entries = Deliveries::open(&channel, kept, &queue, 0, u16::MAX, false).await?;
    let mark = crate::event::new_id().to_string();
    send(&channel, &queue, &Entry::Marker { id: mark.clone() }).await?;
    let reading = async {
        while let Some((_, Ok(entry))) = entries.next().await {
            match read(&entry) {
                Some((Entry::Record { record, .. }, _)) if record.state != Waits::Held || !empty => {
                    return Some("keys wait in it");
                }
                Some((Entry::Marker { id }, _)) if id == mark => {
                    send_ack(&channel, entry.delivery_tag, false);
                    return None;
                }
                _ => {}
            }
        }
        Some("its journal was deleted")
    };
    match tokio::time::timeout(RECEIVE_WITHIN, reading).await.unwrap_or(Some("other processes use it")) {
        None => Ok(entries),
        Some(why) => Err(conflict(spec, Some(there), why)),
    }
}

/// What is left where the keys are, if anything.
async fn left(connector: &Connector, spec: &SubscriptionSpec, there: &[String]) -> Result<Option<String>> {
    for name in there.iter().filter(|name| **name != spec.name) {
        let Some(queue) = look(connector, name).await? else { continue };
        if queue.consumer_count() > 0 {
            return Ok(Some(format!("queue {name} is being consumed")));
        }
        if queue.message_count() > 0 {
            return Ok(Some(format!("{} events wait in queue {name}", queue.message_count())));
        }
        if look(connector, &journal(name)).await?.is_none() {
            continue;
        }
        let Some(found) = survey_queue(connector, name).await? else {
            return Ok(Some(format!("queue {} could not be read", journal(name))));
        };
        // A record of a key that was not parked is about an event of the queue, which is empty.
        if !found.order.owners.is_empty() || !found.key_queues.is_empty() {
            return Ok(Some(format!("{} keys of queue {name} are parked", found.order.parked_keys)));
        }
    }
    Ok(None)
}

async fn look(connector: &Connector, queue: &str) -> Result<Option<lapin::Queue>> {
    let declarer = Declarer::open(connector).await?;
    let found = declarer.look(queue).await?;
    if found.is_some() {
        declarer.close().await;
    }
    Ok(found)
}

/// The number first: whoever makes one of the old queues again finds it then.
async fn move_to(declarer: &Declarer, spec: &SubscriptionSpec, there: &[String]) -> Result<()> {
    declarer.delete_exchange(&journal(&spec.name)).await?;
    declare(declarer, spec).await?;
    // The last one first: what is left after a failure is found again.
    for name in there.iter().rev() {
        if *name != spec.name {
            declarer.delete_queue(name).await?;
        }
        declarer.delete_queue(&journal(name)).await?;
    }
    let before = number(&spec.name, there);
    tracing::info!(subscription = %spec.name, before, partitions = spec.partitions, "changed the number of partitions");
    Ok(())
}
