//! Receipts, refusals, and one bad event among good ones.

use std::collections::HashSet;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use tidings::Timestamp;
use tidings::transport::Settlement;

use super::support::{Bench, bare, drain, message, next_one, settle, unique};

#[tokio::test(flavor = "multi_thread")]
async fn receipts_say_whether_anybody_wanted_it() {
    let Some(bench) = Bench::new("receipts").await else { return };
    let source = bench.subscribe().await;
    assert_eq!(bench.publish(bench.message("wanted")).await.unwrap().routed, Some(true));
    let nobody = unique("nobody");
    assert_eq!(bench.publish(message(&nobody)).await.unwrap().routed, Some(false));
    let required = message(&nobody).with_require_route(true);
    assert_eq!(bench.publish(required).await.unwrap_err().code(), "UNROUTABLE");

    // Returned and taken events of one batch, in any mixture, keep their own answers.
    let mut batch = Vec::new();
    for n in 0..2000 {
        batch.push(if n % 3 == 0 { message(&nobody) } else { bench.message("mixed") });
    }
    let ids: HashSet<_> = batch.iter().filter(|m| *m.routing_key != *nobody).map(|m| m.id.clone()).collect();
    for (n, receipt) in bench.transport.publish(batch).await.into_iter().enumerate() {
        assert_eq!(receipt.unwrap().routed, Some(n % 3 != 0), "{n}");
    }
    let first = next_one(&source).await;
    settle(&source, &first, Settlement::Ack).await;
    assert_eq!(drain(&source, ids).await, 0);
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_headers_arrive() {
    let Some(bench) = Bench::new("headers").await else { return };
    let source = bench.subscribe().await;
    let mut sent = bench.message("x");
    sent.headers.set("traceparent", "00-1-2-01");
    sent.headers.set("number", 5i64);
    sent.headers.set("tidings-key", "k");
    sent.headers.set("content-type", "text/plain");
    bench.publish(sent.clone()).await.unwrap();
    let event = next_one(&source).await;
    let got = &event.message;
    assert_eq!((&got.id, &got.routing_key, &got.body), (&sent.id, &sent.routing_key, &sent.body));
    assert_eq!(got.timestamp, Timestamp::EPOCH, "the body has the time");
    assert_eq!(got.key.as_deref(), Some("k"));
    for (name, value) in sent.headers.iter() {
        assert_eq!(got.headers.get(name), Some(value), "{name}");
    }
    assert_eq!((got.headers.len(), event.lost_deliveries), (4, 0));
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_break_the_connection_is_not_sent() {
    let Some(bench) = Bench::new("refused").await else { return };
    let source = bench.subscribe().await;
    let mut large = bench.message("headers");
    large.headers.set("large", "x".repeat(140 * 1024));
    let mut body = bench.message("body");
    body.body = vec![b'x'; 17 * 1024 * 1024].into();
    let mut long = bench.message("long");
    long.routing_key = "x".repeat(256).into();
    let good = bench.message("good");
    let results = bench.transport.publish(vec![large, body, long, good]).await;
    let codes: Vec<_> = results.iter().map(|r| r.as_ref().err().map(tidings::Error::code)).collect();
    assert_eq!(codes, [Some("HEADERS_TOO_LARGE"), Some("PAYLOAD_TOO_LARGE"), Some("INVALID_ROUTING_KEY"), None]);
    assert!(next_one(&source).await.message.routing_key.ends_with("good"));
    let mut large = bench.message("body");
    large.body = vec![b'x'; 1024 * 1024].into();
    bench.publish(large).await.unwrap();
    assert_eq!(next_one(&source).await.message.body.len(), 1024 * 1024);
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_server_refuses_fails_alone() {
    let Some(bench) = Bench::new("poison").await else { return };
    let source = bench.subscribe().await;
    // An internal exchange refuses every publish by closing the channel.
    let internal = unique("internal");
    let (connection, channel) = bare().await;
    let options = ExchangeDeclareOptions { internal: true, durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(internal.as_str().into(), ExchangeKind::Topic, options, FieldTable::default())
        .await
        .unwrap();

    let mut batch: Vec<_> = (0..300).map(|n| bench.message(&n.to_string())).collect();
    for at in [7, 150, 151] {
        batch[at].exchange = internal.as_str().into();
    }
    let ids: HashSet<_> = batch.iter().filter(|m| *m.exchange != *internal).map(|m| m.id.clone()).collect();
    for (at, result) in bench.transport.publish(batch).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), [7, 150, 151].contains(&at), "{at}: {result:?}");
    }
    drain(&source, ids).await;
    channel.exchange_delete(internal.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_declared_and_declared_again() {
    let Some(mut bench) = Bench::new("exchange").await else { return };
    let exchange = unique("exchange");
    bench.spec.exchange = exchange.clone();
    let event = || bench.message("x").with_exchange(exchange.as_str());
    assert_eq!(bench.publish(event()).await.unwrap().routed, Some(false));
    let (connection, channel) = bare().await;
    channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    // The server closes the channel for it; the exchange comes back, and the event is sent again.
    assert_eq!(bench.publish(event()).await.unwrap().routed, Some(false));
    let source = bench.subscribe().await;
    assert_eq!(bench.publish(event()).await.unwrap().routed, Some(true));
    assert_eq!(*next_one(&source).await.message.exchange, *exchange);
    channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_rejects() {
    let Some(bench) = Bench::new("full").await else { return };
    let (connection, channel) = bare().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let queue = unique("full");
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), arguments).await.unwrap();
    let key = format!("{}.full", bench.domain);
    bench.publish(message(&unique("warm"))).await.unwrap();
    let (exchange, options) = ("domain-events".into(), lapin::options::QueueBindOptions::default());
    channel
        .queue_bind(queue.as_str().into(), exchange, key.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let results = bench.transport.publish((0..20).map(|_| message(&key)).collect()).await;
    let refused: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.iter().all(|e| e.code() == "REJECTED" && e.retryable()), "{refused:?}");
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    bench.transport.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_polls_holds_up_no_other() {
    let Some(bench) = Bench::new("unpolled").await else { return };
    let source = bench.subscribe().await;
    let sent: Vec<_> = ["left", "gone", "other"].map(|word| bench.message(word)).into();
    let ids: HashSet<_> = sent.iter().map(|message| message.id.clone()).collect();
    let [left, gone, other] = <[_; 3]>::try_from(sent).unwrap();

    // Polled once, it has begun; then it is dropped.
    let mut call = Box::pin(bench.publish(gone));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    // Polled once, and kept.
    let mut left = Box::pin(bench.publish(left));
    assert!(futures_util::poll!(&mut left).is_pending());
    bench.publish(other).await.unwrap();
    assert_eq!(drain(&source, ids).await, 0);
    left.await.unwrap();

    let last = bench.message("last");
    let mut call = Box::pin(bench.publish(last.clone()));
    assert!(futures_util::poll!(&mut call).is_pending());
    bench.transport.close().await.unwrap();
    call.await.unwrap();
    let Some(again) = Bench::at(&super::support::url(), "unpolled").await else { return };
    let again = Bench { name: bench.name.clone(), spec: bench.spec.clone(), ..again };
    assert_eq!(drain(&again.subscribe().await, HashSet::from([last.id])).await, 0);
    again.done().await;
}

#[test]
fn a_publisher_is_used_on_another_runtime_than_its_own() {
    let own = tokio::runtime::Runtime::new().unwrap();
    let Some(bench) = own.block_on(Bench::new("elsewhere")) else { return };
    let source = own.block_on(bench.subscribe());
    for word in ["first", "second"] {
        // What the transport starts must not end with the runtime that it was called on.
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        other.block_on(bench.publish(bench.message(word))).unwrap();
    }
    own.block_on(async {
        for word in ["first", "second"] {
            let event = next_one(&source).await;
            assert!(event.message.routing_key.ends_with(word));
            settle(&source, &event, Settlement::Ack).await;
        }
        bench.done().await;
    });
}
