//! One transaction for all that wait, and what becomes of those who wait for it.

use std::time::{Duration, Instant};

use super::super::error::{Fault, Step, is_busy};
use super::super::queue::{Call, Request, Work};
use super::super::registry::FileId;
use super::super::settle::{self, Verdict};
use super::super::tx::Tx;
use super::super::waiting::Served;
use super::super::{owner, purge, scheduled};
use super::{FAILED_PAUSE, FAILED_PAUSE_MAX, POLL_MIN, Writer, data_version};
use crate::{Error, ErrorKind};

/// Why a transaction did not come about.
enum Failed {
    /// Its beginning or its end: nothing in it is to blame.
    Whole(Error),
    /// A statement.
    Statement(Error),
}

impl Writer {
    /// Does all the work in one transaction; if a part of it fails, each in one of its own.
    pub(super) fn group(&mut self, mut work: Vec<Box<dyn Work>>) {
        let chores = self.not_before.is_none_or(|earliest| Instant::now() >= earliest);
        match self.attempt(&mut work, chores) {
            Ok(()) => {
                self.recovered();
                for task in work {
                    task.finish(None);
                }
            }
            Err(Failed::Whole(error)) => {
                for task in work {
                    task.finish(Some(error.duplicate()));
                }
                self.failed(&error);
            }
            Err(Failed::Statement(_)) => {
                for task in work {
                    let mut alone = [task];
                    let outcome = self.attempt(&mut alone, false);
                    let [task] = alone;
                    task.finish(outcome.err().map(|(Failed::Whole(error) | Failed::Statement(error))| error));
                }
                match self.attempt(&mut [], true) {
                    Ok(()) => self.recovered(),
                    Err(Failed::Whole(error) | Failed::Statement(error)) => self.failed(&error),
                }
            }
        }
    }

    fn recovered(&mut self) {
        self.pause = FAILED_PAUSE;
        if self.not_before.take().is_some() {
            for (_, source) in self.state.ledger.iter() {
                let mut health = source.health.lock();
                (health.connected, health.consuming) = (true, source.flowing && !source.stopped);
                health.recoveries += 1;
            }
        }
    }

    /// Consumers wait until the store works again, unless it never will by itself.
    fn failed(&mut self, error: &Error) {
        tracing::warn!(%error, "a transaction on the store failed");
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(FAILED_PAUSE_MAX);
        self.waiting.wake();
        for (_, source) in self.state.ledger.iter() {
            let mut health = source.health.lock();
            (health.connected, health.consuming) = (false, false);
            health.last_error = Some(error.to_string());
        }
        if !error.retryable() {
            self.waiting.fail(error);
        }
    }

    fn attempt(&mut self, work: &mut [Box<dyn Work>], chores: bool) -> Result<(), Failed> {
        let path = self.path.clone();
        self.begin().map_err(|fault| Failed::Whole(fault.into_error(&path)))?;
        let mut served = Vec::new();
        let done = self.inside(work, chores, &mut served);
        let failed = match done {
            Ok(()) => match self.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])) {
                Ok(_) => {
                    self.committed(served);
                    return Ok(());
                }
                Err(error) => {
                    // The disk may have kept what could not be confirmed; a full one or a lock takes nothing.
                    let error = Fault::from(error).into_error(&path);
                    let known =
                        [ErrorKind::StoreFull, ErrorKind::StoreBusy, ErrorKind::StoreReadOnly].contains(&error.kind());
                    Failed::Whole(if known { error } else { error.with_unknown_outcome() })
                }
            },
            Err(fault) => Failed::Statement(fault.into_error(&path)),
        };
        self.rolled_back(served);
        Err(failed)
    }

    /// Begins a transaction with the store's one lock. Waits for it in short steps with chance in them: SQLite's own
    /// handler sleeps ever longer, so that of two busy processes one gets all.
    fn begin(&mut self) -> Step<()> {
        // A file that was moved or replaced under us would take events that nobody finds.
        if !FileId::of(&self.path).is_ok_and(|id| id == self.id) {
            return Err(Error::new(
                ErrorKind::ConnectionFailed,
                "the file of the store was moved, replaced or deleted while it was open",
            )
            .field("path", self.path.display())
            .remedy("put it back, or close the store and connect again")
            .into());
        }
        let deadline = Instant::now() + self.state.options.busy_timeout;
        let mut longest = 200;
        loop {
            match self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
                Ok(_) => return Ok(()),
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_micros(fastrand::u64(50..longest)));
                    longest = (longest + longest / 4).min(2000);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn inside(&mut self, work: &mut [Box<dyn Work>], chores: bool, served: &mut Vec<Served>) -> Step<()> {
        let version = data_version(&self.conn)?;
        let now = self.clock.now();
        let stale = version != self.loaded;
        let mut tx = Tx { conn: &self.conn, clock: self.clock, now, state: &mut self.state };
        if stale {
            tx.reload()?;
        }
        if version != self.polled {
            // Another process wrote: any of those that wait may have got something.
            self.waiting.wake();
        }
        (self.loaded, self.polled) = (version, version);
        // Leases first: whatever is settled under one that has ended must find it gone.
        owner::sweep(&mut tx)?;
        if owner::next_renewal(tx.state) <= now {
            owner::renew(&mut tx)?;
        }
        for task in work {
            task.run(&mut tx)?;
        }
        if chores {
            scheduled::route_due(&mut tx)?;
            purge::subscriptions(&mut tx)?;
            purge::settled(&mut tx)?;
            self.waiting.serve(&mut tx, served)?;
        } else {
            self.waiting.wake();
        }
        Ok(())
    }

    fn committed(&mut self, served: Vec<Served>) {
        self.state.ledger.commit();
        self.state.touched.clear();
        if !served.is_empty() {
            self.poll = POLL_MIN;
        }
        for (source, claimed) in served.into_iter().filter_map(Served::answer) {
            let back: Vec<_> = claimed.into_iter().map(|incoming| (incoming.token, Verdict::Release)).collect();
            let release =
                Call::new(move |tx: &mut Tx<'_>| settle::settle(tx, source, &back).map(drop), None, None, None);
            // A queue that is shut has released everything before, with the source.
            self.queue.push(Request::Work(Box::new(release)));
        }
    }

    fn rolled_back(&mut self, served: Vec<Served>) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        self.state.ledger.rollback();
        self.state.touched.clear();
        self.state.bindings.forget();
        self.loaded = -1;
        self.waiting.restore(served);
    }
}
