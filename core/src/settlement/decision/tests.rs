//! What becomes of an outcome.

use super::*;
use crate::event::MAX_HEADERS;
use crate::policy::RetryPolicy;
use crate::settlement::Failure;

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
    let (delays, end) =
        run(&policy, |retries| Outcome::Retry { after: Some(Duration::from_secs(5u64.pow(retries))), message: None });
    assert_eq!(delays, [1, 5, 25].map(Duration::from_secs));
    let Settlement::DeadLetter { headers } = end else { panic!("{end:?}") };
    assert_eq!(headers.text(name::DEAD_REASON), Some(reason::MAX_RETRIES));
    assert_eq!(headers.int(name::DEAD_ATTEMPTS), Some(4));
}

#[test]
fn retries_of_handler_and_policy_are_bounded_together() {
    let policy = SettlementPolicy { retry: Some(RetryPolicy::fixed(2, Duration::from_secs(1))), ..policy() };
    let (delays, _) = run(&policy, |n| if n == 0 { Outcome::Retry { after: None, message: None } } else { fail("E") });
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
    let (Settlement::DeadLetter { headers }, _) = decide(&policy(), &headers, outcome, now(), 0.0) else { panic!() };
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
