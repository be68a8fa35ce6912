//! Dead letters keep their story, and looking at them changes nothing.

use std::sync::Arc;

use crate::event::{HeaderValue, Headers, name};
use crate::settlement::{Failure, reason};
use crate::testkit::scenario::Done;
use crate::testkit::world::{World, metric};
use crate::{DeadLetterEntry, DomainEvent, Outcome, ReplayAction};

/// Every field of a dead letter.
pub(super) async fn with_reason(w: Arc<World>) -> Done {
    let name = w.name("billing");
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "order.*").max_retries(1).deliveries().await?;
    let event = w.event("order.placed", 7)?.with_domain_object_id("o-7").with_header("tidings-tenant", "acme");
    w.broker.publisher().publish(event.clone()).await?;
    let before = w.broker.transport().now();
    let again = Outcome::Retry { after: Some(w.units(1)), message: None };
    w.take(&deliveries, 1).await?.remove(0).settle(again).await?;
    let failure = Failure::new(["NoFunds", "PaymentError"], "card declined").with_stack("at pay()");
    w.take(&deliveries, 1).await?.remove(0).settle(Outcome::Fail(failure)).await?;
    let after = w.broker.transport().now();
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    same!(dead.reason(), reason::ERROR, "the reason");
    same!(dead.error_type(), Some("NoFunds"), "the error's type");
    same!(dead.error(), Some("card declined"), "the error's message");
    same!(dead.stack(), Some("at pay()"), "the stack");
    same!(dead.attempts(), 2, "attempts");
    same!(dead.routing_key(), event.routing_key(), "the routing key");
    same!(dead.id(), event.id(), "the id");
    same!(dead.headers().text(name::DEAD_SUBSCRIPTION), Some(name.as_str()), "the subscription");
    same!(dead.headers().text(name::TENANT), Some("acme"), "the tenant");
    same!(dead.body(), &event.to_json(), "the body");
    let (first, last) = (dead.first_failed_at().ok_or("no first time")?, dead.failed_at().ok_or("no last time")?);
    ensure!(before <= first && first < last && last <= after, "failed at {first} and {last}, not {before} to {after}");
    ensure!(last.since(first) + w.units(1) / 20 >= w.units(1), "failed twice within {:?}", last.since(first));
    same!(w.info(&name).await?.dead, 1, "dead letters by the listing");
    Ok(())
}

/// Headers that mean nothing to us survive all that can happen to an event.
pub(super) async fn foreign_headers(w: Arc<World>) -> Done {
    let name = w.name("foreign");
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "a").max_retries(1).deliveries().await?;
    let mut headers = Headers::new();
    headers.set("text", "ü");
    headers.set("int", -7i64);
    headers.set("bool", true);
    headers.set("float", HeaderValue::Float(1.5));
    headers.set("null", HeaderValue::Null);
    headers.set("time", HeaderValue::Time(1_360_285_200));
    headers.set("list", HeaderValue::List(vec!["a".into(), HeaderValue::Int(2)]));
    headers.set("table", HeaderValue::Table([("inner", "x")].into_iter().collect()));
    headers.set("tidings-unknown", "kept");
    headers.set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let unchanged = |found: &Headers, when: &str| -> Done {
        for (name, value) in headers.iter() {
            same!(found.get(name), Some(value), format!("header {name} {when}"));
        }
        Ok(())
    };
    let body = DomainEvent::new(&w.key("a"), &1)?.to_json();
    w.publish_raw("a", &body, headers.clone()).await?;
    let delivery = w.take(&deliveries, 1).await?.remove(0);
    unchanged(delivery.event().headers(), "on arrival")?;
    delivery.settle(Outcome::Retry { after: Some(w.units(1)), message: None }).await?;
    let delivery = w.take(&deliveries, 1).await?.remove(0);
    unchanged(delivery.event().headers(), "after a retry")?;
    delivery.settle(Outcome::DeadLetter { reason: "x".into(), message: None }).await?;
    unchanged(w.wait_dead(&name, 1).await?[0].headers(), "of the dead letter")?;
    w.broker.replay(&name).run().await?;
    let delivery = w.take(&deliveries, 1).await?.remove(0);
    unchanged(delivery.event().headers(), "after the replay")?;
    same!(delivery.event().to_json(), body, "the body");
    let ours = delivery.event().headers().iter().any(|(n, _)| n.starts_with(name::DEAD_PREFIX) || n == name::ATTEMPT);
    ensure!(!ours, "the replayed event remembers its death: {:?}", delivery.event().headers());
    delivery.settle(Outcome::Ok).await?;
    Ok(())
}

