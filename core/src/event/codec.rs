//! Version 1 of the wire format: a JSON object with five keys in a fixed order.
//!
//! `PyPI`'s `domain-event-broker` 3.0.2 writes and reads the same object. The payload stays bytes: `data` is checked to be
//! JSON but never built into a tree here.

use std::io::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DomainEvent, Headers, Payload, Timestamp};
use crate::routing::check_routing_key;
use crate::{Error, ErrorKind, Result};

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    routing_key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    domain_object_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    uuid_string: std::borrow::Cow<'a, str>,
    timestamp: Timestamp,
}

/// Bytes of a body beside its texts and data: keys, punctuation, and a timestamp of 17.
const FIXED: usize = 96;

/// Writes the event's body in golden form: keys in order, no white space around them, UTF-8 unescaped.
///
/// The bytes of `data` are written as they are.
pub fn encode(event: &DomainEvent) -> Payload {
    let texts = event.routing_key().len() + event.domain_object_id().map_or(0, str::len) + event.id().len();
    let mut body = Vec::with_capacity(FIXED + texts + event.data_bytes().len());
    body.extend_from_slice(b"{\"routing_key\":");
    string(&mut body, event.routing_key());
    body.extend_from_slice(b",\"data\":");
    body.extend_from_slice(event.data_bytes());
    body.extend_from_slice(b",\"domain_object_id\":");
    match event.domain_object_id() {
        Some(id) => string(&mut body, id),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(b",\"uuid_string\":");
    string(&mut body, event.id());
    // Writing into a vector cannot fail.
    let _infallible = write!(body, ",\"timestamp\":{}}}", event.timestamp());
    body.into()
}

fn string(body: &mut Vec<u8>, text: &str) {
    let _infallible = serde_json::to_writer(body, text);
}

/// Reads a body. Unknown keys are passed over; a missing key, a wrong type or invalid JSON is `INVALID_EVENT`.
///
/// `data` is a slice of `body`: nothing is copied.
///
/// The headers come back with the error: what cannot be read must be kept whole.
pub fn decode(body: &Payload, headers: Headers) -> Result<DomainEvent, (Error, Headers)> {
    match parse(body) {
        Ok(wire) => Ok(DomainEvent::from_parts(
            Arc::from(&*wire.routing_key),
            body.part(wire.data.get().as_bytes()),
            wire.domain_object_id.map(|id| Arc::from(&*id)),
            Arc::from(&*wire.uuid_string),
            wire.timestamp,
            headers,
        )),
        Err(error) => Err((error, headers)),
    }
}

fn parse(body: &[u8]) -> Result<Wire<'_>> {
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(|e| {
        Error::new(ErrorKind::InvalidEvent, format!("the body is not an event: {e}"))
            .field("body", format!("{} bytes", body.len()))
            .remedy("send a JSON object with routing_key, data, domain_object_id, uuid_string and timestamp")
    })?;
    check_routing_key(&wire.routing_key)?;
    super::id::check_id(&wire.uuid_string)?;
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_form() {
        let event = DomainEvent::new("user.registered", &serde_json::json!({"näme": "Zoë\n"}))
            .unwrap()
            .with_domain_object_id("7")
            .with_id("0198")
            .unwrap()
            .with_timestamp(Timestamp::from_micros(1_360_285_200_500_000));
        assert_eq!(
            encode(&event),
            r#"{"routing_key":"user.registered","data":{"näme":"Zoë\n"},"domain_object_id":"7","uuid_string":"0198","timestamp":1360285200.5}"#
        );
    }

    #[test]
    fn integers_beyond_two_to_the_53_stay_exact() {
        let event = DomainEvent::from_json("a.b", r#"{"n":123456789012345678901234567890}"#).unwrap();
        let back = decode(&encode(&event), Headers::new()).unwrap();
        assert_eq!(back.data_json(), r#"{"n":123456789012345678901234567890}"#);
    }

    #[test]
    fn refuses_what_is_not_an_event() {
        for body in [
            "",
            "nonsense",
            "[]",
            r#"{"routing_key":"a","data":NaN,"domain_object_id":null,"uuid_string":"x","timestamp":1.0}"#,
            r#"{"routing_key":"a","data":{},"domain_object_id":7,"uuid_string":"x","timestamp":1.0}"#,
            r#"{"routing_key":"","data":{},"domain_object_id":null,"uuid_string":"x","timestamp":1.0}"#,
            r#"{"routing_key":"a","data":{},"domain_object_id":null,"uuid_string":"","timestamp":1.0}"#,
            r#"{"routing_key":"a","data":{},"domain_object_id":null,"uuid_string":"x"}"#,
        ] {
            decode(&Payload::from_static(body.as_bytes()), Headers::new()).unwrap_err();
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..4).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(
            key in "[^.*#]{1,20}(\\.[^.*#]{1,20}){0,3}",
            data in json(),
            object in proptest::option::of(any::<String>()),
            id in "[^\0]{1,60}",
            micros in -4_000_000_000_000_000i64..4_000_000_000_000_000,
        ) {
            let mut event = DomainEvent::new(&key, &data).unwrap().with_id(&id).unwrap()
                .with_timestamp(Timestamp::from_micros(micros));
            if let Some(object) = object {
                event = event.with_domain_object_id(object);
            }
            let bytes = encode(&event);
            let back = decode(&bytes, Headers::new()).unwrap();
            prop_assert_eq!(&back, &event);
            prop_assert_eq!(encode(&back), bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any_answer_will_do = decode(&body.into(), Headers::new());
        }

        #[test]
        fn damaged_events_never_panic(cut in 0usize..200, at in 0usize..200, byte in any::<u8>()) {
            let mut body = encode(&DomainEvent::new("a.b", &serde_json::json!({"k": [1, "ü", null]})).unwrap()).to_vec();
            let length = body.len();
            body[at % length] = byte;
            body.truncate(cut);
            let _any_answer_will_do = decode(&body.into(), Headers::new());
        }
    }
}
