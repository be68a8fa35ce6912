//! An ordered subscription seen from outside: its owner is asked through the journal. Where nobody owns it, the journal
//! itself is delivered to whoever asks, and goes back as it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};

use super::super::connection::{Connector, answer_in_time};
use super::super::headers::{name_of, properties};
use super::super::source::close_channel;
use super::super::topology::Declarer;
use super::consumer::{Deliveries, Kept};
use super::journal::{Action, Entry, Record, Waits};
use super::key::KeyId;
use super::names::{self, key_queue};
use super::owner::{Owner, read};
use crate::event::{Headers, Timestamp};
use crate::transport::OrderState;
use crate::{Error, ErrorKind, Result};

/// Time that the owner has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Survey {
    pub(in super::super) order: OrderState,
    /// Queues of parked keys.
    pub(in super::super) key_queues: Vec<String>,
    /// Events that the owner holds.
    pub(in super::super) held: u64,
}

/// The owner's answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    owner: String,
    waiting: u64,
    parked: u64,
    dead: u64,
    oldest_ms: Option<u64>,
    held: u64,
    key_queues: Vec<String>,
}

impl Owner {
    /// Tells how the subscription is. Nobody is waited for: whoever asked may be gone.
    pub(super) fn answer(&mut self, id: &str, reply_to: &str, tag: u64) -> Result<()> {
        self.journal.ack(tag);
        let order = self.shared.order();
        let key_queues = {
            let keys = self.shared.keys.lock();
            let parked = keys.all.iter().filter(|(_, key)| key.parked.is_some());
            parked.map(|(id, _)| key_queue(&self.shared.queue, id.name())).collect()
        };
        let held = self.shared.keys.lock().unacked as u64;
        let answer = Answer {
            owner: self.name().to_owned(),
            waiting: order.waiting_keys,
            parked: order.parked_keys,
            dead: order.dead_keys,
            oldest_ms: order.oldest_waiting.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            held,
            key_queues,
        };
        let body = serde_json::to_vec(&answer)
            .map_err(|e| Error::new(ErrorKind::Internal, "an answer cannot be written").source(e))?;
        let (channel, reply_to) = (self.channel.clone(), reply_to.to_owned());
        let properties = properties(id, Timestamp::EPOCH, &Headers::new(), None, None)?.with_delivery_mode(1);
        let answering = async move {
            let options = BasicPublishOptions::default();
            channel.basic_publish(name_of(""), name_of(reply_to), options, &body, properties).await?.await
        };
        self.when(answering, |_, answered| {
            if let Err(error) = answered {
                tracing::debug!(%error, "an answer was not taken");
            }
            Ok(())
        });
        Ok(())
    }
}

/// The queues that owners consume from, if the subscription is an ordered one: its own, or those of its partitions.
pub(in super::super) async fn queues(connector: &Connector, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut declarer = Declarer::open(connector).await?;
    if declarer.look(&names::journal(name)).await?.is_some() {
        found.push(name.to_owned());
    } else {
        declarer = Declarer::open(connector).await?;
    }
    for index in 0.. {
        let queue = names::partition(name, index);
        if declarer.look(&queue).await?.is_none() {
            break;
        }
        found.push(queue);
    }
    Ok(found)
}

/// Asks how an ordered subscription with these queues is. Those of which nobody answers in time are left out; `None` if that is
/// all of them.
pub(in super::super) async fn survey(connector: &Connector, queues: &[String]) -> Result<Option<Survey>> {
    let found = try_join_all(queues.iter().map(|queue| survey_queue(connector, queue))).await?;
    Ok(found.into_iter().flatten().reduce(Survey::and))
}

