//! Publishing, consuming and settling on a `sqlite:` store within one process.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod sqlite_support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlite_support::*;
use tidings::event::{Headers, Timestamp, name};
use tidings::transport::{KeyOrder, Settlement, Source, Transport};

async fn info(transport: &Arc<dyn Transport>, name: &str) -> (u64, u64, u64) {
    let all = transport.subscriptions().await.unwrap();
    let info = all.into_iter().find(|info| info.name == name).unwrap();
    (info.ready, info.in_flight.unwrap(), info.dead)
}

#[tokio::test]
async fn every_subscription_gets_its_own_copy() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let users = transport.subscribe(&spec("users", "user.*")).await.unwrap();
    let all = transport.subscribe(&spec("all", "#")).await.unwrap();
    let mut event = message("user.registered", 1);
    event.headers = with("traceparent", "00-1");
    event.key = Some("k".into());
    let sent = event.clone();
    let receipts = transport.publish(vec![event, message("order.paid", 2)]).await;
    assert_eq!(receipts[0].as_ref().unwrap().routed, Some(true));
    let got = collect(&users, 1).await;
    let message = &got[0].message;
    assert_eq!((&message.exchange, &message.routing_key, &message.id), (&sent.exchange, &sent.routing_key, &sent.id));
    assert_eq!((&message.key, message.timestamp, &message.body), (&sent.key, sent.timestamp, &sent.body));
    assert_eq!((&message.headers, got[0].lost_deliveries), (&sent.headers, 0));
    ack(&users, &got).await;
    let both = collect(&all, 2).await;
    assert_eq!(ids(&both), ["id-1", "id-2"]);
    ack(&all, &both).await;
    assert_eq!(info(&transport, "all").await, (0, 0, 0));
    assert_eq!(count(&folder, "tidings_event"), 0, "settled events are removed");
}

fn count(folder: &Folder, table: &str) -> i64 {
    query(folder, &format!("SELECT count(*) FROM {table}"))
}

/// Reads with a separate process: a second SQLite must not open the file in this one.
fn query(folder: &Folder, sql: &str) -> i64 {
    sqlite_support::child::query(&folder.path(), sql)
}

#[tokio::test]
async fn an_event_that_nobody_wants_is_not_stored() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let receipts = transport.publish(vec![message("a.b", 1)]).await;
    assert_eq!(receipts[0].as_ref().unwrap().routed, Some(false));
    let mut strict = message("a.b", 2);
    strict.require_route = true;
    let _source = transport.subscribe(&spec("x", "x.*")).await.unwrap();
    let results = transport.publish(vec![message("x.y", 3), strict, message("x.y", 4)]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "one refused event leaves the others alone");
    assert_eq!(results[1].as_ref().unwrap_err().code(), "UNROUTABLE");
    assert_eq!(count(&folder, "tidings_event"), 2);
}

#[tokio::test]
async fn a_waiting_consumer_is_woken_by_a_publish() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    for n in 0..20 {
        let waiting = tokio::spawn({
            let source = source.clone();
            async move { next(&source, 5).await }
        });
        tokio::task::yield_now().await;
        publish(&transport, vec![message("a", n)]).await;
        let got = waiting.await.unwrap();
        assert_eq!(got.len(), 1);
        ack(&source, &got).await;
    }
}

#[tokio::test]
async fn the_oldest_is_first_and_shorter_delays_overtake_longer_ones() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, (0..4).map(|n| message("a", n)).collect()).await;
    let got = collect(&source, 4).await;
    assert_eq!(ids(&got), ["id-0", "id-1", "id-2", "id-3"]);
    let started = Instant::now();
    let batch = got
        .iter()
        .zip([400u64, 300, 200, 100])
        .map(|(i, ms)| {
            let headers = with(name::ATTEMPT, &ms.to_string());
            (i.token, Settlement::Retry { delay: Duration::from_millis(ms), headers })
        })
        .collect();
    source.settle(batch).await.into_iter().for_each(|r| r.unwrap());
    assert_eq!(info(&transport, "s").await, (4, 0, 0));
    let mut order = Vec::new();
    while order.len() < 4 {
        for incoming in next(&source, 4).await {
            let due: u64 = incoming.message.headers.text(name::ATTEMPT).unwrap().parse().unwrap();
            let late = started.elapsed().as_millis().abs_diff(due.into());
            assert!(started.elapsed() >= Duration::from_millis(due) && late < 100, "{late} ms late");
            order.push(due);
            ack(&source, &[incoming]).await;
        }
    }
    assert_eq!(order, [100, 200, 300, 400]);
}

