//! Lost connections, closed channels, deleted queues.

use std::collections::HashSet;
use std::time::Duration;

use tidings::transport::Settlement;

use super::support::{Bench, Wire, delete_queue, drain, next, next_one, server, services, settle, unique, until};

#[tokio::test(flavor = "multi_thread")]
async fn connections_lost_while_publishing_lose_nothing() {
    const TOTAL: usize = 20_000;
    // A virtual host of its own, so that the server's closing of connections meets nobody else.
    let vhost = unique("tidings-test");
    let own = services(&["ctl", server(), "add_vhost", &vhost])
        && services(&["ctl", server(), "set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"]);
    let wire = Wire::new(own.then_some(&vhost));
    let Some(mut bench) = Bench::at(&wire.url, "lost").await else { return };
    bench.spec.prefetch = 500;
    let source = bench.subscribe().await;
    let (progress, mut published) = tokio::sync::watch::channel(0usize);
    let mut tasks = Vec::new();
    for task in 0..20 {
        let (transport, progress) = (bench.transport.clone(), progress.clone());
        let messages: Vec<_> = (0..TOTAL / 20).map(|n| bench.message(&format!("{task}.{n}"))).collect();
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for chunk in messages.chunks(20) {
                for receipt in transport.publish(chunk.to_vec()).await {
                    ids.push(receipt.unwrap().id);
                }
                progress.send_modify(|count| *count += chunk.len());
            }
            ids
        }));
    }
    for (at, by_server) in [(TOTAL / 5, false), (TOTAL / 3, own), (TOTAL / 2, false), (2 * TOTAL / 3, own)] {
        published.wait_for(|count| *count >= at).await.unwrap();
        if by_server {
            let vhost = vhost.clone();
            let close = move || services(&["ctl", server(), "close_all_connections", "--vhost", &vhost, "test"]);
            assert!(tokio::task::spawn_blocking(close).await.unwrap());
        } else {
            wire.cut();
        }
    }
    let mut ids = HashSet::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    assert_eq!(ids.len(), TOTAL);
    let duplicates = drain(&source, ids).await;
    println!("{duplicates} duplicates, {} recoveries", source.health().recoveries);
    assert!(source.health().consuming && source.health().recoveries > 0);
    source.close().await;
    bench.done().await;
    if own {
        services(&["ctl", server(), "delete_vhost", &vhost]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_makes_old_deliveries_stale() {
    let wire = Wire::new(None);
    let Some(bench) = Bench::at(&wire.url, "stale").await else { return };
    let source = bench.subscribe().await;
    bench.publish(bench.message("x")).await.unwrap();
    let old = next_one(&source).await;
    wire.cut();
    until("the loss is seen", || async { !source.health().consuming }).await;
    let result = source.settle(vec![(old.token, Settlement::Ack)]).await.remove(0);
    assert_eq!(result.unwrap_err().code(), "STALE_DELIVERY");
    let new = next_one(&source).await;
    assert_eq!((new.message.id.clone(), new.lost_deliveries), (old.message.id, 1));
    assert!(new.token.generation > old.token.generation);
    let result = source.settle(vec![(old.token, Settlement::Ack)]).await.remove(0);
    assert_eq!(result.unwrap_err().code(), "STALE_DELIVERY");
    settle(&source, &new, Settlement::Ack).await;
    let health = source.health();
    assert!(
        health.consuming && health.connected && health.recoveries == 1 && health.last_error.is_some(),
        "{health:?}"
    );
    source.close().await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again() {
    let Some(bench) = Bench::new("deleted").await else { return };
    let source = bench.subscribe().await;
    bench.publish(bench.message("before")).await.unwrap();
    let before = next_one(&source).await;
    settle(&source, &before, Settlement::Ack).await;
    let waiting = {
        let source = source.clone();
        tokio::spawn(async move { next_one(&source).await })
    };
    delete_queue(&bench.name).await;
    until("it recovers", || async { source.health().recoveries == 1 && source.health().consuming }).await;
    bench.publish(bench.message("after")).await.unwrap();
    let after = waiting.await.unwrap();
    assert!(after.message.routing_key.ends_with("after"));
    settle(&source, &after, Settlement::Ack).await;
    source.close().await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_that_is_gone_is_declared_again() {
    let Some(bench) = Bench::new("dlgone").await else { return };
    let source = bench.subscribe().await;
    for _ in 0..2 {
        bench.publish(bench.message("x")).await.unwrap();
    }
    let dead = format!("{}-dl", bench.name);
    delete_queue(&dead).await;
    let event = next_one(&source).await;
    let headers = event.message.headers.clone();
    settle(&source, &event, Settlement::DeadLetter { headers }).await;

    let (connection, channel) = super::support::bare().await;
    channel
        .exchange_delete(
            format!("{}-dlx", bench.name).as_str().into(),
            lapin::options::ExchangeDeleteOptions::default(),
        )
        .await
        .unwrap();
    connection.close(200, "".into()).await.unwrap();
    let event = next_one(&source).await;
    let headers = event.message.headers.clone();
    settle(&source, &event, Settlement::DeadLetter { headers }).await;
    until("both are kept", || async { super::support::depth(&dead).await == 2 }).await;
    source.close().await;
    bench.done().await;
}

/// What never left is known not to be there; of what left and was not confirmed, nobody knows. Neither is sent again.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "the wire stays frozen meanwhile")]
async fn a_publish_that_cannot_be_sent_or_confirmed_times_out() {
    let wire = Wire::new(None);
    let Some(bench) = Bench::at(&wire.url, "timeout").await else { return };
    let source = bench.subscribe().await;
    let soon = || tokio::time::Instant::now() + Duration::from_millis(300);
    let message = |word: &str| bench.message(word).with_deadline(Some(soon().into_std()));

    // The connection for publishing is not there yet.
    wire.refuse(true);
    let error = bench.publish(message("unsent")).await.unwrap_err();
    assert!(error.code() == "TIMEOUT" && !error.outcome_unknown(), "{error:?}");
    wire.refuse(false);
    bench.publish(bench.message("between")).await.unwrap();

    let frozen = wire.freeze();
    let error = bench.publish(message("unconfirmed")).await.unwrap_err();
    assert!(error.code() == "TIMEOUT" && error.outcome_unknown(), "{error:?}");
    drop(frozen);
    bench.publish(bench.message("after")).await.unwrap();

    let mut words = Vec::new();
    while words.last().is_none_or(|word| word != "after") {
        for event in next(&source, 10).await {
            words.extend(event.message.routing_key.rsplit('.').next().map(str::to_owned));
            settle(&source, &event, Settlement::Ack).await;
        }
    }
    assert_eq!(words, ["between", "unconfirmed", "after"]);
    source.close().await;
    let closing = bench.transport.clone();
    bench.done().await;
    let error = closing.publish(vec![super::support::message("a.b")]).await.remove(0).unwrap_err();
    assert_eq!(error.code(), "CLOSED");
}
