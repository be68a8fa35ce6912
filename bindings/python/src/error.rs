//! The engine's errors as Python exceptions: one class for each code, in `tidings.errors`.

use pyo3::prelude::*;
use tidings::{Error, ErrorKind};

/// Every code there is, with whether the same call can succeed later.
pub(crate) fn codes() -> Vec<(&'static str, bool)> {
    ErrorKind::ALL.iter().map(|kind| (kind.code(), kind.retryable())).collect()
}

/// The exception for an error.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    make(py, error).unwrap_or_else(|failed| failed)
}

fn make(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let exception = py.import("tidings.errors")?.call_method1(
        "_from_engine",
        (
            error.code(),
            error.message(),
            error.field_name(),
            error.field_value(),
            error.remedy_text(),
            error.outcome_unknown(),
            causes(error),
        ),
    )?;
    Ok(PyErr::from_value(exception))
}

fn causes(error: &Error) -> Vec<String> {
    let mut cause = std::error::Error::source(error);
    let mut all = Vec::new();
    while let Some(one) = cause {
        all.push(one.to_string());
        cause = one.source();
    }
    all
}

/// `Result` of the engine to `Result` of Python.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for tidings::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raise(py, &error))
    }
}
