//! Counters and gauges, and a snapshot of them.
//!
//! Every name is in `tests/vectors/metrics.json` and stays what it is: names are only ever added.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::outbox::RelayCounters;
use crate::settlement::Effect;
use crate::transport::OrderState;

/// Whether a value only grows or goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Grows from 0 as long as the process lives.
    Counter,
    /// Is what it is now.
    Gauge,
}

/// One value of a snapshot.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// `tidings_…`
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// The subscription it belongs to, if it belongs to one.
    pub subscription: Option<Arc<str>>,
    /// The value; seconds where the name says so.
    pub value: f64,
}

impl Metric {
    pub(crate) fn new(name: &'static str, kind: MetricKind, value: f64) -> Self {
        Self { name, kind, subscription: None, value }
    }
}

/// Counters of one subscription.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionCounters {
    pub(crate) delivered: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) settle_failures: AtomicU64,
    pub(crate) handled: AtomicU64,
    pub(crate) handler_micros: AtomicU64,
    /// Of those that have ended.
    pub(crate) recoveries: AtomicU64,
    live: Mutex<Vec<Weak<dyn Gauged>>>,
}

/// Something that is asked for its state when a snapshot is made.
pub(crate) trait Gauged: Send + Sync {
    /// How it is now.
    fn gauges(&self) -> Gauges;
}

/// The state of one subscription's consumer, or the sum of several.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) in_flight: u64,
    pub(crate) buffered: u64,
    pub(crate) consuming: u64,
    pub(crate) recoveries: u64,
    pub(crate) order: Option<OrderState>,
}

impl SubscriptionCounters {
    /// Asks `gauged` from now on, as long as it lives.
    pub(crate) fn watch(&self, gauged: Weak<dyn Gauged>) {
        let mut live = self.live.lock();
        live.retain(|one| one.strong_count() > 0);
        live.push(gauged);
    }

    fn gauges(&self) -> Gauges {
        let live: Vec<_> = self.live.lock().iter().filter_map(Weak::upgrade).collect();
        let ended = Gauges { recoveries: self.recoveries.load(Relaxed), ..Gauges::default() };
        live.iter().map(|one| one.gauges()).fold(ended, |sum, one| Gauges {
            in_flight: sum.in_flight + one.in_flight,
            buffered: sum.buffered + one.buffered,
            consuming: sum.consuming.max(one.consuming),
            recoveries: sum.recoveries + one.recoveries,
            order: match (sum.order, one.order) {
                (Some(sum), Some(one)) => Some(sum.and(one)),
                (sum, one) => sum.or(one),
            },
        })
    }

    pub(crate) fn count(&self, effect: Effect) {
        match effect {
            Effect::Acked => &self.acked,
            Effect::Retried => &self.retried,
            Effect::DeadLettered => &self.dead_lettered,
            Effect::Discarded => &self.discarded,
            Effect::Released => &self.released,
        }
        .fetch_add(1, Relaxed);
    }

    pub(crate) fn handled(&self, runs: u64, took: Duration) {
        self.handled.fetch_add(runs, Relaxed);
        self.handler_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// All counters of one broker handle.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) published: AtomicU64,
    pub(crate) publish_failures: AtomicU64,
    pub(crate) unrouted: AtomicU64,
    subscriptions: Mutex<BTreeMap<Arc<str>, Arc<SubscriptionCounters>>>,
    relays: Mutex<Vec<Weak<RelayCounters>>>,
}

impl Registry {
    pub(crate) fn subscription(&self, name: &Arc<str>) -> Arc<SubscriptionCounters> {
        self.subscriptions.lock().entry(name.clone()).or_default().clone()
    }

    /// Reports the counters of a relay too, as long as it lives.
    pub(crate) fn watch_relay(&self, counters: &Arc<RelayCounters>) {
        let mut relays = self.relays.lock();
        relays.retain(|one| one.strong_count() > 0);
        relays.push(Arc::downgrade(counters));
    }

    #[allow(clippy::cast_precision_loss, reason = "counters beyond 2^53 need not be exact")]
    pub(crate) fn snapshot(&self) -> Vec<Metric> {
        use MetricKind::{Counter, Gauge};
        let mut all = Vec::new();
        let mut add = |name, kind, subscription: Option<&Arc<str>>, value: f64| {
            all.push(Metric { name, kind, subscription: subscription.cloned(), value });
        };
        add("tidings_published_total", Counter, None, self.published.load(Relaxed) as f64);
        add("tidings_publish_failures_total", Counter, None, self.publish_failures.load(Relaxed) as f64);
        add("tidings_unrouted_total", Counter, None, self.unrouted.load(Relaxed) as f64);
        for (name, c) in &*self.subscriptions.lock() {
            let gauges = c.gauges();
            for (metric, kind, value) in [
                ("tidings_delivered_total", Counter, &c.delivered),
                ("tidings_acked_total", Counter, &c.acked),
                ("tidings_retried_total", Counter, &c.retried),
                ("tidings_dead_lettered_total", Counter, &c.dead_lettered),
                ("tidings_discarded_total", Counter, &c.discarded),
                ("tidings_released_total", Counter, &c.released),
                ("tidings_stale_total", Counter, &c.stale),
                ("tidings_settle_failures_total", Counter, &c.settle_failures),
                ("tidings_handled_total", Counter, &c.handled),
            ] {
                add(metric, kind, Some(name), value.load(Relaxed) as f64);
            }
            for (metric, kind, value) in [
                ("tidings_recoveries_total", Counter, gauges.recoveries),
                ("tidings_in_flight", Gauge, gauges.in_flight),
                ("tidings_buffered", Gauge, gauges.buffered),
                ("tidings_consuming", Gauge, gauges.consuming),
            ] {
                add(metric, kind, Some(name), value as f64);
            }
            add("tidings_handler_seconds_total", Counter, Some(name), c.handler_micros.load(Relaxed) as f64 / 1e6);
            let order = gauges.order.unwrap_or_default();
            for (metric, value) in [
                ("tidings_order_owner", order.owners.len() as f64),
                ("tidings_order_waiting_keys", order.waiting_keys as f64),
                ("tidings_order_parked_keys", order.parked_keys as f64),
                ("tidings_order_dead_keys", order.dead_keys as f64),
                ("tidings_order_oldest_waiting_seconds", order.oldest_waiting.unwrap_or_default().as_secs_f64()),
            ] {
                add(metric, Gauge, Some(name), value);
            }
        }
        all.extend(self.relays.lock().iter().filter_map(Weak::upgrade).flat_map(|relay| relay.snapshot()));
        all
    }
}
