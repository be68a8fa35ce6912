//! `Broker`: one broker, reached.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidings::{Metric, MetricKind};

use crate::bridge::{Bridge, Running, nothing};
use crate::delivery::Deliveries;
use crate::error::OrRaise as _;
use crate::log::refresh_log_level;
use crate::publisher::{Publisher, publisher};
use crate::runtime::{Owned, home, wait};
use crate::subscriber::options;

/// A broker that was reached. Belongs to the process that reached it.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Broker {
    core: Owned<tidings::Broker>,
}

/// The URL of the broker that is meant where none is named: `TIDINGS_BROKER_URL`, else the embedded file.
#[pyfunction]
pub(crate) fn default_url(py: Python<'_>) -> PyResult<String> {
    // What it says in the log needs the queue that takes it there.
    home(py)?;
    tidings::Broker::url_from_env().or_raise(py)
}

/// Raises unless the URL can be understood. Nothing is reached.
#[pyfunction]
pub(crate) fn check_url(py: Python<'_>, url: &str) -> PyResult<()> {
    tidings::transport::registry::check(url).or_raise(py)
}

/// Deletes one queue of RabbitMQ and nothing that belongs to it. False if there was none.
#[pyfunction]
pub(crate) fn delete_queue(py: Python<'_>, url: &str, queue: &str) -> PyResult<bool> {
    wait(py, tidings::transport::amqp::delete_queue(url, queue))
}

pub(crate) async fn reach(url: String) -> tidings::Result<tidings::Broker> {
    if url.is_empty() { tidings::Broker::from_env().await } else { tidings::Broker::connect(&url).await }
}

#[pymethods]
impl Broker {
    /// Reaches the broker that `url` names; an empty one means that of the environment.
    #[staticmethod]
    fn connect(py: Python<'_>, url: String) -> PyResult<Self> {
        refresh_log_level(py)?;
        Ok(Self { core: Owned::new(wait(py, reach(url))?) })
    }

    #[staticmethod]
    fn connect_soon(py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>, url: String) -> PyResult<Running> {
        refresh_log_level(py)?;
        bridge.start(future, reach(url), |py, core| Ok(Py::new(py, Self { core: Owned::new(core) })?.into_any()))
    }

    /// A publisher to this broker.
    #[pyo3(signature = (exchange=None, publish_timeout=None, max_payload=None))]
    fn publisher(
        &self,
        py: Python<'_>,
        exchange: Option<&str>,
        publish_timeout: Option<&Bound<'_, PyAny>>,
        max_payload: Option<usize>,
    ) -> PyResult<Publisher> {
        publisher(py, self.core.get(py)?, exchange, publish_timeout, max_payload)
    }

    /// Declares the subscription and begins to fetch its events. `settings`: see `tidings.Subscriber.register`.
    fn deliveries(
        &self,
        py: Python<'_>,
        name: &str,
        binding_keys: Vec<String>,
        settings: &Bound<'_, PyDict>,
    ) -> PyResult<Deliveries> {
        let operation = open(self.core.get(py)?, options(name, binding_keys, settings)?);
        Ok(Deliveries::new(wait(py, operation)?))
    }

    fn deliveries_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        name: &str,
        binding_keys: Vec<String>,
        settings: &Bound<'_, PyDict>,
    ) -> PyResult<Running> {
        let operation = open(self.core.get(py)?, options(name, binding_keys, settings)?);
        bridge.start(future, operation, |py, core| Ok(Py::new(py, Deliveries::new(core))?.into_any()))
    }

    /// Declares the subscription, so that it collects events from now on.
    fn declare(
        &self,
        py: Python<'_>,
        name: &str,
        binding_keys: Vec<String>,
        settings: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let options = options(name, binding_keys, settings)?;
        let subscriber = self.core.get(py)?.subscriber();
        wait(py, async move {
            let name = options.spec.name.clone();
            subscriber.subscription(&name).options(options).declare().await
        })
    }

    /// `(name, ready, in_flight, dead)` of every subscription that is known.
    fn subscriptions(&self, py: Python<'_>) -> PyResult<Vec<(String, u64, Option<u64>, u64)>> {
        let core = self.core.get(py)?.clone();
        let all = wait(py, async move { core.subscriptions().await })?;
        Ok(all.into_iter().map(|s| (s.name, s.ready, s.in_flight, s.dead)).collect())
    }

    /// Deletes a subscription with everything in it. False if there was none.
    fn delete_subscription(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        let core = self.core.get(py)?.clone();
        wait(py, async move { core.delete_subscription(&name).await })
    }

    /// Raises unless the broker answers.
    fn ping(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?.clone();
        wait(py, async move { core.ping().await })
    }

    /// `(name, kind, subscription, value)` of every counter and gauge.
    fn metrics(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, &'static str, Option<String>, f64)>> {
        let all = self.core.get(py)?.metrics();
        Ok(all.into_iter().map(metric).collect())
    }

    /// Name of the transport.
    #[getter]
    fn transport(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.core.get(py)?.capabilities().name)
    }

    /// Lets go of the broker, once what is being published is confirmed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?.clone();
        wait(py, async move { core.close().await })
    }

    fn close_soon(&self, py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.close().await }, nothing)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{:?}", self.core.get(py)?))
    }
}

impl Broker {
    pub(crate) fn new(core: tidings::Broker) -> Self {
        Self { core: Owned::new(core) }
    }

    pub(crate) fn core(&self, py: Python<'_>) -> PyResult<&tidings::Broker> {
        self.core.get(py)
    }
}

pub(crate) fn open(
    core: &tidings::Broker,
    options: tidings::SubscriptionOptions,
) -> impl Future<Output = tidings::Result<Arc<tidings::Deliveries>>> + Send + 'static {
    let subscriber = core.subscriber();
    async move {
        let name = options.spec.name.clone();
        subscriber.subscription(&name).options(options).deliveries().await.map(Arc::new)
    }
}

fn metric(metric: Metric) -> (&'static str, &'static str, Option<String>, f64) {
    let kind = if metric.kind == MetricKind::Counter { "counter" } else { "gauge" };
    (metric.name, kind, metric.subscription.map(|name| name.to_string()), metric.value)
}
