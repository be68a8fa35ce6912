//! Replays that meet errors, on the memory transport.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;

use tidings::transport::memory::{Faults, MemoryTransport, Operation, When};
use tidings::{Broker, DomainEvent, ErrorKind, Outcome, ReplayAction};

/// A broker whose subscription `s` has five dead letters.
async fn with_dead_letters() -> (Broker, Faults) {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    for n in 0..5 {
        broker.publisher().publish(DomainEvent::new("a.b", &n).unwrap()).await.unwrap();
    }
    let mut left = 5;
    while left > 0 {
        for delivery in deliveries.next(left).await.unwrap() {
            left -= 1;
            delivery.settle(Outcome::DeadLetter { reason: "no".into(), message: None }).await.unwrap();
        }
    }
    (broker, faults)
}

#[tokio::test]
async fn a_replay_that_meets_an_error_says_how_far_it_came() {
    let (broker, faults) = with_dead_letters().await;
    faults.fail(Operation::Replay, 2, ErrorKind::ConnectionFailed, When::Before);
    let error = broker.replay("s").run().await.unwrap_err();
    assert_eq!(error.code(), "CONNECTION_FAILED");
    let report = error.replayed().copied().unwrap();
    assert_eq!((report.seen, report.chosen, report.replayed, report.remaining), (5, 5, 3, 2));

    faults.fail(Operation::Replay, 1, ErrorKind::ConnectionFailed, When::Before);
    let error = broker.replay_all("s", |_| ReplayAction::Discard).await.unwrap_err();
    let report = error.replayed().copied().unwrap();
    assert_eq!((report.discarded, report.remaining), (1, 1));
}

#[tokio::test]
async fn an_error_before_the_first_dead_letter_has_no_report() {
    let (broker, _) = with_dead_letters().await;
    let error = broker.replay("nobody").run().await.unwrap_err();
    assert_eq!((error.code(), error.replayed()), ("SUBSCRIPTION_NOT_FOUND", None));
}
