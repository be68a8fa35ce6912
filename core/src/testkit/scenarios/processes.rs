//! Several processes on one broker.

use std::sync::Arc;

use crate::testkit::child::Child;
use crate::testkit::scenario::Done;
use crate::testkit::victim::Victim;
use crate::testkit::world::{World, sorted};

/// What another process publishes arrives here, while we wait for it and when we come later.
pub(super) async fn publish(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("p"), "a").await?;
    let mut child = Child::start(&*w.subject, w.patience())?;
    let key = w.key("a");
    for n in 0..5 {
        child.ask(&format!("publish {key} {n}")).await?;
        same!(w.handle(&deliveries, 1).await?, [n], "the child's event");
    }
    for n in 5..10 {
        child.ask(&format!("publish {key} {n}")).await?;
    }
    child.ask("close").await?;
    same!(sorted(w.handle(&deliveries, 5).await?), [5, 6, 7, 8, 9], "the child's events");
    Ok(())
}

/// Two processes share a subscription: each event goes to one of them.
pub(super) async fn consume(w: Arc<World>) -> Done {
    let name = w.name("p");
    let mut child = Victim::open(&w, &name, "a", 4, 20).await?;
    for n in 0..20 {
        w.publish("a", n).await?;
    }
    let mut theirs = Vec::new();
    while theirs.len() < 4 {
        theirs.extend(child.next(&w, 4).await?);
    }
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "a").prefetch(100).deliveries().await?;
    let mut all = w.handle(&deliveries, 16).await?;
    all.extend(theirs.iter().map(|one| one.number));
    same!(sorted(all), (0..20).collect::<Vec<_>>(), "events of both");
    child.ack().await?;
    w.publish("a", 20).await?;
    w.handle(&deliveries, 1).await.map(drop)
}
