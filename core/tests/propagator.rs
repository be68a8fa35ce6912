//! Traces without a tracing system: what the hook of a host is asked, and what stays as it was.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::{Arc, Mutex};

use tidings::event::name;
use tidings::{BoxError, Broker, DeadLetterFilter, DomainEvent, Headers, Outcome, Propagator};

const OURS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// A later version with flags and a state that nobody here knows.
const THEIRS: &str = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe-later";

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<String>>>);

impl Propagator for Host {
    fn inject(&self, headers: &mut Headers) {
        headers.set(name::TRACEPARENT, OURS);
    }

    fn extract(&self, event: &DomainEvent, _: &tracing::Span) {
        self.0.lock().unwrap().push(event.headers().text(name::TRACEPARENT).unwrap().to_owned());
    }
}

#[tokio::test]
async fn an_event_gets_a_context_unless_it_has_one_and_keeps_it() {
    let host = Host::default();
    let broker = Broker::connect("memory:").await.unwrap().propagator(host.clone());
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    let plain = || DomainEvent::new("a.b", &1).unwrap();
    let theirs = plain().with_header(name::TRACEPARENT, THEIRS).with_header(name::TRACESTATE, "them=x,us=y");
    broker.publisher().publish(plain()).await.unwrap();
    for result in broker.publisher().publish_batch([plain(), theirs]).await {
        result.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for delivery in deliveries.next(3).await.unwrap() {
            seen.push(delivery.event().headers().text(name::TRACEPARENT).unwrap().to_owned());
            delivery.settle(Outcome::DeadLetter { reason: "no".into(), message: None }).await.unwrap();
        }
    }
    assert_eq!(seen, [OURS, OURS, THEIRS]);
    let dead = broker.dead_letters("s", &DeadLetterFilter::new(), 3).await.unwrap();
    assert_eq!(dead[2].headers().text(name::TRACEPARENT), Some(THEIRS));
    assert_eq!(dead[2].headers().text(name::TRACESTATE), Some("them=x,us=y"));
    assert!(host.0.lock().unwrap().is_empty(), "a host that pulls has spans of its own");
}

#[tokio::test]
async fn a_handler_continues_its_event() {
    let host = Host::default();
    let broker = Broker::connect("memory:").await.unwrap().propagator(host.clone());
    let subscriber = broker.subscriber();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    subscriber
        .subscription("s")
        .bind("#")
        .handle(move |_| {
            let sender = sender.clone();
            async move { Ok::<(), BoxError>(sender.send(()).await?) }
        })
        .unwrap();
    let running = subscriber.start().await.unwrap();
    broker.publisher().publish(DomainEvent::new("a.b", &1).unwrap()).await.unwrap();
    receiver.recv().await.unwrap();
    running.stop().await.unwrap();
    assert_eq!(*host.0.lock().unwrap(), [OURS]);
}