/// Asks how the ordered queue `queue` is. `None` if nobody answers in time.
pub(super) async fn survey_queue(connector: &Connector, queue: &str) -> Result<Option<Survey>> {
    let (channel, live) = connector.channel().await?;
    answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let replies = format!("tidings-answer-{}", crate::event::new_id());
    let declared = channel.queue_declare(name_of(&*replies), options, FieldTable::default());
    answer_in_time(declared, "a queue for the answer").await?;
    let consuming = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let asked = channel.basic_consume(name_of(&*replies), name_of("answer"), consuming, FieldTable::default());
    let mut answers = answer_in_time(asked, "consuming the answer").await?;
    let kept = Kept::new(live.clone());
    let reading = live.channel().await?;
    let journal = names::journal(queue);
    // One that stands by: it is delivered to only if nobody owns the subscription.
    let mut entries = Deliveries::open(&reading, &kept, &journal, 0, u16::MAX, false).await?;
    let id = crate::event::new_id().to_string();
    let ask = Entry::Ask { id: id.clone(), reply_to: replies };
    super::member::send(&channel, &journal, &ask).await?;
    let found = async {
        let mut records = HashMap::new();
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => return serde_json::from_slice::<Answer>(&answer.data).ok().map(Survey::from),
                    _ => return None,
                },
                entry = entries.next() => match entry {
                    Some((_, Ok(entry))) => match read(&entry) {
                        Some((Entry::Ask { id: asked, .. }, _)) if asked == id => {
                            super::super::unsettled::send_ack(&reading, entry.delivery_tag, false);
                            return Some(Survey::of(queue, &records));
                        }
                        Some((Entry::Record { key, epoch, sequence, record }, _)) => {
                            let age = (epoch, sequence);
                            if records.get(&key).is_none_or(|(known, _)| *known < age) {
                                records.insert(key, (age, record));
                            }
                        }
                        _ => {}
                    },
                    _ => return None,
                },
            }
        }
    };
    let found = tokio::time::timeout(ANSWER_WITHIN, found).await.unwrap_or_default();
    close_channel(&reading).await;
    drop(entries);
    close_channel(&channel).await;
    Ok(found)
}

impl Survey {
    fn and(mut self, other: Self) -> Self {
        self.order = self.order.and(other.order);
        self.key_queues.extend(other.key_queues);
        self.held += other.held;
        self
    }

    /// What records say while nobody owns the subscription.
    fn of(queue: &str, records: &HashMap<Arc<str>, ((u64, u64), Record)>) -> Self {
        let mut found = Self::default();
        let now = Timestamp::now();
        for (key, (_, record)) in records {
            let order = &mut found.order;
            match record.state {
                Waits::Leaving => {
                    found.key_queues.push(key_queue(queue, key));
                    continue;
                }
                Waits::Held => order.waiting_keys += 1,
                Waits::Parked => order.parked_keys += 1,
                Waits::Dead => (order.parked_keys, order.dead_keys) = (order.parked_keys + 1, order.dead_keys + 1),
            }
            order.oldest_waiting = order.oldest_waiting.max(Some(now.since(record.since)));
            if record.state != Waits::Held {
                found.key_queues.push(key_queue(queue, key));
            }
        }
        found
    }
}

impl From<Answer> for Survey {
    fn from(answer: Answer) -> Self {
        let order = OrderState {
            owners: vec![answer.owner],
            waiting_keys: answer.waiting,
            parked_keys: answer.parked,
            dead_keys: answer.dead,
            oldest_waiting: answer.oldest_ms.map(Duration::from_millis),
            whole: false,
        };
        Self { order, key_queues: answer.key_queues, held: answer.held }
    }
}

/// Tells the owner of the ordered queue `queue`, present or future, what to do with the dead head of a key.
pub(in super::super) fn command(
    queue: &str,
    key: &Arc<str>,
    id: &Arc<str>,
    action: Action,
    headers: Headers,
) -> Result<impl FnOnce(super::super::outbound::Reply) -> super::super::outbound::Outbound + Send + use<>> {
    let key = KeyId::Named(key.clone()).name().clone();
    super::owner::entry_for(queue, &Entry::Command { key, id: id.clone(), action }, headers)
}
