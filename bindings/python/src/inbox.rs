//! The inbox: the statements for a handler's transaction, the one that is kept in memory, and how long to rest.

use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tidings::inbox::{Claim, InboxWriter as Claims, MemoryInbox as Memory, Rest, Turn};
use tidings::outbox::{Dialect, ParamStyle};

use crate::convert::duration;
use crate::error::OrRaise as _;
use crate::event::DomainEvent;
use crate::outbox::{Rendered, rendered};
use crate::runtime::{Owned, home};

/// Renders what remembers that an event was processed, in the handler's transaction.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct InboxWriter {
    core: Claims,
}

#[pymethods]
impl InboxWriter {
    #[new]
    fn new(py: Python<'_>, dialect: &str, table: &str) -> PyResult<Self> {
        let core = Claims::new(Dialect::of_name(dialect).or_raise(py)?).table(table).or_raise(py)?;
        Ok(Self { core })
    }

    fn claim(&self, py: Python<'_>, style: &str, subscription: &str, event: &DomainEvent) -> PyResult<Rendered> {
        let style = ParamStyle::of_name(style).or_raise(py)?;
        rendered(py, self.core.claim(style, subscription, &event.core).or_raise(py)?)
    }

    fn forget(&self, py: Python<'_>, style: &str, age: &Bound<'_, PyAny>, limit: u32) -> PyResult<Rendered> {
        let style = ParamStyle::of_name(style).or_raise(py)?;
        rendered(py, self.core.forget(style, duration("age", age)?, limit))
    }

    fn schema(&self) -> String {
        self.core.schema()
    }
}

/// How long a handler rests after its inbox has failed.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct InboxRest {
    core: Rest,
}

#[pymethods]
impl InboxRest {
    #[new]
    fn new() -> Self {
        Self { core: Rest::default() }
    }

    /// It failed: seconds to wait.
    fn failed(&self) -> f64 {
        self.core.failed().as_secs_f64()
    }

    /// It works again.
    fn worked(&self) {
        self.core.worked();
    }
}

/// Remembers in this process what was processed. A forked child has a memory of its own.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct MemoryClaims {
    keep: Duration,
    lease: Duration,
    /// Locked by threads that hold the interpreter only, so nobody has it when the process forks.
    core: Mutex<(u32, Owned<Memory>)>,
}

#[pymethods]
impl MemoryClaims {
    #[new]
    fn new(keep: &Bound<'_, PyAny>, lease: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (keep, lease) = (duration("keep", keep)?, duration("lease", lease)?);
        Ok(Self { keep, lease, core: Mutex::new((process::id(), Owned::new(Memory::new(keep, lease)))) })
    }

    /// None if `subscription` has processed the event.
    fn claim(&self, py: Python<'_>, subscription: &str, event: &DomainEvent) -> PyResult<Option<MemoryClaim>> {
        let claim = self.core(py)?.claim(subscription, &event.core).or_raise(py)?;
        Ok(claim.map(MemoryClaim::new))
    }

    /// The claim, renewed while it is held; None if it was processed; or the seconds after which to give it back.
    fn turn(
        &self,
        py: Python<'_>,
        subscription: &str,
        event: &DomainEvent,
    ) -> PyResult<(Option<MemoryClaim>, Option<f64>)> {
        let core = self.core(py)?;
        let _inside = home(py)?.runtime.enter();
        Ok(match core.turn(subscription, &event.core) {
            Turn::Run(claim) => (Some(MemoryClaim::new(claim)), None),
            Turn::Rest(pause) => (None, Some(pause.as_secs_f64())),
            _ => (None, None),
        })
    }
}

impl MemoryClaims {
    fn core(&self, py: Python<'_>) -> PyResult<Memory> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        if core.0 != process::id() {
            *core = (process::id(), Owned::new(Memory::new(self.keep, self.lease)));
        }
        core.1.get(py).cloned()
    }
}

/// An event that is ours to process. Forgotten without `complete`, it is released.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct MemoryClaim {
    core: Owned<Mutex<Option<Claim>>>,
}

impl MemoryClaim {
    fn new(core: Claim) -> Self {
        Self { core: Owned::new(Mutex::new(Some(core))) }
    }

    fn with<T>(&self, py: Python<'_>, what: impl FnOnce(&mut Option<Claim>) -> T) -> PyResult<T> {
        Ok(what(&mut self.core.get(py)?.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl MemoryClaim {
    /// Prolongs the lease. False: it had ended, and somebody else may have the event.
    fn renew(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |claim| claim.as_ref().is_some_and(Claim::renew))
    }

    /// Remembers that the event was processed. False: the claim had ended before.
    fn complete(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |claim| claim.take().is_some_and(Claim::complete))
    }

    /// Lets others process it.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |claim| drop(claim.take()))
    }
}
