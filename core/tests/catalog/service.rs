use serde_json::json;
use tidings::Outcome;
use tidings::catalog::{BrokersService, MessageBroker};

use crate::support::{call, dead_letter, memory, one, publish, sqlite, subscribe};

const BROKER: fn() -> serde_json::Value = || json!({"brokerTag": "b"});

#[tokio::test]
async fn a_store_knows_what_became_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let messages = MessageBroker::new(sqlite(folder.path()));
    let service = BrokersService::new(messages.clone());
    let deliveries = subscribe(&messages, "b:orders").await;
    let mut ids = Vec::new();
    for id in 0..3 {
        ids.push(
            publish(&messages, json!({"event": "b:orders", "input": {"message": {"id": id}}}))
                .await
                .unwrap()
                .message_id,
        );
    }
    one(&deliveries).await.settle(Outcome::Ok).await.unwrap();
    dead_letter(&deliveries).await;
    publish(&messages, json!({"event": "b:other", "input": {"message": 9}})).await.unwrap();
    let keyed = json!({"event": "b:other", "idempotencyKey": "k", "input": {"message": 9}});
    publish(&messages, keyed.clone()).await.unwrap();
    publish(&messages, keyed).await.unwrap();

    let stats = call(&service, "getEventStats", BROKER()).await;
    assert_eq!(
        stats,
        json!({
            "total_events": 5, "success_count": 1, "failed_count": 1, "pending_count": 3, "duplicate_count": 1,
            "dead_letter_count": 1, "events_by_topic": {"orders": 3, "other": 2},
        })
    );
    let stats = call(&service, "events.messages.getStats", BROKER()).await;
    assert_eq!((&stats["total"], &stats["success"], &stats["dead_letter_count"]), (&json!(5), &json!(1), &json!(1)));

    let events = call(&service, "getEvents", json!({"brokerTag": "b", "topic": "orders", "status": "failed"})).await;
    assert_eq!((&events["events"][0]["id"], &events["events"][0]["request_data"]), (&json!(ids[1]), &json!({"id": 1})));
    assert_eq!(call(&service, "getEvents", json!({"brokerTag": "b", "endDate": 0})).await["events"], json!([]));
    let event = call(&service, "getEvent", json!({"eventId": ids[0]})).await;
    assert_eq!((&event["status"], &event["topic"]), (&json!("success"), &json!("orders")));

    let page = call(&service, "events.messages.query", json!({"brokerTag": "b", "limit": 2, "page": 2})).await;
    assert_eq!(
        (&page["total"], &page["hasMore"], page["messages"].as_array().unwrap().len()),
        (&json!(5), &json!(true), 2)
    );
    let dead = call(&service, "events.messages.getDeadLetters", BROKER()).await;
    let row = &dead["deadLetters"][0];
    assert_eq!(
        (&row["message_id"], &row["error"], &row["consumer_tag"]),
        (&json!(ids[1]), &json!("no"), &json!("p.prd.b.orders"))
    );
    messages.close().await.unwrap();
}

#[tokio::test]
async fn events_without_headers_of_ours_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let messages = MessageBroker::new(sqlite(folder.path()));
    let service = BrokersService::new(messages.clone());
    let _deliveries = subscribe(&messages, "b:t").await;
    let url = format!("sqlite:{}", folder.path().join("b.db").display());
    let foreign = tidings::Broker::connect(&url).await.unwrap();
    foreign.publisher().publish(tidings::DomainEvent::new("p.prd.t", &1).unwrap()).await.unwrap();
    assert_eq!(call(&service, "getEventStats", BROKER()).await["total_events"], 0);
    foreign.close().await.unwrap();
    messages.close().await.unwrap();
}

