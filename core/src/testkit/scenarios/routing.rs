//! Which subscription gets which event.

use std::sync::Arc;
use std::time::Duration;

use crate::testkit::scenario::Done;
use crate::testkit::world::{World, metric, sorted};
use crate::{DomainEvent, Outcome, PublishOptions};

/// Every subscription gets its own copy.
pub(super) async fn fan_out(w: Arc<World>) -> Done {
    let names = ["a", "b", "c"].map(|n| w.name(n));
    let mut all = Vec::new();
    for name in &names {
        all.push(w.open(name, "user.*").await?);
    }
    for n in 0..10 {
        w.publish("user.registered", n).await?;
    }
    for (name, deliveries) in names.iter().zip(&all) {
        same!(sorted(w.handle(deliveries, 10).await?), (0..10).collect::<Vec<_>>(), format!("events of {name}"));
    }
    Ok(())
}

/// Consumers of one name share its events: none twice, none lost, and none is kept from another for want of a host.
pub(super) async fn competing_consumers(w: Arc<World>) -> Done {
    let name = w.name("shared");
    let (first, second) = (w.broker.subscriber(), w.connect().await?.subscriber());
    let first = w.subscribe(&first, &name, "job.*").prefetch(4).deliveries().await?;
    for n in 0..20 {
        w.publish("job.added", n).await?;
    }
    let held = w.take(&first, 4).await?;
    let second = w.subscribe(&second, &name, "job.*").prefetch(100).deliveries().await?;
    let others = w.handle(&second, 16).await?;
    let mut all = crate::testkit::world::numbers(&held);
    all.extend(others);
    same!(sorted(all), (0..20).collect::<Vec<_>>(), "events of both");
    first.settle(held.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    w.eventually(|| async { Ok(w.info(&name).await?.ready == 0) }).await
}

/// `*` is one word, `#` any number of words.
pub(super) async fn wildcards(w: Arc<World>) -> Done {
    let keys = ["a", "a.b", "a.b.c", "a.x.c", "b"];
    for (i, (pattern, expected)) in [
        ("a.*", vec![1]),
        ("a.#", vec![0, 1, 2, 3]),
        ("a.*.c", vec![2, 3]),
        ("#.c", vec![2, 3]),
        ("*", vec![0, 4]),
        ("a.b", vec![1]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = w.name(&format!("s{i}"));
        let deliveries = w.open(&name, pattern).await?;
        let end = w.open(&w.name(&format!("end{i}")), "end").await?;
        for (n, key) in (0..).zip(keys) {
            w.publish(key, n).await?;
        }
        w.publish("end", 99).await?;
        w.handle(&end, 1).await?;
        same!(w.handle(&deliveries, expected.len()).await?, expected, format!("events of {pattern}"));
        same!(w.info(&name).await?.ready, 0, format!("further events of {pattern}"));
        deliveries.close(Duration::ZERO).await?;
    }
    Ok(())
}

/// Declaring a subscription again adds its keys, and an event that two of them match comes once.
pub(super) async fn binding_keys_add_up(w: Arc<World>) -> Done {
    let name = w.name("both");
    w.open(&name, "user.*").await?.close(Duration::ZERO).await?;
    let deliveries = w.open(&name, "#.registered").await?;
    for (n, key) in [(1, "user.registered"), (2, "user.removed"), (3, "car.registered"), (4, "user.registered")] {
        w.publish(key, n).await?;
    }
    same!(w.handle(&deliveries, 4).await?, [1, 2, 3, 4], "events");
    same!(w.info(&name).await?.ready, 0, "further events");
    Ok(())
}

/// Bindings apply in their exchange only.
pub(super) async fn namespaces(w: Arc<World>) -> Done {
    let (here, there) = (w.exchange("here"), w.exchange("there"));
    let subscriber = w.broker.subscriber();
    let mut opened = Vec::new();
    for exchange in [&here, &there] {
        let name = w.name(&format!("sub-{}", opened.len()));
        opened.push(w.subscribe(&subscriber, &name, "#").exchange(exchange).deliveries().await?);
    }
    let publisher = w.broker.publisher().exchange(here.as_str())?;
    w.publish("user.registered", 0).await?;
    publisher.publish(w.event("user.registered", 1)?).await?;
    let elsewhere = PublishOptions::new().exchange(there.as_str());
    publisher.publish_with(w.event("user.registered", 2)?, elsewhere).await?;
    publisher.publish(w.event("user.registered", 3)?).await?;
    same!(w.handle(&opened[0], 2).await?, [1, 3], "events of the first exchange");
    same!(w.handle(&opened[1], 1).await?, [2], "events of the second exchange");
    Ok(())
}

/// An event that nobody wants is no error, but its receipt says so.
pub(super) async fn unrouted_receipt(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("users"), "user.*").await?;
    same!(w.publish("user.registered", 1).await?.routed, Some(true), "routed");
    same!(w.publish("car.registered", 2).await?.routed, Some(false), "routed");
    same!(metric(&w.broker, "tidings_unrouted_total", None), 1, "unrouted events");
    same!(w.handle(&deliveries, 1).await?, [1], "events");
    let id = "an id of my own";
    let receipt = w.broker.publisher().publish(w.event("user.registered", 3)?.with_id(id)?).await?;
    same!(&*receipt.id, id, "the receipt's id");
    Ok(())
}

/// With `require_route` an event that nobody wants is refused, alone.
pub(super) async fn require_route(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("users"), "user.*").await?;
    let publisher = w.broker.publisher();
    let required = || PublishOptions::new().require_route();
    let unwanted: DomainEvent = w.event("car.registered", 1)?;
    refused!(publisher.publish_with(unwanted, required()).await, Unroutable, "an event that nobody wants");
    publisher.publish_with(w.event("user.registered", 2)?, required()).await?;
    same!(w.handle(&deliveries, 1).await?, [2], "events");
    let delayed = required().delay(w.units(1));
    refused!(publisher.publish_with(w.event("user.a", 3)?, delayed).await, InvalidOption, "require_route with a delay");
    Ok(())
}
