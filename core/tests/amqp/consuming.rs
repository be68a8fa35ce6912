//! Ack, release, flow, stop, and conflicts of declarations.

use std::collections::HashSet;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tidings::transport::{KeyOrder, QueueType, Settlement};

use super::support::{Bench, bare, delete_queue, depth, drain, next, next_one, settle, silent, until};

#[tokio::test(flavor = "multi_thread")]
async fn acks_in_any_order_leave_nothing() {
    let Some(mut bench) = Bench::new("acks").await else { return };
    bench.spec.prefetch = 100;
    let source = bench.subscribe().await;
    let batch: Vec<_> = (0..1000).map(|n| bench.message(&n.to_string())).collect();
    let ids: HashSet<_> = batch.iter().map(|m| m.id.clone()).collect();
    for result in bench.transport.publish(batch).await {
        result.unwrap();
    }
    let mut left = ids;
    let mut held = Vec::new();
    while !left.is_empty() {
        held.extend(next(&source, 50).await);
        if held.len() < 60 && held.len() < left.len() {
            continue;
        }
        fastrand::shuffle(&mut held);
        let batch = held.split_off(held.len() / 3);
        for event in &batch {
            assert!(left.remove(&event.message.id));
        }
        if held.len() == left.len() {
            left.clear();
        }
        let (first, second) = batch.split_at(batch.len() / 2);
        let acks = |part: &[tidings::transport::Incoming]| part.iter().map(|e| (e.token, Settlement::Ack)).collect();
        let (first, second) = tokio::join!(source.settle(acks(first)), source.settle(acks(second)));
        assert!(first.into_iter().chain(second).all(|result| result.is_ok()));
    }
    for event in &held {
        settle(&source, event, Settlement::Ack).await;
    }
    // Twice is once too often.
    let again = source.settle(held.iter().take(1).map(|e| (e.token, Settlement::Ack)).collect()).await;
    assert!(again.iter().all(|r| r.as_ref().is_err_and(|e| e.code() == "STALE_DELIVERY")));
    assert_eq!(source.health().recoveries, 0);
    source.close().await;
    assert_eq!(depth(&bench.name).await, 0);
    bench.done().await;
}

/// A quorum queue's channel keeps back acks beyond 32 that are under way, and forgets them when it closes.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_before_a_close_does_not_come_again() {
    // With further events in the queue, and without.
    for (count, waiting) in [(100, 0), (100, 300), (400, 0), (400, 300), (2000, 0), (2000, 300)] {
        let Some(mut bench) = Bench::new("graceful").await else { return };
        bench.spec.prefetch = 2000;
        let source = bench.subscribe().await;
        let mut held = Vec::new();
        for part in [count, waiting] {
            let batch: Vec<_> = (0..part).map(|n| bench.message(&n.to_string())).collect();
            for result in bench.transport.publish(batch).await {
                result.unwrap();
            }
            while held.len() < count {
                held.extend(next(&source, count - held.len()).await);
            }
            // What comes after this waits in the queue.
            source.stop().await;
        }
        // The oldest stays: each ack is a frame of its own.
        fastrand::shuffle(&mut held[1..]);
        let acks = held[1..].iter().map(|event| (event.token, Settlement::Ack)).collect();
        assert!(source.settle(acks).await.into_iter().all(|result| result.is_ok()));
        source.close().await;
        let left = u32::try_from(waiting + 1).unwrap();
        until("the oldest is back", || async { depth(&bench.name).await >= left }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(depth(&bench.name).await, left, "{count}, {waiting}: acked, and came again");
        bench.done().await;
    }
}

