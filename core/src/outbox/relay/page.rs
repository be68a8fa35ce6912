//! A page of rows on its way: sorted out, published in chunks, settled.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::gate::Gate;
use super::session::is_about_the_event;
use super::tenure::Tenure;
use super::worker::Worker;
use crate::broker::Broker;
use crate::event::decode;
use crate::outbox::counters::Counters;
use crate::outbox::{Failed, OutboxRow, OutboxStore, Settled};
use crate::publisher::Publisher;
use crate::{DomainEvent, Error, ErrorKind, Headers, Result, RetryPolicy};

/// How often it is looked whether the lease was renewed.
const LOOK: Duration = Duration::from_millis(50);

/// Publishes rows and records what became of them.
pub(super) struct Sender {
    store: Arc<dyn OutboxStore>,
    owner: Arc<str>,
    publisher: Publisher,
    counters: Arc<Counters>,
    retry: RetryPolicy,
    batch: usize,
    max_payload: usize,
    keep: bool,
    /// Half the lease: nothing new is sent when less is left of it.
    margin: Duration,
    /// What is sent of one key is taken in order, or nothing behind the first that is not.
    pipelined: bool,
}

/// A row that can be published.
struct Ready {
    row: OutboxRow,
    event: DomainEvent,
}

impl Sender {
    pub(super) fn new(worker: &Worker, broker: &Broker, owner: Arc<str>) -> Result<Self> {
        let settings = &worker.settings;
        let mut publisher = broker.publisher().publish_timeout(settings.publish_timeout);
        publisher = publisher.max_payload(settings.max_payload)?;
        if let Some(exchange) = &settings.exchange {
            publisher = publisher.exchange(exchange.clone())?;
        }
        Ok(Self {
            store: worker.store.clone(),
            owner,
            publisher,
            counters: worker.counters.clone(),
            retry: settings.retry.clone(),
            batch: settings.batch,
            max_payload: settings.max_payload,
            keep: settings.keep.is_some(),
            margin: settings.lease / 2,
            pipelined: broker.capabilities().prefix_publish,
        })
    }

    /// Publishes rows that are ready, in order. An error is the broker's or the store's; the rows stay where they are.
    pub(super) async fn page(
        &self,
        rows: Vec<OutboxRow>,
        gate: &mut Gate,
        tenure: &Tenure,
        stopped: &watch::Receiver<bool>,
    ) -> Result<()> {
        let mut settled = self.nothing();
        let mut rows = rows.into_iter().peekable();
        let mut sent = Ok(());
        while rows.peek().is_some() && sent.is_ok() && !*stopped.borrow() && self.may_send(tenure).await {
            let chunk = self.sort_out(rows.by_ref().take(self.batch), gate, &mut settled);
            let before = std::mem::replace(&mut settled, self.nothing());
            // The chunk before is settled while this one is on its way.
            let recorded;
            (sent, recorded) = tokio::join!(self.send(chunk, gate, &mut settled), self.record(before));
            recorded?;
        }
        self.record(settled).await?;
        sent
    }

    /// Publishes rows whose back-off is over, one of each key.
    pub(super) async fn again(&self, mut rows: Vec<OutboxRow>, gate: &mut Gate, tenure: &Tenure) -> Result<()> {
        if !self.may_send(tenure).await {
            return Ok(());
        }
        rows.sort_by_key(|row| row.id);
        let mut keys = HashSet::new();
        rows.retain(|row| row.key.as_ref().is_none_or(|key| keys.insert(key.clone())));
        let mut settled = self.nothing();
        let mut ready = Vec::with_capacity(rows.len());
        for row in rows {
            match read(&row) {
                Ok(event) => ready.push(Ready { row, event }),
                Err(error) => self.fail(&row, &error, &mut settled),
            }
        }
        let sent = self.send_run(ready, gate, &mut settled, true).await;
        gate.freed();
        self.record(settled).await?;
        sent
    }

    fn nothing(&self) -> Settled {
        Settled { keep: self.keep, ..Settled::default() }
    }

    /// Waits until enough is left of the lease. `false` if it is lost.
    async fn may_send(&self, tenure: &Tenure) -> bool {
        while !tenure.lost() {
            if tenure.left() > self.margin {
                return true;
            }
            if tenure.left().is_zero() {
                return false;
            }
            tokio::time::sleep(LOOK.min(self.margin)).await;
        }
        false
    }

    /// Puts aside what waits behind a failed row, and what cannot be read.
    fn sort_out(&self, rows: impl Iterator<Item = OutboxRow>, gate: &mut Gate, settled: &mut Settled) -> Vec<Ready> {
        let mut ready = Vec::new();
        for row in rows {
            if gate.holds(row.key.as_deref()) {
                settled.waiting.push(row.id);
                continue;
            }
            // What is known to be refused must not be overtaken by what is behind it in the same batch.
            match read(&row).and_then(|event| self.check(&row, &event).map(|()| event)) {
                Ok(event) => ready.push(Ready { row, event }),
                Err(error) => {
                    gate.block(row.key.as_deref());
                    self.fail(&row, &error, settled);
                }
            }
        }
        ready
    }

