//! [`Replay`]: moving dead letters back into their subscription.

use std::future::{Future, ready};
use std::iter::repeat;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{DeadLetterEntry, DeadLetterFilter};
use crate::broker::Broker;
use crate::routing::check_peer_name;
use crate::settlement::replayed;
use crate::transport::{DeadLetters, Message, StoredDeadLetter, Token};
use crate::{Error, ErrorKind, Result};

/// Dead letters that are looked at in one go.
const PAGE: usize = 256;

/// What is done with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayAction {
    /// Back into the subscription, attempts forgotten.
    Retry,
    /// It stays where it is.
    Leave,
    /// Removed for good.
    Discard,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Dead letters looked at.
    pub seen: u64,
    /// Of those, chosen by the filter.
    pub chosen: u64,
    /// Put back into the subscription (with `dry_run`: would have been).
    pub replayed: u64,
    /// Removed (with `dry_run`: would have been).
    pub discarded: u64,
    /// Chosen and left.
    pub left: u64,
    /// Dead letters that are still there of those that were there at the start.
    pub remaining: u64,
}

/// A replay of one subscription's dead letters, oldest first.
///
/// Each event is put back, confirmed, and only then removed: whatever happens in between, it is in one of both places
/// (or in both). A replay that was interrupted resumes by running it again; there is no cursor to lose.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::{BoxError, Broker, DeadLetter, DeadLetterFilter, DomainEvent};
///
/// let broker = Broker::connect("memory:").await?;
/// let deliveries = broker.subscriber().subscription("billing").bind("order.*").deliveries().await?;
/// broker.publisher().publish(DomainEvent::new("order.placed", &7)?).await?;
/// let delivery = deliveries.next(1).await?.remove(0);
/// delivery.settle(tidings::Outcome::DeadLetter { reason: "no-address".into(), message: None }).await?;
///
/// let report = broker.replay("billing").filter(DeadLetterFilter::new().reason("no-address")).run().await?;
/// assert_eq!(report.replayed, 1);
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is replayed before run()"]
pub struct Replay {
    broker: Broker,
    subscription: String,
    filter: DeadLetterFilter,
    limit: u64,
    rate: Option<f64>,
    dry_run: bool,
}

impl Replay {
    pub(crate) fn new(broker: Broker, subscription: &str) -> Self {
        let filter = DeadLetterFilter::new();
        Self { broker, subscription: subscription.to_owned(), filter, limit: u64::MAX, rate: None, dry_run: false }
    }

    /// Only these.
    pub fn filter(mut self, filter: DeadLetterFilter) -> Self {
        self.filter = filter;
        self
    }

    /// At most so many of the chosen ones.
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = events;
        self
    }

    /// At most so many replays and removals per second.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Only counts what would be done.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Puts every chosen dead letter back.
    ///
    /// Errors: `SUBSCRIPTION_NOT_FOUND`, `INVALID_OPTION`, and the transport's; what was replayed until then stays replayed,
    /// and [`Error::replayed`] says how much that is.
    pub async fn run(self) -> Result<ReplayReport> {
        self.decide(|_| ReplayAction::Retry).await
    }

    /// Asks `decide` about every chosen dead letter.
    pub async fn decide(self, mut decide: impl FnMut(&DeadLetterEntry) -> ReplayAction + Send) -> Result<ReplayReport> {
        self.decide_pages(move |page| ready(Ok(page.iter().map(&mut decide).collect()))).await
    }

    /// Asks about many dead letters at once and waits for the answer, as a host does whose callbacks run elsewhere.
    ///
    /// One action for each of the page, in its order; what has none stays. An error ends the replay and leaves the page.
    pub async fn decide_pages<F, Fut>(self, mut decide: F) -> Result<ReplayReport>
    where
        F: FnMut(Arc<[DeadLetterEntry]>) -> Fut + Send,
        Fut: Future<Output = Result<Vec<ReplayAction>>> + Send,
    {
        check_peer_name(&self.subscription)?;
        self.filter.check()?;
        let mut pace = Pace::new(self.rate)?;
        let mut walk = self.broker.here()?.dead_letters(&self.subscription).await?;
        let mut report = ReplayReport { remaining: walk.depth(), ..ReplayReport::default() };
        let result = self.walk(&mut *walk, &mut decide, &mut pace, &mut report).await;
        // The walk's own error is the one to report; what it holds goes back either way.
        let closed = walk.close().await;
        result.and(closed).map(|()| report).map_err(|error| error.with_replayed(report))
    }

    async fn walk<F, Fut>(
        &self,
        walk: &mut dyn DeadLetters,
        decide: &mut F,
        pace: &mut Pace,
        report: &mut ReplayReport,
    ) -> Result<()>
    where
        F: FnMut(Arc<[DeadLetterEntry]>) -> Fut + Send,
        Fut: Future<Output = Result<Vec<ReplayAction>>> + Send,
    {
        while report.chosen < self.limit {
            let found = walk.next(PAGE).await?;
            if found.is_empty() {
                break;
            }
            let mut retry: Vec<(Token, Message)> = Vec::new();
            let mut discard: Vec<Token> = Vec::new();
            let chosen = self.choose(found, report);
            if chosen.is_empty() {
                continue;
            }
            let actions = decide(chosen.clone()).await?;
            for (dead, action) in chosen.iter().zip(actions.into_iter().chain(repeat(ReplayAction::Leave))) {
                match action {
                    ReplayAction::Retry => retry.push((dead.token(), again(dead.message()))),
                    ReplayAction::Discard => discard.push(dead.token()),
                    ReplayAction::Leave => report.left += 1,
                }
            }
            if self.dry_run {
                report.replayed += retry.len() as u64;
                report.discarded += discard.len() as u64;
                continue;
            }
            let step = pace.step();
            while !retry.is_empty() {
                let rest = retry.split_off(step.min(retry.len()));
                pace.wait(retry.len()).await;
                count(
                    walk.replay(std::mem::replace(&mut retry, rest)).await,
                    &mut report.replayed,
                    &mut report.remaining,
                )?;
            }
            while !discard.is_empty() {
                let rest = discard.split_off(step.min(discard.len()));
                pace.wait(discard.len()).await;
                count(
                    walk.discard(std::mem::replace(&mut discard, rest)).await,
                    &mut report.discarded,
                    &mut report.remaining,
                )?;
            }
        }
        Ok(())
    }

    /// Those of a page that are meant, as many as the limit lets through.
    fn choose(&self, found: Vec<StoredDeadLetter>, report: &mut ReplayReport) -> Arc<[DeadLetterEntry]> {
        let mut page = Vec::new();
        for dead in found.into_iter().map(|stored| DeadLetterEntry::new(stored, self.broker.codecs())) {
            report.seen += 1;
            if report.chosen < self.limit && self.filter.chooses(&dead) {
                report.chosen += 1;
                page.push(dead);
            }
        }
        page.into()
    }
}

