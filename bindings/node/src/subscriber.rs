//! Subscriptions: pull, settle, pause, close.

use std::sync::{Arc, OnceLock};

use napi::bindgen_prelude::{Array, Env, Uint32Array};
use napi_derive::napi;
use parking_lot::Mutex;
use tidings::transport::OrderState;
use tidings::{
    Deliveries, Delivery, Error, ErrorKind, KeyOrder, OnDead, OnRetry, QueueType, Result, SubscriptionHealth,
    SubscriptionOptions,
};

use crate::bridge::Answer;
use crate::broker::{Broker, Inner};
use crate::convert::{duration, policy, whole};
use crate::delivery::{Hand, events};
use crate::error::thrown;
use crate::outcome::{Outcome, decided};

/// A subscription's options, as TypeScript has checked their types. Lengths of time in milliseconds.
#[napi(object)]
pub struct Options {
    pub name: String,
    pub binding_keys: Vec<String>,
    pub exchange: Option<String>,
    pub max_retries: Option<u32>,
    pub retry: Option<Policy>,
    pub concurrency: Option<u32>,
    pub prefetch: Option<u32>,
    pub ordered: Option<bool>,
    /// `wait` (default) or `pass`.
    pub on_retry: Option<String>,
    /// `park` (default) or `skip`.
    pub on_dead: Option<String>,
    pub hold_max_ms: Option<f64>,
    pub max_parked: Option<u32>,
    pub partitions: Option<u32>,
    pub dead_letter: Option<bool>,
    /// `quorum` (default) or `classic`.
    pub queue_type: Option<String>,
    pub compat: Option<bool>,
    pub durable: Option<bool>,
    pub exclusive: Option<bool>,
    pub auto_delete: Option<bool>,
    pub lease_ms: Option<f64>,
    pub max_hold_ms: Option<f64>,
    pub max_deliveries: Option<u32>,
    pub capture_stack: Option<bool>,
    pub timeout_ms: Option<f64>,
}

/// A retry policy.
#[napi(object)]
pub struct Policy {
    pub max_retries: u32,
    pub initial_ms: f64,
    /// Growth of the delay; missing: it is always `initial_ms`.
    pub factor: Option<f64>,
    pub max_ms: Option<f64>,
    pub jitter: Option<f64>,
    pub retry_on: Option<Vec<String>>,
    pub give_up_on: Option<Vec<String>>,
    pub max_age_ms: Option<f64>,
}

/// A subscription; `open` it once the broker is connected.
#[napi]
pub struct Subscription {
    broker: Arc<Inner>,
    deliveries: Arc<OnceLock<Deliveries>>,
    hand: Arc<Hand>,
    /// Until when a close waits; the deliveries are kept alive by it.
    closed: Arc<Mutex<bool>>,
}

// What settles or takes on JavaScript's thread does so in the broker's runtime: its clock may be a virtual one.
#[napi]
impl Subscription {
    /// A subscription of `broker`.
    #[napi(constructor)]
    pub fn new(broker: &Broker) -> Self {
        Self {
            broker: broker.inner(),
            deliveries: Arc::new(OnceLock::new()),
            hand: Arc::default(),
            closed: Arc::new(Mutex::new(false)),
        }
    }

    /// Declares the subscription; its events begin to arrive.
    #[napi]
    pub fn open(&self, op: u32, options: Options) {
        let options = match subscription_options(options) {
            Ok(options) => self.broker.resolved(options),
            Err(error) => return self.broker.bridge.answer(op, Err(error)),
        };
        let (slot, closed) = (self.deliveries.clone(), self.closed.clone());
        self.broker.run(op, |core| async move {
            let deliveries =
                core.subscriber().subscription(&options.spec.name).options(options.clone()).deliveries().await?;
            if *closed.lock() {
                // Closed while it was being opened: dropping it releases what has come.
                return Err(not_open());
            }
            slot.get_or_init(|| deliveries);
            Ok(Answer::Nothing)
        });
    }

    /// Waits for events and answers with at most `max`; with an empty batch once the subscription is closed.
    #[napi]
    pub fn next(&self, op: u32, max: u32) {
        let (slot, hand) = (self.deliveries.clone(), self.hand.clone());
        self.broker.run(op, |_| async move {
            let deliveries = slot.get().ok_or_else(not_open)?;
            Ok(Answer::Events(hand, deliveries.next(max as usize).await?))
        });
    }

