use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings::catalog::{MessageBroker, Session, SessionVerifier, SubscribeRequest};
use tidings::{BoxError, Outcome};

use crate::support::{declared, memory, one, publish, sqlite, subscribe};

#[tokio::test(start_paused = true)]
async fn an_event_has_its_names_in_its_headers() {
    let broker = MessageBroker::new(memory());
    let deliveries = subscribe(&broker, "b:t").await;
    let published = publish(
        &broker,
        json!({
            "event": "b:t", "cache": {}, "session": {"tag": "web", "token": "abc123xyz"},
            "input": {"message": {"id": 7}, "headers": {"trace": "x"}, "key": "k"},
        }),
    )
    .await
    .unwrap();
    assert!(published.success && !published.cached);
    let delivery = one(&deliveries).await;
    let event = delivery.event();
    assert_eq!((event.id(), event.data_json(), event.key()), (published.message_id.as_str(), r#"{"id":7}"#, Some("k")));
    let header = |name| event.headers().text(name);
    assert_eq!(
        (header("tidings-event-name"), header("tidings-env"), header("trace")),
        (Some("b:t"), Some("prd"), Some("x"))
    );
    assert_eq!((header("tidings-session-tag"), header("tidings-session-subject")), (Some("web"), None));
    assert!(!format!("{:?}", event.headers()).contains("abc123xyz"));
    delivery.settle(Outcome::Ok).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_yet_waits_for_the_topic() {
    let broker = MessageBroker::new(memory());
    publish(&broker, json!({"event": "b:t", "input": {"message": 1}})).await.unwrap();
    let deliveries = subscribe(&broker, "b:t").await;
    assert_eq!(one(&deliveries).await.event().data_json(), "1");

    // A group gets its own copies from now on, and nothing is kept for nobody.
    let group = broker
        .subscribe(SubscribeRequest::from_json(r#"{"event": "b:u", "input": {"group": "g"}}"#).unwrap())
        .await
        .unwrap();
    publish(&broker, json!({"event": "b:u", "input": {"message": 2}})).await.unwrap();
    assert_eq!(one(&group).await.event().data_json(), "2");
    let late = subscribe(&broker, "b:u").await;
    assert!(late.try_next(1).unwrap().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn topics_that_share_a_destination_do_not_mix() {
    let broker = MessageBroker::new(declared(json!({
        "product_tag": "shared", "env_slug": "prd",
        "brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "memory", "config": {"topic": "all"}}]}],
    })));
    let (first, second) = (subscribe(&broker, "b:first").await, subscribe(&broker, "b:second").await);
    for event in ["b:first", "b:second"] {
        publish(&broker, json!({"event": event, "input": {"message": event}})).await.unwrap();
    }
    for (deliveries, name) in [(&first, "\"b:first\""), (&second, "\"b:second\"")] {
        let delivery = one(deliveries).await;
        assert_eq!(delivery.event().data_json(), name);
        delivery.settle(Outcome::Ok).await.unwrap();
        assert!(deliveries.try_next(1).unwrap().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_a_window() {
    let broker = MessageBroker::new(memory());
    let request = |message: Value| json!({"event": "b:t", "cache": "window", "input": {"message": message}});
    let first = publish(&broker, request(json!({"a": 1, "b": 2.0}))).await.unwrap();
    let same = publish(&broker, request(json!({"b": 2.0, "a": 1}))).await.unwrap();
    assert_eq!((same.cached, &same.message_id, &same.process_id), (true, &first.message_id, &first.process_id));
    assert!(!publish(&broker, request(json!({"a": 1}))).await.unwrap().cached);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!publish(&broker, request(json!({"a": 1, "b": 2.0}))).await.unwrap().cached);
    let error = publish(&broker, json!({"event": "b:t", "cache": "other", "input": {"message": 1}})).await.unwrap_err();
    assert_eq!(error.code(), "CACHE_NOT_FOUND");
    assert!(error.to_string().contains("window"), "{error}");
}

#[tokio::test]
async fn the_same_at_once_is_sent_once() {
    let folder = tempfile::tempdir().unwrap();
    for catalog in [memory(), sqlite(folder.path())] {
        let broker = MessageBroker::new(catalog);
        let request = json!({"event": "b:t", "cache": "window", "input": {"message": {"id": 1}}});
        let calls = (0..20).map(|_| publish(&broker, request.clone()));
        let results: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(results.iter().filter(|one| !one.cached).count(), 1);
        assert!(results.iter().all(|one| one.message_id == results[0].message_id));
    }
}

#[tokio::test]
async fn a_store_remembers_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let request = json!({"event": "b:t", "idempotencyKey": "order-7", "input": {"message": 1}});
    let mut ids = Vec::new();
    for again in [false, true] {
        let broker = MessageBroker::new(sqlite(folder.path()));
        let published = publish(&broker, request.clone()).await.unwrap();
        assert_eq!(published.error.is_some(), again);
        ids.push(published.message_id);
        broker.close().await.unwrap();
    }
    assert_eq!(ids[0], ids[1]);
}

struct Hook(AtomicUsize);

#[async_trait]
impl SessionVerifier for Hook {
    async fn verify(&self, session: &Session) -> Result<Option<String>, BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if session.token == "good" {
            Ok(Some("ada".to_owned()))
        } else {
            Err(format!("bad token {}", session.token).into())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_session_sends_nothing() {
    let hook = Arc::new(Hook(AtomicUsize::new(0)));
    let broker = MessageBroker::with_verifier(memory(), Some(hook.clone()));
    let deliveries = subscribe(&broker, "b:t").await;
    let request = |token| json!({"event": "b:t", "session": {"tag": "web", "token": token}, "input": {"message": 1}});
    let error = publish(&broker, request("hush")).await.unwrap_err();
    assert_eq!(error.code(), "SESSION_INVALID");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    assert!(deliveries.try_next(1).unwrap().unwrap().is_empty());
    publish(&broker, request("good")).await.unwrap();
    let delivery = one(&deliveries).await;
    assert_eq!(delivery.event().headers().text("tidings-session-subject"), Some("ada"));
    assert_eq!(hook.0.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn declared_sessions_are_verified_and_others_refused() {
    let broker = MessageBroker::new(declared(json!({
        "product_tag": "sessions", "env_slug": "prd",
        "brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "memory"}]}],
        "sessions": [{"tag": "web", "verify": {"alg": "HS256", "key": "0123456789abcdef0123456789abcdef"}}],
    })));
    for (tag, token) in [("web", "abc123xyz"), ("other", "abc123xyz")] {
        let request = json!({"event": "b:t", "session": {"tag": tag, "token": token}, "input": {"message": 1}});
        let error = publish(&broker, request).await.unwrap_err();
        assert_eq!(error.code(), "SESSION_INVALID");
        assert!(!format!("{error:?}").contains(token), "{error:?}");
    }
    let refused = SubscribeRequest::from_json(r#"{"event": "b:t", "session": "web:abc123xyz"}"#).unwrap();
    assert_eq!(broker.subscribe(refused).await.unwrap_err().code(), "SESSION_INVALID");
}

#[tokio::test]
async fn what_the_broker_refuses_has_the_operations_code() {
    let broker = MessageBroker::new(declared(json!({
        "product_tag": "p", "env_slug": "prd",
        "brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "rabbitmq", "config": {"url": "amqp://u:hush@127.0.0.1:1?connection_timeout=500"}}]}],
    })));
    let error = publish(&broker, json!({"event": "b:t", "input": {"message": 1}})).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("PUBLISH_FAILED", true));
    assert!(error.to_string().contains("CONNECTION_FAILED"), "{error}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    let error = broker.subscribe(SubscribeRequest::new("p", "prd", "b:t")).await.unwrap_err();
    assert_eq!(error.code(), "SUBSCRIBE_FAILED");
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_say_where() {
    let broker = MessageBroker::new(memory());
    for (request, code) in [
        (json!({"input": {"message": 1}}), "INVALID_OPTION"),
        (json!({"event": "b:t"}), "INVALID_OPTION"),
        (json!({"event": "b:t", "input": {}}), "INVALID_OPTION"),
        (json!({"event": "b:t", "session": {"tag": "x"}, "input": {"message": 1}}), "INVALID_OPTION"),
        (json!({"event": "t", "input": {"message": 1}}), "INVALID_EVENT_NAME"),
        (json!({"event": "b:t", "input": {"message": 1, "headers": {"tidings-env": "x"}}}), "INVALID_HEADER"),
        (json!({"event": "b:t", "input": {"message": "x".repeat(2 * 1024 * 1024)}}), "PAYLOAD_TOO_LARGE"),
    ] {
        assert_eq!(publish(&broker, request).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_handler_in_rust() {
    let broker = MessageBroker::new(memory());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let request = SubscribeRequest::from_json(r#"{"event": "b:t"}"#).unwrap();
    let handler = move |event: tidings::DomainEvent| {
        let sender = sender.clone();
        async move { sender.send(event.data_json().to_owned()).await }
    };
    let running = broker.handle(request, handler).await.unwrap();
    publish(&broker, json!({"event": "b:t", "input": {"message": "hello"}})).await.unwrap();
    assert_eq!(receiver.recv().await.as_deref(), Some("\"hello\""));
    running.stop().await.unwrap();
}
