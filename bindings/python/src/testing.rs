//! A broker for tests, with time that stands still.

use std::sync::Arc;

use pyo3::prelude::*;
use tidings::transport::memory::MemoryTransport;

use crate::broker::Broker;
use crate::convert::duration;
use crate::error::OrRaise as _;
use crate::event::DomainEvent;
use crate::runtime::{Owned, home};

/// The memory broker of a name, its clock stopped. Clients reach it by `memory:<name>`.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct TestBroker {
    memory: Owned<Arc<MemoryTransport>>,
}

#[pymethods]
impl TestBroker {
    #[new]
    fn new(py: Python<'_>, name: &str) -> PyResult<Self> {
        let _inside = home(py)?.runtime.enter();
        let memory = MemoryTransport::open(&format!("memory:{name}")).or_raise(py)?;
        memory.begin_test();
        Ok(Self { memory: Owned::new(Arc::new(memory)) })
    }

    /// The broker, for administration.
    fn broker(&self, py: Python<'_>) -> PyResult<Broker> {
        Ok(Broker::new(tidings::Broker::with_transport(self.memory.get(py)?.clone())))
    }

    /// Moves the clock.
    fn advance(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        self.memory.get(py)?.advance(duration("seconds", seconds)?);
        Ok(())
    }

    /// The time it is, in seconds since the Unix epoch.
    fn now(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.memory.get(py)?.now().as_secs_f64())
    }

    /// What was published, in order.
    fn published(&self, py: Python<'_>) -> PyResult<Vec<DomainEvent>> {
        Ok(self.memory.get(py)?.published().into_iter().map(DomainEvent::from).collect())
    }

    /// Whether none of these subscriptions has anything to hand over now, or anything out.
    fn is_idle(&self, py: Python<'_>, subscriptions: Vec<String>) -> PyResult<bool> {
        Ok(self.memory.get(py)?.is_idle(&subscriptions))
    }
}
