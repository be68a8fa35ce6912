//! One session: parts, polls, pauses.

use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::page::Sender;
use super::tenure::{News, Tenure};
use super::worker::Worker;
use crate::broker::Broker;
use crate::outbox::{Member, PollLimit};
use crate::{Error, ErrorKind, Result};
use std::sync::atomic::Ordering::Relaxed;

/// Batches of one poll: the table is entered less often, and less of what is already deleted is passed over.
const BATCHES: usize = 10;
/// Bytes of one poll.
const PAGE_BYTES: usize = 32 * 1024 * 1024;
/// Shortest time between two polls, so that what commits together is published together.
const COALESCE: Duration = Duration::from_millis(4);
/// Shortest pause when there was nothing.
const IDLE: Duration = Duration::from_millis(10);
/// How often scheduled rows are looked for, at least, while there is work.
const PROMOTE: Duration = Duration::from_secs(1);
/// Pause after the broker has failed: at first, and at most.
const BROKEN: Duration = Duration::from_millis(100);
const BROKEN_MAX: Duration = Duration::from_secs(5);

/// A relay at work under one name.
pub(super) struct Session<'a> {
    worker: &'a mut Worker,
    sender: Sender,
    broker: Broker,
    fenced: bool,
    tenure: Tenure,
    gate: Gate,
    parts: Vec<u16>,
    /// The last news that parts were divided by.
    round: u64,
    promote_at: Instant,
    /// When the next row of our parts falls due, as far as is known.
    due_at: Option<Instant>,
    idle: Duration,
    ears: Ears,
}

/// Whether the wake-up says when there is something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ears {
    Hearing,
    /// The relay looks without having been told to.
    Listening,
    /// There was something, and nothing was said: a writer that does not notify, or a pooler that lets no notification
    /// through. The relay polls as if there was no wake-up, until it says something.
    Deaf,
}

impl<'a> Session<'a> {
    pub(super) fn new(worker: &'a mut Worker, broker: Broker, fenced: bool, tenure: Tenure) -> Result<Self> {
        let sender = Sender::new(worker, &broker, tenure.owner.clone())?;
        let gate = Gate::new(worker.settings.on_failed);
        let now = Instant::now();
        Ok(Self {
            worker,
            sender,
            broker,
            fenced,
            tenure,
            gate,
            parts: Vec::new(),
            round: 0,
            promote_at: now,
            due_at: None,
            idle: IDLE,
            ears: Ears::Hearing,
        })
    }