/// The event as it starts again: same id, same body, same routing key.
fn again(message: &Message) -> Message {
    Message { headers: replayed(&message.headers), ..message.clone() }
}

fn count(results: Vec<Result<()>>, done: &mut u64, remaining: &mut u64) -> Result<()> {
    let mut first = Ok(());
    for result in results {
        match result {
            Ok(()) => {
                *done += 1;
                *remaining = remaining.saturating_sub(1);
            }
            // Somebody else has replayed or removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::StaleDelivery => *remaining = remaining.saturating_sub(1),
            Err(error) => first = first.and(Err(error)),
        }
    }
    first
}

/// Keeps to a rate.
struct Pace {
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Result<Self> {
        let invalid = |rate: f64| {
            Error::new(ErrorKind::InvalidOption, "the rate must be a number above 0")
                .field("rate", rate)
                .remedy("leave it out for no limit")
        };
        let interval = rate
            .map(|rate| {
                Duration::try_from_secs_f64(1.0 / rate).ok().filter(|_| rate > 0.0).ok_or_else(|| invalid(rate))
            })
            .transpose()?;
        Ok(Self { interval, next: Instant::now() })
    }

    /// How many may go at once without a noticeable burst: a tenth of a second's worth.
    fn step(&self) -> usize {
        self.interval.map_or(PAGE, |interval| {
            usize::try_from(Duration::from_millis(100).as_nanos() / interval.as_nanos().max(1))
                .map_or(PAGE, |n| n.clamp(1, PAGE))
        })
    }

    async fn wait(&mut self, events: usize) {
        if let Some(interval) = self.interval {
            tokio::time::sleep_until(self.next).await;
            self.next = self.next.max(Instant::now()) + interval * u32::try_from(events).unwrap_or(u32::MAX);
        }
    }
}

impl Broker {
    /// Begins a replay of a subscription's dead letters.
    pub fn replay(&self, subscription: &str) -> Replay {
        Replay::new(self.clone(), subscription)
    }

    /// The first `limit` dead letters of a subscription that the filter chooses, oldest first. Changes nothing.
    pub async fn dead_letters(
        &self,
        subscription: &str,
        filter: &DeadLetterFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetterEntry>> {
        check_peer_name(subscription)?;
        filter.check()?;
        let mut walk = self.here()?.dead_letters(subscription).await?;
        let mut found = Vec::new();
        let result = loop {
            match walk.next(PAGE.min(limit - found.len()).max(1)).await {
                Ok(page) if page.is_empty() => break Ok(()),
                Ok(page) => {
                    let entries = page.into_iter().map(|stored| DeadLetterEntry::new(stored, self.codecs()));
                    found.extend(entries.filter(|dead| filter.chooses(dead)));
                }
                Err(error) => break Err(error),
            }
            if found.len() >= limit {
                break Ok(());
            }
        };
        let closed = walk.close().await;
        found.truncate(limit);
        result.and(closed).map(|()| found)
    }

    /// Takes the oldest dead letter and does with it what `decide` says, as `domain_event_broker.replay_event` does.
    ///
    /// Returns how many others were there.
    pub async fn replay_event(
        &self,
        subscription: &str,
        decide: impl FnMut(&DeadLetterEntry) -> ReplayAction + Send,
    ) -> Result<u64> {
        let report = self.replay(subscription).limit(1).decide(decide).await?;
        let taken = report.replayed + report.discarded;
        Ok((report.remaining + taken).saturating_sub(report.chosen))
    }

    /// Does with every dead letter what `decide` says, as `domain_event_broker.replay_all` does.
    ///
    /// Returns what the last of as many `replay_event` calls would have returned: 0 once all are replayed or discarded.
    pub async fn replay_all(
        &self,
        subscription: &str,
        decide: impl FnMut(&DeadLetterEntry) -> ReplayAction + Send,
    ) -> Result<u64> {
        let report = self.replay(subscription).decide(decide).await?;
        // The last call takes one more out before it counts; if that one was left, it is back by now.
        Ok(report.remaining.saturating_sub(u64::from(report.left > 0)))
    }
}
