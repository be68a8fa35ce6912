//! Events, dead letters and depths as `getEvents` and `events.messages.*` show them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::memory::journal;
use super::message_broker::scope;
use super::service::{BrokersService, Request, missing};
use super::{EventName, MessageBroker, names, time};
use crate::event::{Headers, decode, name};
use crate::transport::{JournalEntry, JournalQuery, JournalState, Message};
use crate::{Broker, DeadLetterEntry, DeadLetterFilter, Error, ErrorKind, Result, Timestamp};

/// Events that are read from a journal at once.
const PAGE: usize = 500;
/// Rows of a page, unless asked for, and at most.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 1000;

/// One broker of a product's environment, reached.
pub(super) struct Target {
    pub(super) broker: Broker,
    pub(super) product: String,
    pub(super) env: String,
    pub(super) tag: String,
    /// The topics that the catalog lists.
    topics: Vec<String>,
}

impl Target {
    pub(super) async fn connect(messages: &MessageBroker, request: &Request) -> Result<Self> {
        let catalog = messages.catalog();
        let product = catalog.product(request.product.as_deref())?;
        let env = catalog.env(request.env.as_deref())?;
        let tag = request.broker_tag.clone();
        if !catalog.is_declared() {
            let broker = messages.connect(None).await?;
            return Ok(Self { broker, product, env, tag: tag.unwrap_or_default(), topics: Vec::new() });
        }
        let tag = tag.ok_or_else(|| missing("brokerTag"))?;
        let (url, topics) = catalog.broker_url(&product, &env, &tag)?;
        Ok(Self { broker: messages.connect(Some(&url)).await?, product, env, tag, topics })
    }

