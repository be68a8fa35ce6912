//! [`BrokersService`]: looking back, publishing again, idempotency, in the shapes that Ductape's callers know.
//!
//! Everything is served from what the broker really knows. What it cannot know is an error that says so.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message_broker::{failed, idempotency_key};
use super::request::{self, optional};
use super::tracking::{self, Target};
use super::{MessageBroker, PublishRequest};
use crate::event::{name, new_id};
use crate::transport::{JournalQuery, Message};
use crate::{DeadLetterFilter, DomainEvent, Error, ErrorKind, ReplayAction, Result, Timestamp, settlement};

/// What hosts call, by the names that their callers use. Requests and results are JSON.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::catalog::{BrokersService, Catalog, CatalogOptions, MessageBroker};
///
/// let declared = serde_json::json!([{"tag": "orders", "envs": [{"slug": "prd", "type": "memory"}]}]);
/// let catalog = Catalog::open(CatalogOptions { declared: Some(declared), ..CatalogOptions::default() })?;
/// let service = BrokersService::new(MessageBroker::new(catalog));
/// let request = r#"{"product": "shop", "env": "prd", "brokerTag": "orders"}"#;
/// assert!(service.call("testConnection", request).await?.contains(r#""success":true"#));
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BrokersService {
    pub(super) messages: MessageBroker,
}

/// Every field that any of the calls has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Request {
    #[serde(alias = "product_tag", deserialize_with = "optional")]
    pub(super) product: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub(super) env: Option<String>,
    #[serde(alias = "broker_tag", alias = "messageBrokerTag", deserialize_with = "optional")]
    pub(super) broker_tag: Option<String>,
    #[serde(alias = "topic", alias = "topic_tag", deserialize_with = "optional")]
    pub(super) topic_tag: Option<String>,
    #[serde(alias = "consumer_tag", deserialize_with = "optional")]
    pub(super) consumer_tag: Option<String>,
    #[serde(alias = "producer_tag", deserialize_with = "optional")]
    pub(super) producer_tag: Option<String>,
    #[serde(deserialize_with = "optional")]
    tag: Option<String>,
    #[serde(alias = "event_id", deserialize_with = "optional")]
    event_id: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub(super) status: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub(super) category: Option<String>,
    #[serde(alias = "start_date")]
    pub(super) start_date: Value,
    #[serde(alias = "end_date")]
    pub(super) end_date: Value,
    pub(super) page: Option<usize>,
    pub(super) limit: Option<usize>,
    force: bool,
    #[serde(alias = "message_ids")]
    message_ids: Vec<String>,
    #[serde(alias = "idempotency_key", deserialize_with = "optional")]
    idempotency_key: Option<String>,
    declaration: Value,
}

#[derive(Serialize)]
struct Replayed {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, Default)]
#[allow(clippy::struct_field_names, reason = "the names are those that callers know")]
struct Reprocessed {
    reprocessed_count: u64,
    failed_count: u64,
    event_ids: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// An event that was found, wherever it is.
pub(super) struct Located {
    pub(super) message: Message,
    /// Every subscription is done with it.
    pub(super) settled: bool,
}

impl BrokersService {
    /// Serves the brokers of this facade's catalog.
    pub fn new(messages: MessageBroker) -> Self {
        Self { messages }
    }

    /// Does what `operation` names (`getEvents`, `replayEvent`, `events.messages.query`, …) and returns its result.
    ///
    /// Errors: the operation's own code, with the cause; those of [`Catalog::resolve`](super::Catalog::resolve);
    /// `UNSUPPORTED` for a name that there is no operation of.
    pub async fn call(&self, operation: &str, request: &str) -> Result<String> {
        if operation == "publish" || operation == "publishIdempotent" {
            return self.publish(operation, request).await;
        }
        let request: Request = request::read(request)?;
        let (result, kind) = match operation {
            "getEvents" => (tracking::events(self, &request).await, ErrorKind::GetEventsFailed),
            "getEventStats" => (tracking::event_stats(self, &request).await, ErrorKind::GetEventsFailed),
            "getEvent" => (self.event(&request).await, ErrorKind::GetEventFailed),
            "events.messages.query" => (tracking::messages(self, &request).await, ErrorKind::GetEventsFailed),
            "events.messages.getDeadLetters" => {
                (tracking::dead_letters(self, &request).await, ErrorKind::GetEventsFailed)
            }
            "events.messages.getStats" => (tracking::message_stats(self, &request).await, ErrorKind::GetEventsFailed),
            "events.messages.getDepths" => (tracking::depths(self, &request).await, ErrorKind::GetEventsFailed),
            "events.messages.getProducers" | "events.messages.getConsumers" | "events.messages.getDashboard" => {
                (Err(not_recorded(operation)), ErrorKind::GetEventsFailed)
            }
            "replayEvent" => (self.replay_event(&request).await, ErrorKind::ReplayEventFailed),
            "reprocessDLQ" => (self.reprocess(&request).await, ErrorKind::ReprocessDlqFailed),
            "checkIdempotency" => (self.check_idempotency(&request).await, ErrorKind::CheckIdempotencyFailed),
            "testConnection" => (self.test_connection(&request).await, ErrorKind::BrokerServiceLoadFailed),
            _ => return self.declare(operation, &request).map(|value| value.to_string()),
        };
        result.map(|value| value.to_string()).map_err(failed(kind))
    }

