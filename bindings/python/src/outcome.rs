//! What a handler came to: said by Python, understood by the engine.

use std::iter::successors;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use tidings::settlement::{self, Raised};
use tidings::{Failure, Outcome};

use crate::convert::duration;

/// What an exception of a handler asks for.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Asked(Outcome);

/// What this exception or one of its causes asks for. None: the handler has failed.
///
/// Raises TypeError or ValueError for what makes no sense, such as `Retry("soon")`.
#[pyfunction]
pub(crate) fn asked(error: &Bound<'_, PyAny>) -> PyResult<Option<Asked>> {
    let classes = Classes::get(error.py())?;
    let mut wrong = None;
    let errors = successors(Some(error.clone()), cause).map_while(|error| match classes.raised(&error) {
        Ok(raised) => Some(raised),
        Err(error) => {
            wrong = Some(error);
            None
        }
    });
    let asked = settlement::asked(errors);
    wrong.map_or(Ok(asked.map(Asked)), Err)
}

fn cause<'py>(error: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    error.getattr("__cause__").ok().filter(|cause| !cause.is_none())
}

/// The exceptions that ask for something.
struct Classes {
    retry: Py<PyAny>,
    dead_letter: Py<PyAny>,
    discard: Py<PyAny>,
    invalid_data: Py<PyAny>,
    store_failed: Py<PyAny>,
}

impl Classes {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
        CLASSES.get_or_try_init(py, || {
            let (controls, handler) = (py.import("tidings.controls")?, py.import("tidings._handler")?);
            Ok(Self {
                retry: controls.getattr("Retry")?.unbind(),
                dead_letter: controls.getattr("DeadLetter")?.unbind(),
                discard: controls.getattr("Discard")?.unbind(),
                invalid_data: handler.getattr("InvalidDataError")?.unbind(),
                store_failed: handler.getattr("StoreFailed")?.unbind(),
            })
        })
    }

    fn raised(&self, error: &Bound<'_, PyAny>) -> PyResult<Raised> {
        let py = error.py();
        let is = |class: &Py<PyAny>| error.is_instance(class.bind(py));
        let message = || error.getattr("message")?.extract::<Option<String>>();
        Ok(if is(&self.retry)? {
            Raised::Retry { after: delay(&error.getattr("delay")?)?, message: message()? }
        } else if is(&self.dead_letter)? {
            Raised::DeadLetter { reason: error.getattr("reason")?.str()?.to_string(), message: message()? }
        } else if is(&self.discard)? {
            Raised::Discard
        } else if is(&self.invalid_data)? {
            Raised::InvalidData { message: error.str()?.to_string() }
        } else if is(&self.store_failed)? {
            Raised::StoreFailed
        } else {
            Raised::Other
        })
    }
}

fn delay(value: &Bound<'_, PyAny>) -> PyResult<Option<std::time::Duration>> {
    if value.is_none() { Ok(None) } else { duration("delay", value).map(Some) }
}

/// The outcome as the engine knows it.
pub(crate) fn outcome(value: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    if value.is_none() {
        return Ok(Outcome::Ok);
    }
    if let Ok(asked) = value.cast::<Asked>() {
        return Ok(asked.get().0.clone());
    }
    let tuple = value.cast::<PyTuple>().map_err(PyErr::from)?;
    let kind: String = tuple.get_item(0)?.extract()?;
    match kind.as_str() {
        "retry" => Ok(Outcome::Retry { after: delay(&tuple.get_item(1)?)?, message: tuple.get_item(2)?.extract()? }),
        "fail" => {
            let why: String = tuple.get_item(4)?.extract()?;
            let types: Vec<String> = tuple.get_item(1)?.extract()?;
            let message: String = tuple.get_item(2)?.extract()?;
            let mut failure = Failure::new(types, message).with_reason(why);
            if let Some(stack) = tuple.get_item(3)?.extract::<Option<String>>()? {
                failure = failure.with_stack(stack);
            }
            Ok(Outcome::Fail(failure))
        }
        "dead_letter" => {
            Ok(Outcome::DeadLetter { reason: tuple.get_item(1)?.extract()?, message: tuple.get_item(2)?.extract()? })
        }
        "discard" => Ok(Outcome::Discard),
        "release" => Ok(Outcome::Release),
        _ => Err(PyValueError::new_err(format!("{kind:?} is no outcome"))),
    }
}
