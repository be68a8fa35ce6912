//! Order per key on a `sqlite:` store.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod sqlite_support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlite_support::*;
use tidings::event::{Headers, name};
use tidings::transport::{KeyOrder, OnDead, OnRetry, Settlement, Source, Transport};

const WAIT_PARK: KeyOrder = KeyOrder::new();

async fn with_events(ordering: KeyOrder, events: &[(&str, usize)]) -> (Folder, Arc<dyn Transport>, Arc<dyn Source>) {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&ordered("s", ordering)).await.unwrap();
    publish(&transport, events.iter().map(|(key, n)| keyed("a", *n, Some(key))).collect()).await;
    (folder, transport, source)
}

fn retry(ms: u64) -> Settlement {
    Settlement::Retry { delay: Duration::from_millis(ms), headers: with(name::ATTEMPT, "1") }
}

fn dead() -> Settlement {
    Settlement::DeadLetter { headers: with(name::DEAD_REASON, "error") }
}

#[tokio::test]
async fn a_key_is_with_one_consumer_at_a_time_and_comes_in_order() {
    let events: Vec<_> = (0..20).map(|n| ("k", n)).collect();
    let (_folder, transport, source) = with_events(WAIT_PARK, &events).await;
    let other = transport.subscribe(&ordered("s", WAIT_PARK)).await.unwrap();
    let first = next(&source, 100).await;
    assert_eq!(ids(&first), (0..8).map(|n| format!("id-{n}")).collect::<Vec<_>>(), "a run of at most 8");
    nothing(&other).await;
    ack(&source, &first[..7]).await;
    nothing(&other).await;
    ack(&source, &first[7..]).await;
    let second = next(&other, 100).await;
    assert_eq!(&*second[0].message.id, "id-8");
}

#[tokio::test]
async fn keys_are_spread_and_events_without_a_key_do_not_wait() {
    let events: Vec<_> = (0..80).map(|n| (["a", "b", "c", "d", "e", "f", "g", "h"][n % 8], n)).collect();
    let (_folder, transport, source) = with_events(WAIT_PARK, &events).await;
    publish(&transport, vec![message("a", 1000)]).await;
    let got = next(&source, 8).await;
    let keys: std::collections::HashSet<_> = got.iter().map(|i| i.message.key.clone()).collect();
    assert_eq!(keys.len(), 8, "parallel handlers get keys of their own");
    assert_eq!(ids(&next(&source, 1).await), ["id-1000"]);
}

#[tokio::test]
async fn a_waiting_head_holds_its_key_up_and_no_other() {
    let (_folder, _transport, source) = with_events(WAIT_PARK, &[("k", 0), ("k", 1), ("k", 2), ("x", 3)]).await;
    let got = next(&source, 100).await;
    let of = |n: usize| got.iter().find(|i| *i.message.id == *format!("id-{n}")).unwrap().token;
    // Any order, in pieces: the followers first.
    settle(&source, of(2), Settlement::Release).await;
    source
        .settle(vec![(of(1), Settlement::Release), (of(0), retry(300)), (of(3), Settlement::Ack)])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    nothing(&source).await;
    let again = collect(&source, 3).await;
    assert_eq!(ids(&again), ["id-0", "id-1", "id-2"]);
    assert_eq!(again[0].message.headers, with(name::ATTEMPT, "1"));
    assert!(again[1].message.headers.is_empty());
}

#[tokio::test]
async fn with_pass_the_others_go_on() {
    let ordering = KeyOrder::new().on_retry(OnRetry::Pass);
    let (_folder, _transport, source) = with_events(ordering, &[("k", 0), ("k", 1)]).await;
    let got = collect(&source, 2).await;
    source
        .settle(vec![(got[0].token, retry(200)), (got[1].token, Settlement::Release)])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    let on = collect(&source, 1).await;
    assert_eq!(ids(&on), ["id-1"]);
    ack(&source, &on).await;
    assert_eq!(ids(&collect(&source, 1).await), ["id-0"]);
}

