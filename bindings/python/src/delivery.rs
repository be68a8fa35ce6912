//! Deliveries: pulled in batches, handled by Python, settled in batches.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tidings::Outcome;
use tidings::transport::OrderState;
use tokio::sync::watch;

use crate::bridge::{Bridge, Running, nothing};
use crate::convert::{duration, some_duration};
use crate::error::OrRaise as _;
use crate::event::DomainEvent;
use crate::outcome::outcome;
use crate::runtime::{Owned, home, wait};

/// One event handed over once. Dropped unsettled, it is released.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Delivery {
    /// The event.
    #[pyo3(get)]
    event: Py<DomainEvent>,
    /// Which of a group's subscriptions it belongs to.
    #[pyo3(get)]
    index: usize,
    core: Owned<Mutex<Option<tidings::Delivery>>>,
}

impl Delivery {
    fn new(py: Python<'_>, core: tidings::Delivery, index: usize) -> PyResult<Self> {
        let event = Py::new(py, DomainEvent::from(core.event().clone()))?;
        Ok(Self { event, index, core: Owned::new(Mutex::new(Some(core))) })
    }

    fn list(py: Python<'_>, batch: Vec<tidings::Delivery>, index: usize) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for core in batch {
            list.append(Py::new(py, Self::new(py, core, index)?)?)?;
        }
        Ok(list.into_any().unbind())
    }
}

#[pymethods]
impl Delivery {
    /// Whether it was settled or given back.
    #[getter]
    fn settled(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core.get(py)?.lock().is_none())
    }
}

/// The events of one subscription.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Deliveries {
    core: Owned<Arc<tidings::Deliveries>>,
}

impl Deliveries {
    pub(crate) fn new(core: Arc<tidings::Deliveries>) -> Self {
        Self { core: Owned::new(core) }
    }
}

#[pymethods]
impl Deliveries {
    /// At most `max` events that are there; None once the subscription is closed.
    fn try_next(&self, py: Python<'_>, max: usize) -> PyResult<Option<Py<PyAny>>> {
        let batch = self.core.get(py)?.try_next(max).or_raise(py)?;
        batch.map(|batch| Delivery::list(py, batch, 0)).transpose()
    }

    /// Waits for at least one; an empty list once the subscription is closed.
    fn next_soon(&self, py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>, max: usize) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.next(max).await }, |py, batch| Delivery::list(py, batch, 0))
    }

    /// Settles in the background. An outcome is None (handled), what `asked` says, or a tuple: `("retry", seconds, message)`, `("fail",
    /// error_types, message, stack, reason)`, `("dead_letter", reason, message)`, `("discard",)`, `("release",)`.
    fn settle_soon(&self, py: Python<'_>, batch: &Bound<'_, PyList>) -> PyResult<()> {
        let batch = settlements(py, batch)?;
        self.core.get(py)?.settle_soon(batch.into_iter().map(|(_, delivery, outcome)| (delivery, outcome)));
        Ok(())
    }

    /// Settles and lets the future know once that is durable.
    fn settle_durably_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        batch: &Bound<'_, PyList>,
    ) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        let batch = settlements(py, batch)?.into_iter().map(|(_, delivery, outcome)| (delivery, outcome)).collect();
        bridge.start(future, async move { core.settle(batch).await }, nothing)
    }

    /// Counts runs of the handler and the seconds they took.
    fn count_handled(&self, py: Python<'_>, runs: u64, seconds: f64) -> PyResult<()> {
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.core.get(py)?.count_handled(runs, took);
        Ok(())
    }

    /// Stops handing events over and gives back those that wait.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?;
        wait(py, core.pause())
    }

    fn pause_soon(&self, py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.pause().await }, nothing)
    }

    /// Goes on after a pause.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?;
        wait(py, core.resume())
    }

    fn resume_soon(&self, py: Python<'_>, bridge: &Bridge, future: &Bound<'_, PyAny>) -> PyResult<Running> {
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.resume().await }, nothing)
    }

    /// What the subscription is doing, as a dict.
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let health = self.core.get(py)?.health();
        let dict = PyDict::new(py);
        dict.set_item("subscription", health.subscription)?;
        dict.set_item("connected", health.connected)?;
        dict.set_item("consuming", health.consuming)?;
        dict.set_item("paused", health.paused)?;
        dict.set_item("draining", health.draining)?;
        dict.set_item("in_flight", health.in_flight)?;
        dict.set_item("buffered", health.buffered)?;
        dict.set_item("recoveries", health.recoveries)?;
        dict.set_item("last_error", health.last_error)?;
        dict.set_item("limited_by", health.limited_by)?;
        dict.set_item("order", health.order.map(|order| order_dict(py, &order)).transpose()?)?;
        Ok(dict)
    }

    /// Drains within `timeout` seconds. How many events were released unfinished.
    fn close(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<usize> {
        let timeout = duration("timeout", timeout)?;
        let core = self.core.get(py)?;
        wait(py, core.close(timeout))
    }

    /// Lets go without waiting: what is not settled is released.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core.get(py)?.clone();
        home(py)?.runtime.spawn(async move { core.close(Duration::ZERO).await });
        Ok(())
    }

    fn close_soon(
        &self,
        py: Python<'_>,
        bridge: &Bridge,
        future: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Running> {
        let timeout = duration("timeout", timeout)?;
        let core = self.core.get(py)?.clone();
        bridge.start(future, async move { core.close(timeout).await }, |py, unfinished| {
            Ok(unfinished.into_pyobject(py)?.into_any().unbind())
        })
    }
}