    async fn publish(&self, operation: &str, request: &str) -> Result<String> {
        let request = PublishRequest::from_json(request)?;
        if operation == "publishIdempotent" && request.idempotency_key.is_none() {
            return Err(missing("idempotencyKey"));
        }
        text(&self.messages.publish(request).await?).map(|value| value.to_string())
    }

    /// Builder calls: what is declared, and changes of it.
    fn declare(&self, operation: &str, request: &Request) -> Result<Value> {
        let catalog = self.messages.catalog();
        let product = catalog.product(request.product.as_deref())?;
        let tag = || request.tag.as_deref().or(request.broker_tag.as_deref()).ok_or_else(|| missing("tag"));
        let topic = || request.tag.as_deref().or(request.topic_tag.as_deref()).ok_or_else(|| missing("tag"));
        let declaration = || request.declaration.clone();
        match operation {
            "messageBrokers.create" => catalog.create_broker(&product, declaration()),
            "messageBrokers.update" => catalog.update_broker(&product, tag()?, declaration()),
            "messageBrokers.fetch" | "getBroker" => catalog.fetch_broker(&product, tag()?),
            "messageBrokers.fetchAll" | "getBrokers" => catalog.fetch_brokers(&product).map(Value::from),
            "topics.create" => catalog.create_topic(&product, declaration()),
            "topics.update" => catalog.update_topic(&product, topic()?, declaration()),
            "topics.fetch" | "getTopic" => catalog.fetch_topic(&product, topic()?),
            "topics.fetchAll" | "getTopics" => catalog.fetch_topics(&product, tag()?).map(Value::from),
            _ => Err(Error::new(ErrorKind::Unsupported, "there is no operation of this name")
                .field("operation", operation)
                .remedy("see the guide on catalogs")),
        }
    }

