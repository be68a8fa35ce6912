//! When a failed event is tried again.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// How the delay grows from one retry to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Backoff {
    /// Always the same delay.
    Fixed(Duration),
    /// `initial × factor^retries`, at most `max`.
    Exponential {
        /// Delay before the first retry.
        initial: Duration,
        /// Growth from one to the next, at least 1.
        factor: f64,
        /// Longest delay.
        max: Duration,
    },
}

/// When a failed event is tried again, and when it is given up on.
///
/// The delay before retry *n* (from 0) is what the back-off says plus up to `jitter` of itself: jitter only ever adds,
/// so no retry comes earlier than the back-off promises. `max_retries` counts every retry of an event, those that a
/// handler asked for with [`Retry`](crate::Retry) included.
///
/// ```
/// use std::time::Duration;
/// use tidings::RetryPolicy;
///
/// let policy = RetryPolicy::exponential(5, Duration::from_secs(1), 2.0, Duration::from_secs(60)).jitter(0.1);
/// assert_eq!(policy.delay(2, 0.0), Duration::from_secs(4));
/// assert_eq!(policy.delay(9, 0.0), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Most retries of one event.
    pub max_retries: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// Share of the delay that is added at random, 0.0 to 1.0.
    pub jitter: f64,
    /// Only errors of these types are retried; empty: all.
    pub retry_on: Vec<String>,
    /// Errors of these types are never retried. Stronger than `retry_on`.
    pub give_up_on: Vec<String>,
    /// Events that failed first longer ago than this are given up on.
    pub max_age: Option<Duration>,
}

impl RetryPolicy {
    /// `max_retries` retries, `delay` apart.
    pub fn fixed(max_retries: u32, delay: Duration) -> Self {
        Self::with(max_retries, Backoff::Fixed(delay))
    }

    /// `max_retries` retries with growing delays: `initial`, `initial × factor`, … at most `max`.
    pub fn exponential(max_retries: u32, initial: Duration, factor: f64, max: Duration) -> Self {
        Self::with(max_retries, Backoff::Exponential { initial, factor, max })
    }

    fn with(max_retries: u32, backoff: Backoff) -> Self {
        Self { max_retries, backoff, jitter: 0.0, retry_on: Vec::new(), give_up_on: Vec::new(), max_age: None }
    }

    /// Adds up to this share of each delay at random (0.1: up to 10 % more).
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Retries only errors of this type; may be called several times.
    pub fn retry_on(mut self, error_type: impl Into<String>) -> Self {
        self.retry_on.push(error_type.into());
        self
    }

    /// Never retries errors of this type; may be called several times.
    pub fn give_up_on(mut self, error_type: impl Into<String>) -> Self {
        self.give_up_on.push(error_type.into());
        self
    }

    /// Gives up on events that failed first longer ago than this.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Refuses what makes no sense: a factor below 1, a negative jitter, numbers that are none.
    pub fn check(&self) -> Result<()> {
        let error = |message: &str, field, value: f64, remedy: &str| {
            Err(Error::new(ErrorKind::InvalidOption, message).field(field, value).remedy(remedy))
        };
        if let Backoff::Exponential { factor, .. } = self.backoff
            && !(factor.is_finite() && factor >= 1.0)
        {
            return error(
                "the back-off's factor must be a number of at least 1",
                "factor",
                factor,
                "2.0 doubles each delay",
            );
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return error("the jitter must be between 0 and 1", "jitter", self.jitter, "0.1 adds up to 10 %");
        }
        Ok(())
    }

    /// Whether the policy retries an error of these types (most specific first).
    pub fn covers(&self, error_types: &[String]) -> bool {
        let any = |list: &[String]| error_types.iter().any(|t| list.contains(t));
        !any(&self.give_up_on) && (self.retry_on.is_empty() || any(&self.retry_on))
    }

    /// The delay before retry number `retry` (from 0), with `random` in 0.0–1.0 deciding about the jitter.
    pub fn delay(&self, retry: u32, random: f64) -> Duration {
        let base = match self.backoff {
            Backoff::Fixed(delay) => delay,
            Backoff::Exponential { initial, factor, max } => {
                let grown = initial.as_secs_f64() * factor.powf(f64::from(retry));
                Duration::try_from_secs_f64(grown).unwrap_or(max).min(max)
            }
        };
        base.saturating_add(Duration::try_from_secs_f64(base.as_secs_f64() * self.jitter * random).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn give_up_on_is_stronger() {
        let policy = RetryPolicy::fixed(1, Duration::ZERO).retry_on("IoError").give_up_on("NotFound");
        let types = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(policy.covers(&types(&["TimedOut", "IoError"])));
        assert!(!policy.covers(&types(&["NotFound", "IoError"])));
        assert!(!policy.covers(&types(&["Other"])));
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_delays_never_shrink(
            initial in 0u64..100_000, factor in 1.0f64..10.0, jitter in 0.0f64..=1.0, random in 0.0f64..=1.0, retry in 0u32..2000,
        ) {
            let max = Duration::from_secs(3600);
            let policy = RetryPolicy::exponential(1, Duration::from_millis(initial), factor, max).jitter(jitter);
            prop_assert!(policy.delay(retry, random) >= policy.delay(retry, 0.0));
            prop_assert!(policy.delay(retry + 1, 0.0) >= policy.delay(retry, 0.0));
            prop_assert!(policy.delay(retry, 1.0) <= max * 2);
        }
    }
}
