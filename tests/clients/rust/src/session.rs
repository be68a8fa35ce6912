//! One broker handle with what runs on it, and the commands that act on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tidings::outbox::RunningRelay;
use tidings::transport::QueueType;
use tidings::{
    BoxError, Broker, DeadLetterFilter, DomainEvent, Error, ErrorKind, PublishOptions, ReplayAction, Result, Retry,
    RetryPolicy, Running, Timestamp,
};
use tidings_test_client::protocol::{Action, Command, PublishEvent, Subscribe};
use tidings_test_client::usage;

use crate::connection::Connection;
use crate::handler::Handler;
use crate::output::answer;
use crate::publish;
use crate::store::Store;
use crate::write;

/// When a handler whose database went away in the middle of it is to try again.
const AWAY: Duration = Duration::from_millis(200);

/// When a handler that hung is to try again.
const SOON: Duration = Duration::from_millis(100);

/// What the client holds between two commands.
#[derive(Default)]
pub(crate) struct Session {
    broker: Option<Broker>,
    running: Vec<Running>,
    store: Option<Store>,
    relays: Vec<RunningRelay>,
    handled: Arc<AtomicU64>,
    publishing: tokio::task::JoinSet<()>,
}

impl Session {
    /// Carries out a command and answers it.
    pub(crate) async fn run(&mut self, n: u64, command: Command) {
        let (did, result) = match command {
            Command::Connect { url } => ("connect", self.connect(&url).await),
            Command::Publish(work) => match self.broker() {
                Ok(broker) => {
                    self.publishing.spawn(publish::run(broker.publisher(), n, work));
                    return;
                }
                Err(error) => ("publish", Err(error)),
            },
            Command::PublishEvent(one) => ("publish_event", self.publish_event(one).await),
            Command::Subscribe(what) => ("subscribe", self.subscribe(what).await),
            Command::Health => ("health", Ok(self.health())),
            Command::Stats => ("stats", Ok(self.stats())),
            Command::Depths { names } => ("depths", self.depths(&names).await),
            Command::DeadLetters { name, limit } => ("dead_letters", self.dead_letters(&name, limit).await),
            Command::Replay { name, action } => ("replay", self.replay(&name, action).await),
            Command::Delete { name } => ("delete", self.delete(&name).await),
            Command::Stop => ("stop", self.stop().await),
            Command::Store { url, table, install } => ("store", self.reach(url, table, install).await),
            Command::Write(work) => match self.store() {
                Ok(store) => {
                    self.publishing.spawn(write::run(store.clone(), n, work));
                    return;
                }
                Err(error) => ("write", Err(error)),
            },
            Command::Relay { lease_ms, batch } => ("relay", self.relay(lease_ms, batch).await),
            Command::Outbox => ("outbox", self.outbox().await),
            Command::Effects => ("effects", self.effects().await),
            Command::Uninstall => ("uninstall", self.uninstall().await),
        };
        answer(did, n, result);
    }

