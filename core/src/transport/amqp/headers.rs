//! Headers and properties: between the event's and AMQP's.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};

use crate::event::{HeaderValue, Headers, Timestamp, name};
use crate::{Error, ErrorKind, Result};

/// Media type that is written where the headers name none, and that no header repeats on receipt.
pub(super) const JSON: &str = "application/json";

/// Levels of lists and tables that are carried. What is nested deeper is read as [`TOO_DEEP`], and refused on publish.
const MAX_DEPTH: usize = 16;
/// What stands for a value below [`MAX_DEPTH`].
const TOO_DEEP: &str = "[nested too deeply]";

/// Written by the broker to say why it moved a message.
const DEATHS: &str = "x-death";
/// Written by quorum queues: deliveries that ended without an ack.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// What the broker wrote into the headers of a delivery, apart from the event's own.
#[derive(Debug, Default)]
pub(super) struct BrokerNotes {
    /// Earlier deliveries as quorum queues count them.
    pub(super) delivery_count: Option<u32>,
    /// Runs through delay queues of `domain-event-broker`.
    pub(super) upstream_retries: u32,
    /// Why the broker dead-lettered it last.
    pub(super) death_reason: Option<String>,
}

/// A short string; names and keys beyond 255 bytes are refused, where lapin's `From` would panic.
pub(super) fn short(text: &str, field: &'static str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| {
        let kind = if field == "routing_key" { ErrorKind::InvalidRoutingKey } else { ErrorKind::InvalidEvent };
        Error::new(kind, format!("AMQP carries at most 255 bytes here, these are {}", text.len()))
            .field(field, text)
            .remedy("shorten it")
    })
}

/// A short string made of a constant or a checked name.
pub(super) fn name_of(text: impl Into<String>) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

/// Whether the broker writes this header itself, or acts on it: `x-death` and `x-delivery-count` of a publisher are
/// delivered as if they were real, `CC` and `BCC` are further routing keys.
fn is_brokers(name: &str) -> bool {
    name.starts_with("x-") || name == "CC" || name == "BCC"
}

/// Writes headers as AMQP has them, without those that are the broker's.
pub(super) fn to_table(headers: &Headers) -> Result<FieldTable> {
    let mut table = FieldTable::default();
    for (name, value) in headers.iter().filter(|(name, _)| !is_brokers(name)) {
        table.insert(header_name(name)?, to_value(value, MAX_DEPTH)?);
    }
    Ok(table)
}

fn header_name(name: &str) -> Result<ShortString> {
    ShortString::try_new(name).map_err(|_| {
        Error::new(ErrorKind::InvalidHeader, format!("a header's name has {} bytes", name.len()))
            .field("headers", name)
            .remedy("use 1 to 255 bytes")
    })
}

