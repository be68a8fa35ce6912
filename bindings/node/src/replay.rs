//! Dead letters: looking, and moving them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi_derive::napi;
use parking_lot::Mutex;
use tidings::{
    Broker as Core, DeadLetterEntry, DeadLetterFilter, Error, ErrorKind, ReplayAction, ReplayReport, Result,
};
use tokio::sync::oneshot;

use crate::bridge::{Answer, Shared};
use crate::broker::{Broker, Inner};
use crate::convert::{headers_json, timestamp};

/// Which dead letters are meant: all conditions must hold.
#[napi(object)]
pub struct Filter {
    pub ids: Option<Vec<String>>,
    pub binding_keys: Option<Vec<String>>,
    pub reason: Option<String>,
    pub error_type: Option<String>,
    pub tenant: Option<String>,
    /// Seconds since the Unix epoch.
    pub failed_after: Option<f64>,
    /// Seconds since the Unix epoch.
    pub failed_before: Option<f64>,
}

/// How a replay goes.
#[napi(object)]
pub struct ReplaySettings {
    pub filter: Filter,
    pub limit: Option<f64>,
    pub rate: Option<f64>,
    pub dry_run: Option<bool>,
    /// Whether every page of dead letters is shown to JavaScript, which says what becomes of each.
    pub asks: bool,
}

/// One replay. `run` answers each time there is a page to decide about, and in the end with the report.
#[napi]
pub struct Replay {
    broker: Arc<Inner>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Where the next question or the report goes.
    op: Mutex<Option<u32>>,
    waiting: Mutex<Option<oneshot::Sender<Vec<ReplayAction>>>>,
    given_up: AtomicBool,
}

#[napi]
impl Replay {
    /// A replay on `broker`.
    #[napi(constructor)]
    pub fn new(broker: &Broker) -> Self {
        Self { broker: broker.inner(), state: Arc::default() }
    }

    /// Begins. Answers with a page as JSON array if it asks, else with the report as JSON object.
    #[napi]
    pub fn run(&self, op: u32, subscription: String, settings: ReplaySettings) {
        let filter = match filter(settings.filter) {
            Ok(filter) => filter,
            Err(error) => return self.broker.bridge.answer(op, Err(error)),
        };
        *self.state.op.lock() = Some(op);
        let (state, bridge) = (self.state.clone(), self.broker.bridge.clone());
        let (core, handle) = match (self.broker.core(), self.broker.handle()) {
            (Ok(core), Ok(handle)) => (core.clone(), handle),
            (Err(error), _) | (_, Err(error)) => return self.broker.bridge.answer(op, Err(error)),
        };
        let answers = bridge.clone();
        handle.spawn(bridge.while_wanted(async move {
            let mut replay = core.replay(&subscription).filter(filter);
            if let Some(limit) = settings.limit {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
                let limit = limit as u64;
                replay = replay.limit(limit);
            }
            if let Some(rate) = settings.rate {
                replay = replay.rate(rate);
            }
            if settings.dry_run == Some(true) {
                replay = replay.dry_run();
            }
            let result = if settings.asks {
                let asked = state.clone();
                let ask = answers.clone();
                replay.decide_pages(move |page| asked.clone().ask(ask.clone(), page)).await
            } else {
                replay.run().await
            };
            let op = state.op.lock().take();
            if let Some(op) = op {
                answers.answer(op, result.map(|report| Answer::Json(report_json(report))));
            }
        }));
    }

    /// Answers a page: one of `retry`, `leave` and `discard` for each. `op` gets the next page or the report.
    #[napi]
    pub fn decide(&self, op: u32, actions: Vec<String>) {
        *self.state.op.lock() = Some(op);
        let actions = actions.iter().map(|action| match action.as_str() {
            "retry" => ReplayAction::Retry,
            "discard" => ReplayAction::Discard,
            _ => ReplayAction::Leave,
        });
        if let Some(waiting) = self.state.waiting.lock().take() {
            // A replay that has ended meanwhile reports that itself.
            drop(waiting.send(actions.collect()));
        }
    }

    /// Ends at the page that waits for an answer: everything in it stays where it is.
    #[napi]
    pub fn give_up(&self) {
        self.state.given_up.store(true, Ordering::Release);
        self.state.waiting.lock().take();
    }
}

impl State {
    async fn ask(self: Arc<Self>, bridge: Arc<Shared>, page: Arc<[DeadLetterEntry]>) -> Result<Vec<ReplayAction>> {
        let (sender, answer) = oneshot::channel();
        *self.waiting.lock() = Some(sender);
        let op = self.op.lock().take();
        if self.given_up.load(Ordering::Acquire) {
            return Err(given_up());
        }
        if let Some(op) = op {
            bridge.answer(op, Ok(Answer::Json(page_json(&page))));
        }
        answer.await.map_err(|_| given_up())
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Closed, "the replay was given up").remedy("run it again: what was replayed stays replayed")
}

#[napi]
impl Broker {
    /// The first `limit` dead letters that the filter chooses, as JSON.
    #[napi]
    pub fn dead_letters(&self, op: u32, subscription: String, chosen: Filter, limit: u32) {
        let filter = filter(chosen);
        self.inner().run(op, |core: Core| async move {
            let found = core.dead_letters(&subscription, &filter?, limit as usize).await?;
            Ok(Answer::Json(page_json(&found)))
        });
    }
}

fn filter(from: Filter) -> Result<DeadLetterFilter> {
    let mut filter = DeadLetterFilter::new();
    for id in from.ids.unwrap_or_default() {
        filter = filter.id(id);
    }
    for key in from.binding_keys.unwrap_or_default() {
        filter = filter.binding_key(key);
    }
    if let Some(reason) = from.reason {
        filter = filter.reason(reason);
    }
    if let Some(error_type) = from.error_type {
        filter = filter.error_type(error_type);
    }
    if let Some(tenant) = from.tenant {
        filter = filter.tenant(tenant);
    }
    if let Some(seconds) = from.failed_after {
        filter = filter.failed_after(timestamp("failedAfter", seconds)?);
    }
    if let Some(seconds) = from.failed_before {
        filter = filter.failed_before(timestamp("failedBefore", seconds)?);
    }
    Ok(filter)
}

fn page_json(page: &[DeadLetterEntry]) -> String {
    let page: Vec<_> = page.iter().map(dead_letter_json).collect();
    serde_json::Value::Array(page).to_string()
}

fn dead_letter_json(dead: &DeadLetterEntry) -> serde_json::Value {
    let event = dead.event().ok();
    serde_json::json!({
        "id": dead.id(),
        "routingKey": dead.routing_key(),
        "reason": dead.reason(),
        "errorType": dead.error_type(),
        "error": dead.error(),
        "stack": dead.stack(),
        "attempts": dead.attempts(),
        "firstFailedAt": dead.first_failed_at().map(tidings::Timestamp::as_secs_f64),
        "failedAt": dead.failed_at().map(tidings::Timestamp::as_secs_f64),
        "parked": dead.is_parked(),
        "headers": headers_json(dead.headers()),
        "body": String::from_utf8_lossy(dead.body()),
        "data": event.map(tidings::DomainEvent::data_json),
        "domainObjectId": event.and_then(tidings::DomainEvent::domain_object_id),
        "timestamp": event.map(|event| event.timestamp().as_secs_f64()),
    })
}

fn report_json(report: ReplayReport) -> String {
    serde_json::json!({
        "seen": report.seen,
        "chosen": report.chosen,
        "replayed": report.replayed,
        "discarded": report.discarded,
        "left": report.left,
        "remaining": report.remaining,
    })
    .to_string()
}
