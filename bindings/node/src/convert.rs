//! Values between JavaScript and the core.

use std::time::Duration;

use napi::bindgen_prelude::{Env, Null, Object, Uint8Array};
use serde_json::{Map, Value};
use tidings::{Error, ErrorKind, HeaderValue, Headers, Result, RetryPolicy, Timestamp};

use crate::subscriber::Policy;

/// Milliseconds as JavaScript has them.
pub(crate) fn duration(field: &'static str, millis: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(millis / 1e3).map_err(|_| {
        Error::new(ErrorKind::InvalidOption, "this is not a length of time")
            .field(field, format!("{millis} ms"))
            .remedy("use a number of at least 0 (milliseconds)")
    })
}

/// Seconds since the Unix epoch.
pub(crate) fn timestamp(field: &'static str, seconds: f64) -> Result<Timestamp> {
    Timestamp::from_secs_f64(seconds).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOption, "this is not a point in time")
            .field(field, seconds)
            .remedy("use a valid Date")
    })
}

/// A whole number in range, or an error that names the field.
pub(crate) fn whole<T: TryFrom<u32>>(field: &'static str, number: u32) -> Result<T> {
    T::try_from(number).map_err(|_| {
        Error::new(ErrorKind::InvalidOption, "the number is too large").field(field, number).remedy("use at most 65535")
    })
}

/// Headers as a plain object.
pub(crate) fn header_table<'env>(env: &'env Env, headers: &Headers) -> napi::Result<Object<'env>> {
    let mut table = Object::new(env)?;
    for (name, value) in headers.iter() {
        match value {
            HeaderValue::Text(text) => table.set(name, &**text)?,
            HeaderValue::Bool(truth) => table.set(name, *truth)?,
            HeaderValue::Int(number) => table.set(name, *number)?,
            HeaderValue::Float(number) => table.set(name, *number)?,
            #[allow(clippy::cast_precision_loss, reason = "seconds: exact for 285 million years")]
            HeaderValue::Time(seconds) => table.set(name, env.create_date(*seconds as f64 * 1e3)?)?,
            HeaderValue::Bytes(bytes) => table.set(name, Uint8Array::from(bytes.clone()))?,
            HeaderValue::Table(inner) => table.set(name, header_table(env, inner)?)?,
            HeaderValue::List(list) => {
                // As the one value of a table of its own, so that there is one conversion.
                let mut array = env.create_array(0)?;
                for item in list {
                    let mut one = Headers::new();
                    one.set("v", item.clone());
                    let value = header_table(env, &one)?.get::<napi::Unknown<'_>>("v")?;
                    array.insert(value)?;
                }
                table.set(name, array)?;
            }
            _ => table.set(name, Null)?,
        }
    }
    Ok(table)
}

/// Headers from a JSON object.
pub(crate) fn headers(table: Map<String, Value>) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in table {
        headers.set(name, header_value(value));
    }
    headers
}

fn header_value(value: Value) -> HeaderValue {
    match value {
        Value::Null => HeaderValue::Null,
        Value::Bool(truth) => HeaderValue::Bool(truth),
        Value::String(text) => HeaderValue::Text(text.into()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => HeaderValue::Int(whole),
            (None, float) => HeaderValue::Float(float.unwrap_or_default()),
        },
        Value::Array(list) => HeaderValue::List(list.into_iter().map(header_value).collect()),
        Value::Object(table) => HeaderValue::Table(headers(table)),
    }
}

/// A header as JSON, for what is handed over as text.
pub(crate) fn header_json(value: &HeaderValue) -> Value {
    match value {
        HeaderValue::Bool(truth) => (*truth).into(),
        HeaderValue::Int(number) => (*number).into(),
        HeaderValue::Float(number) => (*number).into(),
        HeaderValue::Text(text) => (&**text).into(),
        HeaderValue::Time(seconds) => (*seconds).into(),
        HeaderValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        HeaderValue::List(list) => list.iter().map(header_json).collect(),
        HeaderValue::Table(table) => headers_json(table),
        _ => Value::Null,
    }
}

/// Headers as a JSON object.
pub(crate) fn headers_json(headers: &Headers) -> Value {
    headers.iter().map(|(name, value)| (name.to_owned(), header_json(value))).collect()
}

/// A retry policy; what makes no sense in it is refused by the core.
pub(crate) fn policy(from: Policy) -> Result<RetryPolicy> {
    let initial = duration("initialMs", from.initial_ms)?;
    let mut policy = match from.factor {
        None => RetryPolicy::fixed(from.max_retries, initial),
        Some(factor) => {
            let max = from.max_ms.map_or(Ok(Duration::MAX), |millis| duration("maxMs", millis))?;
            RetryPolicy::exponential(from.max_retries, initial, factor, max)
        }
    };
    if let Some(jitter) = from.jitter {
        policy = policy.jitter(jitter);
    }
    for error_type in from.retry_on.unwrap_or_default() {
        policy = policy.retry_on(error_type);
    }
    for error_type in from.give_up_on.unwrap_or_default() {
        policy = policy.give_up_on(error_type);
    }
    if let Some(millis) = from.max_age_ms {
        policy = policy.max_age(duration("maxAgeMs", millis)?);
    }
    Ok(policy)
}
