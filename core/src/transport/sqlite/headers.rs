//! Headers in a column: JSON, so that whoever looks into the file can read them.

use crate::event::{HeaderValue, Headers};
use crate::{Error, ErrorKind, Result};

/// The JSON of headers; `None` if there are none.
pub(super) fn encode(headers: &Headers) -> Result<Option<String>> {
    if headers.is_empty() {
        return Ok(None);
    }
    let not_json = headers.iter().any(|(_, value)| !is_json(value));
    let text = if not_json {
        serde_json::to_string(&headers.iter().map(|(name, value)| (name, as_json(value))).collect::<Vec<_>>())
    } else {
        serde_json::to_string(headers)
    };
    text.map(Some).map_err(|e| {
        Error::new(ErrorKind::InvalidHeader, "a header cannot be stored").remedy("use text, numbers or bytes").source(e)
    })
}

/// The headers of a column. What is not readable is left out: an event must not be stuck for it.
pub(super) fn decode(text: Option<&str>) -> Headers {
    text.map_or_else(Headers::new, |text| {
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::error!(%error, "the stored headers of an event are not readable and were left out");
            Headers::new()
        })
    })
}

fn is_json(value: &HeaderValue) -> bool {
    match value {
        HeaderValue::Float(number) => number.is_finite(),
        HeaderValue::List(list) => list.iter().all(is_json),
        HeaderValue::Table(table) => table.iter().all(|(_, value)| is_json(value)),
        _ => true,
    }
}

/// JSON has no infinities and no NaN: they are kept as text.
fn as_json(value: &HeaderValue) -> HeaderValue {
    match value {
        HeaderValue::Float(number) if !number.is_finite() => HeaderValue::from(number.to_string()),
        HeaderValue::List(list) => HeaderValue::List(list.iter().map(as_json).collect()),
        HeaderValue::Table(table) => {
            HeaderValue::Table(table.iter().map(|(name, value)| (name, as_json(value))).collect())
        }
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_survives() {
        let mut table = Headers::new();
        table.set("t", HeaderValue::Time(7));
        let mut headers = Headers::new();
        headers.set("null", HeaderValue::Null);
        headers.set("bool", true);
        headers.set("int", i64::MIN);
        headers.set("float", HeaderValue::Float(0.1));
        headers.set("text", "ü\"");
        headers.set("bytes", HeaderValue::Bytes(vec![0, 255]));
        headers.set("list", HeaderValue::List(vec![HeaderValue::Table(table)]));
        assert_eq!(decode(encode(&headers).unwrap().as_deref()), headers);
        assert_eq!(encode(&Headers::new()).unwrap(), None);
    }

    #[test]
    fn what_json_lacks_is_kept_as_text() {
        let mut headers = Headers::new();
        headers.set("x", HeaderValue::List(vec![HeaderValue::Float(f64::NAN)]));
        let HeaderValue::List(list) = decode(encode(&headers).unwrap().as_deref()).remove("x").unwrap() else {
            panic!()
        };
        assert_eq!(list, [HeaderValue::from("NaN")]);
        assert!(decode(Some("{")).is_empty());
    }
}