#[tokio::test]
async fn a_parked_key_resumes_in_order_with_a_replay() {
    let (_folder, transport, source) = with_events(WAIT_PARK, &[("k", 0), ("k", 1), ("x", 2)]).await;
    let got = collect(&source, 3).await;
    let of = |n: usize| got.iter().find(|i| *i.message.id == *format!("id-{n}")).unwrap().token;
    source
        .settle(vec![(of(0), dead()), (of(1), Settlement::Release), (of(2), Settlement::Ack)])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    publish(&transport, vec![keyed("a", 3, Some("k")), keyed("a", 4, Some("x"))]).await;
    let other_key = collect(&source, 1).await;
    assert_eq!(ids(&other_key), ["id-4"]);
    ack(&source, &other_key).await;
    nothing(&source).await;
    let info = transport.subscriptions().await.unwrap().remove(0);
    assert_eq!((info.ready, info.in_flight, info.dead), (2, Some(0), 1));

    let mut walk = transport.dead_letters("s").await.unwrap();
    let mut parked = walk.next(10).await.unwrap();
    assert_eq!(parked.len(), 1);
    let copy = parked.remove(0);
    assert!(copy.message.headers.get(name::PARKED).is_some());
    assert_eq!(copy.message.headers.text(name::DEAD_REASON), Some("error"));
    let mut fresh = copy.message.clone();
    fresh.headers = Headers::new();
    walk.replay(vec![(copy.token, fresh)]).await.remove(0).unwrap();
    let resumed = collect(&source, 3).await;
    assert_eq!(ids(&resumed), ["id-0", "id-1", "id-3"]);
    assert!(resumed[0].message.headers.is_empty());
    ack(&source, &resumed).await;
    let info = transport.subscriptions().await.unwrap().remove(0);
    assert_eq!((info.ready, info.in_flight, info.dead), (0, Some(0), 0));
}

#[tokio::test]
async fn it_says_what_waits() {
    let (_folder, transport, source) = with_events(WAIT_PARK, &[("dead", 0), ("waiting", 1), ("free", 2)]).await;
    let got = collect(&source, 3).await;
    let of = |n: usize| got.iter().find(|i| *i.message.id == *format!("id-{n}")).unwrap().token;
    for settled in source.settle(vec![(of(0), dead()), (of(1), retry(3_600_000))]).await {
        settled.unwrap();
    }
    let listed = transport.subscription("s").await.unwrap().unwrap().order.unwrap();
    assert_eq!((listed.waiting_keys, listed.parked_keys, listed.dead_keys, listed.owners.len()), (1, 1, 1, 1));
    assert!(listed.oldest_waiting.is_some_and(|age| age < Duration::from_secs(60)), "{listed:?}");
    // Whoever asks once has it looked up.
    eventually("it is known without a look at the file", || async {
        source.health().order.is_some_and(|order| (order.waiting_keys, order.parked_keys) == (1, 1))
    })
    .await;
    ack(&source, &got.into_iter().filter(|i| *i.message.id == *"id-2").collect::<Vec<_>>()).await;
    let listed = transport.subscription("s").await.unwrap().unwrap().order.unwrap();
    assert_eq!((listed.waiting_keys, listed.owners.len(), listed.whole), (1, 0, true));
    let plain = transport.subscribe(&spec("plain", "#")).await.unwrap();
    assert_eq!(plain.health().order, None);
    assert_eq!(transport.subscription("plain").await.unwrap().unwrap().order, None);
}

