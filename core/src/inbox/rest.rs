//! [`Rest`]: how long handlers rest whose inbox could not be asked.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Pause after the first failure, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// How long a handler rests after its inbox has failed: 0.1 s at first, doubling up to 30 s, plus up to a fifth.
///
/// ```
/// use std::time::Duration;
/// use tidings::inbox::Rest;
///
/// let rest = Rest::default();
/// assert!(rest.failed() >= Duration::from_millis(100));
/// assert!(rest.failed() >= Duration::from_millis(200));
/// rest.worked();
/// assert!(rest.failed() < Duration::from_millis(200));
/// ```
#[derive(Debug, Default)]
pub struct Rest {
    /// Failures since it last worked.
    failures: AtomicU32,
}

impl Rest {
    /// The inbox failed; how long to wait before the event is given back.
    pub fn failed(&self) -> Duration {
        let failures = self.failures.fetch_add(1, Relaxed);
        let pause = FIRST.saturating_mul(1 << failures.min(9)).min(LONGEST);
        pause + pause.mul_f64(fastrand::f64() / 5.0)
    }

    /// The inbox works again.
    pub fn worked(&self) {
        self.failures.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_up_to_its_longest_and_begins_anew() {
        let rest = Rest::default();
        let (first, last) = (rest.failed(), (0..40).map(|_| rest.failed()).last().unwrap());
        assert!((FIRST..FIRST.mul_f64(1.21)).contains(&first), "{first:?}");
        assert!((LONGEST..LONGEST.mul_f64(1.21)).contains(&last), "{last:?}");
        rest.worked();
        assert!(rest.failed() < FIRST.mul_f64(1.21));
    }
}
