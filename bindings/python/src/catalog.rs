//! The catalog: requests and results as JSON, and subscriptions by `broker:topic`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tidings::catalog::{
    BrokersService, Catalog as Core, CatalogOptions, MessageBroker, PublishRequest, SubscribeRequest, VerifiedSession,
};
use tidings::{Error, ErrorKind, Result, SubscriptionOptions};

use crate::bridge::{Bridge, Running, nothing};
use crate::broker::open as open_deliveries;
use crate::delivery::Deliveries;
use crate::error::OrRaise as _;
use crate::log::refresh_log_level;
use crate::runtime::Owned;
use crate::subscriber::apply;

/// What it is made of: the catalog as JSON, or where it is.
struct Settings {
    declared: Option<String>,
    path: Option<PathBuf>,
    product: Option<String>,
    env: Option<String>,
}

/// A catalog and its brokers, read when they are first needed. Belongs to the process that made it.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Catalog {
    inner: Owned<Arc<Inner>>,
}

struct Inner {
    settings: Settings,
    core: OnceLock<MessageBroker>,
}

impl Inner {
    fn core(&self) -> Result<MessageBroker> {
        if let Some(core) = self.core.get() {
            return Ok(core.clone());
        }
        let made = MessageBroker::new(self.settings.open()?);
        Ok(self.core.get_or_init(|| made).clone())
    }
}

#[pymethods]
impl Catalog {
    #[new]
    #[pyo3(signature = (declared=None, path=None, product=None, env=None))]
    fn new(declared: Option<String>, path: Option<PathBuf>, product: Option<String>, env: Option<String>) -> Self {
        let settings = Settings { declared, path, product, env };
        Self { inner: Owned::new(Arc::new(Inner { settings, core: OnceLock::new() })) }
    }

    /// `(url, exchange, routing_key, subscription)` of a topic. Nothing is reached; passwords are not shown.
    #[pyo3(signature = (product, env, event, group=None))]
    fn resolve(
        &self,
        py: Python<'_>,
        product: Option<&str>,
        env: Option<&str>,
        event: &str,
        group: Option<&str>,
    ) -> PyResult<(Option<String>, Option<String>, String, String)> {
        let core = self.inner.get(py)?.core().or_raise(py)?;
        let found = core.catalog().resolve(product, env, event).or_raise(py)?;
        Ok((found.shown_url(), found.exchange.clone(), found.routing_key.clone(), found.subscription(group)))
    }

    /// Publishes. The future gets the result as JSON.
    #[pyo3(signature = (bridge, future, request, verified=None))]
    fn publish_soon(
        &self,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        request: String,
        verified: Option<(String, Option<String>)>,
    ) -> PyResult<Running> {
        let inner = self.begin(future.py())?;
        let work = async move {
            let mut request = PublishRequest::from_json(&request)?;
            request.verified_session = verified.map(session);
            let published = inner.core()?.publish(request).await?;
            serde_json::to_string(&published)
                .map_err(|error| Error::new(ErrorKind::Internal, "a result has no JSON form").source(error))
        };
        bridge.start(future, work, text)
    }

    /// Does what `operation` names. The future gets its result as JSON.
    fn call_soon(
        &self,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        operation: String,
        request: String,
    ) -> PyResult<Running> {
        let inner = self.begin(future.py())?;
        bridge.start(future, async move { BrokersService::new(inner.core()?).call(&operation, &request).await }, text)
    }

    /// Reaches the broker of a topic. The future gets a `Topic`.
    #[pyo3(signature = (bridge, future, request, verified=None))]
    fn topic_soon(
        &self,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        request: String,
        verified: Option<(String, Option<String>)>,
    ) -> PyResult<Running> {
        let inner = self.begin(future.py())?;
        let work = async move {
            let mut request = SubscribeRequest::from_json(&request)?;
            request.verified_session = verified.map(session);
            inner.core()?.subscription(&request).await
        };
        bridge.start(future, work, |py, (broker, options)| {
            Ok(Py::new(py, Topic { inner: Owned::new((broker, options)) })?.into_any())
        })
    }

    /// Lets go of every broker.
    fn close_soon(&self, bridge: &Bridge, future: &Bound<'_, PyAny>) -> PyResult<Running> {
        let inner = self.inner.get(future.py())?.clone();
        let work = async move {
            match inner.core.get() {
                Some(core) => core.close().await,
                None => Ok(()),
            }
        };
        bridge.start(future, work, nothing)
    }
}

impl Catalog {
    fn begin(&self, py: Python<'_>) -> PyResult<Arc<Inner>> {
        refresh_log_level(py)?;
        Ok(self.inner.get(py)?.clone())
    }
}

impl Settings {
    fn open(&self) -> Result<Core> {
        let declared = self.declared.as_deref().map(serde_json::from_str).transpose().map_err(|error| {
            Error::new(ErrorKind::CatalogInvalid, format!("the catalog is not JSON: {error}"))
                .remedy("pass plain dicts and lists")
        })?;
        Core::open(CatalogOptions {
            declared,
            path: self.path.clone(),
            product: self.product.clone(),
            env: self.env.clone(),
            ..CatalogOptions::default()
        })
    }
}

/// Where a topic's events come from.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Topic {
    inner: Owned<(tidings::Broker, SubscriptionOptions)>,
}

#[pymethods]
impl Topic {
    /// Name of its subscription.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.1.spec.name.clone())
    }

    /// As `Broker.deliveries_soon`; name and binding keys are the catalog's to say.
    fn deliveries_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        _name: &str,
        _binding_keys: Vec<String>,
        settings: &Bound<'_, PyDict>,
    ) -> PyResult<Running> {
        let (broker, found) = self.inner.get(py)?;
        let mut options = found.clone();
        apply(&mut options, settings)?;
        let operation = open_deliveries(broker, options);
        bridge.start(future, operation, |py, core| Ok(Py::new(py, Deliveries::new(core))?.into_any()))
    }
}

fn session((tag, subject): (String, Option<String>)) -> VerifiedSession {
    VerifiedSession { tag, subject, verified: true }
}

#[allow(clippy::unnecessary_wraps, reason = "as every other conversion")]
fn text(py: Python<'_>, json: String) -> PyResult<Py<PyAny>> {
    Ok(PyString::new(py, &json).into_any().unbind())
}