/// Anybody may publish tables within tables; they are cut where they are read, and the event can be settled.
#[tokio::test(flavor = "multi_thread")]
async fn deeply_nested_headers_of_others_are_cut() {
    let Some(bench) = Bench::new("nested").await else { return };
    let source = bench.subscribe().await;
    let deep = (0..100).fold(AMQPValue::LongInt(1), |value, _| AMQPValue::FieldArray(vec![value].into()));
    let mut headers = FieldTable::default();
    headers.insert("deep".into(), deep);
    headers.insert("x-foreign".into(), AMQPValue::LongInt(1));
    headers.insert("CC".into(), AMQPValue::FieldArray(vec![AMQPValue::LongString("elsewhere".into())].into()));
    let (connection, channel) = bare().await;
    let key = format!("{}.x", bench.domain);
    let properties = lapin::BasicProperties::default().with_headers(headers);
    channel
        .basic_publish("domain-events".into(), key.as_str().into(), BasicPublishOptions::default(), b"{}", properties)
        .await
        .unwrap();
    connection.close(200, "".into()).await.unwrap();
    let event = next_one(&source).await;
    let headers = &event.message.headers;
    assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["deep"]);
    assert!(headers.check().is_ok() && format!("{headers:?}").contains("nested too deeply"));
    settle(&source, &event, Settlement::DeadLetter { headers: headers.clone() }).await;
    until("it is dead", || async { depth(&format!("{}-dl", bench.name)).await == 1 }).await;
    source.close().await;
    bench.done().await;
}

