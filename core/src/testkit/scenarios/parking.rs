//! Ordered keys whose head is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::testkit::scenario::Done;
use crate::testkit::seen::Seen;
use crate::testkit::world::World;
use crate::{BoxError, DeadLetter, DomainEvent, KeyOrder, OnDead, ReplayAction, Running};

/// Handles an ordered subscription; event 1 is dead as long as `broken` says so.
async fn start(
    w: &World,
    name: &str,
    on_dead: OnDead,
    seen: &Seen,
    broken: &Arc<AtomicBool>,
) -> Result<Running, BoxError> {
    let subscriber = w.broker.subscriber();
    let (seen, broken) = (seen.clone(), broken.clone());
    let handler = move |event: DomainEvent| {
        let dead = seen.note(&event) == 1 && broken.load(SeqCst);
        async move { if dead { Err(DeadLetter::because("no-tail-number")) } else { Ok(()) } }
    };
    let ordering = KeyOrder { on_dead, ..KeyOrder::default() };
    w.subscribe(&subscriber, name, "a").ordered_with(ordering).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 1..=3 {
        w.publish_keyed("a", "k", n).await?;
    }
    w.publish_keyed("a", "other", 10).await?;
    Ok(running)
}

/// Waits until event 1 is dead, and sees that its key waits while others do not.
async fn parked(w: &World, name: &str, seen: &Seen) -> Done {
    let dead = w.wait_dead(name, 1).await?.remove(0);
    ensure!(dead.is_parked(), "the dead letter does not say that its key waits");
    same!(dead.reason(), "no-tail-number", "the reason");
    w.publish_keyed("a", "k", 4).await?;
    w.publish_keyed("a", "another", 11).await?;
    let mut all = seen.wait(3).await?;
    all.sort_unstable();
    same!(all, [1, 10, 11], "events handled while the key waits");
    Ok(())
}

/// Replaying the dead head resumes the key in order.
pub(super) async fn replay(w: Arc<World>) -> Done {
    let (name, seen, broken) = (w.name("o"), w.seen(), Arc::new(AtomicBool::new(true)));
    let running = start(&w, &name, OnDead::Park, &seen, &broken).await?;
    parked(&w, &name, &seen).await?;
    // It stays parked while nobody runs.
    running.stop().await?;
    let subscriber = w.broker.subscriber();
    let noted = seen.clone();
    let handler = move |event: DomainEvent| {
        noted.note(&event);
        async { Ok::<(), BoxError>(()) }
    };
    w.subscribe(&subscriber, &name, "a").ordered().handle(handler)?;
    let running = subscriber.start().await?;
    w.publish_keyed("a", "a third", 12).await?;
    same!(seen.wait(4).await?[3], 12, "the event handled after the restart");
    same!(w.broker.replay(&name).run().await?.replayed, 1, "replayed");
    same!(seen.wait(8).await?[4..], [1, 2, 3, 4], "events of the key");
    running.stop().await?;
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    Ok(())
}

/// Discarding the dead head lets the key go on without it.
pub(super) async fn discard(w: Arc<World>) -> Done {
    let (name, seen, broken) = (w.name("o"), w.seen(), Arc::new(AtomicBool::new(true)));
    let running = start(&w, &name, OnDead::Park, &seen, &broken).await?;
    parked(&w, &name, &seen).await?;
    same!(w.broker.replay_all(&name, |_| ReplayAction::Discard).await?, 0, "dead letters left");
    same!(seen.wait(6).await?[3..], [2, 3, 4], "events of the key");
    running.stop().await?;
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    Ok(())
}

/// With `on_dead = skip` the key goes on at once; a replay of the dead one comes when it comes.
pub(super) async fn skip(w: Arc<World>) -> Done {
    let (name, seen, broken) = (w.name("o"), w.seen(), Arc::new(AtomicBool::new(true)));
    let running = start(&w, &name, OnDead::Skip, &seen, &broken).await?;
    let mut first = seen.wait(4).await?;
    first.retain(|n| *n < 10);
    same!(first, [1, 2, 3], "events of the key");
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    ensure!(!dead.is_parked(), "the dead letter says that its key waits");
    broken.store(false, SeqCst);
    same!(w.broker.replay(&name).run().await?.replayed, 1, "replayed");
    same!(seen.wait(5).await?[4], 1, "the replayed event");
    running.stop().await?;
    Ok(())
}