#[tokio::test]
async fn a_release_goes_back_to_its_place_and_counts_nothing() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, (0..3).map(|n| message("a", n)).collect()).await;
    let got = collect(&source, 2).await;
    for incoming in got {
        settle(&source, incoming.token, Settlement::Release).await;
    }
    let again = collect(&source, 3).await;
    assert_eq!(ids(&again), ["id-0", "id-1", "id-2"]);
    assert!(again.iter().all(|i| i.lost_deliveries == 0));
}

#[tokio::test]
async fn a_delivery_is_settled_once() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    let other = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    let got = collect(&source, 1).await;
    let token = got[0].token;
    let foreign = other.settle(vec![(token, Settlement::Ack)]).await;
    assert_eq!(foreign[0].as_ref().unwrap_err().code(), "STALE_DELIVERY");
    ack(&source, &got).await;
    let twice = source.settle(vec![(token, Settlement::Ack)]).await;
    assert_eq!(twice[0].as_ref().unwrap_err().code(), "STALE_DELIVERY");
}

#[tokio::test]
async fn dead_letters_can_be_looked_at_and_change_nothing() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, (0..5).map(|n| message("a", n)).collect()).await;
    let batch = collect(&source, 5)
        .await
        .iter()
        .map(|i| (i.token, Settlement::DeadLetter { headers: with(name::DEAD_REASON, "error") }))
        .collect();
    source.settle(batch).await.into_iter().for_each(|r| r.unwrap());
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let mut walk = transport.dead_letters("s").await.unwrap();
        assert_eq!(walk.depth(), 5);
        let mut look = String::new();
        loop {
            let page = walk.next(2).await.unwrap();
            if page.is_empty() {
                break;
            }
            for dead in page {
                writeln!(look, "{:?} {} {:?}", dead.token, dead.message.id, dead.message.headers).unwrap();
            }
        }
        walk.close().await.unwrap();
        seen.insert(look);
    }
    assert_eq!(seen.len(), 1);
    assert_eq!(info(&transport, "s").await, (0, 0, 5));

    let mut walk = transport.dead_letters("s").await.unwrap();
    let mut dead = walk.next(10).await.unwrap();
    assert_eq!(dead[0].message.headers.text(name::DEAD_REASON), Some("error"));
    let rest = dead.split_off(2);
    let tokens: Vec<_> = dead.iter().map(|d| d.token).collect();
    let replays: Vec<_> = dead
        .into_iter()
        .map(|d| (d.token, d.message))
        .map(|(t, mut m)| {
            m.headers = with("replayed", "yes");
            (t, m)
        })
        .collect();
    assert!(walk.replay(replays.clone()).await.iter().all(Result::is_ok));
    let again = walk.replay(replays).await;
    assert!(again.iter().all(|r| r.as_ref().is_err_and(|e| e.code() == "STALE_DELIVERY")), "a replay counts once");
    assert!(walk.discard(vec![rest[0].token]).await[0].is_ok());
    assert!(walk.discard(vec![tokens[0]]).await[0].is_err());
    let back = collect(&source, 2).await;
    assert_eq!(ids(&back), ["id-0", "id-1"]);
    assert_eq!(back[0].message.headers, with("replayed", "yes"));
    nothing(&source).await;
    assert_eq!(info(&transport, "s").await, (0, 2, 2));
    assert_eq!(transport.dead_letters("nobody").await.err().unwrap().code(), "SUBSCRIPTION_NOT_FOUND");
}

#[tokio::test]
async fn a_suspect_comes_back_at_once_with_a_fresh_count() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    let got = collect(&source, 1).await;
    settle(&source, got[0].token, Settlement::Suspect { headers: with(name::SUSPECT, "1") }).await;
    let again = collect(&source, 1).await;
    assert_eq!((again[0].lost_deliveries, again[0].message.headers.int(name::SUSPECT)), (0, Some(1)));
}

#[tokio::test]
async fn a_lease_that_is_renewed_outlives_itself_and_one_that_is_not_is_taken_over() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let mut short = spec("s", "#");
    short.lease = Duration::from_millis(200);
    let source = transport.subscribe(&short).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    let got = collect(&source, 1).await;
    let started = Instant::now();
    // Nothing but the writer thread runs here: a handler may block the runtime.
    while started.elapsed() < Duration::from_millis(700) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(info(&transport, "s").await, (0, 1, 0));
    ack(&source, &got).await;
}

