//! Python objects written as JSON, straight into the bytes that travel.
//!
//! What the standard library's `json` writes is written alike; everything else is asked of `tidings.encoder.simplify`.

use std::io::Write as _;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use tidings::{Error, ErrorKind};

use crate::error::raise;

/// Objects within each other; more, and an object that holds itself, are refused.
const DEEPEST: usize = 500;

/// Why an object has no JSON form.
enum Stop {
    /// In the engine's words, with the way to it, innermost first.
    Refused { way: Vec<String>, why: String },
    /// Python's own exception, of a hook or a property.
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// The JSON of `data`, without white space, UTF-8 unescaped.
pub(crate) fn to_json(data: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = data.py();
    let mut writer = Writer { out: Vec::with_capacity(256) };
    match writer.any(data, 0) {
        Ok(()) => String::from_utf8(writer.out).map_err(|e| raise(py, &refused("data", &e.to_string()))),
        Err(Stop::Raised(error)) => Err(error),
        Err(Stop::Refused { way, why }) => {
            let place = way.iter().rev().fold("data".to_owned(), |place, step| format!("{place}[{step}]"));
            Err(raise(py, &refused(&place, &why)))
        }
    }
}

fn refused(place: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidEvent, format!("{place} {why}"))
        .remedy("publish what json.dumps takes, datetime, UUID, Decimal, Enum, dataclasses or pydantic models")
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn any(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Stop> {
        if depth > DEEPEST {
            return refuse(format!("holds more than {DEEPEST} objects within each other, or itself"));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return self.text(text);
        }
        if value.is_none() {
            self.out.extend_from_slice(b"null");
        } else if let Ok(truth) = value.cast::<PyBool>() {
            self.out.extend_from_slice(if truth.is_true() { b"true" } else { b"false" });
        } else if let Ok(number) = value.cast::<PyInt>() {
            self.int(number)?;
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.float(number.value())?;
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.dict(dict, depth)?;
        } else if let Ok(list) = value.cast::<PyList>() {
            self.items(list.iter(), depth)?;
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.items(tuple.iter(), depth)?;
        } else {
            let hook = value.py().import("tidings.encoder")?.getattr("simplify")?;
            let simple = hook.call1((value,))?;
            if simple.is(value) {
                return refuse(format!("is a {}, which has no JSON form", type_name(value)));
            }
            self.any(&simple, depth + 1)?;
        }
        Ok(())
    }

    fn items<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> Result<(), Stop> {
        self.out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.any(&item, depth + 1).map_err(|stop| stop.within(|| index.to_string()))?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Result<(), Stop> {
        self.out.push(b'{');
        for (index, (key, value)) in dict.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.key(&key)?;
            self.out.push(b':');
            self.any(&value, depth + 1).map_err(|stop| stop.within(|| name(&key)))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// As the standard library: numbers, truth and None become text.
    fn key(&mut self, key: &Bound<'_, PyAny>) -> Result<(), Stop> {
        if let Ok(text) = key.cast::<PyString>() {
            return self.text(text);
        }
        let plain = key.is_none()
            || key.is_instance_of::<PyBool>()
            || key.is_instance_of::<PyInt>()
            || key.is_instance_of::<PyFloat>();
        if !plain {
            return refuse(format!("has a key that is a {}, and keys of JSON objects are text", type_name(key)));
        }
        self.out.push(b'"');
        self.any(key, 0)?;
        self.out.push(b'"');
        Ok(())
    }

    fn int(&mut self, number: &Bound<'_, PyInt>) -> Result<(), Stop> {
        if let Ok(small) = number.extract::<i64>() {
            // Writing into a vector cannot fail.
            let _infallible = write!(self.out, "{small}");
            return Ok(());
        }
        // Of any size, exact. The type's own form: a subclass may print itself in another way.
        let digits = number.py().get_type::<PyInt>().call_method1("__repr__", (number,))?;
        self.out.extend_from_slice(digits.cast::<PyString>().map_err(PyErr::from)?.to_str()?.as_bytes());
        Ok(())
    }

    fn float(&mut self, number: f64) -> Result<(), Stop> {
        if !number.is_finite() {
            return refuse(format!("is {number}, and JSON has no NaN and no Infinity"));
        }
        let _infallible = write!(self.out, "{number:?}");
        Ok(())
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Result<(), Stop> {
        let Ok(text) = text.to_str() else {
            return refuse("is text with half a surrogate pair, which is not Unicode".to_owned());
        };
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut written = 0;
        for (index, &byte) in bytes.iter().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&bytes[written..index]);
            written = index + 1;
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x08 => b'b',
                0x0c => b'f',
                _ => {
                    let _infallible = write!(self.out, "\\u{byte:04x}");
                    continue;
                }
            };
            self.out.extend_from_slice(&[b'\\', short]);
        }
        self.out.extend_from_slice(&bytes[written..]);
        self.out.push(b'"');
        Ok(())
    }
}

impl Stop {
    fn within(mut self, step: impl FnOnce() -> String) -> Self {
        if let Self::Refused { way, .. } = &mut self {
            way.push(step());
        }
        self
    }
}

fn refuse(why: String) -> Result<(), Stop> {
    Err(Stop::Refused { way: Vec::new(), why })
}

fn name(key: &Bound<'_, PyAny>) -> String {
    key.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string())
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().qualname().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}
