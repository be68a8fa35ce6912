//! Dead letters: looked at, and moved back.

use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tidings::{DeadLetterFilter, ReplayAction, Timestamp};

use crate::broker::Broker;
use crate::convert::{header_dict, timestamp};
use crate::event::DomainEvent;
use crate::runtime::wait;

/// An event that a subscription gave up on, with its story. A copy: looking changes nothing.
#[pyclass(frozen, module = "tidings")]
pub(crate) struct DeadLetterEntry {
    id: String,
    routing_key: String,
    reason: String,
    error_type: Option<String>,
    error: Option<String>,
    stack: Option<String>,
    attempts: u32,
    first_failed_at: Option<f64>,
    failed_at: Option<f64>,
    parked: bool,
    event: Result<Py<DomainEvent>, Py<PyAny>>,
    body: Py<PyBytes>,
    headers: Py<PyDict>,
}

impl DeadLetterEntry {
    fn new(py: Python<'_>, entry: &tidings::DeadLetterEntry) -> PyResult<Self> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let event = match entry.event() {
            Ok(event) => Ok(Py::new(py, DomainEvent::from(event.clone()))?),
            Err(error) => Err(crate::error::raise(py, error).into_value(py).into_any()),
        };
        Ok(Self {
            id: entry.id().to_owned(),
            routing_key: entry.routing_key().to_owned(),
            reason: entry.reason().to_owned(),
            error_type: own(entry.error_type()),
            error: own(entry.error()),
            stack: own(entry.stack()),
            attempts: entry.attempts(),
            first_failed_at: entry.first_failed_at().map(Timestamp::as_secs_f64),
            failed_at: entry.failed_at().map(Timestamp::as_secs_f64),
            parked: entry.is_parked(),
            event,
            body: PyBytes::new(py, entry.body()).unbind(),
            headers: header_dict(py, entry.headers())?.unbind(),
        })
    }
}

#[pymethods]
impl DeadLetterEntry {
    /// The event's id.
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// The routing key it was published with.
    #[getter]
    fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// Why it was given up on: a reason of Tidings (`error`, `max-retries`, …), or the handler's words.
    #[getter]
    fn reason(&self) -> &str {
        &self.reason
    }

    /// Type of the last error.
    #[getter]
    fn error_type(&self) -> Option<&str> {
        self.error_type.as_deref()
    }

    /// Message of the last error, at most 2 KiB.
    #[getter]
    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Stack of the last error, at most 8 KiB.
    #[getter]
    fn stack(&self) -> Option<&str> {
        self.stack.as_deref()
    }

    /// How often it was handled in all; 0 if that is not known.
    #[getter]
    fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When it failed first, in seconds since the Unix epoch.
    #[getter]
    fn first_failed_at(&self) -> Option<f64> {
        self.first_failed_at
    }

    /// When it failed last, in seconds since the Unix epoch.
    #[getter]
    fn failed_at(&self) -> Option<f64> {
        self.failed_at
    }

    /// Whether it is the head of an ordered key, which waits until this is replayed or discarded.
    #[getter]
    fn parked(&self) -> bool {
        self.parked
    }

    /// The event. Raises InvalidEventError if it was dead-lettered because it is not one.
    #[getter]
    fn event(&self, py: Python<'_>) -> PyResult<Py<DomainEvent>> {
        match &self.event {
            Ok(event) => Ok(event.clone_ref(py)),
            Err(error) => Err(PyErr::from_value(error.bind(py).clone())),
        }
    }

    /// The body as it travelled.
    #[getter]
    fn body(&self, py: Python<'_>) -> Py<PyBytes> {
        self.body.clone_ref(py)
    }

    /// All headers, those of the event and `tidings-dead-*`.
    #[getter]
    fn headers(&self, py: Python<'_>) -> Py<PyDict> {
        self.headers.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        format!(
            "DeadLetterEntry(id={:?}, routing_key={:?}, reason={:?}, attempts={})",
            self.id, self.routing_key, self.reason, self.attempts
        )
    }
}

/// The first `limit` dead letters that the filter chooses, oldest first.
#[pyfunction]
pub(crate) fn dead_letters(
    py: Python<'_>,
    broker: &Broker,
    subscription: String,
    filter: &Bound<'_, PyDict>,
    limit: usize,
) -> PyResult<Vec<DeadLetterEntry>> {
    let core = broker.core(py)?.clone();
    let failed = Failed::default();
    let filter = read_filter(filter, &failed)?;
    let found = wait(py, async move { core.dead_letters(&subscription, &filter, limit).await });
    failed.check()?;
    found?.iter().map(|entry| DeadLetterEntry::new(py, entry)).collect()
}

