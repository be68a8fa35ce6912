//! Bodies of another content type than JSON, on the memory transport.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::Duration;

use tidings::transport::memory::MemoryTransport;
use tidings::transport::{Message, Transport as _};
use tidings::{BodyCodec, Broker, DeadLetterFilter, DomainEvent, Error, ErrorKind, Headers, Outcome, Payload, Result};

const TYPE: &str = "application/x-upper";

/// A text in upper case, which is `data` as a string. Reads `PANIC` by panicking.
struct Upper;

impl BodyCodec for Upper {
    fn content_type(&self) -> &str {
        TYPE
    }

    fn decode(&self, message: &Message) -> Result<DomainEvent> {
        let text = std::str::from_utf8(&message.body)
            .map_err(|e| Error::new(ErrorKind::InvalidEvent, "the body is not text").source(e))?;
        assert_ne!(text, "PANIC");
        let event = DomainEvent::new(&message.routing_key, &text.to_lowercase())?.with_id(&message.id)?;
        Ok(event.with_header("read-by", "upper").with_header("from", "the codec"))
    }

    fn encode(&self, event: &DomainEvent) -> Result<Payload> {
        Ok(event.data::<String>()?.to_uppercase().into())
    }
}

async fn send(transport: &MemoryTransport, id: &str, body: &'static [u8], content_type: &str) {
    let headers: Headers = [("content-type", content_type), ("from", "elsewhere")].into_iter().collect();
    let message = Message::new("a.b", id, body).with_headers(headers);
    transport.publish(vec![message]).await.remove(0).unwrap();
}

#[tokio::test]
async fn a_foreign_body_is_read_and_stays_what_it_was() {
    let elsewhere = Arc::new(MemoryTransport::new());
    let broker = Broker::with_transport(elsewhere.clone()).codec(Upper);
    let deliveries = broker.subscriber().subscription("s").bind("#").max_retries(1).deliveries().await.unwrap();
    send(&elsewhere, "1", b"HELLO", "Application/X-Upper; charset=utf-8").await;

    let delivery = deliveries.next(1).await.unwrap().remove(0);
    let event = delivery.event();
    assert_eq!((event.id(), event.data::<String>().unwrap().as_str()), ("1", "hello"));
    assert_eq!((event.headers().text("read-by"), event.headers().text("from")), (Some("upper"), Some("elsewhere")));
    delivery.settle(Outcome::Retry { after: Some(Duration::ZERO), message: None }).await.unwrap();
    let again = deliveries.next(1).await.unwrap().remove(0);
    assert_eq!((again.retries(), again.event().data::<String>().unwrap().as_str()), (1, "hello"));
    again.settle(Outcome::DeadLetter { reason: "no".into(), message: None }).await.unwrap();

    let dead = broker.dead_letters("s", &DeadLetterFilter::new(), 1).await.unwrap().remove(0);
    assert_eq!(*dead.body(), "HELLO");
    assert_eq!(dead.event().unwrap().data::<String>().unwrap(), "hello");
    assert_eq!(broker.replay("s").run().await.unwrap().replayed, 1);
    let replayed = deliveries.next(1).await.unwrap().remove(0);
    assert_eq!(replayed.event().data::<String>().unwrap(), "hello");
    replayed.settle(Outcome::Ok).await.unwrap();
}

#[tokio::test]
async fn what_a_codec_cannot_read_is_a_dead_letter_and_nothing_else() {
    let elsewhere = Arc::new(MemoryTransport::new());
    let broker = Broker::with_transport(elsewhere.clone()).codec(Upper);
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    send(&elsewhere, "1", b"\xff", TYPE).await;
    send(&elsewhere, "2", b"PANIC", TYPE).await;
    send(&elsewhere, "3", b"HELLO", "application/cbor").await;
    send(&elsewhere, "4", b"HELLO", TYPE).await;
    let delivery = deliveries.next(1).await.unwrap().remove(0);
    assert_eq!(delivery.event().id(), "4");
    delivery.settle(Outcome::Ok).await.unwrap();
    let dead = broker.dead_letters("s", &DeadLetterFilter::new(), 9).await.unwrap();
    let found: Vec<_> = dead.iter().map(|dead| (dead.id(), dead.reason())).collect();
    assert_eq!(found, [("1", "undecodable"), ("2", "undecodable"), ("3", "unsupported-content-type")]);
    assert_eq!(dead[2].event().unwrap_err().code(), "UNSUPPORTED");
}

#[tokio::test]
async fn an_event_is_published_in_its_content_type() {
    let broker = Broker::connect("memory:").await.unwrap();
    let event =
        |content_type: &str| DomainEvent::new("a.b", "hello").unwrap().with_header("content-type", content_type);
    let refused = broker.publisher().publish(event(TYPE)).await.unwrap_err();
    assert_eq!((refused.code(), refused.field_name()), ("UNSUPPORTED", Some("content-type")));
    broker.publisher().publish(event("application/json; charset=utf-8")).await.unwrap();

    let broker = broker.codec(Upper);
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    broker.publisher().publish(event(TYPE)).await.unwrap();
    let delivery = deliveries.next(1).await.unwrap().remove(0);
    delivery.settle(Outcome::DeadLetter { reason: "no".into(), message: None }).await.unwrap();
    let dead = broker.dead_letters("s", &DeadLetterFilter::new(), 1).await.unwrap().remove(0);
    assert_eq!(*dead.body(), "HELLO");
}
