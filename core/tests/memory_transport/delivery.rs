//! Routing, scheduling, settling, limits, closing.

use super::*;

#[tokio::test(start_paused = true)]
async fn urls() {
    let a = MemoryTransport::open("memory:urls-shared").unwrap();
    let b = MemoryTransport::open("memory:urls-shared").unwrap();
    let source = a.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&b, None, &["1"]).await;
    assert_eq!(ids(&now(&source, 9).await), ["1"]);
    assert!(MemoryTransport::open("memory:").unwrap().subscriptions().await.unwrap().is_empty());
    b.close().await.unwrap();
    fill(&a, None, &["2"]).await;
    drop((a, b, source));
    assert!(MemoryTransport::open("memory:urls-shared").unwrap().subscriptions().await.unwrap().is_empty());
    for bad in ["memory://host", "memory:?x=1", "memory:a b", "memory"] {
        assert_eq!(code(MemoryTransport::open(bad)), "INVALID_URL", "{bad}");
    }
    registry::connect("memory:").await.unwrap().ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fan_out_by_binding_and_exchange() {
    let transport = MemoryTransport::new();
    let a = transport.subscribe(&spec("a", "user.*", None)).await.unwrap();
    let b = transport.subscribe(&spec("b", "user.#", None)).await.unwrap();
    let mut other = spec("c", "#", None);
    other.exchange = "elsewhere".to_owned();
    let c = transport.subscribe(&other).await.unwrap();
    assert_eq!(publish(&transport, message("user.x", "1", None)).await.unwrap().routed, Some(true));
    publish(&transport, message("user.x.y", "2", None)).await.unwrap();
    assert_eq!(publish(&transport, message("order.x", "3", None)).await.unwrap().routed, Some(false));
    let strict = message("order.x", "4", None).with_require_route(true);
    assert_eq!(code(publish(&transport, strict).await), "UNROUTABLE");
    let there = message("order.x", "5", None).with_exchange("elsewhere");
    publish(&transport, there).await.unwrap();
    assert_eq!(ids(&now(&a, 9).await), ["1"]);
    assert_eq!(ids(&now(&b, 9).await), ["1", "2"]);
    assert_eq!(ids(&now(&c, 9).await), ["5"]);
    // Declaring it again adds the binding.
    let again = transport.subscribe(&spec("a", "order.*", None)).await.unwrap();
    publish(&transport, message("order.x", "6", None)).await.unwrap();
    publish(&transport, message("user.x", "7", None)).await.unwrap();
    assert_eq!(ids(&now(&again, 9).await), ["6", "7"]);
}

#[tokio::test(start_paused = true)]
async fn sources_of_a_subscription_compete_and_wake() {
    let transport = Arc::new(MemoryTransport::new());
    let (a, b) = (
        transport.subscribe(&spec("s", "#", None)).await.unwrap(),
        transport.subscribe(&spec("s", "#", None)).await.unwrap(),
    );
    let wait = |source: Arc<dyn Source>| tokio::spawn(async move { source.next(1).await.unwrap() });
    let (first, second) = (wait(a.clone()), wait(b.clone()));
    tokio::task::yield_now().await;
    fill(&transport, None, &["1", "2"]).await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let mut got = [ids(&first), ids(&second)].concat();
    got.sort_unstable();
    assert_eq!(got, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn conflicts_name_the_setting() {
    let transport = MemoryTransport::new();
    let _source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let error = transport.subscribe(&spec("s", "#", Some(KeyOrder::default()))).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("ordered")));
    let mut other = spec("s", "#", None);
    other.exchange = "elsewhere".to_owned();
    let error = transport.subscribe(&other).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("exchange")));
    assert_eq!(transport.dead_letters("none").await.err().map(|e| e.code()), Some("SUBSCRIPTION_NOT_FOUND"));
}

#[tokio::test(start_paused = true)]
async fn scheduled_events_go_to_those_bound_when_due() {
    let transport = MemoryTransport::new();
    let a = transport.subscribe(&spec("a", "#", None)).await.unwrap();
    let started = (Instant::now(), transport.now());
    let at = message("a.b", "1", None).with_deliver_at(transport.now().after(60 * SECOND));
    assert_eq!(publish(&transport, at).await.unwrap().routed, None);
    let b = transport.subscribe(&spec("b", "#", None)).await.unwrap();
    assert!(now(&a, 9).await.is_empty());
    assert_eq!(ids(&a.next(9).await.unwrap()), ["1"]);
    assert!((60_000..60_010).contains(&started.0.elapsed().as_millis()));
    assert!((60_000..60_010).contains(&transport.now().since(started.1).as_millis()));
    let c = transport.subscribe(&spec("c", "#", None)).await.unwrap();
    assert_eq!(ids(&now(&b, 9).await), ["1"]);
    assert!(now(&c, 9).await.is_empty());
    let past = message("a.b", "2", None).with_deliver_at(started.1);
    assert_eq!(publish(&transport, past).await.unwrap().routed, Some(true));
    let far = message("a.b", "3", None).with_deliver_at(Timestamp::from_micros(i64::MAX));
    assert_eq!(code(publish(&transport, far).await), "INVALID_DELAY");
}