fn to_value(value: &HeaderValue, depth: usize) -> Result<AMQPValue> {
    let inner = || {
        depth.checked_sub(1).ok_or_else(|| {
            Error::new(ErrorKind::InvalidHeader, format!("a header's value has more than {MAX_DEPTH} levels"))
                .field("headers", "lists and tables")
                .remedy("move deep values into the event's data")
        })
    };
    Ok(match value {
        HeaderValue::Null => AMQPValue::Void,
        HeaderValue::Bool(truth) => AMQPValue::Boolean(*truth),
        HeaderValue::Int(number) => int(*number),
        HeaderValue::Float(number) => AMQPValue::Double(*number),
        HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        HeaderValue::Bytes(bytes) => AMQPValue::ByteArray(ByteArray::from(bytes.clone())),
        HeaderValue::Time(seconds) => AMQPValue::Timestamp(*seconds),
        HeaderValue::List(list) => {
            let depth = inner()?;
            let list = list.iter().map(|value| to_value(value, depth)).collect::<Result<Vec<_>>>()?;
            AMQPValue::FieldArray(FieldArray::from(list))
        }
        HeaderValue::Table(values) => {
            let depth = inner()?;
            let mut table = FieldTable::default();
            for (name, value) in values.iter() {
                table.insert(header_name(name)?, to_value(value, depth)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

/// The smallest of the two integer types that every AMQP client reads.
pub(super) fn int(number: i64) -> AMQPValue {
    i32::try_from(number).map_or(AMQPValue::LongLongInt(number), AMQPValue::LongInt)
}

pub(super) fn text(text: impl AsRef<str>) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.as_ref().as_bytes()))
}

/// Reads a delivery's headers. The broker's own (`x-*`, whoever wrote them), those that route (`CC`) and those that only
/// steered a delay are left out; what they say is in the notes.
pub(super) fn from_table(table: &FieldTable, subscription: &str) -> (Headers, BrokerNotes) {
    let mut headers = Headers::new();
    let mut notes = BrokerNotes::default();
    for (name, value) in table {
        let name = name.as_str();
        if is_brokers(name) {
            match name {
                DELIVERY_COUNT => notes.delivery_count = integer(value).and_then(|n| u32::try_from(n).ok()),
                DEATHS => read_deaths(value, subscription, &mut notes),
                _ => {}
            }
        } else if name != name::TO && name != name::ROUTING_KEY && !name.starts_with(name::DELAY_PREFIX) {
            headers.set(name, from_value(value, MAX_DEPTH));
        }
    }
    if notes.upstream_retries > 0 && headers.get(name::ATTEMPT).is_none() {
        headers.set(name::ATTEMPT, notes.upstream_retries);
    }
    (headers, notes)
}

fn read_deaths(value: &AMQPValue, subscription: &str, notes: &mut BrokerNotes) {
    let AMQPValue::FieldArray(deaths) = value else { return };
    for (at, death) in deaths.as_slice().iter().enumerate() {
        let AMQPValue::FieldTable(death) = death else { continue };
        let field = |name: &str| death.inner().get(name);
        if at == 0 {
            notes.death_reason = field("reason").and_then(string);
        }
        let delayed = field("queue").and_then(string).is_some_and(|queue| is_delay_queue_of(&queue, subscription));
        if delayed {
            // Servers before 3.5 wrote one entry per death and no count.
            let count = field("count").and_then(integer).unwrap_or(1);
            notes.upstream_retries = notes.upstream_retries.saturating_add(u32::try_from(count).unwrap_or(0));
        }
    }
}

fn is_delay_queue_of(queue: &str, subscription: &str) -> bool {
    queue.strip_prefix(subscription).is_some_and(|rest| rest.starts_with("-delay-"))
}

fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match from_value(value, 0) {
        HeaderValue::Int(number) => Some(number),
        _ => None,
    }
}

fn from_value(value: &AMQPValue, depth: usize) -> HeaderValue {
    match value {
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => HeaderValue::Text(TOO_DEEP.into()),
        AMQPValue::Boolean(truth) => HeaderValue::Bool(*truth),
        AMQPValue::ShortShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongLongInt(n) => HeaderValue::Int(*n),
        AMQPValue::Float(n) => HeaderValue::Float((*n).into()),
        AMQPValue::Double(n) => HeaderValue::Float(*n),
        AMQPValue::DecimalValue(n) => HeaderValue::Float(f64::from(n.value) / 10f64.powi(n.scale.into())),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().into()),
        AMQPValue::LongString(bytes) => match std::str::from_utf8(bytes.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.into()),
            Err(_) => HeaderValue::Bytes(bytes.as_bytes().to_vec()),
        },
        AMQPValue::FieldArray(list) => {
            HeaderValue::List(list.as_slice().iter().map(|value| from_value(value, depth - 1)).collect())
        }
        AMQPValue::Timestamp(seconds) => HeaderValue::Time(*seconds),
        AMQPValue::FieldTable(table) => HeaderValue::Table(table_as_is(table, depth - 1)),
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::Void => HeaderValue::Null,
    }
}