fn order_dict<'py>(py: Python<'py>, order: &OrderState) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("owners", &order.owners)?;
    dict.set_item("waiting_keys", order.waiting_keys)?;
    dict.set_item("parked_keys", order.parked_keys)?;
    dict.set_item("dead_keys", order.dead_keys)?;
    dict.set_item("oldest_waiting_seconds", order.oldest_waiting.map(|age| age.as_secs_f64()))?;
    Ok(dict)
}

/// Several subscriptions that threads take events from in turn.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Group {
    inner: Owned<Inner>,
}

struct Inner {
    members: Vec<Arc<tidings::Deliveries>>,
    /// Where the next look begins, so that none is starved.
    turn: Mutex<usize>,
    stopped: watch::Sender<bool>,
}

#[pymethods]
impl Group {
    #[new]
    fn new(py: Python<'_>, members: Vec<Bound<'_, Deliveries>>) -> PyResult<Self> {
        let members = members.iter().map(|one| Ok(one.get().core.get(py)?.clone())).collect::<PyResult<_>>()?;
        let inner = Inner { members, turn: Mutex::new(0), stopped: watch::Sender::new(false) };
        Ok(Self { inner: Owned::new(inner) })
    }

    /// At most `max` events of one subscription, without waiting.
    fn try_next(&self, py: Python<'_>, max: usize) -> PyResult<Py<PyAny>> {
        let inner = self.inner.get(py)?;
        match inner.look(max).or_raise(py)? {
            Some((index, batch)) => Delivery::list(py, batch, index),
            None => Ok(PyList::empty(py).into_any().unbind()),
        }
    }

    /// Waits at most `timeout` seconds for events of any subscription. An empty list: time is up, or it was stopped.
    #[pyo3(signature = (max, timeout=None))]
    fn next(&self, py: Python<'_>, max: usize, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let timeout = some_duration("timeout", timeout)?;
        let inner = self.inner.get(py)?;
        let found = match inner.look(max).or_raise(py)? {
            Some(found) => Some(found),
            None => wait(py, inner.next(max, timeout))?,
        };
        match found {
            Some((index, batch)) => Delivery::list(py, batch, index),
            None => Ok(PyList::empty(py).into_any().unbind()),
        }
    }

    /// Settles in the background, as `Deliveries.settle_soon`.
    fn settle_soon(&self, py: Python<'_>, batch: &Bound<'_, PyList>) -> PyResult<()> {
        let inner = self.inner.get(py)?;
        let mut by_member: Vec<Vec<_>> = inner.members.iter().map(|_| Vec::new()).collect();
        for (index, delivery, outcome) in settlements(py, batch)? {
            if let Some(member) = by_member.get_mut(index) {
                member.push((delivery, outcome));
            }
        }
        for (member, batch) in inner.members.iter().zip(by_member) {
            if !batch.is_empty() {
                member.settle_soon(batch);
            }
        }
        Ok(())
    }

    /// Ends every wait, now and later.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.get(py)?.stopped.send_replace(true);
        Ok(())
    }

    /// Whether it was stopped.
    #[getter]
    fn stopped(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(*self.inner.get(py)?.stopped.borrow())
    }
}

type Found = (usize, Vec<tidings::Delivery>);

impl Inner {
    /// What one of the members has, the first in turn.
    fn look(&self, max: usize) -> tidings::Result<Option<Found>> {
        if *self.stopped.borrow() {
            return Ok(None);
        }
        let count = self.members.len();
        let start = {
            let mut turn = self.turn.lock();
            *turn = (*turn + 1) % count.max(1);
            *turn
        };
        for index in (0..count).map(|step| (start + step) % count) {
            if let Some(batch) = self.members[index].try_next(max)?
                && !batch.is_empty()
            {
                return Ok(Some((index, batch)));
            }
        }
        Ok(None)
    }

    async fn next(&self, max: usize, timeout: Option<Duration>) -> tidings::Result<Option<Found>> {
        let mut stopped = self.stopped.subscribe();
        let waits = self.members.iter().enumerate().map(|(index, member)| {
            async move {
                match member.next(max).await {
                    // Closed: nothing will come of this one.
                    Ok(batch) if batch.is_empty() => pending().await,
                    result => result.map(|batch| (index, batch)),
                }
            }
            .boxed()
        });
        let all = async {
            if self.members.is_empty() {
                return pending().await;
            }
            select_all(waits).await.0
        };
        let time = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => pending().await,
            }
        };
        tokio::select! {
            found = all => found.map(Some),
            () = time => Ok(None),
            // The sender is as old as this call.
            _ = stopped.wait_for(|stopped| *stopped) => Ok(None),
        }
    }
}

fn settlements(py: Python<'_>, batch: &Bound<'_, PyList>) -> PyResult<Vec<(usize, tidings::Delivery, Outcome)>> {
    let mut all = Vec::with_capacity(batch.len());
    for item in batch.iter() {
        let pair = item.cast::<PyTuple>().map_err(PyErr::from)?;
        let delivery = pair.get_item(0)?;
        let delivery = delivery.cast::<Delivery>().map_err(PyErr::from)?.get();
        let outcome = outcome(&pair.get_item(1)?)?;
        let Some(core) = delivery.core.get(py)?.lock().take() else {
            return Err(PyRuntimeError::new_err("the delivery was settled before"));
        };
        all.push((delivery.index, core, outcome));
    }
    Ok(all)
}