#[tokio::test(start_paused = true)]
async fn events_scheduled_for_a_deleted_subscription_vanish() {
    let transport = MemoryTransport::new();
    let gone = transport.subscribe(&spec("gone", "#", None)).await.unwrap();
    let stays = transport.subscribe(&spec("stays", "#", None)).await.unwrap();
    fill(&transport, None, &["0"]).await;
    let batch = now(&gone, 9).await;
    settle(&gone, &batch[0], retry(5 * SECOND)).await.unwrap();
    ack_all(&stays, &now(&stays, 9).await).await;
    for id in ["1", "2"] {
        let at = message("a.b", id, None).with_deliver_at(transport.now().after(SECOND));
        publish(&transport, at).await.unwrap();
    }
    gone.close().await;
    assert!(transport.delete_subscription("gone").await.unwrap());
    assert!(!transport.delete_subscription("gone").await.unwrap());
    assert_eq!(ids(&stays.next(9).await.unwrap()), ["1", "2"]);
    assert_eq!(transport.subscriptions().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_deleted_under_its_consumer_is_declared_again() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    let old = now(&source, 1).await;
    transport.delete_subscription("s").await.unwrap();
    assert!(!source.health().consuming);
    assert!(now(&source, 9).await.is_empty());
    assert!(source.health().consuming);
    assert_eq!(source.health().recoveries, 1);
    fill(&transport, None, &["3"]).await;
    assert_eq!(ids(&now(&source, 9).await), ["3"]);
    assert_eq!(code(settle(&source, &old[0], Settlement::Ack).await), "STALE_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn retries_come_when_due_and_shorter_ones_overtake() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    let batch = now(&source, 9).await;
    let started = Instant::now();
    settle(&source, &batch[0], retry(10 * SECOND)).await.unwrap();
    settle(&source, &batch[1], retry(5 * SECOND)).await.unwrap();
    assert_eq!(info(&transport, "s").await.ready, 2);
    for (id, seconds) in [("2", 5), ("1", 10)] {
        let batch = source.next(9).await.unwrap();
        assert_eq!((ids(&batch), started.elapsed().as_secs()), (vec![id], seconds));
        assert_eq!(batch[0].message.headers.int(name::ATTEMPT), Some(1));
        ack_all(&source, &batch).await;
    }
    assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn released_events_go_back_to_their_place() {
    for order in [None, Some(KeyOrder::default())] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        fill(&transport, Some("k"), &["1", "2", "3", "4"]).await;
        let batch = now(&source, 3).await;
        for i in [2, 0, 1] {
            settle(&source, &batch[i], Settlement::Release).await.unwrap();
        }
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3", "4"]);
        let headers: Headers = [(name::SUSPECT, 1i64)].into_iter().collect();
        settle(&source, &batch[0], Settlement::Suspect { headers }).await.unwrap();
        // Dropped without being closed.
        drop(source);
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3", "4"]);
        assert!(batch[0].message.headers.get(name::SUSPECT).is_some());
        assert!(batch.iter().all(|incoming| incoming.lost_deliveries == 0));
        source.close().await;
        assert!(source.next(1).await.unwrap().is_empty());
        assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
        assert_eq!(info(&transport, "s").await.ready, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn flow_and_stop() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    source.set_flow(false).await.unwrap();
    fill(&transport, None, &["1"]).await;
    assert!(now(&source, 9).await.is_empty());
    assert!(source.health().connected && !source.health().consuming);
    source.set_flow(true).await.unwrap();
    let batch = now(&source, 9).await;
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.next(1).await.unwrap().len() }
    });
    tokio::task::yield_now().await;
    source.stop().await;
    assert_eq!(waiting.await.unwrap(), 0);
    ack_all(&source, &batch).await;
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_subscription_rejects_and_nothing_is_stored_anywhere() {
    let transport = MemoryTransport::new().max_events(2);
    let a = transport.subscribe(&spec("a", "a.#", None)).await.unwrap();
    let b = transport.subscribe(&spec("b", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    ack_all(&b, &now(&b, 9).await).await;
    let error = publish(&transport, message("a.b", "3", None)).await.unwrap_err();
    assert_eq!((error.code(), error.field_value()), ("REJECTED", Some("a")));
    assert!(error.remedy_text().is_some());
    assert!(now(&b, 9).await.is_empty());
    // The later one of the key would fit, but must not overtake.
    let batch = vec![message("a.b", "3", Some("k")), message("b", "4", Some("k")), message("b", "5", Some("l"))];
    let results = transport.publish(batch).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, true]);
    ack_all(&a, &now(&a, 1).await).await;
    publish(&transport, message("a.b", "3", None)).await.unwrap();
    let later = |id| message("b.b", id, None).with_deliver_at(transport.now().after(SECOND));
    assert_eq!(code(publish(&transport, later("6")).await), "REJECTED");
    ack_all(&b, &now(&b, 9).await).await;
    ack_all(&a, &now(&a, 9).await).await;
    publish(&transport, later("7")).await.unwrap();
    publish(&transport, later("8")).await.unwrap();
    assert_eq!(code(publish(&transport, later("9")).await), "REJECTED");
}

#[tokio::test(start_paused = true)]
async fn closed_says_so() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    transport.ping().await.unwrap();
    transport.close().await.unwrap();
    transport.close().await.unwrap();
    assert!(source.next(1).await.unwrap().is_empty());
    assert_eq!(code(publish(&transport, message("a", "1", None)).await), "CLOSED");
    assert_eq!(code(transport.ping().await), "CLOSED");
    assert_eq!(code(transport.subscriptions().await), "CLOSED");
    assert_eq!(code(transport.delete_subscription("s").await), "CLOSED");
    assert_eq!(transport.subscribe(&spec("s", "#", None)).await.err().map(|e| e.code()), Some("CLOSED"));
    assert_eq!(transport.dead_letters("s").await.err().map(|e| e.code()), Some("CLOSED"));
}
