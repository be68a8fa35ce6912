//! The thread that writes a store: everything that waits goes into one transaction (group commit).

mod group;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use super::clock::{self, Clock, NEVER};
use super::error::Step;
use super::queue::{Queue, Request};
use super::registry::{self, FileId};
use super::tx::State;
use super::url::Options;
use super::waiting::Waiting;
use super::{open, owner};

/// Most requests of one transaction.
const GROUP: usize = 4096;
/// How often other processes are looked at while somebody waits: at first, and after a while of nothing.
const POLL_MIN: Duration = Duration::from_millis(1);
const POLL_MAX: Duration = Duration::from_millis(10);
/// Pause after a failure, so that a full disk is not asked all the time: at first, and at most.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A write-ahead log beyond this is cut, even if readers must be waited for.
const WAL_LIMIT: u64 = 64 * 1024 * 1024;
/// Transactions between two looks at the size of the log.
const WAL_LOOK: u32 = 256;

pub(super) struct Writer {
    conn: Connection,
    clock: Clock,
    queue: Arc<Queue>,
    state: State,
    waiting: Waiting,
    path: PathBuf,
    id: FileId,
    /// What `PRAGMA data_version` said when the state was read, and when others were looked at last.
    loaded: i64,
    polled: i64,
    poll: Duration,
    not_before: Option<Instant>,
    pause: Duration,
    transactions: u32,
    ended: watch::Sender<bool>,
}