#[tokio::test]
async fn a_replay_is_a_copy_with_a_cause() {
    let folder = tempfile::tempdir().unwrap();
    let messages = MessageBroker::new(sqlite(folder.path()));
    let service = BrokersService::new(messages.clone());
    let deliveries = subscribe(&messages, "b:t").await;
    let id = publish(&messages, json!({"event": "b:t", "input": {"message": {"n": 1}}})).await.unwrap().message_id;
    one(&deliveries).await.settle(Outcome::Ok).await.unwrap();

    let refused = call(&service, "replayEvent", json!({"eventId": id})).await;
    assert_eq!((&refused["success"], refused["error"].as_str().unwrap().contains("force")), (&json!(false), true));
    let forced = call(&service, "replayEvent", json!({"eventId": id, "force": true})).await;
    let copy = one(&deliveries).await;
    let event = copy.event();
    assert_eq!(forced["new_event_id"], event.id());
    assert_ne!(event.id(), id);
    assert_eq!(event.headers().text("tidings-causation-id"), Some(id.as_str()));
    assert_eq!((event.data_json(), event.headers().text("tidings-event-name")), (r#"{"n":1}"#, Some("b:t")));
    // Inboxes have not seen its key.
    assert_eq!(event.idempotency_key(), event.id());

    // Without force an inbox that has seen the original passes over the copy.
    let (id, outcome) = (event.id().to_owned(), Outcome::DeadLetter { reason: "x".into(), message: None });
    copy.settle(outcome).await.unwrap();
    call(&service, "replayEvent", json!({"eventId": id})).await;
    assert_eq!(one(&deliveries).await.event().idempotency_key(), id);
    let error = service.call("replayEvent", r#"{"eventId": "nothing"}"#).await.unwrap_err();
    assert_eq!(error.code(), "REPLAY_EVENT_FAILED");
    messages.close().await.unwrap();
}

#[tokio::test]
async fn dead_letters_go_back_on_every_broker() {
    let folder = tempfile::tempdir().unwrap();
    for catalog in [memory(), sqlite(folder.path())] {
        let messages = MessageBroker::new(catalog);
        let service = BrokersService::new(messages.clone());
        let (deliveries, other) = (subscribe(&messages, "b:t").await, subscribe(&messages, "b:u").await);
        let mut ids = Vec::new();
        for n in 0..3 {
            ids.push(publish(&messages, json!({"event": "b:t", "input": {"message": n}})).await.unwrap().message_id);
            dead_letter(&deliveries).await;
        }
        publish(&messages, json!({"event": "b:u", "input": {"message": 9}})).await.unwrap();
        dead_letter(&other).await;

        let one_of_them = json!({"brokerTag": "b", "topicTag": "t", "messageIds": [ids[1]]});
        let done = call(&service, "reprocessDLQ", one_of_them).await;
        assert_eq!(done, json!({"reprocessed_count": 1, "failed_count": 0, "event_ids": [ids[1]]}));
        let delivery = one(&deliveries).await;
        assert_eq!(delivery.event().id(), ids[1]);
        delivery.settle(Outcome::Ok).await.unwrap();

        let rest = call(&service, "reprocessDLQ", json!({"brokerTag": "b", "topicTag": "t", "limit": 1})).await;
        assert_eq!(rest["event_ids"], json!([ids[0]]));
        let depths = call(&service, "events.messages.getDepths", BROKER()).await;
        let dead: u64 =
            depths["consumers"].as_array().unwrap().iter().map(|row| row["dead_letters"].as_u64().unwrap()).sum();
        assert_eq!(dead, 2);
        assert_eq!(call(&service, "reprocessDLQ", BROKER()).await["reprocessed_count"], 2);
        drop((deliveries, other));
        messages.close().await.unwrap();
    }
}

#[tokio::test]
async fn idempotency_keys() {
    let folder = tempfile::tempdir().unwrap();
    for catalog in [memory(), sqlite(folder.path())] {
        let messages = MessageBroker::new(catalog);
        let service = BrokersService::new(messages.clone());
        assert_eq!(call(&service, "checkIdempotency", json!({"idempotencyKey": "k"})).await, json!({"exists": false}));
        let request = json!({"event": "b:t", "idempotencyKey": "k", "idempotencyTtl": 60, "input": {"message": 1}});
        let first = call(&service, "publishIdempotent", request.clone()).await;
        assert_eq!((&first["success"], first.get("error")), (&json!(true), None));
        let again = call(&service, "publishIdempotent", request).await;
        assert_eq!((&again["success"], &again["error"]), (&json!(true), &json!("Already processed (idempotent)")));
        let found = call(&service, "checkIdempotency", json!({"idempotencyKey": "k"})).await;
        assert_eq!(found, json!({"exists": true, "event_id": first["message_id"]}));
        messages.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_known_is_an_error() {
    let service = BrokersService::new(MessageBroker::new(memory()));
    for (operation, request) in [
        ("getEvents", BROKER()),
        ("getEventStats", BROKER()),
        ("events.messages.query", BROKER()),
        ("events.messages.getStats", BROKER()),
        ("events.messages.getProducers", BROKER()),
        ("events.messages.getDashboard", BROKER()),
    ] {
        let error = service.call(operation, &request.to_string()).await.unwrap_err();
        assert_eq!(error.code(), "GET_EVENTS_FAILED", "{operation}");
        assert!(error.remedy_text().is_some());
    }
    let error = service.call("getEvents", r#"{"brokerTag": "b", "status": "done"}"#).await.unwrap_err();
    assert_eq!(error.code(), "INVALID_OPTION");
    assert_eq!(service.call("getEvents", r#"{"brokerTg": "b"}"#).await.unwrap_err().code(), "INVALID_OPTION");
    assert_eq!(service.call("nothing", "{}").await.unwrap_err().code(), "UNSUPPORTED");
    assert_eq!(service.call("getEvents", r#"{"brokerTag": "c"}"#).await.unwrap_err().code(), "BROKER_NOT_FOUND");
}

#[tokio::test]
async fn connections_are_tested() {
    let service = BrokersService::new(MessageBroker::new(memory()));
    assert_eq!(call(&service, "testConnection", BROKER()).await["success"], true);
    let missing = call(&service, "testConnection", json!({"brokerTag": "c"})).await;
    assert_eq!((&missing["success"], &missing["code"]), (&json!(false), &json!("BROKER_NOT_FOUND")));
}
