//! Order per key, and its dead letters.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_is_held_by_one_source_eight_events_at_a_time() {
    let transport = MemoryTransport::new();
    let order = Some(KeyOrder::default());
    let a = transport.subscribe(&spec("s", "#", order)).await.unwrap();
    let b = transport.subscribe(&spec("s", "#", order)).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    fill(&transport, Some("k"), &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let first = now(&a, 16).await;
    assert_eq!(ids(&first), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    fill(&transport, Some("other"), &["x"]).await;
    fill(&transport, None, &["free"]).await;
    assert_eq!(ids(&now(&b, 99).await), ["x", "free"]);
    ack_all(&a, &first[..7]).await;
    assert!(now(&b, 99).await.is_empty());
    ack_all(&a, &first[7..]).await;
    assert_eq!(ids(&now(&b, 3).await), ["8", "9", "10"]);
    assert!(now(&a, 99).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_its_head_or_passes_it() {
    let transport = MemoryTransport::new();
    let wait = transport.subscribe(&spec("wait", "#", ordered(OnRetry::Wait, OnDead::Park))).await.unwrap();
    let pass = transport.subscribe(&spec("pass", "#", ordered(OnRetry::Pass, OnDead::Skip))).await.unwrap();
    fill(&transport, Some("k"), &["1", "2"]).await;
    fill(&transport, Some("l"), &["3"]).await;
    for source in [&wait, &pass] {
        let batch = now(source, 1).await;
        settle(source, &batch[0], retry(5 * SECOND)).await.unwrap();
    }
    assert_eq!(ids(&now(&wait, 9).await), ["3"]);
    let batch = now(&pass, 9).await;
    assert_eq!(ids(&batch), ["2", "3"]);
    tokio::time::advance(6 * SECOND).await;
    // Due, but the key is out.
    assert!(now(&pass, 9).await.is_empty());
    ack_all(&pass, &batch).await;
    assert_eq!(ids(&now(&pass, 9).await), ["1"]);
    assert_eq!(ids(&now(&wait, 9).await), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_resumes_by_replay_or_discard() {
    for discard in [false, true] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", Some(KeyOrder::default()))).await.unwrap();
        fill(&transport, Some("k"), &["1", "2"]).await;
        let batch = now(&source, 9).await;
        settle(&source, &batch[0], dead()).await.unwrap();
        settle(&source, &batch[1], Settlement::Release).await.unwrap();
        fill(&transport, Some("k"), &["3"]).await;
        assert!(now(&source, 9).await.is_empty());
        assert_eq!(info(&transport, "s").await, info_of("s", 2, 0, 1));
        let (mut walk, found) = walk(&transport, "s").await;
        assert_eq!((walk.depth(), &*found[0].message.id), (1, "1"));
        assert!(found[0].message.headers.get(name::PARKED).is_some());
        assert_eq!(found[0].message.headers.text(name::DEAD_REASON), Some("error"));
        if discard {
            walk.discard(vec![found[0].token]).await.remove(0).unwrap();
            assert_eq!(code(walk.discard(vec![found[0].token]).await.remove(0)), "STALE_DELIVERY");
        } else {
            replay_all(&transport, "s").await;
        }
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), if discard { &["2", "3"][..] } else { &["1", "2", "3"] });
        assert!(batch[0].message.headers.get(name::PARKED).is_none());
        ack_all(&source, &batch).await;
        assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_due_is_not_handed_over_behind_what_is() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", Some(KeyOrder::default()))).await.unwrap();
    fill(&transport, Some("k"), &["1", "2", "3"]).await;
    let batch = now(&source, 9).await;
    settle(&source, &batch[1], retry(5 * SECOND)).await.unwrap();
    settle(&source, &batch[0], Settlement::Release).await.unwrap();
    settle(&source, &batch[2], Settlement::Release).await.unwrap();
    let batch = now(&source, 9).await;
    assert_eq!(ids(&batch), ["1"]);
    ack_all(&source, &batch).await;
    assert!(now(&source, 9).await.is_empty());
    assert_eq!(ids(&source.next(9).await.unwrap()), ["2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn looking_at_dead_letters_changes_nothing() {
    let transport = MemoryTransport::new();
    for order in [None, ordered(OnRetry::Wait, OnDead::Skip)] {
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        fill(&transport, Some("k"), &["1", "2", "3"]).await;
        for incoming in now(&source, 2).await {
            settle(&source, &incoming, dead()).await.unwrap();
        }
        for _ in 0..100 {
            let (looking, found) = walk(&transport, "s").await;
            assert_eq!(found.iter().map(|dead| &*dead.message.id).collect::<Vec<_>>(), ["1", "2"]);
            looking.close().await.unwrap();
        }
        let (mut open, _) = walk(&transport, "s").await;
        for incoming in now(&source, 9).await {
            settle(&source, &incoming, dead()).await.unwrap();
        }
        // It ends with what was there when it was opened.
        assert!(open.next(9).await.unwrap().is_empty());
        assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 3));
        replay_all(&transport, "s").await;
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3"]);
        assert!(batch[0].message.headers.is_empty());
        source.close().await;
        transport.delete_subscription("s").await.unwrap();
        assert_eq!(open.next(9).await.map(|_| ()).unwrap_err().code(), "SUBSCRIPTION_NOT_FOUND");
    }
}

/// A key whose head waits for an hour: nothing else does, and its own events come behind it, in order.
#[tokio::test(start_paused = true)]
async fn a_key_that_waits_for_an_hour_delays_only_itself() {
    const HOUR: Duration = Duration::from_secs(3600);
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", ordered(OnRetry::Wait, OnDead::Park))).await.unwrap();
    fill(&transport, Some("hot"), &["h0"]).await;
    let head = now(&source, 1).await;
    settle(&source, &head[0], retry(HOUR)).await.unwrap();
    for minute in 0..59 {
        let (hot, other) = (format!("h{}", minute + 1), minute.to_string());
        fill(&transport, Some("hot"), &[&hot]).await;
        fill(&transport, Some(&format!("k{}", minute % 7)), &[&other]).await;
        let batch = now(&source, 99).await;
        assert_eq!(ids(&batch), [other], "minute {minute}");
        ack_all(&source, &batch).await;
        tokio::time::advance(60 * SECOND).await;
    }
    assert!(now(&source, 99).await.is_empty());
    tokio::time::advance(61 * SECOND).await;
    let mut come = Vec::new();
    while let batch = now(&source, 99).await
        && !batch.is_empty()
    {
        come.extend(ids(&batch).into_iter().map(str::to_owned));
        ack_all(&source, &batch).await;
    }
    assert_eq!(come, (0..60).map(|n| format!("h{n}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn it_says_what_waits_and_since_when() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", ordered(OnRetry::Wait, OnDead::Park))).await.unwrap();
    let plain = transport.subscribe(&spec("plain", "#", None)).await.unwrap();
    for key in ["dead", "waiting", "free"] {
        fill(&transport, Some(key), &[key]).await;
    }
    tokio::time::advance(60 * SECOND).await;
    let batch = now(&source, 9).await;
    settle(&source, &batch[0], dead()).await.unwrap();
    tokio::time::advance(10 * SECOND).await;
    settle(&source, &batch[1], retry(100 * SECOND)).await.unwrap();
    tokio::time::advance(10 * SECOND).await;
    let state = source.health().order.unwrap();
    assert_eq!((state.waiting_keys, state.parked_keys, state.dead_keys, state.owners.len()), (1, 1, 1, 1));
    assert_eq!((state.oldest_waiting, state.whole), (Some(20 * SECOND), true));
    let listed = transport.subscription("s").await.unwrap().unwrap();
    assert_eq!(listed.order.as_ref(), Some(&state));
    assert_eq!(state.clone().and(state.clone()), state, "two who look at the same do not see twice as much");
    ack_all(&source, &batch[2..]).await;
    tokio::time::advance(90 * SECOND).await;
    ack_all(&source, &now(&source, 9).await).await;
    replay_all(&transport, "s").await;
    ack_all(&source, &now(&source, 9).await).await;
    let empty = OrderState::default();
    let state = source.health().order.unwrap();
    assert_eq!((state.owners, state.oldest_waiting), (empty.owners, None));
    assert_eq!((state.waiting_keys, state.parked_keys, state.dead_keys), (0, 0, 0));
    assert_eq!(plain.health().order, None);
}