#[tokio::test]
async fn closing_and_dropping_release() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let keeper = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, (0..4).map(|n| message("a", n)).collect()).await;
    let first = transport.subscribe(&spec("s", "#")).await.unwrap();
    let got = collect(&first, 2).await;
    first.close().await;
    let late = first.settle(vec![(got[0].token, Settlement::Ack)]).await;
    assert_eq!(late[0].as_ref().unwrap_err().code(), "STALE_DELIVERY");
    assert!(next(&first, 1).await.is_empty(), "a closed source has nothing");
    let second = transport.subscribe(&spec("s", "#")).await.unwrap();
    collect(&second, 3).await;
    drop(second);
    let all = collect(&keeper, 4).await;
    assert_eq!(ids(&all), ["id-0", "id-1", "id-2", "id-3"]);
    assert!(all.iter().all(|i| i.lost_deliveries == 0));
}

#[tokio::test]
async fn a_poll_that_is_given_up_takes_nothing_with_it() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    for n in 0..50 {
        let given_up = tokio::spawn({
            let source = source.clone();
            async move { source.next(1).await }
        });
        tokio::task::yield_now().await;
        let publishing = publish(&transport, vec![message("a", n)]);
        given_up.abort();
        publishing.await;
        // The event is either still there or comes back.
        let mut got = collect(&source, 1).await;
        if let Ok(Ok(stolen)) = given_up.await {
            got.extend(stolen);
        }
        ack(&source, &got).await;
    }
    assert_eq!(info(&transport, "s").await, (0, 0, 0));
}

#[tokio::test]
async fn flow_stop_and_close_end_a_waiting_poll_as_they_should() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    source.set_flow(false).await.unwrap();
    assert!(!source.health().consuming);
    publish(&transport, vec![message("a", 1), message("a", 2)]).await;
    nothing(&source).await;
    source.set_flow(true).await.unwrap();
    let got = collect(&source, 1).await;
    let waiting = tokio::spawn({
        let source = source.clone();
        async move {
            let mut seen = 0;
            loop {
                let got = source.next(1).await.unwrap();
                if got.is_empty() {
                    return seen;
                }
                seen += got.len();
            }
        }
    });
    eventually("the second event is taken", || async { info(&transport, "s").await.1 == 2 }).await;
    source.stop().await;
    assert_eq!(within(waiting).await.unwrap(), 1);
    ack(&source, &got).await;
    publish(&transport, vec![message("a", 3)]).await;
    assert!(next(&source, 1).await.is_empty());
    source.close().await;
    assert_eq!(info(&transport, "s").await, (2, 0, 0));
}

#[tokio::test]
async fn a_closed_transport_says_so_and_releases() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let other = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    collect(&source, 1).await;
    transport.close().await.unwrap();
    transport.close().await.unwrap();
    assert_eq!(transport.publish(vec![message("a", 2)]).await[0].as_ref().unwrap_err().code(), "CLOSED");
    assert_eq!(transport.ping().await.unwrap_err().code(), "CLOSED");
    assert!(source.next(1).await.unwrap().is_empty());
    other.ping().await.unwrap();
    assert_eq!(info(&other, "s").await, (1, 0, 0));
    other.close().await.unwrap();
    assert!(!folder.path().with_extension("db-wal").exists(), "the last to close leaves one file");
    let again = folder.connect().await;
    assert_eq!(info(&again, "s").await, (1, 0, 0));
}

#[tokio::test]
async fn other_settings_are_a_conflict_that_names_them() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    transport.subscribe(&spec("s", "a")).await.unwrap();
    let mut elsewhere = spec("s", "a");
    elsewhere.exchange = "other".to_owned();
    let error = transport.subscribe(&elsewhere).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("exchange")));
    let error = transport.subscribe(&ordered("s", KeyOrder::default())).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("ordered")));
    let more = transport.subscribe(&spec("s", "b")).await.unwrap();
    publish(&transport, vec![message("a", 1), message("b", 2)]).await;
    assert_eq!(collect(&more, 2).await.len(), 2, "binding keys are added");
}

#[tokio::test]
async fn exchanges_are_apart() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let mut there = spec("there", "#");
    there.exchange = "other".to_owned();
    let here = transport.subscribe(&spec("here", "#")).await.unwrap();
    let there = transport.subscribe(&there).await.unwrap();
    let mut event = message("a", 1);
    event.exchange = "other".into();
    publish(&transport, vec![event]).await;
    assert_eq!(collect(&there, 1).await.len(), 1);
    nothing(&here).await;
}

