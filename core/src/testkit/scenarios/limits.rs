//! What is refused, and what just fits.

use std::sync::Arc;
use std::time::Duration;

use crate::testkit::scenario::Done;
use crate::testkit::world::World;
use crate::{DeadLetterFilter, DomainEvent, Outcome, PublishOptions, RetryPolicy, Timestamp};

const MIB: usize = 1024 * 1024;

/// A body of 1 MiB arrives; one byte more is refused by name, and the publisher goes on.
pub(super) async fn large_payloads(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "file.*").await?;
    let publisher = w.broker.publisher();
    let key = w.key("file.added");
    let empty = DomainEvent::new(&key, "")?.with_timestamp(Timestamp::from_micros(1_500_000));
    let room = MIB - empty.to_json().len();
    let fits = DomainEvent::new(&key, &"x".repeat(room))?.with_timestamp(Timestamp::from_micros(1_500_000));
    same!(fits.to_json().len(), MIB, "the length of the body");
    let too_large = DomainEvent::new(&key, &"x".repeat(room + 1))?.with_timestamp(Timestamp::from_micros(1_500_000));
    let error = refused!(publisher.publish(too_large).await, PayloadTooLarge, "a body beyond max_payload");
    ensure!(error.remedy_text().is_some(), "the error names no remedy: {error}");
    publisher.publish(fits.clone()).await?;
    let most = w.broker.capabilities().max_payload;
    refused!(publisher.clone().max_payload(most + 1), InvalidOption, "a max_payload beyond the transport's");
    let larger = DomainEvent::new(&key, &"y".repeat((MIB + MIB / 2).min(most / 2)))?;
    publisher.max_payload(most)?.publish(larger.clone()).await?;
    for event in [fits, larger] {
        let delivery = w.take(&deliveries, 1).await?.remove(0);
        ensure!(delivery.event().to_json() == event.to_json(), "a large body has changed");
        delivery.settle(Outcome::Ok).await?;
    }
    Ok(())
}

/// 63 KiB of headers go through everything, dead letter included; more than 64 KiB are refused before they are sent.
pub(super) async fn headers(w: Arc<World>) -> Done {
    let name = w.name("all");
    let deliveries = w.open(&name, "user.*").await?;
    let publisher = w.broker.publisher();
    let too_large = w.event("user.registered", 1)?.with_header("note", "x".repeat(140 * 1024));
    let error = refused!(publisher.publish(too_large).await, HeadersTooLarge, "140 KiB of headers");
    same!(error.field_value(), Some("note"), "the header that the error names");
    let note = "x".repeat(63 * 1024);
    publisher.publish(w.event("user.registered", 2)?.with_header("note", note.as_str())).await?;
    let delivery = w.take(&deliveries, 1).await?.remove(0);
    same!(delivery.event().headers().text("note").map(str::len), Some(note.len()), "the length of the header");
    delivery.settle(Outcome::DeadLetter { reason: "too much".into(), message: Some("y".repeat(9000)) }).await?;
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    same!(dead.headers().text("note").map(str::len), Some(note.len()), "the length of the dead letter's header");
    let length = dead.error().map_or(0, str::len);
    ensure!(length > 1000 && length <= 2048, "the error's message has {length} bytes, expected at most 2048");
    same!(w.broker.replay(&name).run().await?.replayed, 1, "replayed");
    same!(w.handle(&deliveries, 1).await?, [2], "events");
    Ok(())
}

/// What makes no sense is refused with its own error, and what comes after works.
pub(super) async fn bad_input(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "user.*").await?;
    let publisher = w.broker.publisher();
    for key in ["", "user.*", "#", &"k".repeat(256)] {
        let error = refused!(DomainEvent::new(key, &1), InvalidRoutingKey, "a bad routing key");
        ensure!(error.field_name().is_some() && error.remedy_text().is_some(), "no field or remedy: {error}");
    }
    refused!(DomainEvent::from_json("a.b", "NaN"), InvalidEvent, "NaN");
    let event = || w.event("user.registered", 1);
    let most = w.broker.capabilities().max_delay;
    if let Some(beyond) = most.checked_add(Duration::from_secs(1)) {
        let options = PublishOptions::new().delay(beyond);
        refused!(publisher.publish_with(event()?, options).await, InvalidDelay, "a delay beyond the transport's");
    }
    refused!(publisher.publish(event()?.with_header("", "x")).await, InvalidHeader, "a header without a name");
    refused!(publisher.clone().exchange(""), InvalidName, "an exchange without a name");
    let subscriber = w.broker.subscriber();
    for name in ["", "a b", "x-dl", "x-delay-y", "tidings-x"] {
        let refused = subscriber.subscription(name).bind("a").deliveries().await;
        refused!(refused, InvalidName, format!("the subscription {name:?}"));
    }
    let fresh = || w.subscribe(&subscriber, &w.name("never"), "user.*");
    refused!(fresh().bind("a.b*").deliveries().await, InvalidBindingKey, "a wildcard inside a word");
    refused!(fresh().concurrency(0).deliveries().await, InvalidOption, "no concurrency");
    refused!(fresh().prefetch(0).deliveries().await, InvalidOption, "no prefetch");
    let policy = RetryPolicy::exponential(1, Duration::ZERO, 0.5, Duration::ZERO);
    refused!(fresh().retry(policy).deliveries().await, InvalidOption, "a back-off that shrinks");
    refused!(w.broker.replay("x y").run().await, InvalidName, "the replay of a bad name");
    let never = DeadLetterFilter::new().binding_key("a*");
    refused!(w.broker.dead_letters("x", &never, 1).await, InvalidBindingKey, "a bad pattern");
    publisher.publish(w.event("user.registered", 2)?).await?;
    same!(w.handle(&deliveries, 1).await?, [2], "events");
    Ok(())
}
