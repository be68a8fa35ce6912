//! The publishing task: declares, sends, collects confirms, and starts again on a new connection where the last
//! confirm ended.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, Sleep};

use super::connection::{Connector, Live, answer_in_time, backoff};
use super::error;
use super::outbound::{Needs, Outbound};
use super::publisher::{CAPACITY, Command};
use super::topology::Declarer;
use super::window::{Lost, Window};
use crate::transport::QueueType;
use crate::{Error, ErrorKind, Result};

/// How often deadlines are looked at, and confirms that came out of order, while something is in flight.
const TICK: Duration = Duration::from_millis(20);

/// Confirms out of order are looked for after a tick without a confirm in order for each so many in flight.
const SWEPT_PER_TICK: usize = 128;
/// Ticks between two such looks at most.
const MOST_TICKS: usize = 256;

/// With this many in flight, what is published is taken in at intervals of [`PACE`] only: the broker works through a few
/// large segments with much less effort than through many small ones, and has enough to do meanwhile.
const BUSY: usize = 64;
/// For each [`BUSY`] × 4 in flight; the timer makes it up to 1 ms more.
const PACE: Duration = Duration::from_millis(1);
/// At most so many of these.
const SLOWEST: u32 = 4;

/// The state of the publishing task.
pub(super) struct Pipeline {
    connector: Arc<Connector>,
    inbox: mpsc::Receiver<Command>,
    permits: Arc<Semaphore>,
    infrastructure: QueueType,
    /// Not sent on this connection yet, in order.
    backlog: VecDeque<Outbound>,
    /// Declared on this connection.
    declared: HashSet<Needs>,
    /// Messages in flight at most. Small while the one that makes the server close the channel is looked for.
    limit: usize,
    closing: bool,
    /// Why there is no connection.
    last_error: Option<Error>,
    /// Something was sent less than [`PACE`] ago.
    paced: bool,
}

/// What the task was woken for.
enum Wake {
    Inbox,
    Confirms(usize),
    Lost(lapin::Error),
    Tick,
}

impl Pipeline {
    pub(super) fn new(
        connector: Arc<Connector>,
        inbox: mpsc::Receiver<Command>,
        permits: Arc<Semaphore>,
        infrastructure: QueueType,
    ) -> Self {
        Self {
            connector,
            inbox,
            permits,
            infrastructure,
            backlog: VecDeque::new(),
            declared: HashSet::new(),
            limit: CAPACITY,
            closing: false,
            last_error: None,
            paced: false,
        }
    }

    /// Publishes until it is told to close and everything has its outcome.
    pub(super) async fn run(mut self) {
        loop {
            while self.backlog.is_empty() {
                if self.closing {
                    return;
                }
                let command = self.inbox.recv().await;
                self.take(command);
            }
            if let Some((window, live)) = self.connect().await {
                self.declared.clear();
                self.session(window, &live).await;
            }
        }
    }

