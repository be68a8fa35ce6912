//! The decision itself.

use std::time::Duration;

use super::outcome::{Effect, Outcome};
use super::policy::SettlementPolicy;
use super::{DEFAULT_RETRY_DELAY, MAX_DEAD_HEADERS, MAX_ERROR_TEXT, MAX_STACK_TEXT, MAX_SUSPECT_RETURNS, reason};
use crate::error::shorten;
use crate::event::{HeaderValue, Headers, Timestamp, name};
use crate::transport::Settlement;

/// Settles a delivery whose headers are `headers`: the decision behind the picture at the head of this file.
///
/// `random` (0.0–1.0) is the jitter's dice.
pub fn decide(
    policy: &SettlementPolicy,
    headers: &Headers,
    outcome: Outcome,
    now: Timestamp,
    random: f64,
) -> (Settlement, Effect) {
    let attempt = attempt(headers);
    let failure = match outcome {
        Outcome::Ok => return (Settlement::Ack, Effect::Acked),
        Outcome::Discard => return (Settlement::Ack, Effect::Discarded),
        Outcome::Release => return release(headers),
        Outcome::DeadLetter { reason, message } => {
            return give_up(
                policy,
                headers,
                &DeadLetter { reason: &reason, error_type: None, message, stack: None },
                now,
            );
        }
        Outcome::Retry { after, message } => {
            if attempt < policy.max_retries {
                let delay = after
                    .unwrap_or_else(|| policy.retry.as_ref().map_or(DEFAULT_RETRY_DELAY, |r| r.delay(attempt, random)));
                return schedule(policy, headers, delay, now);
            }
            return give_up(
                policy,
                headers,
                &DeadLetter { reason: reason::MAX_RETRIES, error_type: Some("Retry".into()), message, stack: None },
                now,
            );
        }
        Outcome::Fail(failure) => failure,
    };
    let mut why = failure.reason;
    if let Some(retry) = policy.retry.as_ref().filter(|retry| retry.covers(&failure.error_types)) {
        let too_old =
            retry.max_age.is_some_and(|age| now.since(first_failed_at(headers).unwrap_or(now)) >= age && attempt > 0);
        if attempt >= policy.max_retries {
            why = reason::MAX_RETRIES.into();
        } else if too_old {
            why = reason::MAX_AGE.into();
        } else {
            return schedule(policy, headers, retry.delay(attempt, random), now);
        }
    }
    let error_type = failure.error_types.into_iter().next();
    give_up(
        policy,
        headers,
        &DeadLetter { reason: &why, error_type, message: Some(failure.message), stack: failure.stack },
        now,
    )
}

/// What is done with a delivery before any handler sees it: `Some` if it must not run (yet).
///
/// An event that was delivered `max_deliveries` times without an outcome may be what ends its consumers. It becomes a
/// suspect, which runs alone; one that comes back [`MAX_SUSPECT_RETURNS`] times is dead.
pub fn triage(
    policy: &SettlementPolicy,
    headers: &Headers,
    lost_deliveries: u32,
    now: Timestamp,
) -> Option<(Settlement, Effect)> {
    if is_suspect(headers) {
        (suspect_returns(headers).saturating_add(lost_deliveries) >= MAX_SUSPECT_RETURNS).then(|| {
            let message =
                Some(format!("its consumer ended {} times while it ran", policy.max_deliveries + MAX_SUSPECT_RETURNS));
            give_up(
                policy,
                headers,
                &DeadLetter { reason: reason::CRASHED, error_type: None, message, stack: None },
                now,
            )
        })
    } else {
        (lost_deliveries >= policy.max_deliveries).then(|| {
            let mut headers = headers.clone();
            headers.set(name::SUSPECT, 1i64);
            headers.remove(name::DELIVERIES);
            (Settlement::Suspect { headers }, Effect::Released)
        })
    }
}

/// Whether the event must run alone.
pub fn is_suspect(headers: &Headers) -> bool {
    headers.get(name::SUSPECT).is_some()
}