/// A hundred looks at the dead letters, and all is as before.
pub(super) async fn browse(w: Arc<World>) -> Done {
    let name = w.name("browsed");
    let deliveries = w.open(&name, "a").await?;
    let ids = w.bury(&deliveries, &[("a", 0, "x"), ("a", 1, "x"), ("a", 2, "y")]).await?;
    let look = |dead: &DeadLetterEntry| (dead.id().to_owned(), dead.headers().clone(), dead.body().clone());
    let first: Vec<_> = w.wait_dead(&name, 3).await?.iter().map(look).collect();
    same!(first.iter().map(|d| d.0.clone()).collect::<Vec<_>>(), ids, "dead letters, oldest first");
    for i in 0..100 {
        let now: Vec<_> = w.dead(&name).await?.iter().map(look).collect();
        ensure!(now == first, "look {i} shows {now:?}");
    }
    same!(w.info(&name).await?.dead, 3, "dead letters by the listing");
    same!(w.broker.replay(&name).run().await?.replayed, 3, "replayed");
    same!(w.handle(&deliveries, 3).await?, [0, 1, 2], "events");
    Ok(())
}

/// A body that is no event never reaches a handler, is kept as it is, and holds nothing up.
pub(super) async fn undecodable(w: Arc<World>) -> Done {
    let name = w.name("strict");
    let deliveries = w.open(&name, "a").await?;
    let body = b"no event \xff at all";
    w.publish_raw("a", body, [("note", "kept")].into_iter().collect()).await?;
    w.publish("a", 1).await?;
    same!(w.handle(&deliveries, 1).await?, [1], "the event behind it");
    for round in 0..2 {
        let dead = w.wait_dead(&name, 1).await?.remove(0);
        same!(dead.reason(), reason::UNDECODABLE, "the reason");
        same!((&dead.body()[..], dead.headers().text("note")), (&body[..], Some("kept")), "body and header");
        same!(dead.routing_key(), w.key("a"), "the routing key");
        ensure!(dead.event().is_err() && dead.error().is_some(), "the error is missing");
        if round == 0 {
            same!(w.broker.replay(&name).run().await?.replayed, 1, "replayed");
            w.publish("a", 2).await?;
            same!(w.handle(&deliveries, 1).await?, [2], "the event behind the replayed one");
        }
    }
    let left = w.broker.replay_all(&name, |_| ReplayAction::Discard).await?;
    same!((left, w.dead(&name).await?.len()), (0, 0), "dead letters after discarding");
    Ok(())
}

/// A body in another format is kept until there is a codec for it.
pub(super) async fn unsupported_content_type(w: Arc<World>) -> Done {
    let name = w.name("json");
    let deliveries = w.open(&name, "a").await?;
    let body = DomainEvent::new(&w.key("a"), &1)?.to_json();
    let typed = |content_type: &str| [(name::CONTENT_TYPE, content_type)].into_iter().collect::<Headers>();
    w.publish_raw("a", &body, typed("application/cbor")).await?;
    w.publish_raw("a", &body, typed("application/json; charset=utf-8")).await?;
    same!(w.handle(&deliveries, 1).await?, [1], "the event that is JSON");
    for round in 0..2 {
        let dead = w.wait_dead(&name, 1).await?.remove(0);
        same!(dead.reason(), reason::UNSUPPORTED_CONTENT_TYPE, "the reason");
        same!(dead.body(), &body, "the body");
        same!(dead.headers().text(name::CONTENT_TYPE), Some("application/cbor"), "the content type");
        if round == 0 {
            same!(w.broker.replay(&name).run().await?.replayed, 1, "replayed");
            w.publish("a", 2).await?;
            same!(w.handle(&deliveries, 1).await?, [2], "the event behind the replayed one");
        }
    }
    Ok(())
}

/// A subscription that does not want dead letters drops them, and counts them.
pub(super) async fn not_wanted(w: Arc<World>) -> Done {
    let name = w.name("careless");
    let subscriber = w.broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "a").dead_letter(false).deliveries().await?;
    w.bury(&deliveries, &[("a", 1, "x")]).await?;
    w.publish("a", 2).await?;
    same!(w.handle(&deliveries, 1).await?, [2], "the next event");
    same!(w.dead(&name).await?.len(), 0, "dead letters");
    same!(metric(&w.broker, "tidings_discarded_total", Some(&name)), 1, "discarded events");
    Ok(())
}
