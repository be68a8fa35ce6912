//! `DomainEvent`, as Python sees it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};
use tidings::event::name;

use crate::convert::{Given, from_json, header_dict, headers, shared, timestamp};
use crate::encode::to_json;
use crate::error::OrRaise as _;

/// What happened: a routing key, data, an id and a time. Immutable.
///
/// The data may be anything that has a JSON form (see `tidings.encoder`). It is written as JSON here and now: changing
/// the object afterwards changes nothing that is published. On a received event `data` is parsed when it is first asked
/// for.
///
/// Args:
///     routing_key: `<domain>.<event type>`, words separated by dots, without `*` and `#`.
///     data: What there is to say about it.
///     domain_object_id: Identifier of the entity; also the ordering key, unless `key` is given.
///     uuid_string: The event's id, 1 to 255 bytes. Default: a new UUIDv7.
///     timestamp: When it happened, in seconds since the Unix epoch or as an aware datetime. Default: now.
///     retries: How often a subscription has tried it already.
///     key: Ordering key.
///     tenant: Tenant that the event belongs to.
///     idempotency_key: De-duplication key. Default: the id.
///     headers: Further headers.
///
/// Raises:
///     InvalidEventError: The data has no JSON form (its place is named), or the id is not valid.
///     InvalidRoutingKeyError: The routing key is empty, too long or has wildcards.
///
/// >>> DomainEvent("user.registered", {"user_id": 7}).data["user_id"]
/// 7
#[pyclass(frozen, name = "DomainEvent", module = "tidings", generic)]
pub(crate) struct DomainEvent {
    pub(crate) core: tidings::DomainEvent,
    data: PyOnceLock<Py<PyAny>>,
}

impl From<tidings::DomainEvent> for DomainEvent {
    fn from(core: tidings::DomainEvent) -> Self {
        Self { core, data: PyOnceLock::new() }
    }
}

impl DomainEvent {
    fn with_data(core: tidings::DomainEvent, data: Bound<'_, PyAny>) -> Self {
        let py = data.py();
        let known = PyOnceLock::new();
        known.get_or_init(py, || data.unbind());
        Self { core, data: known }
    }
}

