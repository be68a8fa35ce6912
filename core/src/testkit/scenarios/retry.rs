//! Failed events come again, later, and not for ever.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::settlement::reason;
use crate::testkit::scenario::Done;
use crate::testkit::world::{World, sorted};
use crate::{BoxError, Outcome, Retry, RetryPolicy};

/// What clocks may disagree by.
const SLACK: Duration = Duration::from_millis(3);

/// `Retry` with a growing delay: exactly `max_retries` retries, none early, then a dead letter.
pub(super) async fn growing_delays(w: Arc<World>) -> Done {
    let (name, seen, unit) = (w.name("retried"), w.seen(), w.units(1));
    let subscriber = w.broker.subscriber();
    let handler = {
        let seen = seen.clone();
        move |event: crate::DomainEvent| {
            seen.note(&event);
            let delay = unit * 2u32.pow(event.retries());
            async move { Err::<(), _>(Retry::after(delay).because("the gateway is down")) }
        }
    };
    w.subscribe(&subscriber, &name, "order.*").max_retries(3).handle(handler)?;
    let running = subscriber.start().await?;
    let published = tokio::time::Instant::now();
    w.publish("order.placed", 1).await?;
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    running.stop().await?;
    let calls = seen.calls();
    same!(calls.iter().map(|c| c.retries).collect::<Vec<_>>(), [0, 1, 2, 3], "the retries that the handler saw");
    ensure!(calls[0].at >= published, "handled before it was published");
    for (i, pair) in (0..).zip(calls.windows(2)) {
        let (waited, expected) = (pair[1].at - pair[0].at, w.units(2u32.pow(i)));
        ensure!(waited + SLACK >= expected, "retry {i} came after {waited:?}, not {expected:?}");
    }
    same!((dead.reason(), dead.attempts()), (reason::MAX_RETRIES, 4), "reason and attempts");
    same!(dead.error(), Some("the gateway is down"), "the message");
    Ok(())
}

/// A long delay holds no shorter one up.
pub(super) async fn overtaking(w: Arc<World>) -> Done {
    let deliveries = w.subscribe(&w.broker.subscriber(), &w.name("r"), "a").max_retries(5).deliveries().await?;
    let delays = [14, 6, 10, 2];
    for n in 0..delays.len() as u64 {
        w.publish("a", n).await?;
    }
    let begun = tokio::time::Instant::now();
    let again = |units| Outcome::Retry { after: Some(w.units(units)), message: None };
    // Settled together, so that the delays begin together.
    let taken = w.take(&deliveries, 4).await?.into_iter();
    deliveries.settle(taken.zip(delays).map(|(delivery, delay)| (delivery, again(delay))).collect()).await?;
    for expected in [3u64, 1, 2, 0] {
        same!(w.handle(&deliveries, 1).await?, [expected], "the next event");
        let least = w.units(delays[usize::try_from(expected)?]);
        ensure!(begun.elapsed() + SLACK >= least, "event {expected} came after {:?}", begun.elapsed());
    }
    Ok(())
}

#[derive(Debug)]
struct Flaky;
#[derive(Debug)]
struct Broken;

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not now")
    }
}
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("never")
    }
}
impl std::error::Error for Flaky {}
impl std::error::Error for Broken {}

/// The policy retries the errors it names, and gives up on the others at once.
pub(super) async fn error_types(w: Arc<World>) -> Done {
    let (name, seen) = (w.name("picky"), w.seen());
    let subscriber = w.broker.subscriber();
    let policy = RetryPolicy::fixed(2, w.units(1)).retry_on("Flaky").retry_on("Broken").give_up_on("Broken");
    let handler = {
        let seen = seen.clone();
        move |event: crate::DomainEvent| {
            let error: BoxError = match seen.note(&event) {
                1 => Flaky.into(),
                2 => Broken.into(),
                _ => std::io::Error::other("else").into(),
            };
            async move { Err::<(), _>(error) }
        }
    };
    w.subscribe(&subscriber, &name, "a").retry(policy).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 1..=3 {
        w.publish("a", n).await?;
    }
    let dead = w.wait_dead(&name, 3).await?;
    running.stop().await?;
    same!(sorted(seen.numbers()), [1, 1, 1, 2, 3], "calls of the handler");
    let mut found = Vec::new();
    for one in &dead {
        let n: u64 = one.event().map_err(ToString::to_string)?.data()?;
        found.push((n, one.reason().to_owned(), one.attempts(), one.error_type().map(str::to_owned)));
    }
    found.sort();
    let expected = |n, reason: &str, attempts, error: &str| (n, reason.to_owned(), attempts, Some(error.to_owned()));
    same!(found[0], expected(1, reason::MAX_RETRIES, 3, "Flaky"), "the retried error");
    same!(found[1], expected(2, reason::ERROR, 1, "Broken"), "the error that is given up on");
    same!((found[2].0, &*found[2].1, found[2].2), (3, reason::ERROR, 1), "the error that the policy does not name");
    Ok(())
}

/// An event that failed first longer ago than `max_age` is not retried again.
pub(super) async fn max_age(w: Arc<World>) -> Done {
    let (name, seen) = (w.name("old"), w.seen());
    let subscriber = w.broker.subscriber();
    let policy = RetryPolicy::fixed(1000, w.units(1)).max_age(w.units(3));
    let handler = {
        let seen = seen.clone();
        move |event: crate::DomainEvent| {
            seen.note(&event);
            async { Err::<(), _>(Flaky) }
        }
    };
    w.subscribe(&subscriber, &name, "a").retry(policy).handle(handler)?;
    let running = subscriber.start().await?;
    w.publish("a", 1).await?;
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    running.stop().await?;
    same!(dead.reason(), reason::MAX_AGE, "the reason");
    let attempts = dead.attempts();
    ensure!((2..=4).contains(&attempts), "{attempts} attempts in three delays' time");
    same!(seen.calls().len(), attempts as usize, "calls of the handler");
    Ok(())
}

/// Many events delayed at once all come back, each once.
pub(super) async fn many(w: Arc<World>) -> Done {
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &w.name("r"), "a").prefetch(200).max_retries(1).deliveries().await?;
    let events = (0..200).map(|n| w.event("a", n)).collect::<crate::Result<Vec<_>>>()?;
    for result in w.broker.publisher().publish_batch(events).await {
        result?;
    }
    let taken = w.take(&deliveries, 200).await?;
    let unit = w.units(1);
    let later = |i: usize| Outcome::Retry { after: Some(unit + unit * u32::from(i.is_multiple_of(7))), message: None };
    deliveries.settle(taken.into_iter().enumerate().map(|(i, delivery)| (delivery, later(i))).collect()).await?;
    let again = w.take(&deliveries, 200).await?;
    ensure!(again.iter().all(|delivery| delivery.retries() == 1), "a retry was not counted");
    same!(sorted(crate::testkit::world::numbers(&again)), (0..200).collect::<Vec<_>>(), "events");
    deliveries.settle(again.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    Ok(())
}
