//! What happens to a delivery once its handler is done: the one place where that is decided.
//!
//! ```text
//!  delivered ─► handler ─┬─ Ok ──────────────────────────────────────────► acked
//!                        ├─ Retry(after) ── attempt < max_retries ? ─yes──► scheduled ─► delivered (attempt + 1)
//!                        │                                         └─no───► dead letter (or discarded, if so declared)
//!                        ├─ Fail ── a retry policy covers it ? ─────yes───► scheduled …
//!                        │                                    └─no────────► dead letter (or discarded)
//!                        ├─ DeadLetter(reason) ───────────────────────────► dead letter, at once
//!                        ├─ Discard ──────────────────────────────────────► acked, counted
//!                        └─ Release ──────────────────────────────────────► back to the queue, no attempt spent
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::shorten;
use crate::event::{HeaderValue, Headers, MAX_HEADERS, Timestamp, name};
use crate::policy::RetryPolicy;
use crate::transport::Settlement;

/// Most of an error's message that a dead letter keeps, in bytes.
pub const MAX_ERROR_TEXT: usize = 2 * 1024;
/// Most of an error's stack that a dead letter keeps, in bytes.
pub const MAX_STACK_TEXT: usize = 8 * 1024;
/// Most that the headers of a dead letter take, in bytes: its own texts come on top of what the event brought.
const MAX_DEAD_HEADERS: usize = MAX_HEADERS + 16 * 1024;
/// Delay of a `Retry` that names none, where no policy has one either (`domain-event-broker`'s default).
pub const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Times that a suspect may come back without an outcome before it is a dead letter.
pub const MAX_SUSPECT_RETURNS: u32 = 3;

/// Reasons of dead letters that Tidings gives itself (`tests/vectors/reasons.json`). Handlers may give any other text.
pub mod reason {
    /// The handler failed and no retry policy covered the error.
    pub const ERROR: &str = "error";
    /// The handler failed or asked for a retry once more than `max_retries`.
    pub const MAX_RETRIES: &str = "max-retries";
    /// The policy's `max_age` had passed.
    pub const MAX_AGE: &str = "max-age";
    /// The handler ran into its time-out.
    pub const TIMEOUT: &str = "timeout";
    /// The handler panicked.
    pub const PANIC: &str = "panic";
    /// The event ended its consumers again and again.
    pub const CRASHED: &str = "crashed";
    /// The body is not an event.
    pub const UNDECODABLE: &str = "undecodable";
    /// The `content-type` has no codec here.
    pub const UNSUPPORTED_CONTENT_TYPE: &str = "unsupported-content-type";
    /// The broker dead-lettered it by itself and did not say why.
    pub const BROKER: &str = "broker";

    /// All of them, in the order of the table.
    pub const ALL: &[&str] =
        &[ERROR, MAX_RETRIES, MAX_AGE, TIMEOUT, PANIC, CRASHED, UNDECODABLE, UNSUPPORTED_CONTENT_TYPE, BROKER];
}

/// How a handler failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Types of the error, most specific first. A policy's `retry_on` matches any of them.
    pub error_types: Vec<String>,
    /// What the error says.
    pub message: String,
    /// Where it happened.
    pub stack: Option<String>,
    /// [`reason::ERROR`], [`reason::TIMEOUT`] or [`reason::PANIC`]: why a dead letter is kept when no retry is due.
    pub reason: Cow<'static, str>,
}

impl Failure {
    /// A failure with the types of its error, most specific first, and what the error says.
    ///
    /// ```
    /// use tidings::{Failure, settlement::reason};
    ///
    /// let failure = Failure::new(["CardDeclined", "PaymentError"], "card 7 was declined").with_stack("at pay()");
    /// assert_eq!(failure.reason, reason::ERROR);
    /// ```
    pub fn new<T: Into<String>>(error_types: impl IntoIterator<Item = T>, message: impl Into<String>) -> Self {
        Self {
            error_types: error_types.into_iter().map(Into::into).collect(),
            message: message.into(),
            stack: None,
            reason: reason::ERROR.into(),
        }
    }

    /// Says where it happened.
    pub fn with_stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(stack.into());
        self
    }

    /// Says why a dead letter is kept when no retry is due.
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = reason.into();
        self
    }
}