    /// Stops everything and lets go of the broker.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.stop().await?;
        self.publishing.abort_all();
        if let Some(store) = self.store.take() {
            store.outbox.close().await?;
        }
        match self.broker.take() {
            Some(broker) => broker.close().await,
            None => Ok(()),
        }
    }

    fn broker(&self) -> Result<Broker> {
        self.broker.clone().ok_or_else(|| Error::new(ErrorKind::Closed, "connect first"))
    }

    async fn connect(&mut self, url: &str) -> Result<Value> {
        let broker = Broker::connect(url).await?;
        let transport = broker.capabilities().name;
        self.broker = Some(broker);
        Ok(json!({ "transport": transport }))
    }

    async fn publish_event(&self, one: PublishEvent) -> Result<Value> {
        let wire = one.event;
        let mut event = DomainEvent::new(&wire.routing_key, &wire.data)?;
        if let Some(id) = wire.uuid_string {
            event = event.with_id(&id)?;
        }
        if let Some(object) = wire.domain_object_id {
            event = event.with_domain_object_id(object);
        }
        if let Some(time) = wire.timestamp.and_then(Timestamp::from_secs_f64) {
            event = event.with_timestamp(time);
        }
        for (name, value) in one.headers {
            event = event.with_header(name, value);
        }
        let options =
            one.delay_ms.map_or_else(PublishOptions::new, |ms| PublishOptions::new().delay(Duration::from_millis(ms)));
        let receipt = self.broker()?.publisher().publish_with(event, options).await?;
        Ok(json!({"id": &*receipt.id, "routed": receipt.routed}))
    }

    async fn subscribe(&mut self, what: Subscribe) -> Result<Value> {
        let subscriber = self.broker()?.subscriber();
        let mut building = subscriber.subscription(&what.name).concurrency(what.concurrency);
        for key in what.bindings {
            building = building.bind(key);
        }
        building = building.dead_letter(what.dead_letter);
        if let Some(prefetch) = what.prefetch {
            building = building.prefetch(prefetch);
        }
        if let Some(ms) = what.lease_ms {
            building = building.lease(Duration::from_millis(ms));
        }
        if let Some(ms) = what.timeout_ms {
            // A handler that was given up on is tried again soon.
            let policy = RetryPolicy::fixed(what.max_retries, SOON);
            building = building.timeout(Duration::from_millis(ms)).retry(policy);
        } else {
            building = building.max_retries(what.max_retries);
        }
        if what.ordered {
            building = building.ordered();
        }
        if let Some(ms) = what.hold_max_ms {
            building = building.hold_max(Duration::from_millis(ms));
        }
        if let Some(partitions) = what.partitions {
            building = building.partitions(partitions);
        }
        if what.classic {
            building = building.queue_type(QueueType::Classic);
        }
        if what.compat {
            building = building.compat();
        }
        let handler = Arc::new(Handler {
            name: what.name,
            kind: what.handler,
            report: what.report,
            handled: self.handled.clone(),
            begun: AtomicU64::new(0),
        });
        if what.inbox {
            let store = self.store()?.clone();
            building.handle_in(store.clone(), move |event, transaction: Connection| {
                let (handler, store) = (handler.clone(), store.clone());
                async move {
                    store.effect(&transaction, event.id()).await.map_err(|_| Retry::after(AWAY))?;
                    handler.run(event).await?;
                    Ok::<_, BoxError>(transaction)
                }
            })?;
        } else {
            building.handle(move |event| {
                let handler = handler.clone();
                async move { handler.run(event).await }
            })?;
        }
        self.running.push(subscriber.start().await?);
        Ok(json!({}))
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| Error::new(ErrorKind::Closed, "reach the store first"))
    }

    async fn reach(&mut self, url: String, table: String, install: bool) -> Result<Value> {
        self.store = Some(Store::open(url, table, install).await?);
        Ok(json!({}))
    }

    async fn relay(&mut self, lease_ms: u64, batch: usize) -> Result<Value> {
        let lease = Duration::from_millis(lease_ms);
        let relay = self.store()?.outbox.relay(&self.broker()?).lease(lease).publish_timeout(lease / 3).batch(batch);
        self.relays.push(relay.poll_interval(Duration::from_millis(20)).start().await?);
        Ok(json!({}))
    }

    async fn outbox(&self) -> Result<Value> {
        let status = self.store()?.outbox.status().await?;
        Ok(json!({"pending": status.pending, "failed": status.failed}))
    }

    async fn effects(&self) -> Result<Value> {
        Ok(json!({"ids": self.store()?.effects().await?}))
    }

    async fn uninstall(&mut self) -> Result<Value> {
        self.store()?.uninstall().await?;
        Ok(json!({}))
    }

    fn health(&self) -> Value {
        let all = self.running.iter().flat_map(Running::health);
        let subscriptions: Vec<_> = all
            .map(|h| {
                json!({"name": h.subscription, "connected": h.connected, "consuming": h.consuming, "in_flight": h.in_flight,
                    "buffered": h.buffered, "recoveries": h.recoveries, "last_error": h.last_error,
                    "limited_by": h.limited_by, "order": h.order.map(|order| format!("{order:?}"))})
            })
            .collect();
        json!({ "subscriptions": subscriptions })
    }

    fn stats(&self) -> Value {
        let published = self.broker.as_ref().map_or(0.0, |broker| {
            let metrics = broker.metrics();
            metrics.iter().find(|m| m.name == "tidings_published_total").map_or(0.0, |m| m.value)
        });
        json!({"published": published, "handled": self.handled.load(Relaxed), "cpu_seconds": usage::cpu_seconds("self"),
            "rss_bytes": usage::rss_bytes("self"), "pid": std::process::id()})
    }

    async fn depths(&self, names: &[String]) -> Result<Value> {
        let all = self.broker()?.subscriptions().await?;
        let wanted = all.into_iter().filter(|s| names.is_empty() || names.contains(&s.name));
        let list: Vec<_> = wanted
            .map(|s| json!({"name": s.name, "ready": s.ready, "in_flight": s.in_flight, "dead": s.dead}))
            .collect();
        Ok(json!({ "subscriptions": list }))
    }

    async fn dead_letters(&self, name: &str, limit: usize) -> Result<Value> {
        let found = self.broker()?.dead_letters(name, &DeadLetterFilter::new(), limit).await?;
        let list: Vec<_> = found
            .iter()
            .map(|dead| {
                json!({"id": dead.id(), "routing_key": dead.routing_key(), "reason": dead.reason(),
                    "attempts": dead.attempts(), "body": String::from_utf8_lossy(dead.body())})
            })
            .collect();
        Ok(json!({ "dead": list }))
    }

    async fn replay(&self, name: &str, action: Action) -> Result<Value> {
        let action = match action {
            Action::Retry => ReplayAction::Retry,
            Action::Discard => ReplayAction::Discard,
            Action::Leave => ReplayAction::Leave,
        };
        let report = self.broker()?.replay(name).decide(|_| action).await?;
        Ok(
            json!({"seen": report.seen, "replayed": report.replayed, "discarded": report.discarded, "remaining": report.remaining}),
        )
    }

    async fn delete(&self, name: &str) -> Result<Value> {
        Ok(json!({"existed": self.broker()?.delete_subscription(name).await?}))
    }

    async fn stop(&mut self) -> Result<Value> {
        let mut unfinished = 0;
        for running in self.running.drain(..) {
            unfinished += running.stop().await?;
        }
        for relay in self.relays.drain(..) {
            relay.stop().await?;
        }
        Ok(json!({ "unfinished": unfinished }))
    }
}
