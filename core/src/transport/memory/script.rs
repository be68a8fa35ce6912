//! What is scripted to go wrong, and the dice of the random mode.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use crate::{Error, ErrorKind};

/// An operation that can be made to fail or to be slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Publishing; one fault per event.
    Publish,
    /// Settling; one fault per delivery.
    Settle,
    /// Fetching. A failure is final for the source and loses what it holds.
    Next,
    /// Declaring a subscription.
    Subscribe,
    /// Replaying or discarding dead letters; one fault each.
    Replay,
}

/// Whether a fault hits before the operation has taken effect or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Nothing has happened.
    Before,
    /// It has happened, but the caller is told otherwise. Publishing and replaying say that the outcome is unknown.
    After,
}

/// How likely things go wrong in the random mode; everything is 0 unless set.
#[derive(Debug, Clone, Default)]
pub struct Chances {
    seed: u64,
    fail: HashMap<(Operation, bool), f64>,
    crash: f64,
    cut: f64,
    outage: Duration,
    delay: f64,
    max_delay: Duration,
}

impl Chances {
    /// Nothing goes wrong yet; the same seed and the same calls give the same faults.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// `operation` fails with `CONNECTION_FAILED` with this probability.
    pub fn fail(mut self, operation: Operation, when: When, probability: f64) -> Self {
        self.fail.insert((operation, when == When::After), probability);
        self
    }

    /// A source crashes with this probability when it fetches. It does not recover.
    pub fn crash(mut self, probability: f64) -> Self {
        self.crash = probability;
        self
    }

    /// A source loses its connection with this probability when it fetches, for at most `outage`.
    pub fn cut(mut self, probability: f64, outage: Duration) -> Self {
        (self.cut, self.outage) = (probability, outage);
        self
    }

    /// An operation is delayed with this probability, by at most `max`.
    pub fn delay(mut self, probability: f64, max: Duration) -> Self {
        (self.delay, self.max_delay) = (probability, max);
        self
    }
}

/// An error to be returned instead of success.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) when: When,
}

impl Fault {
    pub(super) fn error(self) -> Error {
        Error::new(self.kind, "the fault script has it so")
    }
}

/// What happens to a source that fetches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Upset {
    Crash,
    Cut(Duration),
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// In the order in which they were scripted, with how often they are still to hit.
    pub(super) faults: Vec<(Operation, usize, Fault)>,
    pub(super) delays: HashMap<Operation, Duration>,
    pub(super) random: Option<(Chances, Rng)>,
}

impl Script {
    pub(super) fn randomize(&mut self, chances: Chances) {
        let rng = Rng::with_seed(chances.seed);
        self.random = Some((chances, rng));
    }

    /// The fault that hits this operation, if one does.
    pub(super) fn draw(&mut self, operation: Operation) -> Option<Fault> {
        if let Some(at) = self.faults.iter().position(|(o, ..)| *o == operation) {
            let (_, left, fault) = &mut self.faults[at];
            let fault = *fault;
            *left -= 1;
            if *left == 0 {
                self.faults.remove(at);
            }
            return Some(fault);
        }
        let (chances, rng) = self.random.as_mut()?;
        let mut hits = |after| happens(rng, chances.fail.get(&(operation, after)).copied().unwrap_or(0.0));
        let when = if hits(false) {
            When::Before
        } else if hits(true) {
            When::After
        } else {
            return None;
        };
        Some(Fault { kind: ErrorKind::ConnectionFailed, when })
    }

    /// What hits a source that fetches.
    pub(super) fn next(&mut self) -> (Option<Upset>, Option<Fault>) {
        let fault = self.draw(Operation::Next);
        let upset = self.random.as_mut().and_then(|(chances, rng)| {
            if happens(rng, chances.crash) {
                Some(Upset::Crash)
            } else if happens(rng, chances.cut) {
                Some(Upset::Cut(up_to(rng, chances.outage)))
            } else {
                None
            }
        });
        (upset, fault)
    }

    /// How long this operation is held up.
    pub(super) fn pause(&mut self, operation: Operation) -> Duration {
        let scripted = self.delays.get(&operation).copied().unwrap_or_default();
        let random = self
            .random
            .as_mut()
            .and_then(|(chances, rng)| happens(rng, chances.delay).then(|| up_to(rng, chances.max_delay)));
        scripted + random.unwrap_or_default()
    }
}

/// Rolls no dice for what cannot happen, so that a new kind of fault leaves old seeds as they are.
fn happens(rng: &mut Rng, probability: f64) -> bool {
    probability > 0.0 && rng.f64() < probability
}

fn up_to(rng: &mut Rng, max: Duration) -> Duration {
    max.mul_f64(rng.f64())
}
