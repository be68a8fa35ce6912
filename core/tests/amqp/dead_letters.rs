//! Browsing changes nothing; replay and discard confirm before they remove.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use tidings::settlement::replayed;
use tidings::transport::{QueueType, Settlement, Source};

use super::support::{Bench, bare, depth, next_one, settle, until};

async fn bury(bench: &Bench, source: &Arc<dyn Source>, count: usize) {
    for n in 0..count {
        bench.publish(bench.message(&n.to_string())).await.unwrap();
    }
    for _ in 0..count {
        let event = next_one(source).await;
        let mut headers = event.message.headers.clone();
        headers.set("tidings-dead-reason", "tried");
        settle(source, &event, Settlement::DeadLetter { headers }).await;
    }
}

async fn shown(bench: &Bench) -> Vec<(String, String, String)> {
    let mut walk = bench.transport.dead_letters(&bench.name).await.unwrap();
    let mut all = Vec::new();
    loop {
        let letters = walk.next(7).await.unwrap();
        if letters.is_empty() {
            break;
        }
        all.extend(letters.into_iter().map(|letter| {
            (
                letter.message.id.to_string(),
                letter.message.routing_key.to_string(),
                format!("{:?}", letter.message.headers),
            )
        }));
    }
    assert_eq!(walk.depth(), all.len() as u64);
    walk.close().await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_what_is_not_there_spoils_no_later_look() {
    let Some(bench) = Bench::new("absent").await else { return };
    let source = bench.subscribe().await;
    bury(&bench, &source, 1).await;
    let absent = format!("{}-absent", bench.name);
    for _ in 0..20 {
        let error = bench.transport.dead_letters(&absent).await.err().unwrap();
        assert_eq!(error.code(), "SUBSCRIPTION_NOT_FOUND");
        assert_eq!(shown(&bench).await.len(), 1);
    }
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_looks_change_nothing() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let Some(mut bench) = Bench::new("looks").await else { return };
        bench.spec.queue_type = queue_type;
        let source = bench.subscribe().await;
        bury(&bench, &source, 20).await;
        let first = shown(&bench).await;
        assert_eq!(first.len(), 20);
        assert!(first[0].2.contains("tried") && first[0].1.ends_with(".0"));
        // One right after the other: a walk that has ended holds nothing any more.
        for _ in 0..100 {
            assert_eq!(shown(&bench).await, first);
        }
        bench.done().await;
    }
}

/// A quorum queue's channel holds back acks beyond 32 that are under way, and forgets them when it closes.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_gone_however_much_it_is() {
    let Some(bench) = Bench::new("removal").await else { return };
    let source = bench.subscribe().await;
    for every in [1, 2] {
        bury(&bench, &source, 400).await;
        let mut walk = bench.transport.dead_letters(&bench.name).await.unwrap();
        let mut tokens = Vec::new();
        while tokens.len() < 400 {
            tokens.extend(walk.next(400).await.unwrap().into_iter().map(|letter| letter.token));
        }
        assert_eq!(tokens.len(), 400);
        let removed = tokens.into_iter().step_by(every).collect();
        assert!(walk.discard(removed).await.into_iter().all(|result| result.is_ok()));
        walk.close().await.unwrap();
        let mut walk = bench.transport.dead_letters(&bench.name).await.unwrap();
        let depth = walk.depth();
        assert_eq!(depth, 400 - 400 / every as u64, "every {every}");
        let mut rest = Vec::new();
        while (rest.len() as u64) < depth {
            rest.extend(walk.next(400).await.unwrap().into_iter().map(|letter| letter.token));
        }
        walk.discard(rest).await;
        walk.close().await.unwrap();
    }
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_and_discarded_ones_go_and_the_rest_stays() {
    let Some(bench) = Bench::new("replay").await else { return };
    let source = bench.subscribe().await;
    bury(&bench, &source, 6).await;
    let mut walk = bench.transport.dead_letters(&bench.name).await.unwrap();
    let mut letters = walk.next(100).await.unwrap();
    while letters.len() < 6 {
        letters.extend(walk.next(100).await.unwrap());
    }
    let ids: Vec<_> = letters.iter().map(|letter| letter.message.id.clone()).collect();
    let mut letters = letters.into_iter();
    let replay: Vec<_> = letters
        .by_ref()
        .take(2)
        .map(|mut letter| {
            letter.message.headers = replayed(&letter.message.headers);
            (letter.token, letter.message)
        })
        .collect();
    let token = replay[0].0;
    let message = replay[0].1.clone();
    assert!(walk.replay(replay).await.into_iter().all(|result| result.is_ok()));
    assert_eq!(walk.replay(vec![(token, message)]).await.remove(0).unwrap_err().code(), "STALE_DELIVERY");
    let discard = letters.by_ref().take(1).map(|letter| letter.token).collect();
    assert!(walk.discard(discard).await.into_iter().all(|result| result.is_ok()));
    walk.close().await.unwrap();
    for (n, id) in ids.iter().take(2).enumerate() {
        let event = next_one(&source).await;
        assert_eq!(event.message.id, *id);
        assert!(event.message.routing_key.ends_with(&format!(".{n}")), "the routing key stays");
        assert!(event.message.headers.is_empty(), "{:?}", event.message.headers);
        settle(&source, &event, Settlement::Ack).await;
    }
    let left: Vec<_> = shown(&bench).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(left, ids[3..].iter().map(ToString::to_string).collect::<Vec<_>>());
    let infos = bench.transport.subscriptions().await.unwrap();
    assert_eq!(
        infos.iter().map(|info| (info.name.as_str(), info.ready)).collect::<Vec<_>>(),
        [(bench.name.as_str(), 0)]
    );
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_the_broker_has_its_reason() {
    let Some(bench) = Bench::new("foreign").await else { return };
    let source = bench.subscribe().await;
    drop(source);
    let (connection, channel) = bare().await;
    let properties = BasicProperties::default().with_app_id("shop".into());
    let exchange = "domain-events".into();
    let key = format!("{}.x", bench.domain);
    channel
        .basic_publish(exchange, key.as_str().into(), BasicPublishOptions::default(), b"{}", properties)
        .await
        .unwrap();
    until("it is there", || async { depth(&bench.name).await == 1 }).await;
    let got = channel
        .basic_get(bench.name.as_str().into(), lapin::options::BasicGetOptions::default())
        .await
        .unwrap()
        .unwrap();
    got.delivery.acker.reject(lapin::options::BasicRejectOptions { requeue: false }).await.unwrap();
    let dead = format!("{}-dl", bench.name);
    until("it is dead", || async { depth(&dead).await == 1 }).await;
    connection.close(200, "".into()).await.unwrap();
    assert!(shown(&bench).await[0].2.contains("rejected"));
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_subscriptions_have_none() {
    let Some(bench) = Bench::new("unknown").await else { return };
    let error = bench.transport.dead_letters(&bench.name).await.err().expect("no such subscription");
    assert_eq!((error.code(), error.field_value()), ("SUBSCRIPTION_NOT_FOUND", Some(bench.name.as_str())));
    assert!(!bench.transport.delete_subscription(&bench.name).await.unwrap());
    bench.transport.close().await.unwrap();
}
