//! What is rendered for each dialect and style of parameters (`tests/vectors/outbox.json`), for adapters of all languages.
//!
//! The file says what was rendered for events that were written by hand; a change of it is a change that old relays and
//! adapters must live with. `TIDINGS_UPDATE=1` writes it.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::{Value as Json, json};
use tidings::outbox::{Dialect, OutboxEvent, OutboxWriter, ParamStyle, Tables, Value};
use tidings::{DomainEvent, Timestamp};

fn event(id: &str, data: &str) -> DomainEvent {
    let event = DomainEvent::from_json("order.placed", data).unwrap().with_id(id).unwrap();
    event.with_timestamp(Timestamp::from_micros(1_700_000_000_250_000))
}

fn batches() -> Vec<(&'static str, Vec<OutboxEvent>)> {
    let full = event("e-2", r#"{"näme":"Zoë\u0000","n":12345678901234567890}"#)
        .with_domain_object_id("7")
        .with_key("order-7")
        .with_tenant("t1")
        .with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_header("count", 3i64);
    let scheduled = OutboxEvent::new(event("e-4", "{}")).available_at(Timestamp::from_micros(1_800_000_000_000_000));
    vec![
        ("bare", vec![event("e-1", "{}").into()]),
        ("everything", vec![full.into()]),
        ("NUL in the id and a long key", vec![event("e\u{0}3", "null").with_key("ä".repeat(200)).into()]),
        ("a batch", vec![scheduled.exchange("elsewhere"), event("e-5", "[1]").with_key("k").into()]),
    ]
}

fn render() -> Json {
    let mut vectors = Vec::new();
    for (name, events) in batches() {
        for &dialect in Dialect::ALL {
            let plain = OutboxWriter::new(dialect);
            let all = OutboxWriter::new(dialect).tables(Tables::new("app.100% \"mine\": x").unwrap());
            let all = all.notify(true).serialize(true);
            let options = json!({"tables": "app.100% \"mine\": x", "notify": true, "serialize": true});
            for (options, writer) in [(json!({}), plain), (options, all)] {
                for &style in ParamStyle::ALL {
                    let statements: Vec<Json> = writer
                        .insert(style, &events)
                        .unwrap()
                        .iter()
                        .map(|statement| {
                            let params: Vec<Json> = statement.params.iter().map(param).collect();
                            json!({"sql": statement.sql, "params": params})
                        })
                        .collect();
                    vectors.push(json!({"name": name, "dialect": dialect.name(), "style": style.name(),
                        "options": options, "events": events.iter().map(input).collect::<Vec<_>>(), "statements": statements}));
                }
            }
        }
    }
    Json::Array(vectors)
}

/// Bytes are JSON text in all of these.
fn param(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(number) => json!({"int": number}),
        Value::Text(text) => json!({"text": text}),
        Value::Bytes(bytes) => json!({"bytes": std::str::from_utf8(bytes).unwrap()}),
        _ => unreachable!("the writer renders scalars"),
    }
}

fn input(event: &OutboxEvent) -> Json {
    let body = event.event().to_json();
    let headers: serde_json::Map<_, _> =
        event.event().headers().iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    json!({"body": std::str::from_utf8(&body).unwrap(), "headers": headers,
        "exchange": event.exchange_name(), "available_at_micros": event.available().map(Timestamp::as_micros)})
}

#[test]
fn rendered_statements() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/outbox.json");
    let rendered = render();
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&rendered).unwrap() + "\n").unwrap();
    }
    let stored: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (Json::Array(rendered), Json::Array(stored)) = (rendered, stored) else { unreachable!("both are lists") };
    assert_eq!(rendered.len(), stored.len());
    for (rendered, stored) in rendered.iter().zip(&stored) {
        assert_eq!(rendered, stored, "adapters of other versions render this differently");
    }
}