    /// What is there without waiting, at most `max`; `null` once the subscription is closed.
    #[napi]
    pub fn try_next<'env>(&self, env: &'env Env, max: u32) -> napi::Result<Option<Array<'env>>> {
        let Some(deliveries) = self.deliveries.get() else { return Ok(None) };
        let handle = self.broker.handle().map_err(|error| thrown(&error))?;
        let _clock = handle.enter();
        match deliveries.try_next(max as usize) {
            Ok(Some(batch)) => events(env, &self.hand, batch).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(thrown(&error)),
        }
    }

    /// Settles handled deliveries in the background.
    #[napi]
    pub fn settle_ok(&self, numbers: Uint32Array) {
        if let (Some(deliveries), Ok(handle)) = (self.deliveries.get(), self.broker.handle()) {
            let _clock = handle.enter();
            let batch = self.hand.take(&numbers).into_iter().flatten();
            deliveries.settle_soon(batch.map(|delivery| (delivery, tidings::Outcome::Ok)));
        }
    }

    /// Settles one delivery in the background.
    #[napi]
    pub fn settle(&self, number: u32, outcome: Outcome) -> napi::Result<()> {
        let outcome = decided(outcome).map_err(|error| thrown(&error))?;
        let handle = self.broker.handle().map_err(|error| thrown(&error))?;
        let _clock = handle.enter();
        if let (Some(deliveries), Some(delivery)) = (self.deliveries.get(), self.take(number)) {
            deliveries.settle_soon([(delivery, outcome)]);
        }
        Ok(())
    }

    /// Settles one delivery and answers once that is durable.
    #[napi]
    pub fn settle_and_wait(&self, op: u32, number: u32, outcome: Outcome) {
        let (slot, delivery) = (self.deliveries.clone(), self.take(number));
        let outcome = decided(outcome);
        self.broker.run(op, |_| async move {
            let deliveries = slot.get().ok_or_else(not_open)?;
            let delivery = delivery.ok_or_else(stale)?;
            deliveries.settle(vec![(delivery, outcome?)]).await.map(|()| Answer::Nothing)
        });
    }

    /// Takes back deliveries whose handlers have not begun: they wait again.
    #[napi]
    pub fn put_back(&self, numbers: Uint32Array) {
        if let (Some(deliveries), Ok(handle)) = (self.deliveries.get(), self.broker.handle()) {
            let _clock = handle.enter();
            deliveries.put_back(self.hand.take(&numbers).into_iter().flatten().collect());
        }
    }

    /// Counts handlers that have ended, for the metrics.
    #[napi]
    pub fn handled(&self, count: u32, millis: f64) {
        if let (Some(deliveries), Ok(took)) = (self.deliveries.get(), duration("millis", millis)) {
            deliveries.count_handled(u64::from(count), took);
        }
    }

    /// Stops handing over.
    #[napi]
    pub fn pause(&self, op: u32) {
        let slot = self.deliveries.clone();
        self.broker
            .run(op, |_| async move { slot.get().ok_or_else(not_open)?.pause().await.map(|()| Answer::Nothing) });
    }

    /// Goes on after a pause.
    #[napi]
    pub fn resume(&self, op: u32) {
        let slot = self.deliveries.clone();
        self.broker
            .run(op, |_| async move { slot.get().ok_or_else(not_open)?.resume().await.map(|()| Answer::Nothing) });
    }

    /// Drains for up to `timeout_ms`, releases the rest, answers how many were released unfinished.
    #[napi]
    pub fn close(&self, op: u32, timeout_ms: f64) {
        *self.closed.lock() = true;
        let Some(_) = self.deliveries.get() else { return self.broker.bridge.answer(op, Ok(Answer::Number(0.0))) };
        let (slot, hand) = (self.deliveries.clone(), self.hand.clone());
        let timeout = duration("drainTimeoutMs", timeout_ms);
        self.broker.run(op, |_| async move {
            let deliveries = slot.get().ok_or_else(not_open)?;
            let unfinished = deliveries.close(timeout?).await?;
            drop(hand.empty());
            #[allow(clippy::cast_precision_loss, reason = "at most 65,535 are in hand")]
            let unfinished = unfinished as f64;
            Ok(Answer::Number(unfinished))
        });
    }

    /// Whether it is really consuming, as JSON; `null` before it is open.
    #[napi]
    pub fn health(&self) -> Option<String> {
        self.deliveries.get().map(|deliveries| health_json(&deliveries.health()))
    }

    fn take(&self, number: u32) -> Option<Delivery> {
        self.hand.take(&[number]).pop().flatten()
    }
}

