//! What a publisher hears while RabbitMQ has run out of memory and blocks it (`connection.blocked`).
//!
//! The alarm is the whole server's, so that it is raised only where `TIDINGS_ALARM` is set: nobody else may be using it.
#![cfg(feature = "amqp")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "amqp/support.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod support;

use std::time::Duration;

use support::{Bench, next_one, server, services, settle};
use tidings::transport::Settlement;

/// Ends when it is dropped, however the test ends.
struct Alarm;

impl Alarm {
    fn raise() -> Option<Self> {
        eval("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).").then_some(Self)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        assert!(eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()})."), "the alarm is still on");
    }
}

fn eval(expression: &str) -> bool {
    services(&["ctl", server(), "eval", expression])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_publish_times_out_with_the_servers_reason_and_arrives_later() {
    if std::env::var_os("TIDINGS_ALARM").is_none() {
        return println!("SKIPPED: TIDINGS_ALARM is not set, somebody else may be using the server");
    }
    let Some(bench) = Bench::new("blocked").await else { return };
    let source = bench.subscribe().await;
    bench.publish(bench.message("before")).await.unwrap();
    let before = next_one(&source).await;
    let Some(alarm) = tokio::task::spawn_blocking(Alarm::raise).await.unwrap() else { return };

    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let held = bench.message("held").with_deadline(Some(deadline.into_std()));
    let error = bench.publish(held).await.unwrap_err();
    assert!(error.code() == "TIMEOUT" && error.outcome_unknown(), "{error:?}");
    assert!(error.to_string().contains("low on memory"), "{error:?}");
    // The other connection is not blocked.
    settle(&source, &before, Settlement::Ack).await;

    tokio::task::spawn_blocking(move || drop(alarm)).await.unwrap();
    bench.publish(bench.message("after")).await.unwrap();
    for word in ["held", "after"] {
        let event = next_one(&source).await;
        assert!(event.message.routing_key.ends_with(word), "{}", event.message.routing_key);
        settle(&source, &event, Settlement::Ack).await;
    }
    source.close().await;
    bench.done().await;
}