    /// The brokers that a request may mean: the one it names, else all of its product that have its environment.
    async fn targets(&self, request: &Request) -> Result<Vec<Target>> {
        if request.broker_tag.is_some() || !self.messages.catalog().is_declared() {
            return Ok(vec![Target::connect(&self.messages, request).await?]);
        }
        let catalog = self.messages.catalog();
        let product = catalog.product(request.product.as_deref())?;
        let env = request.env.as_deref().map(|env| catalog.env(Some(env))).transpose()?;
        let mut targets = Vec::new();
        for broker in catalog.brokers(&product)? {
            for slug in broker
                .envs
                .iter()
                .map(|one| one.slug.as_str())
                .filter(|slug| env.as_deref().is_none_or(|env| env == *slug))
            {
                let one = Request {
                    product: Some(product.clone()),
                    env: Some(slug.to_owned()),
                    broker_tag: Some(broker.tag.clone()),
                    ..Request::default()
                };
                match Target::connect(&self.messages, &one).await {
                    Ok(target) => targets.push(target),
                    // It cannot have the event: nothing was ever published there.
                    Err(error) if error.kind() == ErrorKind::ProviderUnsupported => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(targets)
    }

    /// Finds an event by its id: in the journals of stores, and among the dead letters of every broker.
    async fn locate(&self, request: &Request) -> Result<(Target, Located)> {
        let id = request.event_id.as_deref().ok_or_else(|| missing("eventId"))?;
        let mut unknown = Vec::new();
        for target in self.targets(request).await? {
            if let Some(journal) = target.broker.transport().journal() {
                let query =
                    JournalQuery { id: Some(id.to_owned()), headers: target.headers(), ..JournalQuery::default() };
                if let Some(entry) = journal.events(&query, 1).await?.into_iter().next() {
                    return Ok((target, Located { message: entry.message, settled: entry.settled }));
                }
                continue;
            }
            let filter = DeadLetterFilter::new().id(id);
            for subscription in target.subscriptions(None).await? {
                let found = target.dead_letters(&subscription, &filter, 1).await?;
                if let Some(dead) = found.into_iter().next() {
                    return Ok((target, Located { message: dead.message().clone(), settled: false }));
                }
            }
            unknown.push(format!("{} ({} keeps dead letters only)", target.tag, target.broker.capabilities().name));
        }
        let error = Error::new(ErrorKind::GetEventFailed, "no event of this id was found").field("eventId", id);
        Err(if unknown.is_empty() {
            error.remedy("check the id; settled events are kept for the store's retention, a week by default")
        } else {
            error.remedy(format!("it may have been handled: these keep no record of that: {}", unknown.join(", ")))
        })
    }

    async fn event(&self, request: &Request) -> Result<Value> {
        let (target, located) = self.locate(request).await?;
        let status = if located.settled { "success" } else { tracking::status_of(&target, &located.message).await? };
        Ok(tracking::event_row(&located.message, status))
    }

    /// Publishes a copy with an id of its own. Unless `force` is set, the copy keeps the idempotency key, so that inboxes
    /// which have seen the event pass over it.
    async fn replay_event(&self, request: &Request) -> Result<Value> {
        let (target, Located { message, settled }) = self.locate(request).await?;
        if settled && !request.force {
            let error = Some("the event was handled; with force it is published again".to_owned());
            return text(&Replayed { success: false, new_event_id: None, process_id: None, error });
        }
        let original = crate::event::decode(&message.body, message.headers.clone()).map_err(|(error, _)| error)?;
        let mut headers = settlement::replayed(original.headers());
        headers.remove(name::IDEMPOTENCY_KEY);
        if !request.force {
            headers.set(name::IDEMPOTENCY_KEY, original.idempotency_key());
        }
        let copy = DomainEvent::from_parts(
            message.routing_key.clone(),
            original.data_json().to_owned().into(),
            original.domain_object_id().map(Into::into),
            new_id(),
            Timestamp::now(),
            headers,
        );
        let copy = copy.caused_by(&original);
        let id = copy.id().to_owned();
        target.broker.publisher().exchange(message.exchange.clone())?.publish(copy).await?;
        let process_id = Some(new_id().to_string());
        text(&Replayed { success: true, new_event_id: Some(id), process_id, error: None })
    }

    /// Puts dead letters back into the subscriptions that gave up on them. They keep their ids.
    async fn reprocess(&self, request: &Request) -> Result<Value> {
        let target = Target::connect(&self.messages, request).await?;
        let mut done = Reprocessed::default();
        let mut left = request.limit.map_or(u64::MAX, |limit| limit as u64);
        for subscription in target.subscriptions(request.topic_tag.as_deref()).await? {
            if left == 0 {
                break;
            }
            let mut filter = target.dead_letter_filter(request.topic_tag.as_deref());
            for id in &request.message_ids {
                filter = filter.id(id);
            }
            let mut ids = Vec::new();
            let replay = target.broker.replay(&subscription).filter(filter).limit(left);
            let report = replay
                .decide(|dead| {
                    ids.push(dead.id().to_owned());
                    ReplayAction::Retry
                })
                .await;
            match report {
                Ok(report) => {
                    left -= report.replayed.min(left);
                    done.reprocessed_count += report.replayed;
                    done.event_ids.extend(ids);
                }
                // Nobody has subscribed yet, so nothing died.
                Err(error) if error.kind() == ErrorKind::SubscriptionNotFound => {}
                Err(error) if done.reprocessed_count == 0 => return Err(error),
                Err(error) => {
                    done.failed_count += ids.len() as u64;
                    done.errors.push(error.to_string());
                }
            }
        }
        text(&done)
    }

    async fn check_idempotency(&self, request: &Request) -> Result<Value> {
        let key = request.idempotency_key.as_deref().ok_or_else(|| missing("idempotencyKey"))?;
        let env = self.messages.catalog().env(request.env.as_deref())?;
        let request = Request { env: Some(env), ..request.clone() };
        for target in self.targets(&request).await? {
            let memory = self.messages.durable_memory(&target.broker).await?;
            let key = idempotency_key(&target.product, &target.env, &target.tag, key);
            if let Some(first) = memory.recall(&key, false).await? {
                let first: Value = serde_json::from_str(&first).unwrap_or_default();
                return Ok(json!({ "exists": true, "event_id": first["message_id"] }));
            }
        }
        Ok(json!({ "exists": false }))
    }

    async fn test_connection(&self, request: &Request) -> Result<Value> {
        let started = std::time::Instant::now();
        let answer = match Target::connect(&self.messages, request).await {
            Ok(target) => target.broker.ping().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => Ok(json!({ "success": true, "latency_ms": started.elapsed().as_secs_f64() * 1000.0 })),
            Err(error) if error.kind() == ErrorKind::EnvRequired => Err(error),
            Err(error) => Ok(json!({ "success": false, "code": error.code(), "error": error.to_string() })),
        }
    }
}

fn not_recorded(operation: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "who published an event, and what handlers did by the hour, is not recorded")
        .field("operation", operation)
        .remedy("use events.messages.getStats, getDepths and getDeadLetters, or Broker::metrics")
}

pub(super) fn missing(field: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOption, format!("{field} is missing"))
        .field("request", field)
        .remedy("give it as text")
}

pub(super) fn text<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::Internal, "a result has no JSON form").source(e))
}