/// What a host says of a delivery that it has handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled.
    Ok,
    /// To be handled again after the given time, or when the policy says.
    Retry {
        /// Time to wait; `None`: the policy's back-off, else 10 s.
        after: Option<Duration>,
        /// Why, kept with a dead letter if this was one retry too many.
        message: Option<String>,
    },
    /// The handler failed.
    Fail(Failure),
    /// Given up on, whatever the policy says.
    DeadLetter {
        /// Why, in the handler's words.
        reason: String,
        /// Details.
        message: Option<String>,
    },
    /// Not wanted: acknowledged and counted apart.
    Discard,
    /// Not handled: back to the queue, no attempt spent.
    Release,
}

/// Hook that may rewrite error messages and stacks before they are kept or logged.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The part of a subscription's options that decides about outcomes.
#[derive(Clone)]
#[non_exhaustive]
pub struct SettlementPolicy {
    /// Name of the subscription, kept with dead letters.
    pub subscription: Arc<str>,
    /// Most retries of one event.
    pub max_retries: u32,
    /// When errors are retried; `None`: never.
    pub retry: Option<RetryPolicy>,
    /// Keep what was given up on, or drop it, counted.
    pub dead_letter: bool,
    /// Longest delay that the transport can keep; longer ones are cut to it.
    pub max_delay: Duration,
    /// Broker deliveries without an outcome after which an event is run alone.
    pub max_deliveries: u32,
    /// Whether dead letters keep the error's stack.
    pub capture_stack: bool,
    /// Rewrites error texts.
    pub redact: Option<Redact>,
}

impl SettlementPolicy {
    /// The defaults for the subscription of this name: no retry, dead letters kept; set the public fields to what it is.
    pub fn new(subscription: impl Into<Arc<str>>) -> Self {
        Self {
            subscription: subscription.into(),
            max_retries: 0,
            retry: None,
            dead_letter: true,
            max_delay: Duration::MAX,
            max_deliveries: 20,
            capture_stack: true,
            redact: None,
        }
    }
}

impl fmt::Debug for SettlementPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettlementPolicy")
            .field("subscription", &self.subscription)
            .field("max_retries", &self.max_retries)
            .field("retry", &self.retry)
            .field("dead_letter", &self.dead_letter)
            .finish_non_exhaustive()
    }
}

/// What a decision amounts to, for counters, logs and spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Handled.
    Acked,
    /// Scheduled again.
    Retried,
    /// Kept as a dead letter.
    DeadLettered,
    /// Dropped on purpose.
    Discarded,
    /// Given back.
    Released,
}

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
mod tests {
    use super::*;

    fn policy() -> SettlementPolicy {
        SettlementPolicy {
            subscription: "billing".into(),
            max_retries: 2,
            retry: None,
            dead_letter: true,
            max_delay: Duration::from_secs(86_400),
            max_deliveries: 20,
            capture_stack: true,
            redact: None,
        }
    }

    fn fail(error_type: &str) -> Outcome {
        Outcome::Fail(Failure {
            error_types: vec![error_type.into()],
            message: "boom".into(),
            stack: Some("at x".into()),
            reason: reason::ERROR.into(),
        })
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(1_000_000_000)
    }

    /// Runs an event through outcomes until it is no longer retried; the delays, and the headers of the end.
    fn run(policy: &SettlementPolicy, outcome: impl Fn(u32) -> Outcome) -> (Vec<Duration>, Settlement) {
        let (mut headers, mut delays) = (Headers::new(), Vec::new());
        loop {
            match decide(policy, &headers, outcome(attempt(&headers)), now(), 0.0).0 {
                Settlement::Retry { delay, headers: next } => {
                    delays.push(delay);
                    headers = next;
                }
                end => return (delays, end),
            }
        }
    }

    #[test]
    fn upstreams_exponential_example_runs_exactly_max_retries() {
        let policy = SettlementPolicy { max_retries: 3, ..policy() };
        let (delays, end) = run(&policy, |retries| Outcome::Retry {
            after: Some(Duration::from_secs(5u64.pow(retries))),
            message: None,
        });
        assert_eq!(delays, [1, 5, 25].map(Duration::from_secs));
        let Settlement::DeadLetter { headers } = end else { panic!("{end:?}") };
        assert_eq!(headers.text(name::DEAD_REASON), Some(reason::MAX_RETRIES));
        assert_eq!(headers.int(name::DEAD_ATTEMPTS), Some(4));
    }

