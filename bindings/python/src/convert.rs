//! Values on their way between Python and the engine: seconds, times, headers.

use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use tidings::{Error, ErrorKind, HeaderValue, Headers, Timestamp};

use crate::encode;
use crate::error::raise;

/// An argument that may be left out although `None` is a value.
pub(crate) struct Given<'py>(pub(crate) Bound<'py, PyAny>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(object.to_owned()))
    }
}

/// The JSON text that `data` has on the wire.
///
/// Raises InvalidEventError that names the place of what has no JSON form.
#[pyfunction]
pub(crate) fn encode_json(data: &Bound<'_, PyAny>) -> PyResult<String> {
    encode::to_json(data)
}

/// Parses JSON that the engine has checked.
pub(crate) fn from_json<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    // The C scanner itself: `json.loads` looks for encodings and white space that cannot be there.
    static SCAN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let scan = SCAN.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("json")?.call_method0("JSONDecoder")?.getattr("scan_once")?.unbind())
    })?;
    scan.bind(py).call1((json, 0))?.get_item(0)
}

/// Seconds as a number, or a `timedelta`.
pub(crate) fn duration(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    let seconds = if value.is_instance_of::<PyBool>() {
        None
    } else if let Ok(seconds) = value.extract::<f64>() {
        Some(seconds)
    } else {
        value.call_method0("total_seconds").and_then(|total| total.extract()).ok()
    };
    let Some(seconds) = seconds else {
        return Err(PyTypeError::new_err(format!(
            "{field} must be a number of seconds or a timedelta, not {}",
            value.get_type().qualname()?
        )));
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let kind = if field == "delay" { ErrorKind::InvalidDelay } else { ErrorKind::InvalidOption };
        let error = Error::new(kind, format!("{field} is no length of time")).field(field, seconds);
        raise(py, &error.remedy("use a number of seconds, 0 or more"))
    })
}

/// `duration`, where it is given.
pub(crate) fn some_duration(field: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| duration(field, value)).transpose()
}

/// Seconds since the Unix epoch, or an aware `datetime`.
pub(crate) fn timestamp(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    let seconds: f64 = if let Ok(seconds) = value.extract() {
        seconds
    } else {
        let wrong =
            || PyTypeError::new_err(format!("{field} must be seconds since the Unix epoch or an aware datetime"));
        let zone = value.getattr("tzinfo").map_err(|_| wrong())?;
        if zone.is_none() {
            return Err(PyTypeError::new_err(format!(
                "{field} is a datetime without a time zone, which names no point in time: give it a tzinfo"
            )));
        }
        value.call_method0("timestamp")?.extract()?
    };
    Timestamp::from_secs_f64(seconds).ok_or_else(|| {
        let error = Error::new(ErrorKind::InvalidOption, format!("{field} is no point in time")).field(field, seconds);
        raise(value.py(), &error.remedy("use seconds since the Unix epoch"))
    })
}

/// Headers of a Python mapping.
pub(crate) fn headers(dict: &Bound<'_, PyDict>) -> PyResult<Headers> {
    let mut headers = Headers::new();
    for (name, value) in dict.iter() {
        let name: String = name.extract().map_err(|_| PyTypeError::new_err("the names of headers are text"))?;
        let value = header(&name, &value)?;
        headers.set(name, value);
    }
    Ok(headers)
}

fn header(name: &str, value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
    Ok(if value.is_none() {
        HeaderValue::Null
    } else if let Ok(text) = value.cast::<PyString>() {
        text.to_str()?.into()
    } else if let Ok(truth) = value.cast::<PyBool>() {
        truth.is_true().into()
    } else if let Ok(number) = value.cast::<PyInt>() {
        number.extract::<i64>()?.into()
    } else if let Ok(number) = value.cast::<PyFloat>() {
        HeaderValue::Float(number.value())
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        HeaderValue::Bytes(bytes.as_bytes().to_vec())
    } else if let Ok(list) = value.cast::<PyList>() {
        HeaderValue::List(list.iter().map(|item| header(name, &item)).collect::<PyResult<_>>()?)
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        HeaderValue::List(tuple.iter().map(|item| header(name, &item)).collect::<PyResult<_>>()?)
    } else if let Ok(dict) = value.cast::<PyDict>() {
        HeaderValue::Table(headers(dict)?)
    } else {
        let what = value.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!(
            "header {name:?} is a {what}: headers are text, numbers, truth, bytes, None, lists and dicts of those"
        )));
    })
}

/// Headers as a new dict.
pub(crate) fn header_dict<'py>(py: Python<'py>, headers: &Headers) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in headers.iter() {
        dict.set_item(name, header_object(py, value)?)?;
    }
    Ok(dict)
}

fn header_object<'py>(py: Python<'py>, value: &HeaderValue) -> PyResult<Bound<'py, PyAny>> {
    match value {
        HeaderValue::Bool(truth) => truth.into_bound_py_any(py),
        HeaderValue::Int(number) => number.into_bound_py_any(py),
        HeaderValue::Float(number) => number.into_bound_py_any(py),
        HeaderValue::Text(text) => (&**text).into_bound_py_any(py),
        HeaderValue::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
        HeaderValue::Time(seconds) => seconds.into_bound_py_any(py),
        HeaderValue::List(list) => {
            let items: Vec<_> = list.iter().map(|item| header_object(py, item)).collect::<PyResult<_>>()?;
            items.into_bound_py_any(py)
        }
        HeaderValue::Table(table) => Ok(header_dict(py, table)?.into_any()),
        // Null, and whatever a later version adds.
        _ => Ok(py.None().into_bound(py)),
    }
}

/// Text that the engine shares.
pub(crate) fn shared(text: &Bound<'_, PyString>) -> PyResult<Arc<str>> {
    Ok(text.to_str()?.into())
}
