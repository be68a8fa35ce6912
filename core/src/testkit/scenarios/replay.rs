//! Dead letters come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::testkit::scenario::Done;
use crate::testkit::world::{World, numbers};
use crate::{Deliveries, Outcome, ReplayAction, ReplayReport};

/// A subscription with dead letters 0, 1, … of one reason.
async fn with_dead(w: &World, name: &str, count: u64) -> Result<(Deliveries, Vec<String>), crate::BoxError> {
    let deliveries = w.open(name, "a").await?;
    let events: Vec<(&str, u64, &str)> = (0..count).map(|n| ("a", n, "x")).collect();
    let ids = w.bury(&deliveries, &events).await?;
    w.wait_dead(name, events.len()).await?;
    Ok((deliveries, ids))
}

fn counts(report: &ReplayReport) -> [u64; 6] {
    [report.seen, report.chosen, report.replayed, report.discarded, report.left, report.remaining]
}

/// All of them, oldest first, with the ids they had and no attempts.
pub(super) async fn all(w: Arc<World>) -> Done {
    let name = w.name("r");
    let other = w.open(&w.name("other"), "a").await?;
    let (deliveries, ids) = with_dead(&w, &name, 5).await?;
    same!(w.handle(&other, 5).await?.len(), 5, "events of the other subscription");
    let report = w.broker.replay(&name).run().await?;
    same!(counts(&report), [5, 5, 5, 0, 0, 0], "seen, chosen, replayed, discarded, left, remaining");
    let back = w.take(&deliveries, 5).await?;
    same!(numbers(&back), [0, 1, 2, 3, 4], "events");
    same!(back.iter().map(|d| d.event().id().to_owned()).collect::<Vec<_>>(), ids, "ids");
    ensure!(back.iter().all(|delivery| delivery.retries() == 0), "a replayed event has attempts");
    deliveries.settle(back.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    w.publish("a", 9).await?;
    same!(w.handle(&other, 1).await?, [9], "what the other subscription gets of a replay");
    Ok(())
}

/// So many and no more, the oldest.
pub(super) async fn limit(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = with_dead(&w, &name, 5).await?;
    let report = w.broker.replay(&name).limit(2).run().await?;
    same!((report.chosen, report.replayed, report.remaining), (2, 2, 3), "chosen, replayed, remaining");
    same!(w.handle(&deliveries, 2).await?, [0, 1], "events");
    same!(w.wait_dead(&name, 3).await?.len(), 3, "dead letters");
    Ok(())
}

/// Not faster than asked for.
pub(super) async fn rate(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = with_dead(&w, &name, 4).await?;
    let begun = Instant::now();
    w.broker.replay(&name).rate(1.0 / w.units(1).as_secs_f64()).run().await?;
    ensure!(begun.elapsed() >= w.units(3), "4 events at 1 per {:?} took {:?}", w.units(1), begun.elapsed());
    same!(w.handle(&deliveries, 4).await?, [0, 1, 2, 3], "events");
    for bad in [0.0, -1.0, f64::NAN] {
        refused!(w.broker.replay(&name).rate(bad).run().await, InvalidOption, format!("a rate of {bad}"));
    }
    Ok(())
}

/// Says what would be done, and does nothing.
pub(super) async fn dry_run(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = with_dead(&w, &name, 3).await?;
    let report = w.broker.replay(&name).dry_run().run().await?;
    same!((report.replayed, report.remaining), (3, 3), "replayed, remaining");
    w.wait_dead(&name, 3).await?;
    w.publish("a", 9).await?;
    same!(w.handle(&deliveries, 1).await?, [9], "the next event");
    Ok(())
}

/// One decision each.
pub(super) async fn decide(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, ids) = with_dead(&w, &name, 6).await?;
    let mut asked = Vec::new();
    let report = w
        .broker
        .replay(&name)
        .decide(|dead| {
            asked.push(dead.id().to_owned());
            [ReplayAction::Retry, ReplayAction::Leave, ReplayAction::Discard][(asked.len() - 1) % 3]
        })
        .await?;
    same!(asked, ids, "the ids asked about");
    same!(counts(&report), [6, 6, 2, 2, 2, 2], "seen, chosen, replayed, discarded, left, remaining");
    same!(w.handle(&deliveries, 2).await?, [0, 3], "events");
    let left: Vec<_> = w.wait_dead(&name, 2).await?.iter().map(|dead| dead.id().to_owned()).collect();
    same!(left, [ids[1].clone(), ids[4].clone()], "dead letters that were left");
    Ok(())
}

/// A replay that is cut off in the middle loses nothing; running it again does the rest.
pub(super) async fn resumable(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = with_dead(&w, &name, 6).await?;
    let slow = w.broker.replay(&name).rate(1.0 / w.units(1).as_secs_f64()).run();
    ensure!(timeout(w.units(5) / 2, slow).await.is_err(), "the replay was not cut off");
    // What the broken-off replay held in its hands is back once the broker has noticed.
    let found = Mutex::new(BTreeSet::new());
    let all = w.eventually(|| async {
        w.broker.replay(&name).run().await?;
        let came = deliveries.try_next(10)?.unwrap_or_default();
        found.lock().extend(numbers(&came));
        deliveries.settle(came.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
        Ok(found.lock().len() == 6)
    });
    all.await.map_err(|e| format!("all 6 events, of which came {:?}: {e}", found.lock()))?;
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    Ok(())
}

/// As `domain_event_broker` returns them: how many others are there.
pub(super) async fn upstreams_return_values(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = with_dead(&w, &name, 5).await?;
    same!(w.broker.replay_event(&name, |_| ReplayAction::Retry).await?, 4, "replay_event, RETRY of 5");
    same!(w.broker.replay_event(&name, |_| ReplayAction::Leave).await?, 3, "replay_event, LEAVE of 4");
    same!(w.broker.replay_event(&name, |_| ReplayAction::Discard).await?, 3, "replay_event, DISCARD of 4");
    same!(w.broker.replay_all(&name, |_| ReplayAction::Leave).await?, 2, "replay_all, LEAVE of 3");
    same!(w.broker.replay_all(&name, |_| ReplayAction::Retry).await?, 0, "replay_all, RETRY of 3");
    same!(w.broker.replay_event(&name, |_| ReplayAction::Retry).await?, 0, "replay_event of none");
    same!(w.broker.replay_all(&name, |_| ReplayAction::Retry).await?, 0, "replay_all of none");
    same!(w.handle(&deliveries, 4).await?, [0, 2, 3, 4], "events");
    Ok(())
}