    #[test]
    fn retries_of_handler_and_policy_are_bounded_together() {
        let policy = SettlementPolicy { retry: Some(RetryPolicy::fixed(2, Duration::from_secs(1))), ..policy() };
        let (delays, _) =
            run(&policy, |n| if n == 0 { Outcome::Retry { after: None, message: None } } else { fail("E") });
        assert_eq!(delays.len(), 2);
    }

    #[test]
    fn an_error_without_a_policy_dead_letters_at_once_with_its_story() {
        let (delays, end) = run(&policy(), |_| fail("ValueError"));
        assert!(delays.is_empty());
        let Settlement::DeadLetter { headers } = end else { panic!("{end:?}") };
        for (name, value) in [
            (name::DEAD_REASON, "error"),
            (name::DEAD_ERROR_TYPE, "ValueError"),
            (name::DEAD_ERROR, "boom"),
            (name::DEAD_STACK, "at x"),
            (name::DEAD_FIRST_FAILED_AT, "1000.0"),
            (name::DEAD_SUBSCRIPTION, "billing"),
        ] {
            assert_eq!(headers.text(name), Some(value), "{name}");
        }
    }

    #[test]
    fn max_age_ends_retries() {
        let retry = RetryPolicy::fixed(9, Duration::ZERO).max_age(Duration::from_secs(60));
        let policy = SettlementPolicy { max_retries: 9, retry: Some(retry), ..policy() };
        let (settlement, _) = decide(&policy, &Headers::new(), fail("E"), now(), 0.0);
        let Settlement::Retry { headers, .. } = settlement else { panic!("{settlement:?}") };
        let (settlement, effect) = decide(&policy, &headers, fail("E"), now().after(Duration::from_secs(60)), 0.0);
        assert_eq!(effect, Effect::DeadLettered);
        let Settlement::DeadLetter { headers } = settlement else { panic!("{settlement:?}") };
        assert_eq!(headers.text(name::DEAD_REASON), Some(reason::MAX_AGE));
        assert_eq!(headers.text(name::DEAD_FIRST_FAILED_AT), Some("1000.0"));
    }

    #[test]
    fn without_dead_letters_the_event_is_dropped_and_counted() {
        let policy = SettlementPolicy { dead_letter: false, ..policy() };
        let (settlement, effect) = decide(&policy, &Headers::new(), fail("E"), now(), 0.0);
        assert!(matches!(settlement, Settlement::Ack));
        assert_eq!(effect, Effect::Discarded);
    }

    #[test]
    fn a_dead_letter_fits_whatever_the_event_brings() {
        let headers: Headers = [("big", "x".repeat(MAX_HEADERS - 1024))].into_iter().collect();
        let outcome = Outcome::Fail(Failure {
            error_types: vec!["E".repeat(9999)],
            message: "ü".repeat(99_999),
            stack: Some("s".repeat(99_999)),
            reason: reason::ERROR.into(),
        });
        let (Settlement::DeadLetter { headers }, _) = decide(&policy(), &headers, outcome, now(), 0.0) else {
            panic!()
        };
        assert!(headers.size() <= MAX_DEAD_HEADERS, "{}", headers.size());
    }

    #[test]
    fn crashes_make_a_suspect_and_a_suspect_that_crashes_is_dead() {
        let policy = policy();
        assert!(triage(&policy, &Headers::new(), 19, now()).is_none());
        let Some((Settlement::Suspect { headers }, _)) = triage(&policy, &Headers::new(), 20, now()) else { panic!() };
        assert!(is_suspect(&headers));
        assert!(triage(&policy, &headers, 2, now()).is_none());
        let Some((Settlement::DeadLetter { headers: dead }, _)) = triage(&policy, &headers, 3, now()) else { panic!() };
        assert_eq!(dead.text(name::DEAD_REASON), Some(reason::CRASHED));
        let (settlement, _) = decide(&policy, &headers, Outcome::Release, now(), 0.0);
        assert!(matches!(settlement, Settlement::Suspect { .. }));
        assert!(!is_suspect(&replayed(&headers)));
    }
}
