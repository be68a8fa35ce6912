//! Measures how long each retry really waited, next to what the policy says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidings::{DomainEvent, RetryPolicy};

use crate::role::{count, say};
use crate::story::thousands;

/// Clocks of several machines and milliseconds that are cut off: so much too early is not too early.
const TOLERANCE: Duration = Duration::from_millis(5);

pub(crate) struct Waits {
    policy: RetryPolicy,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    failed: HashMap<String, Instant>,
    failures: usize,
    most_retries: u32,
    early: usize,
    /// By number of the retry, from 0: how many, shortest and longest wait.
    measured: BTreeMap<u32, (usize, Duration, Duration)>,
}

impl Waits {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, inner: Mutex::default() }
    }

    /// A delivery begins: if it is a retry, its wait is over.
    pub(crate) fn attempt(&self, event: &DomainEvent) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failed) = inner.failed.remove(event.id()) else { return };
        let waited = failed.elapsed();
        let retry = event.retries().saturating_sub(1);
        inner.early += usize::from(waited + TOLERANCE < self.policy.delay(retry, 0.0));
        let (n, shortest, longest) = inner.measured.entry(retry).or_insert((0, waited, waited));
        (*n, *shortest, *longest) = (*n + 1, waited.min(*shortest), waited.max(*longest));
    }

    /// A delivery has failed: its wait begins.
    pub(crate) fn failed(&self, event: &DomainEvent) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.failed.insert(event.id().to_owned(), Instant::now());
        inner.failures += 1;
        count("failed", inner.failures);
        if event.retries() + 1 > inner.most_retries {
            inner.most_retries = event.retries() + 1;
            let delay = self.policy.delay(event.retries(), 0.0).as_millis();
            say(format!("{}: attempt {} failed, again in {delay} ms", first_words(event), inner.most_retries));
            count("most-attempts", inner.most_retries as usize);
        }
    }

    /// Tells what was measured, retry by retry.
    pub(crate) fn tell(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (retry, (n, shortest, longest)) in &inner.measured {
            say(format!(
                "retry {}: {:>4} events, due after {:>5} ms, came after {} to {} ms",
                retry + 1,
                thousands(*n),
                thousands(usize::try_from(self.policy.delay(*retry, 0.0).as_millis()).unwrap_or(usize::MAX)),
                shortest.as_millis(),
                longest.as_millis()
            ));
        }
        count("early", inner.early);
    }
}

fn first_words(event: &DomainEvent) -> String {
    let flight = event.data::<crate::flights::Flight>().map(|flight| flight.number).unwrap_or_default();
    format!("{} {flight}", event.routing_key())
}