/// Deliveries already tried and scheduled again.
pub fn attempt(headers: &Headers) -> u32 {
    headers.int(name::ATTEMPT).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// Headers that a replayed event starts again with: attempts forgotten, what described the dead letter gone.
pub fn replayed(headers: &Headers) -> Headers {
    let mut headers = headers.clone();
    headers.retain(|n| {
        !n.starts_with(name::DEAD_PREFIX)
            && !n.starts_with(name::DELAY_PREFIX)
            && ![name::SUSPECT, name::DELIVERIES, name::TO, name::PARKED, name::ATTEMPT].contains(&n)
    });
    headers
}

/// Times that a suspect came back before the broker began to count anew: its header is one more.
fn suspect_returns(headers: &Headers) -> u32 {
    headers.int(name::SUSPECT).and_then(|n| u32::try_from(n - 1).ok()).unwrap_or(0)
}

/// A suspect goes back with a fresh count, so that only crashes count against it; anything else just goes back.
fn release(headers: &Headers) -> (Settlement, Effect) {
    put_back(headers, 0)
}

/// What has not run goes back. A suspect takes the deliveries that it lost along: some brokers count a release as well,
/// so it is written anew.
pub(crate) fn put_back(headers: &Headers, lost_deliveries: u32) -> (Settlement, Effect) {
    if !is_suspect(headers) {
        return (Settlement::Release, Effect::Released);
    }
    let mut headers = headers.clone();
    headers.set(name::SUSPECT, suspect_returns(&headers).saturating_add(lost_deliveries).saturating_add(1));
    headers.remove(name::DELIVERIES);
    (Settlement::Suspect { headers }, Effect::Released)
}

fn schedule(policy: &SettlementPolicy, headers: &Headers, delay: Duration, now: Timestamp) -> (Settlement, Effect) {
    let mut headers = headers.clone();
    headers.set(name::ATTEMPT, attempt(&headers) + 1);
    if headers.get(name::DEAD_FIRST_FAILED_AT).is_none() {
        headers.set(name::DEAD_FIRST_FAILED_AT, now.to_string());
    }
    headers.retain(|n| n != name::SUSPECT && n != name::DELIVERIES);
    (Settlement::Retry { delay: delay.min(policy.max_delay), headers }, Effect::Retried)
}

struct DeadLetter<'a> {
    reason: &'a str,
    error_type: Option<String>,
    message: Option<String>,
    stack: Option<String>,
}

fn give_up(policy: &SettlementPolicy, headers: &Headers, why: &DeadLetter<'_>, now: Timestamp) -> (Settlement, Effect) {
    if !policy.dead_letter {
        return (Settlement::Ack, Effect::Discarded);
    }
    let clean = |text: &str, max| {
        let text = match &policy.redact {
            // A hook that panics must neither keep the dead letter from being written nor let the text through.
            Some(redact) => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| redact(text)))
                .unwrap_or_else(|_| "[the redact hook panicked]".to_owned()),
            None => text.to_owned(),
        };
        shorten(&text, max)
    };
    let mut dead = headers.clone();
    let first = first_failed_at(headers).unwrap_or(now);
    dead.retain(|n| !n.starts_with(name::DEAD_PREFIX) && n != name::SUSPECT && n != name::DELIVERIES);
    dead.set(name::DEAD_REASON, shorten(why.reason, MAX_ERROR_TEXT));
    if let Some(error_type) = &why.error_type {
        dead.set(name::DEAD_ERROR_TYPE, shorten(error_type, 255));
    }
    dead.set(name::DEAD_ATTEMPTS, attempt(headers) + 1);
    dead.set(name::DEAD_FIRST_FAILED_AT, first.to_string());
    dead.set(name::DEAD_FAILED_AT, now.to_string());
    dead.set(name::DEAD_SUBSCRIPTION, policy.subscription.clone());
    // A dead letter is always written: its own texts take what the headers leave (a foreign event may have more of them).
    if let Some(message) = &why.message {
        let room = MAX_DEAD_HEADERS.saturating_sub(dead.size() + name::DEAD_ERROR.len() + 8);
        dead.set(name::DEAD_ERROR, clean(message, MAX_ERROR_TEXT.min(room)));
    }
    if let Some(stack) = why.stack.as_ref().filter(|_| policy.capture_stack) {
        let room = MAX_DEAD_HEADERS.saturating_sub(dead.size() + name::DEAD_STACK.len() + 8);
        dead.set(name::DEAD_STACK, clean(stack, MAX_STACK_TEXT.min(room)));
    }
    (Settlement::DeadLetter { headers: dead }, Effect::DeadLettered)
}

fn first_failed_at(headers: &Headers) -> Option<Timestamp> {
    time(headers, name::DEAD_FIRST_FAILED_AT)
}

/// A point in time that a header holds as decimal seconds.
pub(crate) fn time(headers: &Headers, name: &str) -> Option<Timestamp> {
    match headers.get(name)? {
        HeaderValue::Text(text) => text.parse().ok().and_then(Timestamp::from_secs_f64),
        HeaderValue::Float(seconds) => Timestamp::from_secs_f64(*seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