/// Asks `decide` about every dead letter that the filter chooses. `(seen, chosen, replayed, discarded, left,
/// remaining)`.
#[pyfunction]
#[pyo3(signature = (broker, subscription, filter, decide, limit, rate, dry_run))]
#[allow(clippy::too_many_arguments, reason = "the facade has names for them")]
pub(crate) fn replay(
    py: Python<'_>,
    broker: &Broker,
    subscription: String,
    filter: &Bound<'_, PyDict>,
    decide: Py<PyAny>,
    limit: Option<u64>,
    rate: Option<f64>,
    dry_run: bool,
) -> PyResult<(u64, u64, u64, u64, u64, u64)> {
    let failed = Failed::default();
    let mut replay = broker.core(py)?.replay(&subscription).filter(read_filter(filter, &failed)?);
    if let Some(limit) = limit {
        replay = replay.limit(limit);
    }
    if let Some(rate) = rate {
        replay = replay.rate(rate);
    }
    if dry_run {
        replay = replay.dry_run();
    }
    let asked = failed.clone();
    let report = wait(py, replay.decide(move |entry| asked.ask(&decide, entry)));
    failed.check()?;
    let r = report?;
    Ok((r.seen, r.chosen, r.replayed, r.discarded, r.left, r.remaining))
}

/// As `domain_event_broker.replay_event`: the oldest dead letter. How many others were there.
#[pyfunction]
pub(crate) fn replay_event(py: Python<'_>, broker: &Broker, subscription: String, decide: Py<PyAny>) -> PyResult<u64> {
    let core = broker.core(py)?.clone();
    let failed = Failed::default();
    let asked = failed.clone();
    let left = wait(py, async move { core.replay_event(&subscription, |entry| asked.ask(&decide, entry)).await });
    failed.check()?;
    left
}

/// As `domain_event_broker.replay_all`. How many are left.
#[pyfunction]
pub(crate) fn replay_all(py: Python<'_>, broker: &Broker, subscription: String, decide: Py<PyAny>) -> PyResult<u64> {
    let core = broker.core(py)?.clone();
    let failed = Failed::default();
    let asked = failed.clone();
    let left = wait(py, async move { core.replay_all(&subscription, |entry| asked.ask(&decide, entry)).await });
    failed.check()?;
    left
}

/// The exception of a callback; what it was asked about, and all that comes after, stays where it is.
#[derive(Clone, Default)]
struct Failed(std::sync::Arc<Mutex<Option<PyErr>>>);

impl Failed {
    fn check(&self) -> PyResult<()> {
        self.0.lock().take().map_or(Ok(()), Err)
    }

    /// Runs on the thread that called: a replay is driven by its caller.
    fn ask(&self, decide: &Py<PyAny>, entry: &tidings::DeadLetterEntry) -> ReplayAction {
        if self.0.lock().is_some() {
            return ReplayAction::Leave;
        }
        let answer = Python::attach(|py| {
            let answer = decide.call1(py, (DeadLetterEntry::new(py, entry)?,))?;
            match answer.extract::<String>(py).ok().as_deref() {
                Some("retry") => Ok(ReplayAction::Retry),
                Some("discard") => Ok(ReplayAction::Discard),
                Some("leave") => Ok(ReplayAction::Leave),
                _ => Err(PyValueError::new_err(format!(
                    "the callback returned {}, which is not RETRY, LEAVE or DISCARD",
                    answer.bind(py).repr()?
                ))),
            }
        });
        answer.unwrap_or_else(|error| {
            *self.0.lock() = Some(error);
            ReplayAction::Leave
        })
    }
}

fn read_filter(settings: &Bound<'_, PyDict>, failed: &Failed) -> PyResult<DeadLetterFilter> {
    let mut filter = DeadLetterFilter::new();
    for (setting, value) in settings.iter() {
        if value.is_none() {
            continue;
        }
        let setting: String = setting.extract()?;
        filter = match setting.as_str() {
            "ids" => value.extract::<Vec<String>>()?.into_iter().fold(filter, DeadLetterFilter::id),
            "binding_keys" => value.extract::<Vec<String>>()?.into_iter().fold(filter, DeadLetterFilter::binding_key),
            "reason" => filter.reason(value.extract::<String>()?),
            "error_type" => filter.error_type(value.extract::<String>()?),
            "tenant" => filter.tenant(value.extract::<String>()?),
            "failed_after" => filter.failed_after(timestamp("failed_after", &value)?),
            "failed_before" => filter.failed_before(timestamp("failed_before", &value)?),
            "matching" => {
                let (holds, failed) = (value.unbind(), failed.clone());
                filter.matching(move |entry| failed.test(&holds, entry))
            }
            _ => return Err(PyTypeError::new_err(format!("there is no condition {setting:?}"))),
        };
    }
    Ok(filter)
}

impl Failed {
    fn test(&self, holds: &Py<PyAny>, entry: &tidings::DeadLetterEntry) -> bool {
        if self.0.lock().is_some() {
            return false;
        }
        let answer = Python::attach(|py| holds.call1(py, (DeadLetterEntry::new(py, entry)?,))?.is_truthy(py));
        answer.unwrap_or_else(|error| {
            *self.0.lock() = Some(error);
            false
        })
    }
}
