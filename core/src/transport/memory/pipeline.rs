//! Publishes that a fault script holds up: still accepted in the order of the calls, and whether or not anyone waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::broker::{Broker, timed_out};
use super::script::Fault;
use crate::Result;
use crate::transport::{Message, Receipt};

/// Batches on their way, in the order of the calls and of `at`.
pub(super) type Pipeline = VecDeque<Underway>;

/// A batch that the broker has not seen yet.
#[derive(Debug)]
pub(super) struct Underway {
    at: Instant,
    batch: Vec<Message>,
    faults: Vec<Option<Fault>>,
    reply: oneshot::Sender<Vec<Result<Receipt>>>,
}

/// Publishes after `pause`, and after what is under way.
pub(super) async fn publish(
    broker: &Arc<Broker>,
    batch: Vec<Message>,
    faults: Vec<Option<Fault>>,
    pause: Duration,
) -> Vec<Result<Receipt>> {
    let count = batch.len();
    let patient = batch.iter().any(|message| message.deadline.is_none());
    let deadline = batch.iter().filter_map(Message::gives_up_at).max().filter(|_| !patient);
    let waiting = {
        let mut pipeline = broker.pipeline.lock();
        if pause.is_zero() && pipeline.is_empty() {
            return broker.publish(batch, faults);
        }
        let (reply, waiting) = oneshot::channel();
        let at = (Instant::now() + pause).max(pipeline.back().map_or_else(Instant::now, |last| last.at));
        pipeline.push_back(Underway { at, batch, faults, reply });
        // A task of its own: what was handed over goes on when the caller does not.
        let broker = broker.clone();
        tokio::spawn(async move {
            sleep_until(at).await;
            arrive(&broker);
        });
        waiting
    };
    let results = match deadline {
        Some(deadline) => timeout_at(deadline, waiting).await.ok().and_then(std::result::Result::ok),
        None => waiting.await.ok(),
    };
    results.unwrap_or_else(|| (0..count).map(|_| Err(timed_out())).collect())
}

/// Hands over the batches whose time has come.
fn arrive(broker: &Broker) {
    let mut pipeline = broker.pipeline.lock();
    while pipeline.front().is_some_and(|first| first.at <= Instant::now()) {
        if let Some(Underway { batch, faults, reply, .. }) = pipeline.pop_front() {
            // The caller may have left; the events are stored all the same.
            drop(reply.send(broker.publish(batch, faults)));
        }
    }
}
