//! Publishing.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidings::{DomainEvent, Error, ErrorKind, PublishOptions, Publisher as Core, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bridge::{Answer, Shared};
use crate::broker::{Broker, Inner};
use crate::convert::{duration, headers, timestamp};

/// Events that are handed over at once at most. They have their receipts together, so that it is a moment's worth.
const CHUNK: usize = 64;

/// What a publish may say beside routing key, data and object id.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Extra {
    /// Id of the event; made here if it is missing.
    id: Option<String>,
    /// Seconds since the Unix epoch; the time now if it is missing.
    timestamp: Option<f64>,
    headers: Option<Map<String, Value>>,
    /// Milliseconds until it is handed to subscriptions.
    delay_ms: Option<f64>,
    /// When it is handed to subscriptions, seconds since the Unix epoch.
    deliver_at: Option<f64>,
    /// Fail if nobody wants it.
    require_route: Option<bool>,
    /// Another exchange than the publisher's.
    exchange: Option<String>,
    /// Milliseconds until it is given up.
    timeout_ms: Option<f64>,
}

/// What a publisher is told when it is made.
#[napi(object)]
pub struct PublisherSettings {
    /// Exchange to publish to.
    pub exchange: Option<String>,
    /// Milliseconds until a publish is given up.
    pub publish_timeout_ms: Option<f64>,
    /// Largest body in bytes.
    pub max_payload: Option<f64>,
}

/// A publisher; `open` it once the broker is connected.
///
/// Its events go through one task in the order of the calls, so that those of a key stay in order. What waits there has
/// somebody waiting in JavaScript each, and TypeScript lets through 8,192 at most.
#[napi]
pub struct Publisher {
    broker: Arc<Inner>,
    queue: Mutex<Option<UnboundedSender<Called>>>,
}

/// What one call from JavaScript brought: a number for each event, and their text.
struct Called {
    ops: Vec<u32>,
    text: String,
}

#[napi]
impl Publisher {
    /// A publisher to `broker`.
    #[napi(constructor)]
    pub fn new(broker: &Broker) -> Self {
        Self { broker: broker.inner(), queue: Mutex::new(None) }
    }

    /// Checks the settings and is ready.
    #[napi]
    pub fn open(&self, op: u32, settings: PublisherSettings) {
        let answer = self.try_open(settings).map(|()| Answer::Nothing);
        self.broker.bridge.answer(op, answer);
    }

    fn try_open(&self, settings: PublisherSettings) -> Result<()> {
        let mut core = self.broker.core()?.publisher();
        if let Some(exchange) = settings.exchange {
            core = core.exchange(exchange)?;
        }
        if let Some(millis) = settings.publish_timeout_ms {
            core = core.publish_timeout(duration("publishTimeoutMs", millis)?);
        }
        if let Some(bytes) = settings.max_payload {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the core refuses 0 and too much"
            )]
            let bytes = bytes as usize;
            core = core.max_payload(bytes)?;
        }
        let (queue, waiting) = unbounded_channel();
        let bridge = self.broker.bridge.clone();
        let work = work(core, waiting, bridge.clone());
        self.broker.handle()?.spawn(bridge.while_wanted(work));
        *self.queue.lock() = Some(queue);
        Ok(())
    }

    /// Publishes events, each of four lines of `text`: routing key, object id or nothing, [`Extra`] as JSON or nothing, data
    /// as JSON. A key or id that begins with a quotation mark is JSON too. Each op is answered with a receipt.
    #[napi]
    pub fn publish(&self, ops: Uint32Array, text: String) {
        let called = Called { ops: ops.to_vec(), text };
        let refused = match self.queue.lock().as_ref() {
            Some(queue) => queue.send(called).err().map(|unsent| unsent.0),
            None => Some(called),
        };
        if let Some(Called { ops, .. }) = refused {
            self.broker.bridge.answer_all(ops.into_iter().map(|op| (op, Err(closed()))));
        }
    }

    /// Takes no more events; those under way are finished.
    #[napi]
    pub fn close(&self) {
        self.queue.lock().take();
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the publisher is closed").remedy("make a new one")
}

