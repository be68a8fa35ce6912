use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tidings::catalog::{BrokersService, Catalog, CatalogOptions, MessageBroker, SecretResolver};
use tidings::{Deliveries, Delivery, Outcome};

/// Variables that a test sets without touching the process.
pub(crate) fn variables(pairs: &[(&str, &str)]) -> SecretResolver {
    let pairs: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

pub(crate) fn declared(value: Value) -> Catalog {
    let options = CatalogOptions { declared: Some(value), resolver: Some(variables(&[])), ..CatalogOptions::default() };
    Catalog::open(options).unwrap()
}

/// One broker `b` of type `memory`, alone in the process.
pub(crate) fn memory() -> Catalog {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let product = format!("p{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    declared(json!({
        "product_tag": product, "env_slug": "prd",
        "caches": [{"tag": "window", "expiry": 60_000}],
        "brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "memory"}]}],
    }))
}

/// One broker `b` in a file.
pub(crate) fn sqlite(folder: &Path) -> Catalog {
    declared(json!({
        "product_tag": "p", "env_slug": "prd",
        "caches": [{"tag": "window", "expiry": 60_000}],
        "brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "SQLITE", "config": {"path": folder.join("b.db")}}]}],
    }))
}

pub(crate) async fn call(service: &BrokersService, operation: &str, request: Value) -> Value {
    let answer = service.call(operation, &request.to_string()).await;
    serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{operation}: {error:?}"))).unwrap()
}

pub(crate) async fn subscribe(broker: &MessageBroker, event: &str) -> Deliveries {
    let request = tidings::catalog::SubscribeRequest::from_json(&json!({"event": event}).to_string()).unwrap();
    broker.subscribe(request).await.unwrap()
}

pub(crate) async fn publish(broker: &MessageBroker, request: Value) -> tidings::Result<tidings::catalog::Published> {
    broker.publish(tidings::catalog::PublishRequest::from_json(&request.to_string())?).await
}

pub(crate) async fn one(deliveries: &Deliveries) -> Delivery {
    deliveries.next(1).await.unwrap().remove(0)
}

pub(crate) async fn dead_letter(deliveries: &Deliveries) {
    let outcome = Outcome::DeadLetter { reason: "test".into(), message: Some("no".into()) };
    one(deliveries).await.settle(outcome).await.unwrap();
}