    fn take(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Publish(chunk)) => self.backlog.extend(chunk),
            Some(Command::Close) | None => self.closing = true,
        }
    }

    /// Tries until there is a channel in confirm mode, or nothing left to send.
    async fn connect(&mut self) -> Option<(Window, Arc<Live>)> {
        let mut attempt = 0;
        loop {
            let connector = self.connector.clone();
            let opening = async move {
                let (channel, live) = connector.channel().await?;
                answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
                Ok::<_, Error>((channel, live))
            };
            match self.while_waiting(opening, None).await? {
                Ok((channel, live)) => {
                    self.last_error = None;
                    return Some((Window::new(channel, self.permits.clone()), live));
                }
                Err(error) if error.kind() == ErrorKind::Closed => {
                    self.closing = true;
                    self.fail_all(&error);
                    return None;
                }
                Err(error) => {
                    if attempt == 0 {
                        tracing::warn!(%error, waiting = self.backlog.len(), "cannot publish, trying again");
                    }
                    self.last_error = Some(error);
                }
            }
            self.while_waiting(tokio::time::sleep(backoff(attempt)), None).await?;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Awaits `work` while it takes in messages and ends those whose deadline passes; `None` once there are none left.
    async fn while_waiting<T>(
        &mut self,
        work: impl Future<Output = T>,
        mut session: Option<(&mut Window, &Arc<Live>)>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Some(result),
                command = self.inbox.recv(), if !self.closing => self.take(command),
                _ = tick.tick() => {
                    let (window, live) = session.as_mut().map(|(window, live)| (&mut **window, *live)).unzip();
                    self.expire(window, live);
                    if self.backlog.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// Publishes over one channel until it is lost or nothing is left to do for a closing transport.
    async fn session(&mut self, mut window: Window, live: &Arc<Live>) {
        let mut tick = std::pin::pin!(tokio::time::sleep(TICK));
        let mut pace = std::pin::pin!(tokio::time::sleep(PACE));
        self.paced = false;
        let mut inbox = Vec::new();
        // Ticks until all of them are looked at, and how many it was the last time.
        let (mut ticks, mut last) = (1, 1);
        loop {
            let waiting = self.backlog.len();
            if let Err(error) = self.send(&mut window, live).await {
                return self.recover(window.lost(error));
            }
            if self.backlog.len() < waiting && window.len() >= BUSY {
                self.paced = true;
                pace.as_mut().reset(Instant::now() + pace_of(window.len()));
            }
            if self.closing && window.len() == 0 && self.backlog.is_empty() {
                return;
            }
            match self.wake(&mut window, &mut inbox, tick.as_mut(), pace.as_mut()).await {
                Wake::Inbox => {
                    for command in inbox.drain(..) {
                        self.take(Some(command));
                    }
                }
                Wake::Confirms(count) => {
                    // The oldest makes progress. The more there are, the more a look at all of them costs.
                    last = 1 + window.len() / SWEPT_PER_TICK;
                    ticks = last;
                    self.progress(&window, count);
                }
                Wake::Lost(error) => return self.recover(window.lost(error)),
                Wake::Tick => {
                    tick.as_mut().reset(Instant::now() + TICK);
                    ticks -= 1;
                    if ticks == 0 {
                        let count = window.sweep();
                        // The longer nothing was found, the less is a look worth.
                        last = if count > 0 { 1 } else { (last * 2).min(MOST_TICKS) };
                        ticks = last;
                        self.progress(&window, count);
                    }
                    if window.ended() && window.len() > 0 {
                        return self.recover(window.lost(lapin::ErrorKind::MissingHeartbeatError.into()));
                    }
                    self.expire(Some(&mut window), Some(live));
                }
            }
        }
    }

    async fn wake(
        &mut self,
        window: &mut Window,
        inbox: &mut Vec<Command>,
        mut tick: Pin<&mut Sleep>,
        mut pace: Pin<&mut Sleep>,
    ) -> Wake {
        let busy = window.len() > 0 || !self.backlog.is_empty();
        std::future::poll_fn(|cx| {
            if self.paced && (window.len() < BUSY || pace.as_mut().poll(cx).is_ready()) {
                self.paced = false;
            }
            if !self.closing && !self.paced {
                match self.inbox.poll_recv_many(cx, inbox, CAPACITY) {
                    Poll::Ready(0) => {
                        self.closing = true;
                        return Poll::Ready(Wake::Inbox);
                    }
                    Poll::Ready(_) => return Poll::Ready(Wake::Inbox),
                    Poll::Pending => {}
                }
            }
            match window.poll_oldest(cx) {
                Poll::Ready(Ok(count)) => return Poll::Ready(Wake::Confirms(count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Wake::Lost(error)),
                Poll::Pending => {}
            }
            if busy { tick.as_mut().poll(cx).map(|()| Wake::Tick) } else { Poll::Pending }
        })
        .await
    }

    /// Sends what the limit allows. An error means that the channel is lost.
    async fn send(&mut self, window: &mut Window, live: &Arc<Live>) -> Result<(), lapin::Error> {
        while window.len() < self.limit {
            let Some(out) = self.backlog.front() else { return Ok(()) };
            let frame = if out.reply.finished() { None } else { Some(out.frame(live.frame_max())) };
            match frame {
                Some(Ok(frame)) if frame.needs != Needs::Nothing && !self.declared.contains(&frame.needs) => {
                    let declaring = declare(self.connector.clone(), frame.needs.clone(), self.infrastructure);
                    match self.while_waiting(declaring, Some((window, live))).await {
                        None => {}
                        Some(Ok(())) => {
                            self.declared.insert(frame.needs);
                        }
                        Some(Err(error)) if error.kind() == ErrorKind::ConnectionFailed => {
                            return Err(lapin::ErrorKind::InvalidConnectionState(lapin::ConnectionState::Closed).into());
                        }
                        Some(Err(error)) => self.refuse(error),
                    }
                }
                Some(Ok(frame)) => {
                    if let Some(out) = self.backlog.pop_front() {
                        window.send(out, frame)?;
                    }
                }
                Some(Err(error)) => self.refuse(error),
                None => {
                    if let Some(out) = self.backlog.pop_front() {
                        self.permits.add_permits(out.weight());
                    }
                }
            }
        }
        Ok(())
    }

    /// Fails the oldest message that was not sent.
    fn refuse(&mut self, error: Error) {
        if let Some(out) = self.backlog.pop_front() {
            self.finish(out, error);
        }
    }

    fn progress(&mut self, window: &Window, count: usize) {
        if window.len() == 0 && count > 0 && self.limit < CAPACITY {
            self.limit = (self.limit * 2).min(CAPACITY);
        }
    }

    fn finish(&self, mut out: Outbound, error: Error) {
        out.reply.finish(Err(error));
        self.permits.add_permits(out.weight());
    }

    /// Puts back in front what was not confirmed, without the message that the server closed the channel for.
    fn recover(&mut self, lost: Lost) {
        let Lost { error, mut unconfirmed } = lost;
        let guilty = if error::is_not_found(&error) {
            declare_again(&error, &mut unconfirmed)
        } else if let Some(refused) = error::refused_exchange(&error) {
            (0..unconfirmed.len()).filter(|at| *unconfirmed[*at].1 == *refused).collect()
        } else if error::blames_a_publish(&error) {
            // One of them is at fault: alone in the window, it shows itself.
            self.limit = (unconfirmed.len() / 2).max(1);
            if unconfirmed.len() == 1 { vec![0] } else { Vec::new() }
        } else {
            Vec::new()
        };
        tracing::warn!(%error, unconfirmed = unconfirmed.len(), "lost the channel for publishing");
        for at in guilty.into_iter().rev() {
            let (out, exchange) = unconfirmed.remove(at);
            let reason = error::answered(error.clone(), &format!("publishing to exchange {exchange}"));
            self.finish(out, error::of_publish(reason));
        }
        for (out, _) in unconfirmed.into_iter().rev() {
            self.backlog.push_front(out);
        }
    }

    /// Ends with `TIMEOUT` what should have been confirmed by now.
    fn expire(&mut self, window: Option<&mut Window>, live: Option<&Arc<Live>>) {
        let now = Instant::now();
        let reason = live.and_then(|live| live.blocked());
        let mut late = 0;
        let in_window = window.into_iter().flat_map(Window::messages);
        for out in in_window.chain(self.backlog.iter_mut()) {
            if out.deadline.is_some_and(|deadline| deadline <= now) && !out.reply.finished() {
                out.reply.finish(Err(timeout(out.sent, reason.as_deref(), self.last_error.as_ref())));
                late += 1;
            }
        }
        if late > 0 {
            tracing::warn!(late, reason, "publishes were not confirmed in time");
            let permits = &self.permits;
            self.backlog.retain(|out| {
                if out.reply.finished() {
                    permits.add_permits(out.weight());
                }
                !out.reply.finished()
            });
        }
    }

    fn fail_all(&mut self, error: &Error) {
        for out in std::mem::take(&mut self.backlog) {
            self.finish(out, error.duplicate());
        }
    }
}

/// How long the broker is busy with what is in flight, at least.
fn pace_of(in_flight: usize) -> Duration {
    PACE * u32::try_from(in_flight / (4 * BUSY)).unwrap_or(SLOWEST).clamp(1, SLOWEST)
}

fn timeout(sent: bool, blocked: Option<&str>, last: Option<&Error>) -> Error {
    let why = match (blocked, last) {
        (Some(reason), _) => format!("the broker holds back what is published: {reason}"),
        (None, Some(last)) => format!("there is no connection: {}", last.message()),
        (None, None) => "the broker did not confirm the event in time".to_owned(),
    };
    let remedy = match blocked {
        Some(_) => "free memory or disk on the broker, or raise publish_timeout",
        None => "check the broker, or raise publish_timeout",
    };
    let mut error = Error::new(ErrorKind::Timeout, why).remedy(remedy);
    if let Some(last) = last {
        error = error.source(last.duplicate());
    }
    if sent { error.with_unknown_outcome() } else { error }
}

/// An exchange is missing: what goes there gets one more try, after it was declared again. Returns those that had it.
fn declare_again(error: &lapin::Error, unconfirmed: &mut [(Outbound, Arc<str>)]) -> Vec<usize> {
    let text = error::answer(error).map(|answer| answer.get_message().to_string()).unwrap_or_default();
    let mut guilty = Vec::new();
    for (at, (out, exchange)) in unconfirmed.iter_mut().enumerate() {
        if text.contains(&format!("'{exchange}'")) && std::mem::replace(&mut out.declared_again, true) {
            guilty.push(at);
        }
    }
    guilty
}

/// Declares what a message needs. Whoever may not declare may well publish, where others have declared it.
async fn declare(connector: Arc<Connector>, needs: Needs, infrastructure: QueueType) -> Result<()> {
    let declarer = Declarer::open(&connector).await?;
    let result = match &needs {
        Needs::Exchange(exchange) => declarer.topic(exchange).await,
        Needs::Scheduled(exchange) => match declarer.lattice(infrastructure).await {
            Ok(()) => declarer.schedule_into(exchange).await,
            Err(error) => Err(error),
        },
        Needs::Lattice => declarer.lattice(infrastructure).await,
        Needs::Nothing => Ok(()),
    };
    match declarer.close_after(result).await {
        Err(error) if error.kind() == ErrorKind::AccessRefused => {
            tracing::debug!(%error, ?needs, "not allowed to declare, publishing all the same");
            Ok(())
        }
        result => result,
    }
}