    /// The headers of what was published by way of this broker's name.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        vec![(name::PRODUCT.to_owned(), self.product.clone()), (name::ENV.to_owned(), self.env.clone())]
    }

    /// The subscriptions of this broker's topics that are known.
    pub(super) async fn subscriptions(&self, topic: Option<&str>) -> Result<Vec<String>> {
        let own = |topic: &str| {
            let (broker, topic) = match topic.split_once(':') {
                Some((broker, topic)) if self.tag.is_empty() || self.tag == broker => (broker, topic),
                _ => (&*self.tag, topic),
            };
            names::subscription(&self.product, &self.env, broker, topic, None)
        };
        let prefix = self.prefix();
        let known = self.broker.subscriptions().await?.into_iter().map(|info| info.name);
        let mut names: Vec<_> = known.filter(|name| name.starts_with(&prefix)).collect();
        match topic {
            Some(topic) if self.tag.is_empty() && !topic.contains(':') => {}
            Some(topic) => {
                let name = own(topic);
                // Groups of the topic have its name in front.
                names.retain(|one| *one == name || one.starts_with(&format!("{name}:")));
                names.push(name);
            }
            None => names.extend(self.topics.iter().map(|topic| own(topic))),
        }
        names.sort_unstable();
        names.dedup();
        if names.is_empty() && self.broker.transport().journal().is_none() && self.broker.capabilities().durable {
            let name = self.broker.capabilities().name;
            return Err(Error::new(ErrorKind::Unsupported, format!("{name}: does not list its queues to clients"))
                .field("brokerTag", &self.tag)
                .remedy("name a topic, or list the broker's topics in the catalog"));
        }
        Ok(names)
    }

    /// Those of a queue's dead letters that are of this broker's name.
    pub(super) fn dead_letter_filter(&self, topic: Option<&str>) -> DeadLetterFilter {
        let (tag, topic) = (self.tag.clone(), topic.map(str::to_owned));
        let (product, env, lenient) = (self.product.clone(), self.env.clone(), !self.prefix().is_empty());
        DeadLetterFilter::new().matching(move |dead| {
            let headers = dead.headers();
            // What has no name came from elsewhere into a queue of ours, if it is one.
            let is = |name: &str, own: &str| headers.text(name).map_or(lenient, |found| found == own);
            let event = headers.text(name::EVENT_NAME);
            is(name::PRODUCT, &product)
                && is(name::ENV, &env)
                && event.map_or(lenient, |event| is_of(event, &tag, topic.as_deref()))
        })
    }

    fn prefix(&self) -> String {
        let parts = [&*self.product, &*self.env, &*self.tag];
        names::prefix(if self.tag.is_empty() { &parts[..2] } else { &parts })
    }

    /// Dead letters of a subscription; none if nobody has subscribed yet.
    pub(super) async fn dead_letters(
        &self,
        subscription: &str,
        filter: &DeadLetterFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetterEntry>> {
        match self.broker.dead_letters(subscription, filter, limit).await {
            Err(error) if error.kind() == ErrorKind::SubscriptionNotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

/// Whether an event was published by way of this broker's name, and to this topic. No name: any broker.
fn is_of(event: &str, broker: &str, topic: Option<&str>) -> bool {
    let Ok(event) = event.parse::<EventName>() else { return false };
    (broker.is_empty() || event.broker() == broker)
        && topic.is_none_or(|topic| event.topic() == topic || event.as_str() == topic)
}

/// Which rows of all that match are shown.
struct Slice {
    page: usize,
    limit: usize,
    seen: usize,
}

impl Slice {
    fn of(request: &Request) -> Result<Self> {
        let (page, limit) = (request.page.unwrap_or(1), request.limit.unwrap_or(LIMIT));
        if page == 0 || limit == 0 || limit > MAX_LIMIT {
            return Err(Error::new(
                ErrorKind::InvalidOption,
                format!("pages begin at 1 and have 1 to {MAX_LIMIT} rows"),
            )
            .field("page, limit", format!("{page}, {limit}"))
            .remedy("leave both out for the first page"));
        }
        Ok(Self { page, limit, seen: 0 })
    }

    /// Counts a row; whether it is on the page.
    fn next(&mut self) -> bool {
        self.seen += 1;
        let first = (self.page - 1).saturating_mul(self.limit);
        self.seen > first && self.seen <= first.saturating_add(self.limit)
    }

    fn result(&self, name: &str, rows: &[Value]) -> Value {
        let more = self.seen > self.page.saturating_mul(self.limit);
        json!({ name: rows, "total": self.seen, "page": self.page, "limit": self.limit, "hasMore": more })
    }
}

/// Walks over a store's events, newest first.
async fn walk(target: &Target, request: &Request, mut see: impl FnMut(&JournalEntry) + Send) -> Result<()> {
    let journal = journal(&target.broker)?;
    if journal.retention().is_zero() && wants_settled(request) {
        return Err(Error::new(ErrorKind::Unsupported, "the store forgets events once they are handled")
            .field("retention", 0)
            .remedy("add ?retention=<seconds> to its URL, or ask for status pending, retrying or failed"));
    }
    let bound = |value: &Value, field| (!value.is_null()).then(|| time::parse(value, field)).transpose();
    let mut query = JournalQuery {
        headers: target.headers(),
        since: bound(&request.start_date, "startDate")?,
        until: bound(&request.end_date, "endDate")?,
        ..JournalQuery::default()
    };
    loop {
        let page = journal.events(&query, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        query.before = Some(last.sequence);
        for entry in &page {
            let event = entry.message.headers.text(name::EVENT_NAME);
            let ours = event.is_some_and(|event| is_of(event, &target.tag, request.topic_tag.as_deref()));
            let consumed = |tag: &str| entry.places.iter().any(|place| place.subscription == tag);
            if ours && request.consumer_tag.as_deref().is_none_or(consumed) {
                see(entry);
            }
        }
    }
}

fn wants_settled(request: &Request) -> bool {
    let status = request.status.as_deref().unwrap_or_default();
    let category = request.category.as_deref().unwrap_or_default();
    !["pending", "retrying", "failed", "partial"].contains(&status) && !["dead-letter", "error"].contains(&category)
}

/// What has become of an event: `success` once every subscription is done with it.
fn status(entry: &JournalEntry) -> &'static str {
    let dead = entry.places.iter().filter(|place| place.state == JournalState::Dead).count();
    match (entry.settled, dead) {
        (true, _) => "success",
        (false, 0) if entry.places.iter().any(|place| place.state == JournalState::Retrying) => "retrying",
        (false, 0) => "pending",
        (false, dead) if dead < entry.places.len() => "partial",
        _ => "failed",
    }
}

/// The status of one event that is not settled.
pub(super) async fn status_of(target: &Target, message: &Message) -> Result<&'static str> {
    let Some(journal) = target.broker.transport().journal() else { return Ok("failed") };
    let query = JournalQuery { id: Some(message.id.to_string()), ..JournalQuery::default() };
    Ok(journal.events(&query, 1).await?.first().map_or("success", status))
}

fn topic_of(message: &Message) -> Value {
    let event = message.headers.text(name::EVENT_NAME).and_then(|event| event.parse::<EventName>().ok());
    event.map_or(Value::Null, |event| event.topic().into())
}

/// The data of an event; null if it cannot be read.
fn data(message: &Message) -> Value {
    let event = decode(&message.body, Headers::new());
    event.ok().and_then(|event| serde_json::from_str(event.data_json()).ok()).unwrap_or_default()
}

/// The row of `getEvents` and `getEvent`. What handlers returned is not recorded.
pub(super) fn event_row(message: &Message, status: &str) -> Value {
    json!({
        "id": &*message.id,
        "status": status,
        "topic": topic_of(message),
        "timestamp": time::iso(message.timestamp),
        "request_data": data(message),
        "response_data": null,
    })
}

pub(super) async fn events(service: &BrokersService, request: &Request) -> Result<Value> {
    let target = Target::connect(&service.messages, request).await?;
    let wanted = match (request.status.as_deref(), request.category.as_deref()) {
        (Some("duplicate"), _) => {
            return Err(Error::new(ErrorKind::Unsupported, "duplicates are counted, not kept")
                .field("status", "duplicate")
                .remedy("use getEventStats: duplicate_count"));
        }
        (Some(status @ ("success" | "failed" | "pending" | "retrying")), _) => Some(status),
        (Some(other), _) => return Err(unknown("status", other, "success, failed, pending, duplicate, retrying")),
        (None, Some("dead-letter" | "error")) => Some("failed"),
        (None, None | Some("consumer" | "producer" | "message")) => None,
        (None, Some(other)) => {
            return Err(unknown("category", other, "consumer, producer, dead-letter, message, error"));
        }
    };
    let (mut slice, mut rows) = (Slice::of(request)?, Vec::new());
    if target.broker.transport().journal().is_none() && wanted == Some("failed") {
        for dead in all_dead(&target, request).await? {
            if slice.next() {
                rows.push(event_row(dead.1.message(), "failed"));
            }
        }
    } else {
        walk(&target, request, |entry| {
            let status = if status(entry) == "partial" { "failed" } else { status(entry) };
            if wanted.is_none_or(|wanted| wanted == status) && slice.next() {
                rows.push(event_row(&entry.message, status));
            }
        })
        .await?;
    }
    Ok(json!({ "events": rows }))
}

fn unknown(field: &'static str, value: &str, known: &str) -> Error {
    Error::new(ErrorKind::InvalidOption, format!("there is no such {field}"))
        .field(field, value)
        .remedy(format!("use one of {known}"))
}

#[derive(Default)]
struct Counts {
    by_status: BTreeMap<&'static str, u64>,
    by_topic: BTreeMap<String, u64>,
    total: u64,
}

async fn count(target: &Target, request: &Request) -> Result<Counts> {
    let mut counts = Counts::default();
    walk(target, request, |entry| {
        counts.total += 1;
        *counts.by_status.entry(status(entry)).or_default() += 1;
        if let Some(topic) = topic_of(&entry.message).as_str() {
            *counts.by_topic.entry(topic.to_owned()).or_default() += 1;
        }
    })
    .await?;
    Ok(counts)
}

impl Counts {
    fn of(&self, statuses: &[&str]) -> u64 {
        statuses.iter().filter_map(|status| self.by_status.get(status)).sum()
    }
}

pub(super) async fn event_stats(service: &BrokersService, request: &Request) -> Result<Value> {
    let target = Target::connect(&service.messages, request).await?;
    let counts = count(&target, request).await?;
    let memory = service.messages.durable_memory(&target.broker).await?;
    let dead: u64 = depth_rows(&target, request).await?.iter().map(|info| info.dead).sum();
    Ok(json!({
        "total_events": counts.total,
        "success_count": counts.of(&["success"]),
        "failed_count": counts.of(&["failed", "partial"]),
        "pending_count": counts.of(&["pending", "retrying"]),
        "duplicate_count": memory.duplicates(&scope(&target.product, &target.env, &target.tag)).await?,
        "dead_letter_count": dead,
        "events_by_topic": counts.by_topic,
    }))
}

pub(super) async fn message_stats(service: &BrokersService, request: &Request) -> Result<Value> {
    let target = Target::connect(&service.messages, request).await?;
    let counts = count(&target, request).await?;
    let depths = depth_rows(&target, request).await?;
    Ok(json!({
        "total": counts.total,
        "pending": counts.of(&["pending", "retrying"]),
        "success": counts.of(&["success"]),
        "failed": counts.of(&["failed"]),
        "partial": counts.of(&["partial"]),
        "consumer_count": depths.len(),
        "dead_letter_count": depths.iter().map(|info| info.dead).sum::<u64>(),
        "messages_by_topic": counts.by_topic,
    }))
}

pub(super) async fn messages(service: &BrokersService, request: &Request) -> Result<Value> {
    if let Some(producer) = &request.producer_tag {
        return Err(Error::new(ErrorKind::Unsupported, "who published an event is not recorded")
            .field("producerTag", producer)
            .remedy("leave it out"));
    }
    let target = Target::connect(&service.messages, request).await?;
    let wanted = match request.status.as_deref() {
        None | Some("pending" | "success" | "failed" | "partial") => request.status.clone(),
        Some(other) => return Err(unknown("status", other, "pending, success, failed, partial")),
    };
    let (mut slice, mut rows) = (Slice::of(request)?, Vec::new());
    walk(&target, request, |entry| {
        let status = if status(entry) == "retrying" { "pending" } else { status(entry) };
        if wanted.as_deref().is_none_or(|wanted| wanted == status) && slice.next() {
            rows.push(message_row(&target, entry, status));
        }
    })
    .await?;
    Ok(slice.result("messages", &rows))
}

fn message_row(target: &Target, entry: &JournalEntry, status: &str) -> Value {
    let message = &entry.message;
    let deliveries: Vec<_> = entry
        .places
        .iter()
        .map(|place| {
            let status = if place.state == JournalState::Dead { "failed" } else { "pending" };
            json!({ "consumer_tag": place.subscription, "status": status, "error": place.error, "retry_count": place.attempts })
        })
        .collect();
    json!({
        "message_id": &*message.id,
        "idempotency_key": message.headers.text(name::IDEMPOTENCY_KEY),
        "product_tag": target.product,
        "env": target.env,
        "broker_tag": target.tag,
        "topic_tag": topic_of(message),
        "event": message.headers.text(name::EVENT_NAME),
        "message_decrypted": data(message),
        "status": status,
        "produced_at": time::iso(message.timestamp),
        "session_tag": message.headers.text(name::SESSION_TAG),
        "consumer_deliveries": deliveries,
    })
}

/// Every dead letter of a broker's subscriptions, with the subscription.
async fn all_dead(target: &Target, request: &Request) -> Result<Vec<(String, DeadLetterEntry)>> {
    let topic = request.topic_tag.as_deref();
    let mut all = Vec::new();
    let most = request.page.unwrap_or(1).saturating_mul(request.limit.unwrap_or(LIMIT)).saturating_add(1);
    for subscription in target.subscriptions(topic).await? {
        if request.consumer_tag.as_ref().is_some_and(|tag| *tag != subscription) {
            continue;
        }
        let found = target.dead_letters(&subscription, &target.dead_letter_filter(topic), most).await?;
        all.extend(found.into_iter().map(|dead| (subscription.clone(), dead)));
    }
    Ok(all)
}

pub(super) async fn dead_letters(service: &BrokersService, request: &Request) -> Result<Value> {
    let target = Target::connect(&service.messages, request).await?;
    let (mut slice, mut rows) = (Slice::of(request)?, Vec::new());
    let text = |time: Option<Timestamp>| time.map(time::iso);
    for (subscription, dead) in all_dead(&target, request).await? {
        if slice.next() {
            rows.push(json!({
                "message_id": dead.id(),
                "original_message": data(dead.message()),
                "error": dead.error().unwrap_or(dead.reason()),
                "failed_at": text(dead.failed_at()),
                "retry_count": dead.attempts().saturating_sub(1),
                "consumer_tag": subscription,
                "can_retry": true,
            }));
        }
    }
    let more = slice.seen > slice.page.saturating_mul(slice.limit);
    // Pages beyond this one were not read: there the queues say how many there are. Without any, what was read is the
    // number, and no event that arrives between two questions can make them disagree.
    let total =
        if more { depth_rows(&target, request).await?.iter().map(|info| info.dead).sum() } else { slice.seen as u64 };
    Ok(json!({ "deadLetters": rows, "total": total, "page": slice.page, "limit": slice.limit, "hasMore": more }))
}

async fn depth_rows(target: &Target, request: &Request) -> Result<Vec<crate::transport::SubscriptionInfo>> {
    let mut rows = Vec::new();
    for name in target.subscriptions(request.topic_tag.as_deref()).await? {
        rows.extend(target.broker.subscription(&name).await?);
    }
    Ok(rows)
}

pub(super) async fn depths(service: &BrokersService, request: &Request) -> Result<Value> {
    let target = Target::connect(&service.messages, request).await?;
    let rows = depth_rows(&target, request).await?;
    let rows = rows.iter().map(|info| {
        json!({ "consumer_tag": info.name, "ready": info.ready, "in_flight": info.in_flight, "dead_letters": info.dead })
    });
    Ok(json!({ "consumers": rows.collect::<Vec<_>>() }))
}
