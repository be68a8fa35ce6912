//! What a relay counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Metric, MetricKind};

/// The metrics of a relay, in the order in which they are reported.
pub const METRICS: &[&str] = &[
    "tidings_outbox_oldest_seconds",
    "tidings_outbox_published_total",
    "tidings_outbox_failures_total",
    "tidings_outbox_parked_total",
    "tidings_outbox_polls_total",
    "tidings_outbox_takeovers_total",
    "tidings_outbox_parts",
];

/// Counters and gauges of one relay.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) takeovers: AtomicU64,
    pub(crate) parts: AtomicU64,
    /// Age of the oldest row that should have been published, and when that was asked.
    oldest: Mutex<Option<(Duration, Instant)>>,
}

impl Counters {
    pub(crate) fn set_oldest(&self, age: Option<Duration>) {
        *self.oldest.lock() = age.map(|age| (age, Instant::now()));
    }

    /// Its age now, if it is still there.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.oldest.lock().map(|(age, asked)| age + asked.elapsed())
    }

    #[allow(clippy::cast_precision_loss, reason = "counters beyond 2^53 need not be exact")]
    pub(crate) fn snapshot(&self) -> Vec<Metric> {
        use MetricKind::{Counter, Gauge};
        let values = [
            (Gauge, self.oldest().unwrap_or_default().as_secs_f64()),
            (Counter, self.published.load(Relaxed) as f64),
            (Counter, self.failures.load(Relaxed) as f64),
            (Counter, self.parked.load(Relaxed) as f64),
            (Counter, self.polls.load(Relaxed) as f64),
            (Counter, self.takeovers.load(Relaxed) as f64),
            (Gauge, self.parts.load(Relaxed) as f64),
        ];
        METRICS.iter().zip(values).map(|(name, (kind, value))| Metric::new(name, kind, value)).collect()
    }
}