/// Refuses options that no transport could serve: throws the error as JSON.
#[napi]
pub fn check_subscription(options: Options) -> napi::Result<()> {
    let checked = subscription_options(options).and_then(|options| {
        if let Some(retry) = &options.retry {
            retry.check()?;
        }
        options.spec.check()
    });
    checked.map_err(|error| thrown(&error))
}

fn not_open() -> Error {
    Error::new(ErrorKind::Closed, "the subscription is not open")
}

fn stale() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the delivery was settled or released already")
        .remedy("settle a delivery once")
}

fn subscription_options(from: Options) -> Result<SubscriptionOptions> {
    let mut options = SubscriptionOptions::new(&from.name);
    let spec = &mut options.spec;
    spec.binding_keys = from.binding_keys;
    if let Some(exchange) = from.exchange {
        spec.exchange = exchange;
    }
    if from.ordered == Some(true) {
        spec.ordered = Some(key_order(from.on_retry.as_deref(), from.on_dead.as_deref())?);
    }
    spec.dead_letter = from.dead_letter.unwrap_or(true);
    spec.queue_type = match from.queue_type.as_deref() {
        None | Some("quorum") => QueueType::Quorum,
        Some("classic") => QueueType::Classic,
        Some(other) => return Err(one_of("queueType", other, "quorum or classic")),
    };
    spec.compat = from.compat.unwrap_or(false);
    spec.durable = from.durable.unwrap_or(true);
    spec.exclusive = from.exclusive.unwrap_or(false);
    spec.auto_delete = from.auto_delete.unwrap_or(false);
    if let Some(millis) = from.lease_ms {
        spec.lease = duration("leaseMs", millis)?;
    }
    if let Some(millis) = from.hold_max_ms {
        spec.hold_max = duration("holdMaxMs", millis)?;
    }
    if let Some(keys) = from.max_parked {
        spec.max_parked = keys;
    }
    if let Some(partitions) = from.partitions {
        spec.partitions = whole("partitions", partitions)?;
    }
    if let Some(millis) = from.max_hold_ms {
        spec.max_hold = duration("maxHoldMs", millis)?;
    }
    options.max_retries = from.max_retries;
    options.retry = from.retry.map(policy).transpose()?;
    options.concurrency = from.concurrency.map_or(1, |n| n as usize);
    options.prefetch = from.prefetch.map(|n| whole("prefetch", n)).transpose()?;
    if let Some(deliveries) = from.max_deliveries {
        options.max_deliveries = deliveries;
    }
    options.capture_stack = from.capture_stack.unwrap_or(true);
    options.timeout = from.timeout_ms.map(|millis| duration("timeoutMs", millis)).transpose()?;
    Ok(options)
}

fn key_order(on_retry: Option<&str>, on_dead: Option<&str>) -> Result<KeyOrder> {
    let on_retry = match on_retry {
        None | Some("wait") => OnRetry::Wait,
        Some("pass") => OnRetry::Pass,
        Some(other) => return Err(one_of("onRetry", other, "wait or pass")),
    };
    let on_dead = match on_dead {
        None | Some("park") => OnDead::Park,
        Some("skip") => OnDead::Skip,
        Some(other) => return Err(one_of("onDead", other, "park or skip")),
    };
    Ok(KeyOrder::new().on_retry(on_retry).on_dead(on_dead))
}

pub(crate) fn one_of(field: &'static str, value: &str, choices: &str) -> Error {
    Error::new(ErrorKind::InvalidOption, "there is no such choice").field(field, value).remedy(format!("use {choices}"))
}

fn health_json(health: &SubscriptionHealth) -> String {
    serde_json::json!({
        "subscription": health.subscription,
        "connected": health.connected,
        "consuming": health.consuming,
        "paused": health.paused,
        "draining": health.draining,
        "inFlight": health.in_flight,
        "buffered": health.buffered,
        "recoveries": health.recoveries,
        "lastError": health.last_error,
        "limitedBy": health.limited_by,
        "order": health.order.as_ref().map(order_json),
    })
    .to_string()
}

fn order_json(order: &OrderState) -> serde_json::Value {
    serde_json::json!({
        "owners": order.owners,
        "waitingKeys": order.waiting_keys,
        "parkedKeys": order.parked_keys,
        "deadKeys": order.dead_keys,
        "oldestWaitingSeconds": order.oldest_waiting.map(|age| age.as_secs_f64()),
    })
}