fn table_as_is(table: &FieldTable, depth: usize) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in table {
        headers.set(name.as_str(), from_value(value, depth));
    }
    headers
}

/// Properties of an event on its way out: `extra` holds what a foreign publisher had set beyond ours.
pub(super) fn properties(
    id: &str,
    timestamp: Timestamp,
    headers: &Headers,
    steering: Option<&FieldTable>,
    extra: Option<&BasicProperties>,
) -> Result<BasicProperties> {
    let mut properties = extra.map(own_of).unwrap_or_default().with_delivery_mode(2);
    if !id.is_empty() {
        properties = properties.with_message_id(short(id, "uuid_string")?);
    }
    if let Ok(seconds) = u64::try_from(timestamp.as_micros().div_euclid(1_000_000))
        && timestamp != Timestamp::EPOCH
    {
        properties = properties.with_timestamp(seconds);
    }
    let content_type = headers.text(name::CONTENT_TYPE).unwrap_or(JSON);
    properties = properties.with_content_type(short(content_type, "content-type")?);
    if !headers.is_empty() || steering.is_some() {
        let mut table = to_table(headers)?;
        for (name, value) in steering.into_iter().flatten() {
            table.insert(name.clone(), value.clone());
        }
        properties = properties.with_headers(table);
    }
    Ok(properties)
}

/// The part of a foreign event's properties that is passed on: all but what the broker checks or acts on
/// (`user_id` is refused from another user for ever, `expiration` fires early).
fn own_of(foreign: &BasicProperties) -> BasicProperties {
    let mut own = BasicProperties::default();
    macro_rules! keep {
        ($($get:ident => $set:ident),*) => {
            $(if let Some(value) = foreign.$get() { own = own.$set(value.clone()); })*
        };
    }
    keep!(content_encoding => with_content_encoding, correlation_id => with_correlation_id, reply_to => with_reply_to,
        kind => with_type, app_id => with_app_id, priority => with_priority);
    own
}

/// Whether a delivery has properties that the event itself has no place for.
pub(super) fn has_extra(properties: &BasicProperties) -> bool {
    properties.content_encoding().is_some()
        || properties.correlation_id().is_some()
        || properties.reply_to().is_some()
        || properties.kind().is_some()
        || properties.app_id().is_some()
        || properties.priority().is_some()
}

/// The event's time as the properties have it: whole seconds, or the epoch where they have none.
pub(super) fn timestamp(properties: &BasicProperties) -> Timestamp {
    let seconds = properties.timestamp().unwrap_or_default();
    Timestamp::from_micros(i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000))
}

