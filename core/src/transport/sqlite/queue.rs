//! What callers hand to the writer thread, and how it is kept from growing without bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::{Fault, Step};
use super::tx::Tx;
use super::waiting::Next;
use crate::{Error, Result};

/// Requests that may wait, each of them counted once more for every [`UNIT`] bytes in it.
const ROOM: u32 = 8192;
const UNIT: usize = 16 * 1024;
/// How long the writer looks for the next request before it sleeps.
const LINGER: Duration = Duration::from_micros(50);

/// A request to the writer thread.
pub(super) enum Request {
    /// Something to do in a transaction.
    Work(Box<dyn Work>),
    /// A consumer asks for deliveries; answered when there are some.
    Next(Next),
    /// The process is about to fork: close the file, and open it again afterwards.
    LetGo,
}

/// Something to do in a transaction, together with whoever waits for its end.
pub(super) trait Work: Send {
    /// Does it. After a rollback it is run once more.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), rusqlite::Error>;

    /// Answers: what was done is durable, or `failed` says why nothing was.
    fn finish(self: Box<Self>, failed: Option<Error>);
}

/// Lets a caller withdraw a request as long as the writer has not begun with it.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    const BEGUN: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// `true`: it will not be done.
    pub(super) fn withdraw(&self) -> bool {
        self.0.compare_exchange(0, Self::WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn begin(&self) -> bool {
        self.0.compare_exchange(0, Self::BEGUN, Ordering::AcqRel, Ordering::Acquire) != Err(Self::WITHDRAWN)
    }
}

/// A closure as [`Work`].
pub(super) struct Call<T, F> {
    run: F,
    gate: Option<Arc<Gate>>,
    answer: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl<T, F> Call<T, F> {
    pub(super) fn new(
        run: F,
        gate: Option<Arc<Gate>>,
        reply: Option<oneshot::Sender<Result<T>>>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { run, gate, answer: None, reply, _room: room }
    }
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Step<T> + Send> Work for Call<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), rusqlite::Error> {
        if self.gate.as_ref().is_some_and(|gate| !gate.begin()) {
            return Ok(());
        }
        self.answer = Some(match (self.run)(tx) {
            Ok(value) => Ok(value),
            Err(Fault::Refused(error)) => Err(error),
            Err(Fault::Store(error)) => return Err(error),
        });
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<Error>) {
        let answer = match failed {
            Some(error) => Some(Err(error)),
            None => self.answer,
        };
        match (self.reply, answer) {
            // A caller that has gone does not want to know.
            (Some(reply), Some(answer)) => drop(reply.send(answer)),
            (None, Some(Err(error))) => tracing::warn!(%error, "work in the background of the store failed"),
            _ => {}
        }
    }
}

/// The requests that wait, in the order of their arrival.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// How many wait, to be looked at without the lock.
    arrived: AtomicUsize,
    room: Arc<Semaphore>,
}

struct Waiting {
    requests: VecDeque<Request>,
    sleeping: bool,
    open: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting { requests: VecDeque::new(), sleeping: false, open: true }),
            wake: Condvar::new(),
            arrived: AtomicUsize::new(0),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        }
    }

    /// Waits until there is room for a request with `bytes` in it. `None` once the queue is shut.
    pub(super) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(1 + bytes / UNIT).unwrap_or(ROOM).min(ROOM);
        self.room.clone().acquire_many_owned(units).await.ok()
    }

    /// `false`: the writer has ended, and nothing was taken.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.open {
            return false;
        }
        waiting.requests.push_back(request);
        self.arrived.store(waiting.requests.len(), Ordering::Relaxed);
        if waiting.sleeping {
            waiting.sleeping = false;
            self.wake.notify_one();
        }
        true
    }

    /// Looks for a request for a moment without going to sleep: whoever was just answered may ask again at once, and
    /// waking a thread takes longer than a commit without the disk.
    pub(super) fn linger(&self) {
        let until = Instant::now() + LINGER;
        while self.arrived.load(Ordering::Relaxed) == 0 && Instant::now() < until {
            for _ in 0..32 {
                std::hint::spin_loop();
            }
            std::thread::yield_now();
        }
    }

    /// Everything that waits; if nothing does, waits for the first until `until`. `None`: shut and drained.
    pub(super) fn take(&self, until: Option<Instant>, at_most: usize) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() && waiting.open {
            waiting.sleeping = true;
            let timed_out = if let Some(until) = until {
                self.wake.wait_until(&mut waiting, until).timed_out()
            } else {
                self.wake.wait(&mut waiting);
                false
            };
            waiting.sleeping = false;
            if timed_out {
                break;
            }
        }
        if waiting.requests.is_empty() && !waiting.open {
            return None;
        }
        let count = waiting.requests.len().min(at_most);
        let taken = waiting.requests.drain(..count).collect();
        self.arrived.store(waiting.requests.len(), Ordering::Relaxed);
        Some(taken)
    }

    /// No more requests; those that wait are still done.
    pub(super) fn shut(&self) {
        self.room.close();
        let mut waiting = self.waiting.lock();
        waiting.open = false;
        waiting.sleeping = false;
        self.wake.notify_one();
    }

    /// Drops what waits, so that its callers learn that nobody will answer.
    pub(super) fn abandon(&self) {
        self.shut();
        let abandoned = std::mem::take(&mut self.waiting.lock().requests);
        drop(abandoned);
    }
}
