//! Consumers that die with events in hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::settlement::{MAX_SUSPECT_RETURNS, reason};
use crate::testkit::scenario::Done;
use crate::testkit::victim::Victim;
use crate::testkit::world::{World, numbers, sorted};
use crate::{Outcome, settlement};

/// What a dead consumer had in hand comes again, and that it was lost counts.
pub(super) async fn redelivery(w: Arc<World>) -> Done {
    let name = w.name("c");
    let mut victim = Victim::open(&w, &name, "a", 10, 20).await?;
    for n in 0..5 {
        w.publish("a", n).await?;
    }
    let mut handed = Vec::new();
    while handed.len() < 5 {
        handed.extend(victim.next(&w, 10).await?);
    }
    ensure!(handed.iter().all(|one| !one.suspect && one.retries == 0), "first deliveries: {handed:?}");
    victim.crash(&w).await?;
    // With a limit of one lost delivery the count shows: each comes as a suspect, alone.
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "a").max_deliveries(1).deliveries().await?;
    let mut found = Vec::new();
    for _ in 0..5 {
        let delivery = w.take(&deliveries, 1).await.map_err(|error| format!("after {found:?}: {error}"))?;
        ensure!(deliveries.try_next(10)?.unwrap_or_default().is_empty(), "something runs beside a suspect");
        ensure!(settlement::is_suspect(delivery[0].event().headers()), "the lost delivery was not counted");
        same!(delivery[0].retries(), 0, "attempts spent by a crash");
        found.extend(numbers(&delivery));
        deliveries.settle(delivery.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    }
    same!(sorted(found), [0, 1, 2, 3, 4], "events after the crash");
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    Ok(())
}

/// An event that kills whoever handles it ends as a dead letter, and the others are handled.
pub(super) async fn suspects(w: Arc<World>) -> Done {
    const POISON: u64 = 3;
    const LOST: u32 = 2;
    let name = w.name("c");
    let mut handled = BTreeSet::new();
    let mut crashes = 0;
    let mut victim = Victim::open(&w, &name, "a", 4, LOST).await?;
    for n in 0..10 {
        w.publish("a", n).await?;
    }
    while handled.len() < 9 || crashes < LOST + MAX_SUSPECT_RETURNS {
        let one = victim.next(&w, 1).await?[0];
        if one.number != POISON {
            victim.ack().await?;
            handled.insert(one.number);
            continue;
        }
        crashes += 1;
        ensure!(crashes <= LOST + MAX_SUSPECT_RETURNS, "it has ended {crashes} consumers");
        same!(one.suspect, crashes > LOST, format!("a suspect at delivery {crashes}"));
        victim.crash(&w).await?;
        victim = Victim::open(&w, &name, "a", 4, LOST).await?;
    }
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    same!(dead.reason(), reason::CRASHED, "the reason");
    same!(dead.event().map_err(ToString::to_string)?.data::<u64>()?, POISON, "the dead letter");
    same!(handled.into_iter().collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7, 8, 9], "the others");
    w.broker.replay(&name).run().await?;
    // What was handled may come again after a crash, and so may the old one of two that a crash between writing an event
    // anew and removing it has left. Beside suspects everything else goes back, which a broker may count as deliveries.
    let mut beside_suspects = false;
    loop {
        let one = victim.next(&w, 1).await?[0];
        victim.ack().await?;
        if one.number == POISON && (beside_suspects || !one.suspect) {
            return Ok(());
        }
        beside_suspects |= one.suspect;
    }
}
