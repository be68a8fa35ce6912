//! The tables and bytes that all languages share (`tests/vectors/`).
#![allow(missing_docs, clippy::unwrap_used)]

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidings::event::{decode, name};
use tidings::settlement::reason;
use tidings::{DomainEvent, ErrorKind, Headers, Timestamp, routing};

fn load<T: DeserializeOwned>(file: &str) -> T {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    routing_key: String,
    data_json: String,
    domain_object_id: Option<String>,
    uuid_string: String,
    timestamp_micros: i64,
    body: String,
}

impl Wire {
    fn check(&self, event: &DomainEvent) {
        let name = &self.name;
        assert_eq!(event.routing_key(), self.routing_key, "{name}");
        assert_eq!(event.data_json(), self.data_json, "{name}");
        assert_eq!(event.domain_object_id(), self.domain_object_id.as_deref(), "{name}");
        assert_eq!(event.id(), self.uuid_string, "{name}");
        assert_eq!(event.timestamp().as_micros(), self.timestamp_micros, "{name}");
    }

    fn decoded(&self) -> DomainEvent {
        decode(&self.body.clone().into(), Headers::new()).unwrap_or_else(|(e, _)| panic!("{}: {e}", self.name))
    }
}

#[test]
fn golden_bytes() {
    for vector in load::<Vec<Wire>>("wire/golden.json") {
        vector.check(&vector.decoded());
        let mut event = DomainEvent::from_json(&vector.routing_key, vector.data_json.clone())
            .unwrap()
            .with_id(&vector.uuid_string)
            .unwrap()
            .with_timestamp(Timestamp::from_micros(vector.timestamp_micros));
        if let Some(id) = &vector.domain_object_id {
            event = event.with_domain_object_id(id.as_str());
        }
        assert_eq!(std::str::from_utf8(&event.to_json()).unwrap(), vector.body, "{}", vector.name);
    }
}

#[test]
fn accepted_bodies() {
    for vector in load::<Vec<Wire>>("wire/accepted.json") {
        vector.check(&vector.decoded());
    }
}

#[test]
fn refused_bodies() {
    #[derive(Deserialize)]
    struct Refused {
        name: String,
        body: String,
    }
    for vector in load::<Vec<Refused>>("wire/refused.json") {
        assert!(decode(&vector.body.into(), Headers::new()).is_err(), "{}", vector.name);
    }
}

#[test]
fn routing_table() {
    for (binding, key, expected) in load::<Vec<(String, String, bool)>>("routing.json") {
        assert_eq!(routing::matches(&binding, &key), expected, "{binding} {key}");
        let mut trie = routing::Trie::new();
        trie.insert(&binding, ());
        assert_eq!(!trie.matches(&key).is_empty(), expected, "{binding} {key} in the trie");
    }
}

#[test]
fn error_codes() {
    #[derive(Deserialize)]
    struct Row {
        code: String,
        retryable: bool,
    }
    let table: Vec<_> = load::<Vec<Row>>("errors.json").into_iter().map(|r| (r.code, r.retryable)).collect();
    let ours: Vec<_> = ErrorKind::ALL.iter().map(|k| (k.code().to_owned(), k.retryable())).collect();
    assert_eq!(ours, table, "codes are only ever added: extend the table");
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[test]
fn header_names_and_reasons() {
    let table: Vec<_> = load::<Vec<Named>>("headers.json").into_iter().map(|r| r.name).collect();
    assert_eq!(table, name::ALL, "names are only ever added: extend the table");
    let table: Vec<_> = load::<Vec<Named>>("reasons.json").into_iter().map(|r| r.name).collect();
    assert_eq!(table, reason::ALL, "reasons are only ever added: extend the table");
}

#[test]
fn checks_of_the_doctor() {
    let table: Vec<_> = load::<Vec<Named>>("doctor.json").into_iter().map(|r| r.name).collect();
    let ours: Vec<_> = tidings::doctor::Check::ALL.iter().map(|check| check.name()).collect();
    assert_eq!(ours, table, "checks are only ever added: extend the table");
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn metric_names() {
    let broker = tidings::Broker::connect("memory:").await.unwrap();
    let _deliveries = broker.subscriber().subscription("a").bind("#").deliveries().await.unwrap();
    let relay = tidings::outbox::METRICS.iter().map(|name| (*name).to_owned());
    let ours: Vec<_> = broker.metrics().iter().map(|m| m.name.to_owned()).chain(relay).collect();
    let table: Vec<_> = load::<Vec<Named>>("metrics.json").into_iter().map(|r| r.name).collect();
    assert_eq!(ours, table, "names are only ever added: extend the table");
}
