//! Publishing: a bounded queue in front of one task that keeps thousands of messages in flight.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::connection::Connector;
use super::driver::Driver;
use super::error;
use super::outbound::{Batch, Outbound, Outcome, Reply};
use super::pipeline::Pipeline;
use crate::transport::QueueType;
use crate::{Error, ErrorKind, Result};

/// Messages that are queued or in flight at most (large bodies count as several).
pub(super) const CAPACITY: usize = 8192;
/// Messages that are handed over at once at most.
const CHUNK: usize = 1024;
/// Time that publishes in flight get when the transport is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the task is asked to do.
pub(super) enum Command {
    /// Publish these, in order.
    Publish(Vec<Outbound>),
    /// Finish what is there, then end.
    Close,
}

/// The handle of the publishing task. Messages are sent in the order of the calls.
pub(super) struct Publisher {
    queue: mpsc::Sender<Command>,
    permits: Arc<Semaphore>,
    driver: Arc<Driver>,
    /// Held while one call hands over its messages, so that another one cannot get in between.
    turn: tokio::sync::Mutex<()>,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("room", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Starts the task. It connects when there is something to publish.
    pub(super) fn start(connector: Arc<Connector>, infrastructure: QueueType) -> Self {
        // Every command but `Close` holds at least one permit, so there is always room.
        let (queue, inbox) = mpsc::channel(CAPACITY + 1);
        let permits = Arc::new(Semaphore::new(CAPACITY));
        let pipeline = Pipeline::new(connector, inbox, permits.clone(), infrastructure);
        let (driver, task) = Driver::start(pipeline.run(), permits.clone());
        let task = parking_lot::Mutex::new(Some(task));
        Self { queue, permits, driver, turn: tokio::sync::Mutex::new(()), task, closed: AtomicBool::new(false) }
    }

    /// Publishes what `make` turns into messages; one outcome each, in order.
    pub(super) async fn publish<T>(
        &self,
        items: Vec<T>,
        make: impl Fn(T, Reply) -> Result<Outbound, (Reply, Error)>,
    ) -> Vec<Outcome> {
        let batch = Batch::new(items.len());
        // With many at once, this thread makes the next ones while another one sends.
        let call = self.driver.enter(items.len() == 1);
        if !items.is_empty() {
            self.hand_over(items, &batch, make).await;
        }
        std::future::poll_fn(|cx| {
            let driving = call.drive(cx);
            batch.poll_outcomes((!driving).then_some(cx.waker()))
        })
        .await
    }

    async fn hand_over<T>(
        &self,
        items: Vec<T>,
        batch: &Arc<Batch>,
        make: impl Fn(T, Reply) -> Result<Outbound, (Reply, Error)>,
    ) {
        let turn = self.turn.lock().await;
        let mut chunk = Vec::with_capacity(items.len().min(CHUNK));
        let mut weight = 0;
        for (index, item) in items.into_iter().enumerate() {
            match make(item, batch.reply(index)) {
                Ok(out) => {
                    if chunk.len() == CHUNK || weight + out.weight() > CAPACITY / 4 && !chunk.is_empty() {
                        self.send(std::mem::take(&mut chunk), std::mem::take(&mut weight)).await;
                    }
                    weight += out.weight();
                    chunk.push(out);
                }
                Err((mut reply, error)) => reply.finish(Err(error)),
            }
        }
        if !chunk.is_empty() {
            self.send(chunk, weight).await;
        }
        drop(turn);
    }

    async fn send(&self, mut chunk: Vec<Outbound>, weight: usize) {
        let deadline = chunk.iter().filter_map(|out| out.deadline).min();
        let weight = u32::try_from(weight.min(CAPACITY)).unwrap_or(u32::MAX);
        let room = async {
            // Mostly there is room, and no timer is needed. Only one call at a time is here, so none is overtaken.
            match (self.permits.try_acquire_many(weight), deadline) {
                (Ok(permits), _) => Ok(Ok(permits)),
                (Err(_), Some(deadline)) => tokio::time::timeout_at(deadline, self.permits.acquire_many(weight)).await,
                (Err(_), None) => Ok(self.permits.acquire_many(weight).await),
            }
        };
        let error = match room.await {
            _ if self.closed.load(Ordering::Acquire) => error::closed(),
            Ok(Ok(permits)) => {
                // The task gives them back, message by message.
                permits.forget();
                match self.queue.send(Command::Publish(chunk)).await {
                    Err(mpsc::error::SendError(Command::Publish(unsent))) => chunk = unsent,
                    Ok(()) | Err(_) => return,
                }
                error::closed()
            }
            Ok(Err(_)) => error::closed(),
            Err(_) => {
                Error::new(ErrorKind::Timeout, "the queue of unconfirmed publishes stayed full, the event was not sent")
                    .remedy("check the broker, publish less at once, or raise publish_timeout")
            }
        };
        for out in &mut chunk {
            out.reply.finish(Err(error.duplicate()));
        }
    }

    /// Lets what was handed over finish, for a bounded time.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.driver.close();
        let task = self.task.lock().take();
        let Some(mut task) = task else { return };
        // It has ended already if nobody listens.
        if self.queue.send(Command::Close).await.is_ok()
            && tokio::time::timeout(CLOSE_TIMEOUT, &mut task).await.is_err()
        {
            tracing::warn!("publishes were still unconfirmed when the broker handle was closed");
        }
        task.abort();
        self.permits.close();
    }
}
