//! Publishes generated events, many in flight, and says which ones the broker has confirmed.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use tidings::{DomainEvent, PublishOptions, Publisher, Result};
use tidings_test_client::protocol::Publish;

use crate::output::{say, say_error};

/// Most ids in one `confirmed` line.
const REPORT: usize = 1000;

/// Publishes what `work` asks for; ends with the answer to command `n`.
pub(crate) async fn run(publisher: Publisher, n: u64, work: Publish) {
    let keys = match Keys::of(&work).await {
        Ok(keys) => keys,
        Err(error) => return say_error("publish", n, "INVALID_OPTION", &error),
    };
    let started = Instant::now();
    let mut in_flight = FuturesUnordered::new();
    let (mut next, mut waiting) = (0, 0);
    let mut confirmed = Vec::new();
    let (mut ok, mut failed) = (0u64, 0u64);
    let batch = work.batch.max(1);
    while next < work.count || waiting > 0 {
        while next < work.count && (waiting == 0 || waiting + batch <= work.in_flight) && due(&work, next, started) {
            let size = (work.count - next).min(batch as u64);
            let events = (next..next + size).map(|i| event(&work, &keys, work.first + i)).collect();
            in_flight.push(send(publisher.clone(), events, work.delay_ms));
            next += size;
            waiting += batch;
        }
        if waiting == 0 || (next < work.count && waiting < work.in_flight && !due(&work, next, started)) {
            let pause = tokio::time::sleep(until(&work, next, started));
            tokio::select! {
                () = pause => continue,
                Some(results) = in_flight.next() => note(results, &mut confirmed, &mut ok, &mut failed),
            }
        } else if let Some(results) = in_flight.next().await {
            note(results, &mut confirmed, &mut ok, &mut failed);
        }
        waiting -= batch;
        // Everything that is there already goes into the same line.
        while let Some(Some(results)) = futures_util::FutureExt::now_or_never(in_flight.next()) {
            waiting -= batch;
            note(results, &mut confirmed, &mut ok, &mut failed);
            if confirmed.len() >= REPORT {
                break;
            }
        }
        for ids in confirmed.chunks(REPORT) {
            say("confirmed", 0, json!({ "ids": ids }));
        }
        confirmed.clear();
    }
    say("publish", n, json!({"confirmed": ok, "failed": failed, "seconds": started.elapsed().as_secs_f64()}));
}

type Sent = Vec<(String, Result<()>)>;

async fn send(publisher: Publisher, events: Vec<Result<DomainEvent>>, delay_ms: Option<u64>) -> Sent {
    let (mut sent, mut good) = (Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        match event {
            Ok(event) => good.push(event),
            Err(error) => sent.push((String::new(), Err(error))),
        }
    }
    let ids: Vec<String> = good.iter().map(|event| event.id().to_owned()).collect();
    if good.len() == 1 || delay_ms.is_some() {
        let options =
            delay_ms.map_or_else(PublishOptions::new, |ms| PublishOptions::new().delay(Duration::from_millis(ms)));
        for (id, event) in ids.into_iter().zip(good) {
            sent.push((id, publisher.publish_with(event, options.clone()).await.map(drop)));
        }
    } else {
        let results = publisher.publish_batch(good).await;
        sent.extend(ids.into_iter().zip(results.into_iter().map(|result| result.map(drop))));
    }
    sent
}

fn note(results: Sent, confirmed: &mut Vec<String>, ok: &mut u64, failed: &mut u64) {
    for (id, result) in results {
        match result {
            Ok(()) => {
                *ok += 1;
                confirmed.push(id);
            }
            Err(error) => {
                *failed += 1;
                let unknown = error.outcome_unknown();
                say(
                    "failed",
                    0,
                    json!({"id": id, "code": error.code(), "outcome_unknown": unknown, "message": error.to_string()}),
                );
            }
        }
    }
}

/// An event of this work.
pub(crate) fn event(work: &Publish, keys: &Keys, seq: u64) -> Result<DomainEvent> {
    // What the five keys and the other fields take, near enough.
    let around = 150 + work.routing_key.len() + 2 * work.prefix.len();
    let pad = "x".repeat(work.bytes.saturating_sub(around));
    let event = DomainEvent::new(&work.routing_key, &json!({"seq": seq, "prefix": work.prefix, "pad": pad}))?
        .with_id(&format!("{}{seq}", work.prefix))?;
    Ok(match keys.key(work, seq) {
        Some(key) => event.with_domain_object_id(key),
        None => event,
    })
}

/// Where ordering keys come from.
pub(crate) enum Keys {
    Generated,
    /// The lines of a file, from the top again when they are used up.
    Given(Vec<Box<str>>),
}

impl Keys {
    /// Those of this work; the error names the file.
    pub(crate) async fn of(work: &Publish) -> Result<Self, String> {
        let Some(path) = work.keys_from.clone() else { return Ok(Self::Generated) };
        let read = tokio::task::spawn_blocking(move || {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let lines: Vec<Box<str>> = text.lines().map(Into::into).collect();
            if lines.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(Self::Given(lines)) }
        });
        read.await.map_err(|e| e.to_string())?
    }

    /// The key of an event: of its line; or all alike, or by a law like Zipf's, where a tenth of the keys has most events.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "any key will do"
    )]
    pub(crate) fn key(&self, work: &Publish, seq: u64) -> Option<String> {
        match self {
            Self::Given(lines) => {
                let line = &lines[seq as usize % lines.len()];
                (!line.is_empty()).then(|| line.to_string())
            }
            Self::Generated if work.keys == 0 => None,
            Self::Generated if work.skewed => {
                let share = fastrand::Rng::with_seed(seq).f64();
                Some(format!("k{}", (work.keys as f64).powf(share) as u64 - 1))
            }
            Self::Generated => Some(format!("k{}", seq % work.keys)),
        }
    }
}

/// When event `i` is to be sent, from now.
#[allow(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53 events")]
pub(crate) fn until(work: &Publish, i: u64, started: Instant) -> Duration {
    let Some(rate) = work.rate else { return Duration::ZERO };
    Duration::from_secs_f64(i as f64 / rate).saturating_sub(started.elapsed())
}

fn due(work: &Publish, i: u64, started: Instant) -> bool {
    until(work, i, started).is_zero()
}
