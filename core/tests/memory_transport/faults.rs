//! Scripted faults, crashes and the seed.

use super::*;

#[tokio::test(start_paused = true)]
async fn scripted_publish_and_settle_faults() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let faults = transport.faults();
    faults.fail(Operation::Publish, 1, ErrorKind::StoreFull, When::Before);
    faults.fail(Operation::Publish, 1, ErrorKind::ConnectionFailed, When::After);
    let errors: Vec<Error> = transport
        .publish(vec![message("a", "1", None), message("a", "2", None), message("a", "3", None)])
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert_eq!(
        errors.iter().map(|e| (e.code(), e.outcome_unknown())).collect::<Vec<_>>(),
        [("STORE_FULL", false), ("CONNECTION_FAILED", true)]
    );
    let batch = now(&source, 9).await;
    assert_eq!(ids(&batch), ["2", "3"]);
    faults.fail(Operation::Settle, 1, ErrorKind::ConnectionFailed, When::Before);
    assert!(settle(&source, &batch[0], Settlement::Ack).await.unwrap_err().retryable());
    settle(&source, &batch[0], Settlement::Ack).await.unwrap();
    faults.fail(Operation::Settle, 1, ErrorKind::ConnectionFailed, When::After);
    assert!(settle(&source, &batch[1], dead()).await.unwrap_err().retryable());
    assert_eq!(code(settle(&source, &batch[1], dead()).await), "STALE_DELIVERY");
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 1));
    let (mut walk, found) = walk(&transport, "s").await;
    faults.fail(Operation::Replay, 1, ErrorKind::ConnectionFailed, When::Before);
    assert_eq!(code(walk.discard(vec![found[0].token]).await.remove(0)), "CONNECTION_FAILED");
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 1));
    faults.fail(Operation::Subscribe, 1, ErrorKind::AccessRefused, When::Before);
    assert_eq!(transport.subscribe(&spec("t", "#", None)).await.err().map(|e| e.code()), Some("ACCESS_REFUSED"));
}

#[tokio::test(start_paused = true)]
async fn crashes_and_cuts_count_lost_deliveries() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let bystander = transport.subscribe(&spec("other", "none", None)).await.unwrap();
    fill(&transport, None, &["1"]).await;
    let old = now(&source, 9).await;
    assert_eq!(faults.crash("s"), 1);
    assert_eq!(code(settle(&source, &old[0], Settlement::Ack).await), "STALE_DELIVERY");
    assert_eq!(source.next(9).await.unwrap_err().code(), "CONNECTION_FAILED");
    assert!(!source.health().connected && bystander.health().consuming);

    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let batch = now(&source, 9).await;
    assert_eq!(batch[0].lost_deliveries, 1);
    assert_eq!(faults.cut_all(), 2);
    assert_eq!(code(transport.ping().await), "CONNECTION_FAILED");
    assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
    assert!(now(&source, 9).await.is_empty());
    assert!(!source.health().connected);
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.next(9).await.unwrap() }
    });
    tokio::task::yield_now().await;
    faults.restore();
    let batch = waiting.await.unwrap();
    assert_eq!(batch[0].lost_deliveries, 2);
    assert!(source.health().consuming);
    assert_eq!(source.health().recoveries, 1);
    transport.ping().await.unwrap();
    settle(&source, &batch[0], Settlement::Suspect { headers: Headers::new() }).await.unwrap();
    assert_eq!(now(&source, 9).await[0].lost_deliveries, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_publishes_keep_their_order_and_their_deadline() {
    let transport = Arc::new(MemoryTransport::new());
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    transport.faults().delay(Operation::Publish, 10 * SECOND);
    let started = Instant::now();
    let hurried = message("a", "0", None).with_deadline(Some((started + SECOND).into_std()));
    let error = publish(&transport, hurried).await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown(), started.elapsed().as_secs()), ("TIMEOUT", true, 1));
    // Dropped while under way: published all the same, and not overtaken by a faster one.
    assert!(timeout(SECOND, publish(&transport, message("a", "1", None))).await.is_err());
    transport.faults().delay(Operation::Publish, Duration::ZERO);
    publish(&transport, message("a", "2", None)).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 11);
    assert_eq!(ids(&now(&source, 9).await), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
        let chances = Chances::seeded(seed)
            .fail(Operation::Publish, When::Before, 0.2)
            .fail(Operation::Publish, When::After, 0.2)
            .cut(0.3, SECOND)
            .delay(0.2, SECOND);
        transport.faults().random(chances);
        let (mut story, started) = (Vec::new(), Instant::now());
        for n in 0..50 {
            let result = publish(&transport, message("a", &n.to_string(), None)).await;
            let batch = timeout(2 * SECOND, source.next(3)).await.map_or_else(|_| Vec::new(), Result::unwrap);
            story.push(format!("{:?} {:?} {:?}", result.is_ok(), ids(&batch), started.elapsed()));
        }
        runs.push(story);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_or_crashes_while_it_fetches_is_lost() {
    let transport = MemoryTransport::new();
    for lost in 1..=2 {
        let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
        if lost == 1 {
            fill(&transport, None, &["1"]).await;
        }
        let batch = now(&source, 1).await;
        assert_eq!(batch[0].lost_deliveries, lost - 1);
        if lost == 1 {
            transport.faults().fail(Operation::Next, 1, ErrorKind::AccessRefused, When::Before);
        } else {
            transport.faults().random(Chances::seeded(1).crash(1.0));
        }
        let expected = if lost == 1 { "ACCESS_REFUSED" } else { "CONNECTION_FAILED" };
        assert_eq!(source.next(1).await.unwrap_err().code(), expected);
        assert_eq!(source.next(1).await.unwrap_err().code(), "CONNECTION_FAILED");
        assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
    }
    transport.faults().clear();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    assert_eq!(now(&source, 1).await[0].lost_deliveries, 2);
    // A random cut heals by itself.
    transport.faults().random(Chances::seeded(1).cut(1.0, SECOND));
    assert_eq!(source.next(1).await.unwrap()[0].lost_deliveries, 3);
    assert_eq!(source.health().recoveries, 1);
}