#[pymethods]
impl DomainEvent {
    #[new]
    #[pyo3(signature = (routing_key="", data=None, domain_object_id=None, uuid_string=None, timestamp=None, retries=0, *,
                        key=None, tenant=None, idempotency_key=None, headers=None))]
    #[pyo3(
        text_signature = "(routing_key='', data={}, domain_object_id=None, uuid_string=None, timestamp=None, retries=0, *, \
                             key=None, tenant=None, idempotency_key=None, headers=None)"
    )]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        routing_key: &str,
        data: Option<Given<'_>>,
        domain_object_id: Option<&Bound<'_, PyString>>,
        uuid_string: Option<&str>,
        timestamp: Option<&Bound<'_, PyAny>>,
        retries: u32,
        key: Option<&Bound<'_, PyString>>,
        tenant: Option<&Bound<'_, PyString>>,
        idempotency_key: Option<&Bound<'_, PyString>>,
        headers: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let data = data.map_or_else(|| PyDict::new(py).into_any(), |given| given.0);
        let mut core = tidings::DomainEvent::from_json(routing_key, to_json(&data)?).or_raise(py)?;
        if let Some(id) = domain_object_id {
            core = core.with_domain_object_id(shared(id)?);
        }
        if let Some(id) = uuid_string {
            core = core.with_id(id).or_raise(py)?;
        }
        if let Some(time) = timestamp {
            core = core.with_timestamp(self::timestamp("timestamp", time)?);
        }
        if let Some(headers) = headers {
            for (name, value) in self::headers(headers)?.iter() {
                core = core.with_header(name.to_string(), value.clone());
            }
        }
        if retries > 0 {
            core = core.with_header(name::ATTEMPT, retries);
        }
        if let Some(key) = key {
            core = core.with_key(shared(key)?);
        }
        if let Some(tenant) = tenant {
            core = core.with_tenant(shared(tenant)?);
        }
        if let Some(key) = idempotency_key {
            core = core.with_idempotency_key(shared(key)?);
        }
        Ok(Self::with_data(core, data))
    }

    /// Reads an event's body: the five keys, as `to_json` or a peer wrote it.
    ///
    /// Raises InvalidEventError if it is not one.
    #[classmethod]
    #[pyo3(signature = (json_data, headers=None))]
    fn from_json(
        cls: &Bound<'_, PyType>,
        json_data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let body = if let Ok(text) = json_data.cast::<PyString>() {
            text.to_str()?.as_bytes().to_vec()
        } else if let Ok(bytes) = json_data.cast::<PyBytes>() {
            bytes.as_bytes().to_vec()
        } else {
            let what = json_data.get_type().qualname()?;
            return Err(PyTypeError::new_err(format!("the JSON of an event is str or bytes, not {what}")));
        };
        let mut core = tidings::DomainEvent::from_body(body).or_raise(cls.py())?;
        if let Some(headers) = headers {
            for (name, value) in self::headers(headers)?.iter() {
                core = core.with_header(name.to_string(), value.clone());
            }
        }
        Ok(core.into())
    }

    /// The event's body on the wire.
    fn to_json(&self) -> PyResult<String> {
        String::from_utf8(self.core.to_json().to_vec()).map_err(PyErr::from)
    }

    /// `<domain>.<event type>`
    #[getter]
    fn routing_key(&self) -> &str {
        self.core.routing_key()
    }

    /// The data: what was given or, on a received event, what its JSON says, parsed when first asked for.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(data) = self.data.get(py) {
            return Ok(data.bind(py).clone());
        }
        let parsed = from_json(py, self.core.data_json())?;
        Ok(self.data.get_or_init(py, || parsed.unbind()).bind(py).clone())
    }

    /// The data as the JSON text that travels.
    #[getter]
    fn data_json(&self) -> &str {
        self.core.data_json()
    }

    /// Identifier of the entity that the event is about.
    #[getter]
    fn domain_object_id(&self) -> Option<&str> {
        self.core.domain_object_id()
    }

    /// The event's id, under its name on the wire.
    #[getter]
    fn uuid_string(&self) -> &str {
        self.core.id()
    }

    /// The event's id.
    #[getter]
    fn id(&self) -> &str {
        self.core.id()
    }

    /// When it happened, in seconds since the Unix epoch.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.core.timestamp().as_secs_f64()
    }

    /// How often the subscription that got this event has tried it already: 0 on the first delivery.
    #[getter]
    fn retries(&self) -> u32 {
        self.core.retries()
    }

    /// Ordering key: `key`, else the `domain_object_id`.
    #[getter]
    fn key(&self) -> Option<&str> {
        self.core.key()
    }

    /// Tenant that the event belongs to.
    #[getter]
    fn tenant(&self) -> Option<&str> {
        self.core.tenant()
    }

    /// De-duplication key: the one that was given, else the id.
    #[getter]
    fn idempotency_key(&self) -> &str {
        self.core.idempotency_key()
    }

    /// The headers, as a new dict.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        header_dict(py, self.core.headers())
    }

    /// The five keys of the wire and their values, as a new dict.
    #[getter]
    fn event_data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("routing_key", self.routing_key())?;
        dict.set_item("data", self.data(py)?)?;
        dict.set_item("domain_object_id", self.domain_object_id())?;
        dict.set_item("uuid_string", self.id())?;
        dict.set_item("timestamp", self.timestamp())?;
        Ok(dict)
    }

    /// A copy that says that `cause` led to it: takes over its correlation id, trace and tenant.
    fn caused_by(&self, py: Python<'_>, cause: &Self) -> Self {
        Self { core: self.core.clone().caused_by(&cause.core), data: self.copied(py) }
    }

    /// A copy with one header set.
    fn with_header(&self, py: Python<'_>, name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let one = PyDict::new(py);
        one.set_item(name, value)?;
        let mut core = self.core.clone();
        for (name, value) in self::headers(&one)?.iter() {
            core = core.with_header(name.to_string(), value.clone());
        }
        Ok(Self { core, data: self.copied(py) })
    }

    /// The same event whose `data` is this object: what a model made of its JSON.
    fn _with_model(&self, data: Bound<'_, PyAny>) -> Self {
        Self::with_data(self.core.clone(), data)
    }

    fn __richcmp__(&self, py: Python<'_>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let wanted = match op {
            CompareOp::Eq => true,
            CompareOp::Ne => false,
            _ => return Ok(py.NotImplemented()),
        };
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let other = other.get();
        let same_data = self.core.data_json() == other.core.data_json()
            || from_json(py, self.core.data_json())?.eq(from_json(py, other.core.data_json())?)?;
        let equal = same_data
            && self.core.routing_key() == other.core.routing_key()
            && self.core.id() == other.core.id()
            && self.core.timestamp() == other.core.timestamp()
            && self.core.domain_object_id() == other.core.domain_object_id();
        Ok((equal == wanted).into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.core.id().hash(&mut hasher);
        hasher.finish()
    }

    /// Without data and headers: they may hold what must not be logged.
    fn __repr__(&self) -> String {
        let of = self.domain_object_id().map_or_else(String::new, |id| format!(", domain_object_id={id:?}"));
        format!("DomainEvent({:?}{of}, uuid_string={:?})", self.routing_key(), self.id())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let event = slf.get();
        let arguments = (event.to_json()?, event.headers(py)?).into_pyobject(py)?;
        Ok((slf.get_type().getattr("from_json")?, arguments))
    }
}

impl DomainEvent {
    fn copied(&self, py: Python<'_>) -> PyOnceLock<Py<PyAny>> {
        let copy = PyOnceLock::new();
        if let Some(data) = self.data.get(py) {
            copy.get_or_init(py, || data.clone_ref(py));
        }
        copy
    }
}