    /// Refuses what the publisher would refuse.
    fn check(&self, row: &OutboxRow, event: &DomainEvent) -> Result<()> {
        event.headers().check()?;
        if row.body.len() > self.max_payload {
            let message = format!("the body has {} bytes, max_payload is {}", row.body.len(), self.max_payload);
            return Err(Error::new(ErrorKind::PayloadTooLarge, message)
                .field("data", event.routing_key())
                .remedy("raise the relay's max_payload, and retry the row if it is FAILED"));
        }
        Ok(())
    }

    /// Publishes what is ready, in runs that a transport takes in order.
    async fn send(&self, ready: Vec<Ready>, gate: &mut Gate, settled: &mut Settled) -> Result<()> {
        let mut ready = ready.into_iter().peekable();
        while let Some(first) = ready.next() {
            let exchange = first.row.exchange.clone();
            let mut keys = HashSet::new();
            if !self.pipelined {
                keys.extend(first.event.key().map(str::to_owned));
            }
            let mut run = vec![first];
            while let Some(next) = ready.next_if(|next| {
                next.row.exchange == exchange
                    && (self.pipelined || next.event.key().is_none_or(|key| keys.insert(key.to_owned())))
            }) {
                run.push(next);
            }
            self.send_run(run, gate, settled, false).await?;
        }
        Ok(())
    }

    /// Publishes rows to one exchange; `again`: they have failed before, and their keys are held for them.
    async fn send_run(&self, run: Vec<Ready>, gate: &mut Gate, settled: &mut Settled, again: bool) -> Result<()> {
        let mut rows = Vec::with_capacity(run.len());
        let mut events = Vec::with_capacity(run.len());
        for Ready { row, event } in run {
            // An earlier run may have failed on this key.
            if !again && gate.holds(row.key.as_deref()) {
                settled.waiting.push(row.id);
            } else {
                rows.push(row);
                events.push(event);
            }
        }
        let Some(first) = rows.first() else { return Ok(()) };
        let results = match first.exchange.clone() {
            None => self.publisher.publish_batch(events).await,
            Some(exchange) => match self.publisher.clone().exchange(exchange) {
                Ok(publisher) => publisher.publish_batch(events).await,
                Err(error) => rows.iter().map(|_| Err(error.duplicate())).collect(),
            },
        };
        let mut broken = None;
        for (row, result) in rows.into_iter().zip(results) {
            match result {
                Ok(_) => settled.done.push(row.id),
                Err(error) if !is_about_the_event(&error) => broken = Some(error),
                // Of several that fail together, the first is tried again and the others wait behind it.
                Err(error) if again || gate.block(row.key.as_deref()) => self.fail(&row, &error, settled),
                Err(_) => settled.waiting.push(row.id),
            }
        }
        broken.map_or(Ok(()), Err)
    }

    fn fail(&self, row: &OutboxRow, error: &Error, settled: &mut Settled) {
        self.counters.failures.fetch_add(1, Relaxed);
        let retry_after = (row.attempts < self.retry.max_retries && !is_hopeless(error))
            .then(|| self.retry.delay(row.attempts, fastrand::f64()));
        if retry_after.is_none() {
            self.counters.parked.fetch_add(1, Relaxed);
            tracing::error!(row = row.id, %error, "a row of the outbox cannot be published and is FAILED");
        } else {
            tracing::warn!(row = row.id, %error, attempt = row.attempts + 1, "a row of the outbox was not taken");
        }
        settled.failed.push(Failed { id: row.id, error: error.to_string(), retry_after });
    }

    async fn record(&self, settled: Settled) -> Result<()> {
        if settled.is_empty() {
            return Ok(());
        }
        let done = settled.done.len() as u64;
        self.store.settle(&self.owner, settled).await?;
        self.counters.published.fetch_add(done, Relaxed);
        Ok(())
    }
}

/// The event that a row holds.
fn read(row: &OutboxRow) -> Result<DomainEvent> {
    let headers = match &row.headers {
        None => Headers::new(),
        Some(json) => serde_json::from_slice(json).map_err(|e| {
            Error::new(ErrorKind::InvalidHeader, format!("the headers of the row cannot be read: {e}"))
                .remedy("write events with an OutboxWriter")
        })?,
    };
    decode(&row.body, headers).map_err(|(error, _)| error)
}

/// Whether the same row will fail in the same way for ever.
fn is_hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidEvent | ErrorKind::InvalidRoutingKey | ErrorKind::InvalidHeader)
}
