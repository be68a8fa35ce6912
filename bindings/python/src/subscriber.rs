//! What a subscription asks for, as Python says it.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidings::{KeyOrder, OnDead, OnRetry, QueueType, SubscriptionOptions};

use crate::convert::duration;
use crate::error::OrRaise as _;
use crate::policy::RetryPolicy;

/// Reads settings by the names that `tidings.Subscriber.register` documents; `None` means the default.
pub(crate) fn options(
    name: &str,
    binding_keys: Vec<String>,
    settings: &Bound<'_, PyDict>,
) -> PyResult<SubscriptionOptions> {
    let mut options = SubscriptionOptions::new(name);
    options.spec.binding_keys = binding_keys;
    apply(&mut options, settings)?;
    Ok(options)
}

/// Changes what the settings say.
pub(crate) fn apply(options: &mut SubscriptionOptions, settings: &Bound<'_, PyDict>) -> PyResult<()> {
    for (setting, value) in settings.iter() {
        let setting: String = setting.extract()?;
        if value.is_none() {
            continue;
        }
        set(options, &setting, &value).map_err(|error| {
            // An overflow or a wrong type names no argument by itself.
            let py = settings.py();
            if error.get_type(py).module().is_ok_and(|module| module == "builtins") {
                PyTypeError::new_err(format!("{setting}: {}", error.value(py)))
            } else {
                error
            }
        })?;
    }
    Ok(())
}

/// Raises what is wrong with a subscription that can be told without a broker. How many events it fetches ahead.
#[pyfunction]
pub(crate) fn check_subscription(
    py: Python<'_>,
    name: &str,
    binding_keys: Vec<String>,
    settings: &Bound<'_, PyDict>,
) -> PyResult<u16> {
    let options = options(name, binding_keys, settings)?;
    options.check().or_raise(py)?;
    Ok(options.effective_prefetch())
}

fn set(options: &mut SubscriptionOptions, setting: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let spec = &mut options.spec;
    match setting {
        "exchange" => spec.exchange = value.extract()?,
        "max_retries" => options.max_retries = Some(value.extract()?),
        "retry" => options.retry = Some(value.cast::<RetryPolicy>().map_err(PyErr::from)?.get().core.clone()),
        "concurrency" => options.concurrency = value.extract()?,
        "prefetch" => options.prefetch = Some(value.extract()?),
        "ordered" => {
            if value.extract()? {
                spec.ordered.get_or_insert_default();
            }
        }
        "on_retry" => {
            let on_retry = one_of(value, &[("wait", OnRetry::Wait), ("pass", OnRetry::Pass)])?;
            spec.ordered.get_or_insert_with(KeyOrder::default).on_retry = on_retry;
        }
        "on_dead" => {
            let on_dead = one_of(value, &[("park", OnDead::Park), ("skip", OnDead::Skip)])?;
            spec.ordered.get_or_insert_with(KeyOrder::default).on_dead = on_dead;
        }
        "timeout" => options.timeout = Some(duration("timeout", value)?),
        "dead_letter" => spec.dead_letter = value.extract()?,
        "queue_type" => {
            spec.queue_type = one_of(value, &[("quorum", QueueType::Quorum), ("classic", QueueType::Classic)])?;
        }
        "compat" => spec.compat = value.extract()?,
        "durable" => spec.durable = value.extract()?,
        "exclusive" => spec.exclusive = value.extract()?,
        "auto_delete" => spec.auto_delete = value.extract()?,
        "lease" => spec.lease = duration("lease", value)?,
        "hold_max" => spec.hold_max = duration("hold_max", value)?,
        "max_parked" => spec.max_parked = value.extract()?,
        "partitions" => spec.partitions = value.extract()?,
        "max_hold" => spec.max_hold = duration("max_hold", value)?,
        "max_deliveries" => options.max_deliveries = value.extract()?,
        "capture_stack" => options.capture_stack = value.extract()?,
        "redact" => options.redact = Some(redact(value.clone().unbind())),
        _ => return Err(PyTypeError::new_err("there is no such setting")),
    }
    Ok(())
}

fn one_of<T: Copy>(value: &Bound<'_, PyAny>, choices: &[(&str, T)]) -> PyResult<T> {
    let given: String = value.extract()?;
    choices.iter().find(|(name, _)| *name == given).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        PyValueError::new_err(format!("{given:?} is not one of {}", names.join(", ")))
    })
}

/// A hook that fails keeps the text back: it may hold what must not be kept.
fn redact(hook: Py<PyAny>) -> Arc<dyn Fn(&str) -> String + Send + Sync> {
    const WITHHELD: &str = "[the redact hook failed]";
    Arc::new(move |text| {
        let redacted = Python::try_attach(|py| {
            hook.call1(py, (text,)).and_then(|clean| clean.extract::<String>(py)).unwrap_or_else(|error| {
                error.write_unraisable(py, Some(hook.bind(py)));
                WITHHELD.to_owned()
            })
        });
        redacted.unwrap_or_else(|| WITHHELD.to_owned())
    })
}