#[tokio::test]
async fn a_parked_key_goes_on_without_its_head_when_that_is_discarded() {
    let (folder, transport, source) = with_events(WAIT_PARK, &[("k", 0), ("k", 1)]).await;
    let got = collect(&source, 2).await;
    source
        .settle(vec![(got[0].token, dead()), (got[1].token, Settlement::Release)])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    nothing(&source).await;
    let mut walk = transport.dead_letters("s").await.unwrap();
    let parked = walk.next(10).await.unwrap();
    walk.discard(vec![parked[0].token]).await.remove(0).unwrap();
    let on = collect(&source, 1).await;
    assert_eq!(ids(&on), ["id-1"]);
    ack(&source, &on).await;
    for table in ["tidings_event", "tidings_key", "tidings_ordered", "tidings_dead"] {
        assert_eq!(child::query(&folder.path(), &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[tokio::test]
async fn a_skipped_event_comes_back_with_a_replay() {
    let ordering = KeyOrder::new().on_dead(OnDead::Skip);
    let (_folder, transport, source) = with_events(ordering, &[("k", 0), ("k", 1), ("k", 2)]).await;
    let got = collect(&source, 3).await;
    source
        .settle(vec![(got[0].token, dead()), (got[1].token, Settlement::Release), (got[2].token, Settlement::Release)])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    let on = next(&source, 1).await;
    assert_eq!(ids(&on), ["id-1"]);
    // Replayed while the key is out: it waits for that, then it is first again.
    let mut walk = transport.dead_letters("s").await.unwrap();
    let dead = walk.next(10).await.unwrap().remove(0);
    assert!(dead.message.headers.get(name::PARKED).is_none());
    walk.replay(vec![(dead.token, dead.message)]).await.remove(0).unwrap();
    nothing(&source).await;
    ack(&source, &on).await;
    let rest = collect(&source, 2).await;
    assert_eq!(ids(&rest), ["id-0", "id-2"]);
    ack(&source, &rest).await;
    let info = transport.subscriptions().await.unwrap().remove(0);
    assert_eq!((info.ready, info.in_flight, info.dead), (0, Some(0), 0));
}

#[tokio::test]
async fn a_suspect_stays_in_its_place() {
    let (_folder, _transport, source) = with_events(WAIT_PARK, &[("k", 0), ("k", 1)]).await;
    let got = collect(&source, 2).await;
    source
        .settle(vec![
            (got[0].token, Settlement::Suspect { headers: with(name::SUSPECT, "1") }),
            (got[1].token, Settlement::Release),
        ])
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    assert_eq!(ids(&collect(&source, 2).await), ["id-0", "id-1"]);
}

#[tokio::test]
async fn a_closed_consumer_leaves_its_keys_in_order() {
    let events: Vec<_> = (0..10).map(|n| ("k", n)).collect();
    let (_folder, transport, source) = with_events(WAIT_PARK, &events).await;
    let got = collect(&source, 5).await;
    ack(&source, &got[..2]).await;
    source.close().await;
    let other = transport.subscribe(&ordered("s", WAIT_PARK)).await.unwrap();
    let rest = collect(&other, 8).await;
    assert_eq!(ids(&rest), (2..10).map(|n| format!("id-{n}")).collect::<Vec<_>>());
    assert!(rest.iter().all(|i| i.lost_deliveries == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_deliveries_stay_in_order_whatever_is_retried_and_released() {
    const KEYS: usize = 7;
    const EVENTS: usize = 1400;
    let folder = Folder::new();
    let transport = folder.connect().await;
    let seen: Arc<parking_lot::Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let mut consumers = Vec::new();
    for seed in 0..3 {
        let source = transport.subscribe(&ordered("s", WAIT_PARK)).await.unwrap();
        let seen = seen.clone();
        consumers.push((
            source.clone(),
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                loop {
                    let got = source.next(random.usize(1..30)).await.unwrap();
                    if got.is_empty() {
                        return;
                    }
                    let mut batch = Vec::new();
                    let mut held_up = std::collections::HashSet::new();
                    for incoming in got {
                        let key = incoming.message.key.clone().unwrap().to_string();
                        let settlement = if held_up.contains(&key) {
                            Settlement::Release
                        } else if random.u8(..) < 40 {
                            held_up.insert(key);
                            retry(random.u64(0..20))
                        } else {
                            let n: usize = incoming.message.id.trim_start_matches("id-").parse().unwrap();
                            seen.lock().entry(key).or_default().push(n);
                            Settlement::Ack
                        };
                        batch.push((incoming.token, settlement));
                    }
                    random.shuffle(&mut batch);
                    let half = batch.split_off(random.usize(0..=batch.len()));
                    for part in [batch, half] {
                        source.settle(part).await.into_iter().for_each(|r| r.unwrap());
                    }
                }
            }),
        ));
    }
    for start in (0..EVENTS).step_by(20) {
        publish(&transport, (start..start + 20).map(|n| keyed("a", n, Some(&format!("k{}", n % KEYS)))).collect())
            .await;
    }
    eventually("everything is handled", || async { seen.lock().values().map(Vec::len).sum::<usize>() == EVENTS }).await;
    for (source, consumer) in consumers {
        source.stop().await;
        within(consumer).await.unwrap();
    }
    for (key, order) in &*seen.lock() {
        assert!(order.is_sorted(), "{key}: {order:?}");
    }
}

/// Not a test: what the children of the tests above do.
#[test]
fn child_process() {
    if let Some((role, args)) = child::role() {
        assert!(child::common(&role, &args), "{role}");
    }
}
