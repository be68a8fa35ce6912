//! Choosing among dead letters.

use std::sync::Arc;

use crate::testkit::scenario::Done;
use crate::testkit::world::World;
use crate::{DeadLetterFilter, Deliveries};

const EVENTS: [(&str, u64, &str); 4] =
    [("user.a", 0, "late"), ("user.b", 1, "late"), ("car.a", 2, "lost"), ("user.a", 3, "lost")];

async fn dead(w: &World, name: &str) -> Result<(Deliveries, Vec<String>), crate::BoxError> {
    let deliveries = w.open(name, "#").await?;
    let ids = w.bury(&deliveries, &EVENTS).await?;
    w.wait_dead(name, EVENTS.len()).await?;
    Ok((deliveries, ids))
}

/// Lists and replays what the filter chooses: exactly these come back, exactly the others stay.
async fn chooses(w: &World, name: &str, deliveries: &Deliveries, filter: DeadLetterFilter, expected: &[u64]) -> Done {
    let number = |dead: &crate::DeadLetterEntry| dead.event().ok().and_then(|event| event.data::<u64>().ok());
    let all: Vec<u64> = w.dead(name).await?.iter().filter_map(number).collect();
    let listed = w.broker.dead_letters(name, &filter, usize::MAX).await?;
    same!(listed.iter().filter_map(number).collect::<Vec<_>>(), expected, "listed");
    same!(w.broker.dead_letters(name, &filter, 1).await?.len(), 1, "listed with a limit of 1");
    let report = w.broker.replay(name).filter(filter).run().await?;
    same!((report.seen, report.replayed), (all.len() as u64, expected.len() as u64), "seen and replayed");
    same!(w.handle(deliveries, expected.len()).await?, expected, "replayed events");
    let left: Vec<u64> = w.dead(name).await?.iter().filter_map(number).collect();
    let others: Vec<u64> = all.into_iter().filter(|n| !expected.contains(n)).collect();
    same!(left, others, "dead letters that stay");
    same!(report.remaining, others.len() as u64, "remaining");
    Ok(())
}

/// By id, one or several.
pub(super) async fn by_id(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, ids) = dead(&w, &name).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().id(&ids[2]), &[2]).await?;
    let several = DeadLetterFilter::new().id(&ids[0]).id(&ids[3]).id("nobody's");
    chooses(&w, &name, &deliveries, several, &[0, 3]).await
}

/// By binding pattern.
pub(super) async fn by_pattern(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = dead(&w, &name).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().binding_key(w.key("*.a")), &[0, 2, 3]).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().binding_key("#.b"), &[1]).await
}

/// By reason, and with a second condition.
pub(super) async fn by_reason(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = dead(&w, &name).await?;
    let both = DeadLetterFilter::new().reason("lost").binding_key("#.user.#");
    chooses(&w, &name, &deliveries, both, &[3]).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().reason("late"), &[0, 1]).await
}

/// By the time of the last failure.
pub(super) async fn by_time(w: Arc<World>) -> Done {
    let name = w.name("r");
    let deliveries = w.open(&name, "#").await?;
    let mut times = Vec::new();
    for event in EVENTS {
        times.push(w.broker.transport().now());
        w.bury(&deliveries, &[event]).await?;
        // The clock has to go on between them.
        tokio::time::sleep(w.units(1) / 10).await;
    }
    w.wait_dead(&name, EVENTS.len()).await?;
    let middle = DeadLetterFilter::new().failed_after(times[1]).failed_before(times[3]);
    chooses(&w, &name, &deliveries, middle, &[1, 2]).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().failed_before(times[1]), &[0]).await?;
    chooses(&w, &name, &deliveries, DeadLetterFilter::new().failed_after(times[3]), &[3]).await
}

/// By whatever can be asked of a dead letter.
pub(super) async fn by_predicate(w: Arc<World>) -> Done {
    let name = w.name("r");
    let (deliveries, _) = dead(&w, &name).await?;
    let odd = DeadLetterFilter::new()
        .matching(|dead| dead.event().ok().and_then(|event| event.data::<u64>().ok()).is_some_and(|n| n % 2 == 1));
    chooses(&w, &name, &deliveries, odd, &[1, 3]).await
}
