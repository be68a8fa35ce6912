//! Events as lines of JSON: what `subscribe --json` prints is what `publish --batch` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidings::{DomainEvent, Error, ErrorKind, HeaderValue, Result, Timestamp};

/// An event as a line of JSON.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    routing_key: &'a str,
    data: &'a RawValue,
    domain_object_id: Option<&'a str>,
    uuid_string: &'a str,
    timestamp: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<&'a str>,
    retries: u32,
}

impl<'a> Line<'a> {
    pub(crate) fn new(event: &'a DomainEvent, subscription: Option<&'a str>) -> Result<Self> {
        // Checked when it was decoded.
        let data = serde_json::from_str(event.data_json())
            .map_err(|e| Error::new(ErrorKind::Internal, "the event's data is not JSON").source(e))?;
        Ok(Self {
            routing_key: event.routing_key(),
            data,
            domain_object_id: event.domain_object_id(),
            uuid_string: event.id(),
            timestamp: event.timestamp().as_secs_f64(),
            headers: event.headers().iter().map(|(name, value)| (name, plain(value))).collect(),
            subscription,
            retries: event.retries(),
        })
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::Internal, "the event cannot be written").source(e))
    }
}

/// A header's value as JSON has it.
pub(crate) fn plain(value: &HeaderValue) -> serde_json::Value {
    use serde_json::Value;
    match value {
        HeaderValue::Bool(truth) => (*truth).into(),
        HeaderValue::Int(number) => (*number).into(),
        HeaderValue::Float(number) => (*number).into(),
        HeaderValue::Text(text) => text.as_ref().into(),
        HeaderValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        HeaderValue::Time(seconds) => (*seconds).into(),
        HeaderValue::List(list) => list.iter().map(plain).collect(),
        HeaderValue::Table(table) => {
            Value::Object(table.iter().map(|(name, value)| (name.to_owned(), plain(value))).collect())
        }
        _ => Value::Null,
    }
}

/// What a line of `publish --batch` may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    routing_key: String,
    #[serde(borrow)]
    data: &'a RawValue,
    domain_object_id: Option<String>,
    uuid_string: Option<String>,
    timestamp: Option<f64>,
    #[serde(default)]
    headers: BTreeMap<String, serde_json::Value>,
    /// Written by `subscribe --json`, and of no meaning to the next one.
    #[serde(default, rename = "subscription")]
    _subscription: Option<String>,
    #[serde(default, rename = "retries")]
    _retries: u32,
}

/// Reads a line of JSON.
pub(crate) fn read(line: &str) -> Result<DomainEvent> {
    let read: Read<'_> = serde_json::from_str(line).map_err(|e| {
        Error::new(ErrorKind::InvalidEvent, format!("the line is not an event: {e}"))
            .remedy("write {\"routing_key\": \"order.placed\", \"data\": {…}}, one event per line")
    })?;
    let mut event = DomainEvent::from_json(&read.routing_key, read.data.get())?;
    if let Some(id) = read.uuid_string {
        event = event.with_id(&id)?;
    }
    if let Some(id) = read.domain_object_id {
        event = event.with_domain_object_id(id);
    }
    if let Some(seconds) = read.timestamp {
        let time = Timestamp::from_secs_f64(seconds).ok_or_else(|| {
            Error::new(ErrorKind::InvalidEvent, "the timestamp is no number of seconds").field("timestamp", seconds)
        })?;
        event = event.with_timestamp(time);
    }
    for (name, value) in read.headers {
        let value = header(&value).ok_or_else(|| {
            Error::new(ErrorKind::InvalidHeader, "a header is text, a whole number, true or false")
                .field("headers", &name)
                .remedy("move nested values into the event's data")
        })?;
        event = event.with_header(name, value);
    }
    Ok(event)
}

fn header(value: &serde_json::Value) -> Option<HeaderValue> {
    match value {
        serde_json::Value::String(text) => Some(text.as_str().into()),
        serde_json::Value::Bool(truth) => Some((*truth).into()),
        serde_json::Value::Number(number) => number.as_i64().map(Into::into),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let event = DomainEvent::from_json("order.placed", r#"{"big": 12345678901234567890123, "a":1.0}"#)
            .unwrap()
            .with_domain_object_id("7")
            .with_header("n", 3i64)
            .with_key("k");
        let line = Line::new(&event, Some("billing")).unwrap().to_json().unwrap();
        let back = read(&line).unwrap();
        assert_eq!(back, event);
        assert_eq!(back.data_json(), event.data_json());
    }

    #[test]
    fn a_mistyped_key_is_refused() {
        let error = read(r#"{"routing_key":"a.b","data":1,"domain_objectid":"7"}"#).unwrap_err();
        assert!(error.to_string().contains("domain_objectid"), "{error}");
        assert!(read(r#"{"routing_key":"a.*","data":1}"#).is_err());
        assert!(read(r#"{"data":1}"#).is_err());
    }
}
