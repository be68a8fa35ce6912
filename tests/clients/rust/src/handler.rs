//! The handlers that a rig can ask for. Each says what it did before it returns, so before the event is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tidings::{BoxError, DeadLetter, DomainEvent, HeaderValue, Headers, Retry, Timestamp};
use tidings_test_client::protocol::{HandlerKind, Mood, Report};

use crate::output::say;

/// What a handler needs to know.
pub(crate) struct Handler {
    pub(crate) name: String,
    pub(crate) kind: HandlerKind,
    pub(crate) report: Report,
    pub(crate) handled: Arc<AtomicU64>,
    /// How often it began.
    pub(crate) begun: AtomicU64,
}

impl Handler {
    /// Handles one event.
    pub(crate) async fn run(&self, event: DomainEvent) -> Result<(), BoxError> {
        let data: Value = event.data()?;
        let seq = data["seq"].as_u64();
        let attempt = event.retries();
        if let HandlerKind::Unsteady { .. } = &self.kind {
            say(
                "begin",
                0,
                json!({"name": self.name, "id": event.id(), "key": event.key(), "seq": seq, "attempt": attempt,
                "at_us": Timestamp::now().as_micros()}),
            );
        }
        let (outcome, result): (_, Result<(), BoxError>) = match &self.kind {
            HandlerKind::Ok => ("ok", Ok(())),
            HandlerKind::RetryFirst { times, every, delays_ms } => {
                let chosen = seq.is_some_and(|seq| seq.is_multiple_of((*every).max(1)));
                if chosen && attempt < *times { ("retry", Err(retry(delays_ms, attempt))) } else { ("ok", Ok(())) }
            }
            HandlerKind::RetryAlways { delays_ms } => ("retry", Err(retry(delays_ms, attempt))),
            HandlerKind::Fail { message } => ("fail", Err(message.clone().into())),
            HandlerKind::Dead { reason } => ("dead", Err(DeadLetter::because(reason.clone()).into())),
            HandlerKind::Sleep { ms } => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                ("ok", Ok(()))
            }
            HandlerKind::Unsteady { short_ms, long_ms, mended_after_ms } => {
                let seq = seq.unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(1 + seq % 5)).await;
                let young = Timestamp::now().since(event.timestamp()) < Duration::from_millis(*mended_after_ms);
                match Mood::of(seq) {
                    Mood::Short(times) if attempt < times => ("retry", Err(retry(&[*short_ms], 0))),
                    Mood::Long(times) if attempt < times => ("retry", Err(retry(&[*long_ms], 0))),
                    Mood::Dead if young => ("dead", Err(DeadLetter::because("too-young").into())),
                    _ => ("ok", Ok(())),
                }
            }
            HandlerKind::Troubled { slow_every, slow_ms, hang_every, exit_after } => {
                if self.begun.fetch_add(1, Relaxed) + 1 == *exit_after {
                    std::process::exit(137);
                }
                let among = |every: &u64| seq.is_some_and(|seq| seq.is_multiple_of((*every).max(1)));
                if attempt == 0 && among(hang_every) {
                    std::future::pending::<()>().await;
                }
                if among(slow_every) {
                    tokio::time::sleep(Duration::from_millis(*slow_ms)).await;
                }
                ("ok", Ok(()))
            }
            HandlerKind::Exit { seq: at } => {
                if seq == Some(*at) {
                    std::process::exit(137);
                }
                ("ok", Ok(()))
            }
        };
        self.handled.fetch_add(1, Relaxed);
        self.say(&event, seq, attempt, outcome);
        result
    }

    fn say(&self, event: &DomainEvent, seq: Option<u64>, attempt: u32, outcome: &str) {
        if self.report == Report::None {
            return;
        }
        let late = Timestamp::now().since(event.timestamp()).as_micros();
        let mut line = json!({"name": self.name, "id": event.id(), "key": event.key(), "seq": seq, "attempt": attempt,
            "outcome": outcome, "at_us": Timestamp::now().as_micros(), "late_us": u64::try_from(late).unwrap_or(u64::MAX)});
        if self.report == Report::Events {
            line["event"] = serde_json::from_slice(&event.to_json()).unwrap_or_default();
            line["headers"] = headers(event.headers());
        }
        say("effect", 0, line);
    }
}

fn retry(delays_ms: &[u64], attempt: u32) -> BoxError {
    let at = (attempt as usize).min(delays_ms.len().saturating_sub(1));
    Retry::after(Duration::from_millis(delays_ms.get(at).copied().unwrap_or(0))).into()
}

fn headers(headers: &Headers) -> Value {
    let text = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => Value::from(&**text),
        HeaderValue::Int(n) => Value::from(*n),
        other => serde_json::to_value(other).unwrap_or_default(),
    };
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect::<serde_json::Map<_, _>>().into()
}