/// Publishes what comes, in its order, all at once; ends with the publisher.
async fn work(core: Core, mut waiting: UnboundedReceiver<Called>, bridge: Arc<Shared>) {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            // New ones first: they are polled, and thereby sent, in the order they came.
            biased;
            next = waiting.recv(), if open => match next {
                Some(called) => {
                    let (chunks, refused) = chunks(&called);
                    bridge.answer_all(refused);
                    under_way.extend(chunks.into_iter().map(|chunk| publish(&core, chunk)));
                }
                None => open = false,
            },
            Some((ops, results)) = under_way.next() => {
                let receipts = results.into_iter().map(|result| result.map(|one| Answer::Receipt(one.id, one.routed)));
                bridge.answer_all(ops.into_iter().zip(receipts));
            }
        }
    }
}

/// Events that are published in one go.
enum Chunk {
    Plain(Vec<u32>, Vec<DomainEvent>),
    /// One with options of its own.
    One(u32, Box<(DomainEvent, PublishOptions)>),
}

fn publish(core: &Core, chunk: Chunk) -> impl Future<Output = (Vec<u32>, Vec<Result<tidings::Receipt>>)> {
    match chunk {
        Chunk::Plain(ops, events) => Either::Left(async move { (ops, core.publish_batch(events).await) }),
        Chunk::One(op, one) => {
            let (event, options) = *one;
            Either::Right(async move { (vec![op], vec![core.publish_with(event, options).await]) })
        }
    }
}

/// The events of a call in their order, and what is wrong with those that are none.
fn chunks(called: &Called) -> (Vec<Chunk>, Vec<(u32, Result<Answer>)>) {
    let (mut chunks, mut refused) = (Vec::new(), Vec::new());
    let mut lines = called.text.split('\n');
    for &op in &called.ops {
        let mut line = || lines.next().unwrap_or_default();
        match event(line(), line(), line(), line()) {
            Ok((event, None)) => match chunks.last_mut() {
                Some(Chunk::Plain(ops, events)) if ops.len() < CHUNK => {
                    ops.push(op);
                    events.push(event);
                }
                _ => chunks.push(Chunk::Plain(vec![op], vec![event])),
            },
            Ok((event, Some(options))) => chunks.push(Chunk::One(op, Box::new((event, options)))),
            Err(error) => refused.push((op, Err(error))),
        }
    }
    (chunks, refused)
}

fn event(key: &str, object: &str, extra: &str, data: &str) -> Result<(DomainEvent, Option<PublishOptions>)> {
    let mut event = DomainEvent::from_json(&text("routingKey", key)?, data)?;
    if !object.is_empty() {
        event = event.with_domain_object_id(&*text("domainObjectId", object)?);
    }
    if extra.is_empty() {
        return Ok((event, None));
    }
    let extra: Extra = serde_json::from_str(extra).map_err(|error| not_text("options", &error))?;
    if let Some(id) = &extra.id {
        event = event.with_id(id)?;
    }
    if let Some(seconds) = extra.timestamp {
        event = event.with_timestamp(timestamp("timestamp", seconds)?);
    }
    for (name, value) in headers(extra.headers.clone().unwrap_or_default()).iter() {
        event = event.with_header(name, value.clone());
    }
    Ok((event, options(extra)?))
}

/// What differs from a publish without options.
fn options(extra: Extra) -> Result<Option<PublishOptions>> {
    let Extra { delay_ms, deliver_at, require_route, exchange, timeout_ms, .. } = extra;
    if let (None, None, None | Some(false), None, None) = (delay_ms, deliver_at, require_route, &exchange, timeout_ms) {
        return Ok(None);
    }
    let mut options = PublishOptions::new();
    if let Some(millis) = delay_ms {
        options = options.delay(duration("delayMs", millis)?);
    }
    if let Some(seconds) = deliver_at {
        options = options.deliver_at(timestamp("deliverAt", seconds)?);
    }
    if require_route == Some(true) {
        options = options.require_route();
    }
    if let Some(exchange) = exchange {
        options = options.exchange(exchange);
    }
    if let Some(millis) = timeout_ms {
        options = options.timeout(duration("timeoutMs", millis)?);
    }
    Ok(Some(options))
}

/// A line that is the text itself, or JSON of it where the text could not be a line.
fn text<'a>(field: &'static str, line: &'a str) -> Result<Cow<'a, str>> {
    if line.starts_with('"') {
        serde_json::from_str::<String>(line).map(Cow::Owned).map_err(|error| not_text(field, &error))
    } else {
        Ok(Cow::Borrowed(line))
    }
}

fn not_text(field: &'static str, error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::InvalidOption, "this cannot be published")
        .field(field, error)
        .remedy("use well-formed Unicode text and finite numbers")
}
