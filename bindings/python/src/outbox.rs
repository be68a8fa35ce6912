//! The outbox: the statements for a caller's transaction, and the store with its relay.

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tidings::outbox::{Dialect, OutboxEvent, OutboxWriter as Rows, ParamStyle, Statement, Tables, Value};

use crate::broker::reach;
use crate::convert::timestamp;
use crate::error::OrRaise as _;
use crate::event::DomainEvent;
use crate::runtime::{Owned, wait};

pub(crate) type Rendered = (String, Py<PyList>);

/// Renders what writes events in the caller's transaction.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct OutboxWriter {
    core: Rows,
}

#[pymethods]
impl OutboxWriter {
    #[new]
    fn new(
        py: Python<'_>,
        dialect: &str,
        table: &str,
        notify: bool,
        serialize: bool,
        max_payload: usize,
    ) -> PyResult<Self> {
        let core = Rows::new(Dialect::of_name(dialect).or_raise(py)?).tables(Tables::new(table).or_raise(py)?);
        Ok(Self { core: core.notify(notify).serialize(serialize).max_payload(max_payload) })
    }

    /// `(sql, parameters)` of each statement; `events` are `(event, available_at, exchange)`.
    fn insert(
        &self,
        py: Python<'_>,
        style: &str,
        events: Vec<(PyRef<'_, DomainEvent>, Option<Bound<'_, PyAny>>, Option<String>)>,
    ) -> PyResult<Vec<Rendered>> {
        let mut rows = Vec::with_capacity(events.len());
        for (event, available_at, exchange) in events {
            let mut row = OutboxEvent::new(event.core.clone());
            if let Some(time) = available_at {
                row = row.available_at(timestamp("available_at", &time)?);
            }
            if let Some(exchange) = exchange {
                row = row.exchange(exchange);
            }
            rows.push(row);
        }
        let style = ParamStyle::of_name(style).or_raise(py)?;
        let statements = self.core.insert(style, &rows).or_raise(py)?;
        statements.into_iter().map(|statement| rendered(py, statement)).collect()
    }
}

pub(crate) fn rendered(py: Python<'_>, statement: Statement) -> PyResult<Rendered> {
    let params: Vec<_> = statement.params.into_iter().map(|value| param(py, value)).collect::<PyResult<_>>()?;
    Ok((statement.sql, PyList::new(py, params)?.unbind()))
}

fn param(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    match value {
        Value::Int(number) => number.into_bound_py_any(py),
        Value::Text(text) => text.into_bound_py_any(py),
        Value::Bytes(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
        // Null; arrays are never rendered for callers.
        _ => Ok(py.None().into_bound(py)),
    }
}

/// The tables as SQL.
#[pyfunction]
pub(crate) fn outbox_schema(py: Python<'_>, dialect: &str, table: &str) -> PyResult<String> {
    let tables = Tables::new(table).or_raise(py)?;
    Ok(tidings::outbox::outbox_schema(Dialect::of_name(dialect).or_raise(py)?, &tables))
}

/// The table of an outbox, reached with connections of its own.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct OutboxStore {
    core: Owned<tidings::outbox::Outbox>,
}

#[pymethods]
impl OutboxStore {
    #[staticmethod]
    fn connect(py: Python<'_>, url: &str, table: &str) -> PyResult<Self> {
        let tables = Tables::new(table).or_raise(py)?;
        Ok(Self { core: Owned::new(wait(py, tidings::outbox::Outbox::connect_to(url, tables))?) })
    }

    /// An operation of `tidings::outbox::Outbox::call`.
    fn call(&self, py: Python<'_>, operation: &str, request: &str) -> PyResult<String> {
        let core = self.core.get(py)?.clone();
        wait(py, async move { core.call(operation, request).await })
    }

    /// Starts a relay to the broker that `url` names.
    fn relay(&self, py: Python<'_>, url: String, settings: &str) -> PyResult<OutboxRelay> {
        let core = self.core.get(py)?.clone();
        let started = wait(py, async move {
            let broker = reach(url).await?;
            let relay = core.relay(&broker).settings(settings)?.start().await?;
            Ok((broker, relay))
        })?;
        Ok(OutboxRelay { core: Owned::new(started) })
    }

    /// Lets go of the database.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?.clone();
        wait(py, async move { core.close().await })
    }
}

/// A relay that runs, on the engine's threads.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct OutboxRelay {
    core: Owned<(tidings::Broker, tidings::outbox::RunningRelay)>,
}

#[pymethods]
impl OutboxRelay {
    /// `(working, parts, seconds of the oldest row, last error)`
    fn health(&self, py: Python<'_>) -> PyResult<(bool, usize, Option<f64>, Option<String>)> {
        let health = self.core.get(py)?.1.health();
        Ok((health.working, health.parts, health.oldest.map(|age| age.as_secs_f64()), health.last_error))
    }

    /// `(name, value)` of its counters and gauges.
    fn metrics(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, f64)>> {
        Ok(self.core.get(py)?.1.metrics().into_iter().map(|metric| (metric.name, metric.value)).collect())
    }

    /// Hands over to other relays and ends.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let (broker, relay) = self.core.get(py)?;
        wait(py, async {
            relay.stop().await?;
            broker.close().await
        })
    }
}