/// Says that the thread has ended, however it did.
struct End(FileId, Arc<Queue>, watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        self.1.abandon();
        registry::forget(&self.0);
        self.2.send_replace(true);
    }
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        clock: Clock,
        queue: Arc<Queue>,
        options: Options,
        id: FileId,
        ended: watch::Sender<bool>,
    ) -> Self {
        let path = options.path.clone();
        Self {
            conn,
            clock,
            queue,
            state: State::new(options),
            waiting: Waiting::default(),
            path,
            id,
            loaded: -1,
            polled: -1,
            poll: POLL_MIN,
            not_before: None,
            pause: FAILED_PAUSE,
            transactions: 0,
            ended,
        }
    }

    /// Works until the queue is shut and drained.
    pub(super) fn run(self) {
        let _end = End(self.id.clone(), self.queue.clone(), self.ended.clone());
        // Declared later, so dropped earlier, after a panic too: nobody is told of the end while the file is open.
        let mut writer = self;
        while writer.work() {
            let Some(back) = writer.stand_aside() else { return };
            writer = back;
        }
        if let Err(error) = clock::remember(&writer.conn, writer.clock.now()) {
            tracing::debug!(?error, "the store's time was not written at its end");
        }
    }

    /// Closes the file while the process forks and opens it again. `None`: shut before it could be opened.
    fn stand_aside(mut self) -> Option<Self> {
        drop(self.conn);
        registry::stand_aside(&self.id);
        let mut pause = FAILED_PAUSE;
        (self.conn, self.clock) = loop {
            let error = match open::connect(&self.state.options) {
                Ok(opened) => break opened,
                Err(error) => error,
            };
            tracing::warn!(%error, "the store could not be opened again after a fork");
            for request in self.queue.take(Some(Instant::now() + pause), GROUP)? {
                match request {
                    Request::Work(task) => task.finish(Some(error.duplicate())),
                    Request::Next(next) => self.waiting.push(next),
                    Request::LetGo => registry::stand_aside(&self.id),
                }
            }
            pause = (pause * 2).min(FAILED_PAUSE_MAX);
        };
        // What was read before may have changed, and another connection counts versions anew.
        (self.loaded, self.polled) = (-1, -1);
        self.waiting.wake();
        Some(self)
    }

    /// `true`: the process is about to fork. `false`: the queue is shut and drained.
    fn work(&mut self) -> bool {
        while let Some(requests) = self.queue.take(self.wake_at(), GROUP) {
            let mut work = Vec::with_capacity(requests.len());
            let mut forking = false;
            for request in requests {
                match request {
                    Request::Work(task) => work.push(task),
                    Request::Next(next) => self.waiting.push(next),
                    Request::LetGo => forking = true,
                }
            }
            if !work.is_empty() || self.is_due() {
                let asked = !work.is_empty();
                self.group(work);
                self.between_groups();
                if asked && !forking {
                    self.queue.linger();
                }
            }
            if forking {
                return true;
            }
        }
        false
    }

    /// When the thread has to do something although nobody asks.
    fn wake_at(&self) -> Option<Instant> {
        let now = self.clock.now();
        let watching = self.waiting.watching(&self.state);
        let due = self.next_due(watching);
        let soonest = if watching { Some(self.poll) } else { None };
        let due = (due != NEVER).then(|| Duration::from_micros(u64::try_from(due.saturating_sub(now)).unwrap_or(0)));
        let pause = [soonest, due].into_iter().flatten().min()?;
        let at = Instant::now() + pause;
        Some(self.not_before.map_or(at, |earliest| at.max(earliest)))
    }

    /// When the next chore or delivery falls due.
    fn next_due(&self, watching: bool) -> i64 {
        let state = &self.state;
        [
            self.waiting.due(state),
            if watching { state.lease_end } else { NEVER },
            state.scheduled,
            owner::next_renewal(state),
            if state.purging.is_empty() { NEVER } else { 0 },
        ]
        .into_iter()
        .min()
        .unwrap_or(NEVER)
    }

    /// Whether a transaction is needed although nobody asked for one. Looks at other processes without a lock.
    fn is_due(&mut self) -> bool {
        if self.not_before.is_some_and(|earliest| Instant::now() < earliest) {
            return false;
        }
        let watching = self.waiting.watching(&self.state);
        if watching && self.next_due(true) > self.clock.now() {
            match self.look() {
                Ok(true) => self.poll = POLL_MIN,
                Ok(false) => {
                    self.poll = (self.poll + self.poll / 128).min(POLL_MAX);
                    return false;
                }
                Err(fault) => {
                    tracing::debug!(?fault, "other processes' writes could not be looked at");
                    return false;
                }
            }
        }
        self.next_due(watching) <= self.clock.now()
    }

    /// Whether another process has written; if so, what falls due is read again.
    fn look(&mut self) -> Step<bool> {
        let version = data_version(&self.conn)?;
        if version == self.polled {
            return Ok(false);
        }
        self.polled = version;
        self.waiting.peek(&self.conn, &self.state)?;
        let times = "SELECT (SELECT min(until) FROM tidings_owner), (SELECT min(due) FROM tidings_scheduled),
                     (SELECT version FROM tidings_binding_version)";
        let (lease, due, bindings): (Option<i64>, Option<i64>, i64) =
            self.conn.prepare_cached(times)?.query_row([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        self.state.lease_end = lease.unwrap_or(NEVER);
        self.state.scheduled = due.unwrap_or(NEVER);
        if !self.state.bindings.is_at(bindings) {
            self.waiting.wake();
        }
        Ok(true)
    }

    fn between_groups(&mut self) {
        if std::mem::take(&mut self.state.options_changed)
            && let Err(error) = open::synchronous(&self.conn, &self.state.options)
        {
            tracing::error!(?error, "the store's options could not be changed");
        }
        self.transactions = self.transactions.wrapping_add(1);
        if self.transactions.is_multiple_of(WAL_LOOK) {
            let mut log = self.path.clone().into_os_string();
            log.push("-wal");
            if fs::metadata(log).is_ok_and(|meta| meta.len() > WAL_LIMIT) {
                self.cut_log();
            }
        }
    }

    /// Waits a moment for readers, then writes the log into the file and empties it.
    fn cut_log(&self) {
        let cut = self.conn.busy_timeout(Duration::from_millis(100)).and_then(|()| {
            self.conn
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .and(self.conn.busy_timeout(Duration::ZERO))
        });
        if let Err(error) = cut {
            tracing::debug!(%error, "the write-ahead log could not be cut");
        }
    }
}

/// Another number once another connection has written.
fn data_version(conn: &Connection) -> Result<i64, rusqlite::Error> {
    conn.prepare_cached("PRAGMA data_version")?.query_row([], |r| r.get(0))
}
