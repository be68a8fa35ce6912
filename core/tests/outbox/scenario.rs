//! Carries out the scenarios.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidings::outbox::{OnFailed, OutboxEvent};
use tidings::{Broker, Deliveries, DomainEvent, Outcome, Timestamp};

use crate::database::{Database, databases};

/// Longest that a relay gets for one step.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Scenario {
    name: String,
    #[serde(default)]
    concurrent: bool,
    #[serde(default, rename = "relay")]
    _relay: bool,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Begin {
        tx: String,
    },
    Add {
        tx: String,
        events: Vec<Event>,
        #[serde(default)]
        serialize: bool,
        error: Option<String>,
    },
    Commit {
        tx: String,
    },
    Rollback {
        tx: String,
    },
    Break {
        id: String,
    },
    Mend {
        id: String,
    },
    Relay {
        #[serde(default)]
        options: Options,
    },
    Retry {
        ids: Vec<String>,
    },
    Discard {
        ids: Vec<String>,
    },
    Purge {
        older_than_ms: u64,
    },
    Published {
        ids: Option<Vec<String>>,
        count: Option<usize>,
    },
    Headers {
        id: String,
        headers: HashMap<String, String>,
    },
    Data {
        id: String,
        data: Value,
    },
    Status {
        pending: u64,
        processed: u64,
        failed: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    id: String,
    routing_key: Option<String>,
    data: Option<Value>,
    key: Option<String>,
    tenant: Option<String>,
    domain_object_id: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    available_in_ms: Option<i64>,
    exchange: Option<String>,
    repeat: Option<usize>,
    bytes: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Options {
    on_failed: Option<String>,
    max_attempts: Option<u32>,
    max_payload: Option<usize>,
    backoff_ms: Option<u64>,
    batch: Option<usize>,
    #[serde(default)]
    keep: bool,
}

impl Event {
    fn all(&self) -> Vec<OutboxEvent> {
        match self.repeat {
            None => vec![self.one(&self.id)],
            Some(times) => (0..times).map(|i| self.one(&format!("{}.{i}", self.id))).collect(),
        }
    }

    fn one(&self, id: &str) -> OutboxEvent {
        let data = match self.bytes {
            Some(bytes) => json!("x".repeat(bytes)),
            None => self.data.clone().unwrap_or_else(|| json!({})),
        };
        let mut event =
            DomainEvent::new(self.routing_key.as_deref().unwrap_or("test.event"), &data).unwrap().with_id(id).unwrap();
        if let Some(object) = &self.domain_object_id {
            event = event.with_domain_object_id(object.as_str());
        }
        if let Some(key) = &self.key {
            event = event.with_key(key.as_str());
        }
        if let Some(tenant) = &self.tenant {
            event = event.with_tenant(tenant.as_str());
        }
        for (name, value) in &self.headers {
            event = event.with_header(name.as_str(), value.as_str());
        }
        let mut event = OutboxEvent::new(event);
        if let Some(ms) = self.available_in_ms {
            event = event.available_at(Timestamp::from_micros(Timestamp::now().as_micros() + ms * 1000));
        }
        match &self.exchange {
            Some(exchange) => event.exchange(exchange.as_str()),
            None => event,
        }
    }
}

/// What a scenario has seen.
struct Stage {
    database: Database,
    broker: Broker,
    deliveries: Deliveries,
    seen: HashMap<String, DomainEvent>,
    broken: HashMap<String, String>,
}

impl Stage {
    async fn carry_out(&mut self, step: &Step) {
        let database = &mut self.database;
        match step {
            Step::Begin { tx } => database.begin(tx).await,
            Step::Commit { tx } => database.commit(tx).await,
            Step::Rollback { tx } => database.rollback(tx).await,
            Step::Add { tx, events, serialize, error } => {
                let events: Vec<_> = events.iter().flat_map(Event::all).collect();
                let writer = database.writer().serialize(*serialize).notify(true);
                let rendered = writer.insert(database.dialect.default_style(), &events);
                match (rendered, error.as_deref()) {
                    (Err(found), Some(code)) => assert_eq!(found.code(), code),
                    (Ok(statements), Some("the database's")) => {
                        database.run(tx, &statements).await.expect_err("the database should have refused it");
                    }
                    (Ok(statements), None) => database.run(tx, &statements).await.unwrap(),
                    (rendered, expected) => panic!("{rendered:?}, expected {expected:?}"),
                }
            }
            Step::Break { id } => {
                let body = self.body(id, "not an event").await;
                self.broken.insert(id.clone(), body);
            }
            Step::Mend { id } => {
                let body = self.broken[id].clone();
                self.body(id, &body).await;
            }
            Step::Relay { options } => self.relay(options).await,
            Step::Retry { ids } => {
                let rows = self.rows(ids).await;
                assert_eq!(self.database.outbox.retry(&rows).await.unwrap(), ids.len() as u64);
            }
            Step::Discard { ids } => {
                let rows = self.rows(ids).await;
                assert_eq!(self.database.outbox.discard(&rows).await.unwrap(), ids.len() as u64);
            }
            Step::Purge { older_than_ms } => {
                database.outbox.purge(Duration::from_millis(*older_than_ms)).await.unwrap();
            }
            Step::Published { ids, count } => self.published(ids.as_deref(), *count).await,
            Step::Headers { id, headers } => {
                let event = &self.seen[id];
                for (name, value) in headers {
                    assert_eq!(event.headers().text(name), Some(value.as_str()), "{name}");
                }
            }
            Step::Data { id, data } => assert_eq!(self.seen[id].data::<Value>().unwrap(), *data),
            Step::Status { pending, processed, failed } => {
                let status = database.outbox.status().await.unwrap();
                assert_eq!((status.pending, status.processed, status.failed), (*pending, *processed, *failed));
            }
        }
    }

    /// Replaces the body of a row and returns a body that can be read.
    async fn body(&mut self, id: &str, body: &str) -> String {
        let event = DomainEvent::new("test.event", &json!({})).unwrap().with_id(id).unwrap();
        let good = String::from_utf8(event.to_json().to_vec()).unwrap();
        let table = self.database.table();
        self.database.begin("body").await;
        let hex = body.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let bytes = match self.database.dialect {
            tidings::outbox::Dialect::Postgres => format!("'\\x{hex}'"),
            _ => format!("x'{hex}'"),
        };
        let sql = format!("UPDATE {table} SET body = {bytes} WHERE event_id = '{id}'");
        self.database.sql("body", &sql).await.unwrap();
        self.database.commit("body").await;
        good
    }

    async fn rows(&self, ids: &[String]) -> Vec<i64> {
        let failed = self.database.outbox.failed(0, 100).await.unwrap();
        failed.iter().filter(|row| ids.contains(&row.event_id)).map(|row| row.id).collect()
    }

    async fn relay(&mut self, options: &Options) {
        let mut relay = self.database.outbox.relay(&self.broker).poll_interval(Duration::from_millis(50));
        if options.on_failed.as_deref() == Some("pass") {
            relay = relay.on_failed(OnFailed::Pass);
        }
        if let Some(attempts) = options.max_attempts {
            relay = relay.max_attempts(attempts);
        }
        if let Some(bytes) = options.max_payload {
            relay = relay.max_payload(bytes);
        }
        if let Some(ms) = options.backoff_ms {
            relay = relay.backoff(Duration::from_millis(ms), Duration::from_millis(ms));
        }
        if let Some(batch) = options.batch {
            relay = relay.batch(batch);
        }
        if options.keep {
            relay = relay.keep(Duration::from_secs(3600));
        }
        let relay = relay.start().await.unwrap();
        self.database.outbox.drain(PATIENCE).await.unwrap();
        assert!(relay.health().last_error.is_none(), "{:?}", relay.health());
        relay.stop().await.unwrap();
    }

    async fn published(&mut self, ids: Option<&[String]>, count: Option<usize>) {
        let mut found = Vec::new();
        let expected = count.or(ids.map(<[_]>::len)).unwrap_or(0);
        loop {
            // Everything is published; what is expected is waited for, and what is not would be there already.
            let patience = if found.len() < expected { PATIENCE } else { Duration::from_millis(20) };
            let batch = tokio::time::timeout(patience, self.deliveries.next(1000)).await;
            let Ok(batch) = batch else { break };
            for delivery in batch.unwrap() {
                found.push(delivery.event().id().to_owned());
                self.seen.insert(delivery.event().id().to_owned(), delivery.event().clone());
                delivery.settle(Outcome::Ok).await.unwrap();
            }
        }
        if let Some(ids) = ids {
            assert_eq!(found, ids);
        }
        if let Some(count) = count {
            assert_eq!(found.len(), count);
            assert!(found.is_sorted_by_key(|id| id.rsplit_once('.').unwrap().1.parse::<usize>().unwrap()), "in order");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scenarios() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/outbox/scenarios.json");
    let scenarios: Vec<Scenario> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(scenarios.len() >= 15);
    for scenario in &scenarios {
        for database in databases().await {
            if scenario.concurrent && database.dialect == tidings::outbox::Dialect::Sqlite {
                database.remove().await;
                continue;
            }
            println!("{}: {}", database.dialect.name(), scenario.name);
            let broker = Broker::connect("memory:").await.unwrap();
            let deliveries =
                broker.subscriber().subscription("all").bind("#").prefetch(20_000).deliveries().await.unwrap();
            let mut stage = Stage { database, broker, deliveries, seen: HashMap::new(), broken: HashMap::new() };
            for step in &scenario.steps {
                stage.carry_out(step).await;
            }
            stage.database.remove().await;
        }
    }
}
