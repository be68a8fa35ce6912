//! `Publisher`: what publishes, and what it answers.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tidings::PublishOptions;

use crate::bridge::{Bridge, Running, nothing};
use crate::convert::{duration, some_duration, timestamp};
use crate::error::{OrRaise as _, raise};
use crate::event::DomainEvent;
use crate::runtime::{Owned, wait};

/// What a durable event gets its publisher.
#[pyclass(frozen, module = "tidings")]
pub(crate) struct Receipt {
    /// The event's id.
    #[pyo3(get)]
    id: String,
    /// Whether at least one subscription wanted it; None where that is not known (delayed events).
    #[pyo3(get)]
    routed: Option<bool>,
}

#[pymethods]
impl Receipt {
    #[new]
    #[pyo3(signature = (id, routed=None))]
    fn new(id: String, routed: Option<bool>) -> Self {
        Self { id, routed }
    }

    fn __repr__(&self) -> String {
        let routed = match self.routed {
            None => "None",
            Some(true) => "True",
            Some(false) => "False",
        };
        format!("Receipt(id={:?}, routed={routed})", self.id)
    }
}

impl From<tidings::Receipt> for Receipt {
    fn from(receipt: tidings::Receipt) -> Self {
        Self { id: receipt.id.to_string(), routed: receipt.routed }
    }
}

/// Publishes to one broker. Belongs to the process that made it.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Publisher {
    core: Owned<tidings::Publisher>,
}

pub(crate) fn publisher(
    py: Python<'_>,
    broker: &tidings::Broker,
    exchange: Option<&str>,
    publish_timeout: Option<&Bound<'_, PyAny>>,
    max_payload: Option<usize>,
) -> PyResult<Publisher> {
    let mut core = broker.publisher();
    if let Some(exchange) = exchange {
        core = core.exchange(exchange).or_raise(py)?;
    }
    if let Some(timeout) = some_duration("publish_timeout", publish_timeout)? {
        core = core.publish_timeout(timeout);
    }
    if let Some(bytes) = max_payload {
        core = core.max_payload(bytes).or_raise(py)?;
    }
    Ok(Publisher { core: Owned::new(core) })
}

#[pymethods]
impl Publisher {
    /// Publishes one event and waits until the broker has it durably.
    #[pyo3(signature = (event, *, delay=None, deliver_at=None, require_route=false, exchange=None, timeout=None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn publish(
        &self,
        py: Python<'_>,
        event: &Bound<'_, DomainEvent>,
        delay: Option<&Bound<'_, PyAny>>,
        deliver_at: Option<&Bound<'_, PyAny>>,
        require_route: bool,
        exchange: Option<String>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Receipt> {
        let options = publish_options(delay, deliver_at, require_route, exchange, timeout)?;
        let core = self.core.get(py)?;
        wait(py, core.publish_with(event.get().core.clone(), options)).map(Receipt::from)
    }

    #[pyo3(signature = (bridge, future, event, *, delay=None, deliver_at=None, require_route=false, exchange=None,
                        timeout=None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn publish_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        event: &Bound<'_, DomainEvent>,
        delay: Option<&Bound<'_, PyAny>>,
        deliver_at: Option<&Bound<'_, PyAny>>,
        require_route: bool,
        exchange: Option<String>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Running> {
        let options = publish_options(delay, deliver_at, require_route, exchange, timeout)?;
        let core = self.core.get(py)?.clone();
        let event = event.get().core.clone();
        bridge.start(future, async move { core.publish_with(event, options).await }, |py, receipt| {
            Ok(Py::new(py, Receipt::from(receipt))?.into_any())
        })
    }

    /// Publishes a body that is encoded already, byte for byte, even if it is no event.
    fn publish_encoded(&self, py: Python<'_>, routing_key: &str, body: Vec<u8>) -> PyResult<Receipt> {
        let core = self.core.get(py)?;
        wait(py, core.publish_encoded(routing_key, body)).map(Receipt::from)
    }

    /// Publishes many at once. One receipt or exception for each, in order.
    fn publish_batch(&self, py: Python<'_>, events: Vec<Bound<'_, DomainEvent>>) -> PyResult<Py<PyAny>> {
        let core = self.core.get(py)?;
        let events: Vec<_> = events.iter().map(|event| event.get().core.clone()).collect();
        let results = wait(py, async move { Ok(core.publish_batch(events).await) })?;
        receipts(py, results)
    }

    fn publish_batch_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        events: Vec<Bound<'_, DomainEvent>>,
    ) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        let events: Vec<_> = events.iter().map(|event| event.get().core.clone()).collect();
        bridge.start(future, async move { Ok(core.publish_batch(events).await) }, receipts)
    }

    /// Publishes many at once; each future gets the receipt or the exception of its event.
    fn publish_each_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        futures: Vec<Py<PyAny>>,
        events: Vec<Bound<'_, DomainEvent>>,
    ) -> PyResult<()> {
        let core = self.core.get(py)?.clone();
        let events: Vec<_> = events.iter().map(|event| event.get().core.clone()).collect();
        bridge.start_many(py, futures, async move { core.publish_batch(events).await }, |py, receipt| {
            Ok(Py::new(py, Receipt::from(receipt))?.into_any())
        })
    }

    /// Waits until everything that is being published is confirmed or has failed.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?;
        wait(py, core.flush())
    }

    fn flush_soon(&self, py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.flush().await }, nothing)
    }
}

fn receipts(py: Python<'_>, results: Vec<tidings::Result<tidings::Receipt>>) -> PyResult<Py<PyAny>> {
    let list = PyList::empty(py);
    for result in results {
        match result {
            Ok(receipt) => list.append(Py::new(py, Receipt::from(receipt))?)?,
            Err(error) => list.append(raise(py, &error))?,
        }
    }
    Ok(list.into_any().unbind())
}

fn publish_options(
    delay: Option<&Bound<'_, PyAny>>,
    deliver_at: Option<&Bound<'_, PyAny>>,
    require_route: bool,
    exchange: Option<String>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<PublishOptions> {
    let mut options = PublishOptions::new();
    match (delay, deliver_at) {
        (Some(_), Some(_)) => {
            return Err(PyTypeError::new_err("give delay or deliver_at, not both: each says when the event is due"));
        }
        (Some(delay), None) => options = options.delay(duration("delay", delay)?),
        (None, Some(time)) => options = options.deliver_at(timestamp("deliver_at", time)?),
        (None, None) => {}
    }
    if require_route {
        options = options.require_route();
    }
    if let Some(exchange) = exchange {
        options = options.exchange(exchange);
    }
    if let Some(timeout) = some_duration("timeout", timeout)? {
        options = options.timeout(timeout);
    }
    Ok(options)
}