/// The event's headers with the content type among them where it is not JSON.
pub(super) fn incoming(properties: &BasicProperties, subscription: &str) -> (Headers, BrokerNotes) {
    let (mut headers, notes) =
        properties.headers().as_ref().map(|table| from_table(table, subscription)).unwrap_or_default();
    if let Some(content_type) = properties.content_type().as_ref().map(ShortString::as_str)
        && content_type != JSON
        && !content_type.is_empty()
    {
        headers.set(name::CONTENT_TYPE, Arc::<str>::from(content_type));
    }
    (headers, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_way_there_and_back() {
        let nested: Headers = [("a", 1i64)].into_iter().collect();
        let mut headers = Headers::new();
        headers.set("text", "häder");
        headers.set("small", 7i64);
        headers.set("large", i64::MIN);
        headers.set("float", HeaderValue::Float(0.25));
        headers.set("bytes", HeaderValue::Bytes(vec![0xff, 0]));
        headers.set("time", HeaderValue::Time(1_360_285_200));
        headers.set("list", HeaderValue::List(vec![HeaderValue::Null, HeaderValue::Bool(true)]));
        headers.set("table", HeaderValue::Table(nested));
        let (back, _) = from_table(&to_table(&headers).unwrap(), "billing");
        for (name, value) in headers.iter() {
            assert_eq!(back.get(name), Some(value), "{name}");
        }
        assert_eq!(back.len(), headers.len());
    }

    #[test]
    fn what_is_the_brokers_neither_comes_nor_goes() {
        let mut table = FieldTable::default();
        for name in ["x-delivery-count", "x-foreign", "CC", "BCC", "kept"] {
            table.insert(name.into(), text("1"));
        }
        let (headers, _) = from_table(&table, "billing");
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["kept"]);
        let mut headers = Headers::new();
        for name in ["x-delivery-count", "x-death", "CC", "BCC", "cc", "kept"] {
            headers.set(name, 25i64);
        }
        let sent = to_table(&headers).unwrap();
        assert_eq!(sent.into_iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cc", "kept"]);
    }

    #[test]
    fn deep_values_are_cut_on_receipt_and_refused_on_publish() {
        let mut deep = AMQPValue::LongInt(1);
        for n in 0..200 {
            deep = if n % 2 == 0 {
                AMQPValue::FieldArray(FieldArray::from(vec![deep]))
            } else {
                AMQPValue::FieldTable(arguments_of("in", deep))
            };
        }
        let (headers, _) = from_table(&arguments_of("deep", deep), "billing");
        let mut levels = 0;
        let mut value = headers.get("deep").unwrap();
        loop {
            value = match value {
                HeaderValue::List(list) => &list[0],
                HeaderValue::Table(table) => table.get("in").unwrap(),
                value => break assert_eq!(value.as_str(), Some(TOO_DEEP)),
            };
            levels += 1;
        }
        assert_eq!(levels, MAX_DEPTH);
        // What came in can go out again; one level more cannot.
        assert!(to_table(&headers).is_ok());
        let deeper: Headers =
            [("deep", HeaderValue::List(vec![headers.get("deep").unwrap().clone()]))].into_iter().collect();
        assert_eq!(to_table(&deeper).unwrap_err().code(), "INVALID_HEADER");
    }

    fn arguments_of(name: &str, value: AMQPValue) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        table
    }

    fn death(queue: &str, count: i64, reason: &str) -> AMQPValue {
        let mut death = FieldTable::default();
        death.insert("queue".into(), text(queue));
        death.insert("count".into(), AMQPValue::LongLongInt(count));
        death.insert("reason".into(), text(reason));
        AMQPValue::FieldTable(death)
    }

    #[test]
    fn retries_of_the_peer_are_summed_over_its_delay_queues() {
        let mut table = FieldTable::default();
        let deaths = vec![
            death("billing-delay-5000", 2, "expired"),
            death("billing-delay-1000", 1, "expired"),
            death("billing", 9, "rejected"),
            death("other-delay-1", 9, "expired"),
        ];
        table.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(deaths)));
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(4));
        table.insert("tidings-to".into(), text("queue:billing"));
        table.insert("tidings-delay-3".into(), int(1));
        let (headers, notes) = from_table(&table, "billing");
        assert_eq!(headers.int(name::ATTEMPT), Some(3));
        assert_eq!((headers.len(), notes.delivery_count), (1, Some(4)));
        assert_eq!(notes.death_reason.as_deref(), Some("expired"));

        table.insert(name::ATTEMPT.into(), int(7));
        assert_eq!(from_table(&table, "billing").0.int(name::ATTEMPT), Some(7));
    }

    #[test]
    fn what_the_broker_acts_on_is_not_passed_on() {
        let foreign = BasicProperties::default()
            .with_user_id("someone".into())
            .with_expiration("10".into())
            .with_app_id("shop".into());
        let properties = properties("1", Timestamp::EPOCH, &Headers::new(), None, Some(&foreign)).unwrap();
        assert!(
            properties.user_id().is_none() && properties.expiration().is_none() && properties.timestamp().is_none()
        );
        assert_eq!(properties.app_id().as_ref().map(ShortString::as_str), Some("shop"));
        assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some(JSON));
    }
}
