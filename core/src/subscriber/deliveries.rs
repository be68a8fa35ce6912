//! [`Deliveries`]: the batch interface for hosts.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::session::{Phase, Session, Taken};
use super::{Delivery, SubscriptionHealth, settler};
use crate::Result;
use crate::settlement::Outcome;

/// The events of one subscription, to be pulled, handled and settled in batches.
///
/// The engine never calls a handler here: a host takes deliveries with [`next`](Self::next), runs whatever it likes in
/// whatever way it likes, and says what came of it with [`settle`](Self::settle). On an ordered subscription `next`
/// hands over an event only once its predecessor of the same key is settled. Dropping a delivery releases it; dropping
/// `Deliveries` releases everything that nobody has in hand.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::{Broker, DomainEvent, Outcome};
///
/// let broker = Broker::connect("memory:").await?;
/// let deliveries = broker.subscriber().subscription("billing").bind("order.*").deliveries().await?;
/// broker.publisher().publish(DomainEvent::new("order.placed", &7)?).await?;
///
/// let batch = deliveries.next(100).await?;
/// assert_eq!(batch[0].event().data::<u64>()?, 7);
/// deliveries.settle(batch.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Deliveries {
    pub(super) session: Arc<Session>,
    /// The task that settles, until the subscription is closed.
    settler: Mutex<Option<JoinHandle<()>>>,
    runtime: Handle,
}

impl Deliveries {
    pub(super) fn start(session: Arc<Session>) -> Self {
        let runtime = Handle::current();
        runtime.spawn(session.clone().pump());
        let settler = runtime.spawn(settler::run(session.clone()));
        Self { session, settler: Mutex::new(Some(settler)), runtime }
    }

    /// Waits for at least one event and hands over at most `max`. Empty once the subscription is closed.
    ///
    /// May be called from many tasks at once and cancelled at any time: nothing is taken out until it returns.
    pub async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        self.session.home.check()?;
        self.session.next(max.max(1)).await
    }

    /// What is there without waiting, at most `max`; `None` once the subscription is closed.
    pub fn try_next(&self, max: usize) -> Result<Option<Vec<Delivery>>> {
        self.session.home.check()?;
        match self.session.take(max.max(1)) {
            Taken::Some(deliveries) => Ok(Some(deliveries)),
            Taken::Nothing => Ok(Some(Vec::new())),
            Taken::Ended(None) => Ok(None),
            Taken::Ended(Some(error)) => Err(error),
        }
    }

    /// Settles deliveries and waits until that is durable. The first error, if any; all others are settled all the same.
    /// Deliveries of another subscription are settled there.
    ///
    /// Errors: `STALE_DELIVERY` where a connection or lease was lost: the event is delivered again. After any other
    /// error the engine goes on trying until the subscription is closed. Cancelling the wait does not take the
    /// settlement back.
    pub async fn settle(&self, batch: Vec<(Delivery, Outcome)>) -> Result<()> {
        self.session.home.check()?;
        self.session.settle(batch).await
    }

    /// Settles deliveries without waiting; failures are counted and logged.
    pub fn settle_soon(&self, batch: impl IntoIterator<Item = (Delivery, Outcome)>) {
        if self.session.home.is_here() {
            self.session.settle_soon(batch);
        }
    }

    /// Counts handlers that have run, and the time that they took together: hosts run them, the metrics are here.
    pub fn count_handled(&self, runs: u64, took: Duration) {
        self.session.counters.handled(runs, took);
    }

    /// Takes back deliveries whose handlers have not begun: they wait again, in their order, before the others.
    ///
    /// For hosts that take several events for one handler and find that it takes long.
    pub fn put_back(&self, batch: Vec<Delivery>) {
        self.session.put_back(batch.into_iter());
    }

    /// Stops handing events over and gives back those that wait. Deliveries in hand can still be settled.
    pub async fn pause(&self) -> Result<()> {
        self.session.home.check()?;
        self.session.pause().await
    }

    /// Goes on after a pause.
    pub async fn resume(&self) -> Result<()> {
        self.session.home.check()?;
        self.session.resume().await
    }

    /// Whether the subscription is really consuming.
    pub fn health(&self) -> SubscriptionHealth {
        self.session.health()
    }

    /// Drains: hands over nothing more, waits up to `timeout` for deliveries in hand to be settled, releases the rest.
    ///
    /// Returns how many were released unfinished. May be called twice; the second call finds nothing to do.
    pub async fn close(&self, timeout: Duration) -> Result<usize> {
        self.session.home.check()?;
        let unfinished = self.drain(timeout).await;
        self.finish(timeout).await;
        Ok(unfinished)
    }

    /// The first half of [`close`](Self::close): starts nothing new and waits for what is in hand. How many still are.
    pub(super) async fn drain(&self, timeout: Duration) -> usize {
        if self.session.phase() == Phase::Closed {
            return 0;
        }
        self.session.begin_drain();
        self.session.source.stop().await;
        // Running out of time is one of the two expected ends.
        let _in_time = tokio::time::timeout(timeout, self.session.until_idle()).await;
        self.session.in_hand()
    }

    /// The second half: writes what is decided and releases the rest.
    pub(super) async fn finish(&self, timeout: Duration) {
        self.session.close();
        let mut settler = self.settler.lock().await;
        let Some(task) = settler.as_mut() else { return };
        // What is decided is written before the source lets go; it ends with the queue because the phase is closed.
        if !task.is_finished() && tokio::time::timeout(timeout.max(Duration::from_secs(5)), task).await.is_err() {
            tracing::warn!(subscription = %self.session.spec.name, "settlements were not written in time; their events come again");
        }
        self.session.source.close().await;
        *settler = None;
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        if self.settler.get_mut().is_none() || !self.session.home.is_here() {
            return;
        }
        self.session.begin_drain();
        let session = self.session.clone();
        // On the runtime that it was opened on: a host may drop it on any thread. If that runtime has ended, the
        // source's own drop releases.
        self.runtime.spawn(async move {
            session.source.stop().await;
            // A close that was given up half-way has waited already.
            if session.phase() != Phase::Closed {
                session.until_idle().await;
            }
            session.close();
            session.source.close().await;
        });
    }
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("health", &self.health()).finish()
    }
}
