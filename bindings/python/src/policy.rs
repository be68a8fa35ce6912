//! `RetryPolicy`.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;
use tidings::Backoff;

use crate::convert::{duration, some_duration};
use crate::error::OrRaise as _;

/// When a failed event is tried again, and when it is given up on.
///
/// Made with `fixed` or `exponential`. Jitter only ever adds: no retry comes earlier than the back-off says.
/// `max_retries` counts every retry of an event, those that a handler asked for with `Retry` included.
///
/// >>> RetryPolicy.exponential(5, initial=1.0, factor=2.0, max=60.0).delay(2)
/// 4.0
#[pyclass(frozen, name = "RetryPolicy", module = "tidings")]
pub(crate) struct RetryPolicy {
    pub(crate) core: tidings::RetryPolicy,
}

#[pymethods]
impl RetryPolicy {
    /// `max_retries` retries, `delay` seconds apart.
    ///
    /// Args:
    ///     max_retries: Most retries of one event.
    ///     delay: Seconds, or a timedelta.
    ///     jitter: Share of the delay that is added at random, 0.0 to 1.0.
    ///     retry_on: Exception classes, or their names: only these are retried. Default: all.
    ///     give_up_on: Exception classes, or their names, that are never retried. Stronger than `retry_on`.
    ///     max_age: Seconds since the first failure after which an event is given up on.
    #[staticmethod]
    #[pyo3(signature = (max_retries, delay, *, jitter=0.0, retry_on=Vec::new(), give_up_on=Vec::new(), max_age=None))]
    #[pyo3(text_signature = "(max_retries, delay, *, jitter=0.0, retry_on=(), give_up_on=(), max_age=None)")]
    fn fixed(
        py: Python<'_>,
        max_retries: u32,
        delay: &Bound<'_, PyAny>,
        jitter: f64,
        retry_on: Vec<Bound<'_, PyAny>>,
        give_up_on: Vec<Bound<'_, PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let policy = tidings::RetryPolicy::fixed(max_retries, duration("delay", delay)?);
        finish(py, policy, jitter, &retry_on, &give_up_on, max_age)
    }

    /// `max_retries` retries with growing delays: `initial`, `initial * factor`, … at most `max` seconds.
    ///
    /// The keywords are those of `fixed`.
    #[staticmethod]
    #[pyo3(signature = (max_retries, initial, factor=2.0, max=None, *, jitter=0.0, retry_on=Vec::new(), give_up_on=Vec::new(),
                        max_age=None))]
    #[pyo3(
        text_signature = "(max_retries, initial, factor=2.0, max=3600.0, *, jitter=0.0, retry_on=(), give_up_on=(), \
                             max_age=None)"
    )]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn exponential(
        py: Python<'_>,
        max_retries: u32,
        initial: &Bound<'_, PyAny>,
        factor: f64,
        max: Option<&Bound<'_, PyAny>>,
        jitter: f64,
        retry_on: Vec<Bound<'_, PyAny>>,
        give_up_on: Vec<Bound<'_, PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let most = some_duration("max", max)?.unwrap_or(Duration::from_secs(3600));
        let policy = tidings::RetryPolicy::exponential(max_retries, duration("initial", initial)?, factor, most);
        finish(py, policy, jitter, &retry_on, &give_up_on, max_age)
    }

    /// Most retries of one event.
    #[getter]
    fn max_retries(&self) -> u32 {
        self.core.max_retries
    }

    /// Seconds before retry number `retry` (from 0), without jitter.
    fn delay(&self, retry: u32) -> f64 {
        self.core.delay(retry, 0.0).as_secs_f64()
    }

    fn __repr__(&self) -> String {
        let n = self.core.max_retries;
        match self.core.backoff {
            Backoff::Fixed(delay) => format!("RetryPolicy.fixed({n}, {:?})", delay.as_secs_f64()),
            Backoff::Exponential { initial, factor, max } => {
                let (initial, max) = (initial.as_secs_f64(), max.as_secs_f64());
                format!("RetryPolicy.exponential({n}, {initial:?}, {factor:?}, {max:?})")
            }
            _ => format!("RetryPolicy(max_retries={n})"),
        }
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.core == other.core
    }
}

fn finish(
    py: Python<'_>,
    policy: tidings::RetryPolicy,
    jitter: f64,
    retry_on: &[Bound<'_, PyAny>],
    give_up_on: &[Bound<'_, PyAny>],
    max_age: Option<&Bound<'_, PyAny>>,
) -> PyResult<RetryPolicy> {
    let mut core = policy.jitter(jitter);
    for error in retry_on {
        core = core.retry_on(error_type(error)?);
    }
    for error in give_up_on {
        core = core.give_up_on(error_type(error)?);
    }
    if let Some(age) = some_duration("max_age", max_age)? {
        core = core.max_age(age);
    }
    core.check().or_raise(py)?;
    Ok(RetryPolicy { core })
}

/// The name that a failure of this class has: the handler's side reports `module.qualname` of every class of the MRO.
fn error_type(error: &Bound<'_, PyAny>) -> PyResult<String> {
    if error.is_instance_of::<PyType>() {
        let module: String = error.getattr("__module__")?.extract()?;
        let name: String = error.getattr("__qualname__")?.extract()?;
        return Ok(if module == "builtins" { name } else { format!("{module}.{name}") });
    }
    error.extract()
}