/// As deep as fits a frame: the client library's parser would need more stack than there is.
#[tokio::test(flavor = "multi_thread")]
async fn the_deepest_headers_there_can_be_are_cut() {
    let Some(bench) = Bench::new("deepest").await else { return };
    let source = bench.subscribe().await;
    let key = format!("{}.x", bench.domain);
    let headers = super::raw::nested_headers(25_000);
    let publishing = move || super::raw::publish(&super::support::url(), "domain-events", &key, &headers);
    tokio::task::spawn_blocking(publishing).await.unwrap();
    let event = next_one(&source).await;
    assert!(format!("{:?}", event.message.headers).contains("nested too deeply"));
    settle(&source, &event, Settlement::Ack).await;
    // The connection is as it was.
    bench.publish(bench.message("y")).await.unwrap();
    let event = next_one(&source).await;
    settle(&source, &event, Settlement::Ack).await;
    assert_eq!(source.health().recoveries, 0);
    source.close().await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_event_comes_again() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let Some(mut bench) = Bench::new("release").await else { return };
        bench.spec.queue_type = queue_type;
        let source = bench.subscribe().await;
        bench.publish(bench.message("x")).await.unwrap();
        let first = next_one(&source).await;
        assert_eq!(first.lost_deliveries, 0);
        settle(&source, &first, Settlement::Release).await;
        let second = next_one(&source).await;
        assert_eq!((second.message.id, second.message.routing_key), (first.message.id, first.message.routing_key));
        source.close().await;
        bench.done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_a_lost_consumer_had_are_counted() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let Some(mut bench) = Bench::new("counted").await else { return };
        bench.spec.queue_type = queue_type;
        bench.publish(bench.message("x")).await.unwrap();
        let source = bench.subscribe().await;
        bench.publish(bench.message("x")).await.unwrap();
        for expected in 0..3 {
            let source = bench.subscribe().await;
            if expected == 0 {
                drop(source);
                continue;
            }
            source.close().await;
        }
        let mut counts = Vec::new();
        for _ in 0..3 {
            let event = next_one(&source).await;
            counts.push(event.lost_deliveries);
            settle(&source, &event, Settlement::Release).await;
        }
        assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "{queue_type:?}: {counts:?}");
        let event = next_one(&source).await;
        let headers = event.message.headers.clone();
        settle(&source, &event, Settlement::Suspect { headers }).await;
        let event = next_one(&source).await;
        if queue_type == QueueType::Quorum {
            assert_eq!(event.lost_deliveries, 0, "a suspect starts with a fresh count");
        }
        source.close().await;
        bench.done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_and_stop_give_back_what_was_fetched() {
    let Some(bench) = Bench::new("flow").await else { return };
    let source = bench.subscribe().await;
    for _ in 0..10 {
        bench.publish(bench.message("x")).await.unwrap();
    }
    let held = next_one(&source).await;
    source.set_flow(false).await.unwrap();
    assert!(!source.health().consuming && source.health().connected);
    until("nine are back", || async { depth(&bench.name).await == 9 }).await;
    assert!(silent(&source, Duration::from_millis(200)).await);
    settle(&source, &held, Settlement::Ack).await;
    source.set_flow(true).await.unwrap();
    let again = next_one(&source).await;
    assert!(source.health().consuming);

    let waiting = {
        let source = source.clone();
        tokio::spawn(async move { while !source.next(100).await.unwrap().is_empty() {} })
    };
    source.stop().await;
    waiting.await.unwrap();
    assert!(source.next(1).await.unwrap().is_empty());
    settle(&source, &again, Settlement::Ack).await;
    source.close().await;
    until("eight are left", || async { depth(&bench.name).await == 8 }).await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_in_a_buffer_for_long() {
    let Some(mut bench) = Bench::new("hold").await else { return };
    bench.spec.max_hold = Duration::from_millis(400);
    let source = bench.subscribe().await;
    for _ in 0..5 {
        bench.publish(bench.message("x")).await.unwrap();
    }
    until("all five are back", || async { depth(&bench.name).await == 5 }).await;
    let ids: HashSet<_> = next(&source, 5).await.into_iter().map(|e| e.message.id).collect();
    assert!(!ids.is_empty());
    source.close().await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_a_conflict() {
    let Some(bench) = Bench::new("conflict").await else { return };
    let (connection, channel) = bare().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(bench.name.as_str().into(), options, arguments).await.unwrap();
    let error = bench.transport.subscribe(&bench.spec).await.err().expect("a conflict");
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("argument")), "{error:?}");
    assert!(error.field_value().is_some_and(|argument| argument.starts_with("x-")), "{error:?}");
    connection.close(200, "".into()).await.unwrap();
    delete_queue(&bench.name).await;

    // The connection lives, and the same declaration twice is none.
    let source = bench.subscribe().await;
    let twice = bench.subscribe().await;
    drop((source, twice));
    let mut ordered = bench.spec.clone();
    ordered.ordered = Some(KeyOrder::default());
    let error = bench.transport.subscribe(&ordered).await.err().expect("a conflict");
    assert_eq!((error.code(), error.field_value()), ("SUBSCRIPTION_CONFLICT", Some("x-single-active-consumer")));
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_queue_delivers() {
    for kind in ["classic", "compat", "compat-dead-letter", "exclusive", "auto_delete", "transient"] {
        let Some(mut bench) = Bench::new("kinds").await else { return };
        bench.spec.compat = kind.starts_with("compat");
        bench.spec.dead_letter = kind != "compat";
        bench.spec.exclusive = kind == "exclusive";
        bench.spec.auto_delete = kind == "auto_delete";
        bench.spec.durable = kind != "transient";
        bench.spec.queue_type = QueueType::Classic;
        let source = bench.subscribe().await;
        let batch: Vec<_> = (0..10).map(|n| bench.message(&n.to_string())).collect();
        let ids: HashSet<_> = batch.iter().map(|m| m.id.clone()).collect();
        for result in bench.transport.publish(batch).await {
            assert_eq!(result.unwrap().routed, Some(true), "{kind}");
        }
        drain(&source, ids).await;
        bench.publish(bench.message("retried")).await.unwrap();
        let event = next_one(&source).await;
        let headers = event.message.headers.clone();
        settle(&source, &event, Settlement::Retry { delay: Duration::from_millis(100), headers }).await;
        let event = next_one(&source).await;
        settle(&source, &event, Settlement::Ack).await;
        bench.transport.delete_subscription(&bench.name).await.unwrap();
        bench.transport.close().await.unwrap();
    }
}