    /// Works until the relay is stopped, or its entry or its fence is lost.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut broken = BROKEN;
        while !self.worker.is_stopped() && !self.tenure.lost() {
            self.divide().await?;
            if self.parts.is_empty() {
                self.wait(PROMOTE, false).await;
                continue;
            }
            self.worker.notes.working(self.parts.len());
            let began = Instant::now();
            match self.work().await {
                Ok(more) => {
                    broken = BROKEN;
                    if !more {
                        self.pause(began).await;
                    }
                }
                // The rows are where they were: only the broker has to come back.
                Err(error) if error.retryable() && !self.fenced => {
                    self.worker.notes.failed(&error);
                    tracing::warn!(%error, "the relay cannot publish, trying again");
                    self.worker.rest(broken + broken.mul_f64(fastrand::f64() / 2.0)).await;
                    broken = (broken * 2).min(BROKEN_MAX);
                }
                Err(error) => return self.ended(error).await,
            }
        }
        Ok(())
    }

    /// A fenced session ends with its connection; one whose broker only refuses goes on.
    async fn ended(self, error: Error) -> Result<()> {
        if self.fenced && error.retryable() && self.broker.ping().await.is_ok() {
            self.worker.notes.failed(&error);
            self.worker.rest(BROKEN_MAX.min(self.worker.settings.lease / 4)).await;
        }
        Err(error)
    }

    /// One round: scheduled rows, rows tried again, rows that are ready. Whether there is more to do at once.
    async fn work(&mut self) -> Result<bool> {
        let store = self.worker.store.clone();
        let now = Instant::now();
        if now >= self.promote_at {
            let due = store.promote(&self.parts).await?;
            self.due_at = due.map(|due| Instant::now() + due);
            self.promote_at = Instant::now() + PROMOTE.min(due.unwrap_or(PROMOTE)).max(IDLE);
        }
        if self.due_at.is_some_and(|due| due <= Instant::now()) {
            let rows = store.poll_retries(&self.parts, self.worker.settings.batch).await?;
            if !rows.is_empty() {
                self.sender.again(rows, &mut self.gate, &self.tenure).await?;
            }
            self.promote_at = Instant::now();
        }
        if self.gate.due().is_some_and(|due| due <= Instant::now()) {
            self.gate.refresh(&*store, &self.tenure.owner, &self.parts, false).await?;
        }
        let limit = PollLimit::new(self.worker.settings.batch.saturating_mul(BATCHES), PAGE_BYTES);
        let page = store.poll(&self.parts, limit).await?;
        self.worker.counters.polls.fetch_add(1, Relaxed);
        if page.rows.is_empty() {
            return Ok(false);
        }
        if self.ears == Ears::Listening {
            tracing::debug!("rows were there that no wake-up told of: polling");
            self.ears = Ears::Deaf;
        }
        self.idle = IDLE;
        let stopped = self.worker.stopped.clone();
        self.sender.page(page.rows, &mut self.gate, &self.tenure, &stopped).await?;
        Ok(page.more)
    }

    /// Rests after everything there was is published.
    async fn pause(&mut self, began: Instant) {
        let coalesce = COALESCE.saturating_sub(began.elapsed());
        if self.idle == IDLE && !coalesce.is_zero() {
            tokio::time::sleep(coalesce).await;
        }
        let told = self.worker.wake_up.is_some() && self.ears != Ears::Deaf;
        let most = self.worker.settings.poll_interval.saturating_mul(if told { 10 } else { 1 });
        let pause = if told { most } else { self.idle.min(most) };
        self.idle = (self.idle * 2).min(most);
        let now = Instant::now();
        let until =
            [self.due_at, self.gate.due()].into_iter().flatten().map(|at| at.saturating_duration_since(now)).min();
        let time = until.map_or(pause, |until| until.min(pause));
        let woken = self.wait(time, true).await;
        if woken {
            self.ears = Ears::Hearing;
        } else if told {
            // What falls due by itself is not told of.
            self.ears = if time == pause { Ears::Listening } else { Ears::Hearing };
        }
        if self.due_at.is_some_and(|due| due <= Instant::now()) {
            self.promote_at = Instant::now();
        }
    }

    /// Waits for a wake-up, for news about the other relays, or for `time` to pass. Whether it was the wake-up.
    async fn wait(&mut self, time: Duration, woken: bool) -> bool {
        let mut stopped = self.worker.stopped.clone();
        let mut news = self.tenure.news.clone();
        let round = self.round;
        let wake_up = async {
            match self.worker.wake_up.as_mut().filter(|_| woken) {
                Some(wake_up) => wake_up.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake_up => {
                // Rows that were written for later count too.
                self.promote_at = self.promote_at.min(Instant::now() + COALESCE);
                return true;
            }
            _ = stopped.wait_for(|stopped| *stopped) => {}
            _ = news.wait_for(|news| news.round > round) => {}
            () = tokio::time::sleep(time) => {}
        }
        false
    }

    /// Takes over from relays whose time has passed, and takes or gives parts so that all have the same share.
    async fn divide(&mut self) -> Result<()> {
        let news = self.tenure.news.borrow().clone();
        if news.round == self.round {
            return Ok(());
        }
        self.round = news.round;
        let News { mut members, .. } = news;
        for dead in members
            .extract_if(.., |member| member.left.is_zero() && *member.owner != *self.tenure.owner)
            .collect::<Vec<_>>()
        {
            if !self.evict(&dead).await? {
                members.push(dead);
            }
        }
        let share = 256usize.div_ceil(members.len().max(1));
        let (store, owner) = (self.worker.store.clone(), self.tenure.owner.clone());
        if self.parts.len() > share {
            let given = self.parts.split_off(share);
            store.release(&owner, &given).await?;
        } else if self.parts.len() < share {
            let had = self.parts.len();
            self.parts = store.acquire(&owner, share - had).await?;
            if self.parts.len() > had {
                self.gate.refresh(&*store, &owner, &self.parts, true).await?;
                self.promote_at = Instant::now();
                self.idle = IDLE;
            }
        }
        self.tenure.set_hungry(self.parts.len() < 256 / members.len().max(1));
        self.worker.counters.parts.store(self.parts.len() as u64, Relaxed);
        Ok(())
    }

    /// Removes the entry of a relay that is gone. `false` if it may still publish.
    async fn evict(&self, dead: &Member) -> Result<bool> {
        let transport = self.worker.broker.transport();
        if !dead.fence.is_empty()
            && dead.fence == transport.capabilities().name
            && !transport.fence_is_gone(&dead.owner).await?
        {
            return Ok(false);
        }
        if !self.worker.store.evict(&dead.owner).await? {
            return Ok(false);
        }
        tracing::info!(relay = dead.owner, "took over from a relay that is gone");
        self.worker.counters.takeovers.fetch_add(1, Relaxed);
        Ok(true)
    }
}

/// Whether the broker refused this one event, rather than could not be reached.
pub(super) fn is_about_the_event(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::ConnectionFailed
            | ErrorKind::Timeout
            | ErrorKind::Closed
            | ErrorKind::TlsFailed
            | ErrorKind::ForkedClient
            | ErrorKind::StoreFull
            | ErrorKind::StoreBusy
            | ErrorKind::StoreCorrupt
            | ErrorKind::StoreReadOnly
    )
}
