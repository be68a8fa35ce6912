//! One measurement, and contenders that take turns.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use tidings_test_client::usage;

use crate::options::Options;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What one measurement gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Events per second.
    pub(crate) rate: f64,
    /// CPU microseconds of this process per event.
    pub(crate) client_cpu: Option<f64>,
    /// CPU microseconds of the broker per event, where it runs on this machine.
    pub(crate) broker_cpu: Option<f64>,
}

/// A measurement under way.
pub(crate) struct Watch<'a> {
    broker: Option<&'a str>,
    started: Instant,
    client: Option<f64>,
    served: Option<f64>,
}

impl<'a> Watch<'a> {
    /// Starts; `broker` is the server's process.
    pub(crate) fn start(broker: Option<&'a str>) -> Self {
        let served = broker.and_then(usage::cpu_seconds);
        Self { broker, started: Instant::now(), client: usage::cpu_seconds("self"), served }
    }

    /// Forgets what was until now: what came before the first event is not the work.
    pub(crate) fn restarted(self) -> Self {
        Self::start(self.broker)
    }

    /// Ends with so many events done.
    #[allow(clippy::cast_precision_loss, reason = "millions at most")]
    pub(crate) fn stop(&self, events: usize) -> Sample {
        let (seconds, events) = (self.started.elapsed().as_secs_f64(), events as f64);
        let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / events);
        Sample {
            rate: events / seconds,
            client_cpu: each(self.client, usage::cpu_seconds("self")),
            broker_cpu: each(self.served, self.broker.and_then(usage::cpu_seconds)),
        }
    }
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Sample, BoxError>> + 'a>>;

/// Somebody who does the work.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    /// It is Tidings.
    pub(crate) ours: bool,
    measure: Box<dyn FnMut() -> Measuring<'a> + 'a>,
    pub(crate) samples: Vec<Sample>,
}

impl<'a> Contender<'a> {
    /// A contender that measures itself.
    pub(crate) fn new<F>(name: &'static str, ours: bool, mut measure: impl FnMut() -> F + 'a) -> Self
    where
        F: Future<Output = Result<Sample, BoxError>> + 'a,
    {
        Self { name, ours, measure: Box::new(move || Box::pin(measure())), samples: Vec::new() }
    }

    /// Its median rate with the lowest and the highest.
    pub(crate) fn rate(&self) -> Spread {
        Spread::of(self.samples.iter().map(|s| s.rate))
    }

    /// Median CPU microseconds for each event, of the client and of the broker, where they are known.
    pub(crate) fn cpu(&self) -> (Option<f64>, Option<f64>) {
        let of = |which: fn(&Sample) -> Option<f64>| {
            let spread = Spread::of(self.samples.iter().filter_map(which));
            (spread.max > 0.0).then_some(spread.median)
        };
        (of(|sample| sample.client_cpu), of(|sample| sample.broker_cpu))
    }
}

/// Lets the contenders take turns, those that the options let in.
pub(crate) async fn alternate(options: &Options, contenders: &mut Vec<Contender<'_>>) -> Result<(), BoxError> {
    contenders.retain(|contender| options.lets_in(contender.name));
    for _ in 0..options.rounds {
        for contender in &mut *contenders {
            let sample = (contender.measure)().await.map_err(|e| format!("{}: {e}", contender.name))?;
            contender.samples.push(sample);
        }
    }
    Ok(())
}

/// Median, lowest and highest of several figures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these figures; zeros if there is none.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (figures.first(), figures.last()) else { return Self::default() };
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Self { median: f64::midpoint(low, high), min, max }
    }
}

/// The figure below which this share of the sorted figures lies.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1)) as f64 * share;
    sorted.get(at.round() as usize).copied().unwrap_or_default()
}
