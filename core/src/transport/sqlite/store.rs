//! A store as its users in this process share it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::error::Step;
use super::queue::{Call, Gate, Queue, Request};
use super::tx::Tx;
use super::waiting::Next;
use crate::host::Process;
use crate::transport::Incoming;
use crate::{Error, ErrorKind, Result};

/// The way to the writer thread of one file. The thread ends when the last of these is dropped.
pub(super) struct Store {
    pub(super) path: PathBuf,
    home: Process,
    queue: Arc<Queue>,
    ended: watch::Receiver<bool>,
    ids: AtomicU64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(path: PathBuf, queue: Arc<Queue>, ended: watch::Receiver<bool>) -> Self {
        Self { path, home: Process::here(), queue, ended, ids: AtomicU64::new(1) }
    }

    /// A number that nothing else of this store has.
    pub(super) fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Turns true when the thread has closed the file.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Does `run` in the next transaction; returns once that is durable. `bytes` is roughly what `run` holds.
    pub(super) async fn call<T, F>(&self, bytes: usize, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Step<T> + Send + 'static,
    {
        self.check()?;
        let room = self.queue.room(bytes).await.ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call::new(run, None, Some(reply), Some(room)));
        if !self.queue.push(Request::Work(work)) {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(lost().with_unknown_outcome()))
    }

    /// As [`call`](Self::call), but given up on at `deadline`.
    pub(super) async fn call_until<T, F>(&self, bytes: usize, deadline: Instant, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Step<T> + Send + 'static,
    {
        self.check()?;
        let late = || {
            Error::new(ErrorKind::Timeout, "the store did not confirm in time")
                .field("path", self.path.display())
                .remedy("try again, or give it more time")
        };
        let Ok(room) = tokio::time::timeout_at(deadline, self.queue.room(bytes)).await else { return Err(late()) };
        let room = room.ok_or_else(closed)?;
        let gate = Arc::new(Gate::default());
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call::new(run, Some(gate.clone()), Some(reply), Some(room)));
        if !self.queue.push(Request::Work(work)) {
            return Err(closed());
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost().with_unknown_outcome())),
            Err(_) if gate.withdraw() => Err(late()),
            Err(_) => Err(late().with_unknown_outcome()),
        }
    }

    /// Does `run` some time soon, without room of its own and without an answer: for `Drop`.
    pub(super) fn post<F>(&self, run: F)
    where
        F: FnMut(&mut Tx<'_>) -> Step<()> + Send + 'static,
    {
        if self.check().is_ok() {
            // A writer that has ended has nothing left to do it on.
            self.queue.push(Request::Work(Box::new(Call::new(run, None, None, None))));
        }
    }

    /// Waits for deliveries of a source.
    pub(super) async fn next(&self, source: u64, max: usize) -> Result<Vec<Incoming>> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        if !self.queue.push(Request::Next(Next::new(source, max, reply))) {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Asks the thread to let go of the file until the fork is over that is about to happen.
    pub(super) fn let_go(&self) {
        // A writer that has ended has let go.
        self.queue.push(Request::LetGo);
    }

    /// A child process must not touch what its parent has open: the locks are the parent's.
    pub(super) fn check(&self) -> Result<()> {
        if self.home.is_here() { Ok(()) } else { Err(forked(&self.path)) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // In a child the thread does not exist, and its lock may be held for ever.
        if self.home.is_here() {
            self.queue.shut();
        }
    }
}

pub(super) fn forked(path: &std::path::Path) -> Error {
    Error::new(ErrorKind::ForkedClient, "the store was opened before a fork and is used in the child")
        .field("path", path.display())
        .remedy("connect in the child; a process that forks must call host::before_fork() before")
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed").remedy("connect again")
}

fn lost() -> Error {
    Error::new(ErrorKind::ConnectionFailed, "the store's writer ended while it had this request")
        .remedy("connect again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_of_the_parent_is_refused_in_the_child() {
        let (_sender, ended) = watch::channel(false);
        let queue = Arc::new(Queue::new());
        let mut store = Store::new("x.db".into(), queue.clone(), ended);
        // As it is after a fork: the store was opened by another process.
        store.home = Process::elsewhere();
        assert_eq!(store.call(0, |_| Ok(())).await.unwrap_err().code(), "FORKED_CLIENT");
        assert_eq!(store.next(1, 1).await.unwrap_err().code(), "FORKED_CLIENT");
        store.post(|_| Ok(()));
        drop(store);
        assert!(queue.room(0).await.is_some(), "nothing of the parent's was touched");
    }
}
