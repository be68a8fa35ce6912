//! Whatever handlers do, no event is lost and none is made up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::testkit::scenario::Done;
use crate::testkit::world::World;
use crate::{BoxError, Deliveries, ErrorKind, Outcome};

const EVENTS: u64 = 150;

#[derive(Default)]
struct Ledger {
    done: BTreeSet<u64>,
    dead: BTreeSet<u64>,
}

/// Two consumers with random outcomes, drops and restarts: every event ends acknowledged or dead.
pub(super) async fn random_outcomes(w: Arc<World>) -> Done {
    let name = w.name("x");
    w.open(&name, "a").await?.close(Duration::ZERO).await?;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let ended = |ledger: &Ledger| ledger.done.union(&ledger.dead).count() as u64;
    let seed = fastrand::u64(..);
    let mut consumers = Vec::new();
    for i in 0..2 {
        let (w, name, ledger) = (w.clone(), name.clone(), ledger.clone());
        consumers.push(tokio::spawn(async move { consume(&w, &name, &ledger, seed + i).await }));
    }
    let events = (0..EVENTS).map(|n| w.event("a", n)).collect::<crate::Result<Vec<_>>>()?;
    for result in w.broker.publisher().publish_batch(events).await {
        result?;
    }
    let result = w.eventually(|| async { Ok(ended(&ledger.lock()) >= EVENTS) }).await;
    for consumer in &consumers {
        consumer.abort();
    }
    result.map_err(|e| format!("seed {seed}: {} of {EVENTS} ended: {e}", ended(&ledger.lock())))?;
    let kept: BTreeSet<u64> =
        w.dead(&name).await?.iter().filter_map(|dead| dead.event().ok()?.data::<u64>().ok()).collect();
    let ledger = ledger.lock();
    ensure!(ledger.dead.is_subset(&kept), "seed {seed}: dead letters {:?} are not there", &ledger.dead - &kept);
    let all: BTreeSet<u64> = (0..EVENTS).collect();
    ensure!(ledger.done.is_subset(&all) && kept.is_subset(&all), "seed {seed}: an event was made up");
    Ok(())
}

async fn consume(w: &World, name: &str, ledger: &Mutex<Ledger>, seed: u64) -> Result<(), BoxError> {
    let mut random = fastrand::Rng::with_seed(seed);
    let broker = w.connect().await?;
    let subscriber = broker.subscriber();
    loop {
        let deliveries = w.subscribe(&subscriber, name, "a").max_retries(2).deliveries().await?;
        for _ in 0..random.usize(5..15) {
            // Every now and then the wait itself is cancelled.
            let waited = w.units(1) * random.u32(1..4);
            if let Ok(batch) = tokio::time::timeout(waited, deliveries.next(random.usize(1..8))).await {
                handle(w, &deliveries, batch?, ledger, &mut random).await?;
            }
        }
        if random.bool() {
            deliveries.close(w.units(1)).await?;
        }
    }
}

async fn handle(
    w: &World,
    deliveries: &Deliveries,
    batch: Vec<crate::Delivery>,
    ledger: &Mutex<Ledger>,
    random: &mut fastrand::Rng,
) -> Result<(), BoxError> {
    for delivery in batch {
        let number: u64 = delivery.event().data()?;
        let last = delivery.retries() == 2;
        let (outcome, done, dead) = match random.u8(0..10) {
            0..4 => (Outcome::Ok, true, false),
            4 => (Outcome::Discard, true, false),
            5 => (Outcome::DeadLetter { reason: "chance".into(), message: None }, false, true),
            6 | 7 => (Outcome::Retry { after: Some(w.units(1) * random.u32(0..2)), message: None }, false, last),
            8 => (Outcome::Release, false, false),
            _ => continue,
        };
        match deliveries.settle(vec![(delivery, outcome)]).await {
            Ok(()) if done => drop(ledger.lock().done.insert(number)),
            Ok(()) if dead => drop(ledger.lock().dead.insert(number)),
            // Lost with its lease or connection: it comes again.
            Err(error) if error.kind() != ErrorKind::StaleDelivery => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