#[tokio::test]
async fn a_scheduled_event_goes_to_those_bound_when_it_is_due() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let started = Instant::now();
    let later = |n, ms| {
        let mut event = message("later", n);
        event.deliver_at = Some(Timestamp::now().after(Duration::from_millis(ms)));
        event
    };
    let receipts = transport.publish(vec![later(1, 300), later(2, 150)]).await;
    assert!(receipts.iter().all(|r| r.as_ref().unwrap().routed.is_none()));
    let source = transport.subscribe(&spec("s", "later")).await.unwrap();
    let first = collect(&source, 1).await;
    assert!(started.elapsed() >= Duration::from_millis(150));
    let second = collect(&source, 1).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!((ids(&first), ids(&second)), (vec!["id-2"], vec!["id-1"]));
    let mut strict = later(3, 100);
    strict.require_route = true;
    assert_eq!(transport.publish(vec![strict]).await[0].as_ref().unwrap_err().code(), "INVALID_OPTION");
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_and_a_live_consumer_declares_it_again() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let idle = transport.subscribe(&spec("idle", "#")).await.unwrap();
    let live = transport.subscribe(&spec("live", "#")).await.unwrap();
    idle.close().await;
    publish(&transport, (0..5000).map(|n| message("a", n)).collect()).await;
    let got = collect(&live, 10).await;
    let batch = got
        .iter()
        .map(|i| (i.token, Settlement::Retry { delay: Duration::from_secs(3600), headers: Headers::new() }))
        .collect();
    live.settle(batch).await.into_iter().for_each(|r| r.unwrap());
    let held = collect(&live, 1).await;
    assert!(transport.delete_subscription("idle").await.unwrap());
    assert!(!transport.delete_subscription("idle").await.unwrap());
    assert!(transport.delete_subscription("live").await.unwrap());
    let stale = live.settle(vec![(held[0].token, Settlement::Ack)]).await;
    assert_eq!(stale[0].as_ref().unwrap_err().code(), "STALE_DELIVERY");
    publish(&transport, vec![message("a", 9999)]).await;
    let fresh = collect(&live, 1).await;
    assert_eq!(ids(&fresh), ["id-9999"]);
    assert!(live.health().recoveries > 0);
    let names: Vec<_> = transport.subscriptions().await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["live"]);
    eventually("the old rows are removed", || async { count(&folder, "tidings_event") == 1 }).await;
    eventually("the old subscriptions are removed", || async { count(&folder, "tidings_subscription") == 1 }).await;
    assert_eq!(count(&folder, "tidings_delivery"), 1);
}

#[tokio::test]
async fn settled_events_are_retained_for_as_long_as_the_url_says() {
    let folder = Folder::new();
    let keeping = tidings::transport::registry::connect(&format!("{}?retention=1", folder.url())).await.unwrap();
    let source = keeping.subscribe(&spec("s", "#")).await.unwrap();
    publish(&keeping, (0..10).map(|n| message("a", n)).collect()).await;
    let got = collect(&source, 10).await;
    ack(&source, &got).await;
    assert_eq!(count(&folder, "tidings_event"), 10);
    nothing(&source).await;
    eventually("old events are purged", || async {
        keeping.ping().await.unwrap();
        count(&folder, "tidings_event") == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn competing_consumers_never_share_a_delivery() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let sources: Vec<Arc<dyn Source>> = {
        let mut sources = Vec::new();
        for _ in 0..4 {
            sources.push(transport.subscribe(&spec("s", "#")).await.unwrap());
        }
        sources
    };
    let consumers: Vec<_> = sources
        .iter()
        .cloned()
        .map(|source| {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                loop {
                    let got = source.next(7).await.unwrap();
                    if got.is_empty() {
                        return seen;
                    }
                    ack(&source, &got).await;
                    seen.extend(got.into_iter().map(|i| i.message.id));
                }
            })
        })
        .collect();
    let publishers: Vec<_> = (0..8)
        .map(|p| {
            let transport = transport.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    publish(&transport, vec![message("a", p * 100 + 2 * n), message("a", p * 100 + 2 * n + 1)]).await;
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    eventually("everything is settled", || async { info(&transport, "s").await == (0, 0, 0) }).await;
    for source in &sources {
        source.stop().await;
    }
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(within(consumer).await.unwrap());
    }
    assert_eq!(all.len(), 800);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 800);
}

/// Not a test: what the children of the tests above do.
#[test]
fn child_process() {
    if let Some((role, args)) = child::role() {
        assert!(child::common(&role, &args), "{role}");
    }
}
