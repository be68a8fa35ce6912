//! Writing events in the caller's transaction: statements and parameters, and nothing that touches a connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::statement::Sql;
use super::{Dialect, ParamStyle, Statement, Tables, Value};
use crate::event::{Headers, name};
use crate::outbox::OutboxEvent;
use crate::routing::check_exchange_name;
use crate::{DomainEvent, Error, ErrorKind, Result};

/// Parts that the keys are divided into. Part of the schema: never another number.
pub(crate) const PARTS: u16 = 256;
/// Longest key or tenant that a column holds as it is, in bytes.
const MAX_COLUMN: usize = 255;
/// Parameters of one row, and most of them in one statement: SQLite takes 32,766, PostgreSQL 65,535.
const ROW: usize = 10;
const MAX_ROWS: usize = 3000;
/// Bytes of bodies and headers in one statement.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// As hexadecimal digits, which drivers make of them, still below the packet that a MariaDB server takes by default.
const MAX_BYTES_MYSQL: usize = 6 * 1024 * 1024;

/// Adds headers to an event that is being written: the trace that the writer is in.
type Context = Arc<dyn Fn(&mut Headers) + Send + Sync>;

/// Renders what writes events into an outbox, in the caller's own transaction and on the caller's own connection.
///
/// ```
/// use tidings::outbox::{Dialect, OutboxWriter, ParamStyle};
/// use tidings::DomainEvent;
///
/// let writer = OutboxWriter::new(Dialect::Postgres);
/// let event = DomainEvent::new("order.placed", &serde_json::json!({"order": 7}))?.with_domain_object_id("7");
/// for statement in writer.insert(ParamStyle::Dollar, &[event.into()])? {
///     // run statement.sql with statement.params in your transaction
///     assert!(statement.sql.starts_with(r#"INSERT INTO "tidings_outbox""#));
/// }
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct OutboxWriter {
    dialect: Dialect,
    tables: Tables,
    notify: bool,
    serialize: bool,
    max_payload: usize,
    context: Option<Context>,
}

impl OutboxWriter {
    /// A writer into the default tables.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            tables: Tables::default(),
            notify: false,
            serialize: false,
            max_payload: 1024 * 1024,
            context: None,
        }
    }

    /// Writes into these tables.
    pub fn tables(mut self, tables: Tables) -> Self {
        self.tables = tables;
        self
    }

    /// PostgreSQL: wakes relays when the transaction commits, instead of at their next look. NOTIFY takes a lock of the
    /// whole server at commit, so it is not for thousands of transactions per second.
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Keeps the order of transactions that overlap: the second writer of a key waits until the first has committed.
    ///
    /// PostgreSQL: advisory locks of the transaction. MySQL: rows of a table of 256, so that unrelated keys may wait for
    /// each other. SQLite has one writer at a time anyway. Write in the same order of keys everywhere, or in one call,
    /// else the database ends one of two transactions that wait for each other.
    pub fn serialize(mut self, serialize: bool) -> Self {
        self.serialize = serialize;
        self
    }

    /// Largest body in bytes (default 1 MiB). What no relay could publish must not be written.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Called for each event that is written, to add the writer's trace context to its headers.
    pub fn context(mut self, context: impl Fn(&mut Headers) + Send + Sync + 'static) -> Self {
        self.context = Some(Arc::new(context));
        self
    }

    /// The dialect that is written.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The statements that write `events`, to be run in this order in one transaction of the caller's.
    ///
    /// One statement for up to 3,000 events and 8 MiB (MySQL: 6), in front of it one that locks where `serialize` asks for it. No
    /// events, no statements. An event is checked as it would be before it is published.
    ///
    /// Errors: `INVALID_HEADER`, `HEADERS_TOO_LARGE`, `PAYLOAD_TOO_LARGE`, `INVALID_NAME` (exchange).
    pub fn insert(&self, style: ParamStyle, events: &[OutboxEvent]) -> Result<Vec<Statement>> {
        let rows: Vec<Row> = events.iter().map(|event| self.row(event)).collect::<Result<_>>()?;
        let mut statements: Vec<Statement> = self.lock(style, &rows).into_iter().collect();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            statements.push(self.statement(style, &mut rows));
        }
        Ok(statements)
    }

    fn row(&self, event: &OutboxEvent) -> Result<Row> {
        let mut written = event.event.clone();
        if let Some(context) = &self.context {
            context(written.headers_mut());
        }
        written.headers().check()?;
        if let Some(key) = written.headers().get(name::KEY).filter(|key| key.as_str().is_none()) {
            return Err(Error::new(ErrorKind::InvalidHeader, "the ordering key is not text")
                .field(name::KEY, format!("{key:?}"))
                .remedy("set it with with_key"));
        }
        if let Some(exchange) = &event.exchange {
            check_exchange_name(exchange)?;
        }
        let body = written.to_json();
        if body.len() > self.max_payload {
            let message = format!("the body has {} bytes, max_payload is {}", body.len(), self.max_payload);
            return Err(Error::new(ErrorKind::PayloadTooLarge, message).field("data", written.routing_key()).remedy(
                "raise max_payload here and at the relay, or keep the document elsewhere and publish its address",
            ));
        }
        let headers = if written.headers().is_empty() { None } else { Some(json(written.headers())?) };
        Ok(Row {
            part: part(&written),
            exchange: event.exchange.clone(),
            available_at: event.available_at.map(crate::Timestamp::as_micros),
            headers,
            body: body.into(),
            event: written,
        })
    }

    fn lock(&self, style: ParamStyle, rows: &[Row]) -> Option<Statement> {
        if !self.serialize {
            return None;
        }
        let keys = rows.iter().filter_map(|row| row.event.key());
        let mut sql = Sql::styled(self.dialect, style);
        // In the same order in every transaction, so that two of them do not wait for each other.
        match self.dialect {
            Dialect::Postgres => {
                let salt = hash(self.tables.name().as_bytes());
                let locks: BTreeSet<i64> = keys.map(|key| (salt ^ hash(key.as_bytes())).cast_signed()).collect();
                let (first, rest) = {
                    let mut all = locks.into_iter();
                    (all.next()?, all)
                };
                sql.push("SELECT pg_advisory_xact_lock(k) FROM (VALUES (CAST(");
                sql.push_value(first);
                sql.push(" AS bigint))");
                for lock in rest {
                    sql.push(", (");
                    sql.push_value(lock);
                    sql.push(")");
                }
                sql.push(") AS keys (k)");
            }
            Dialect::MySql => {
                let slots: BTreeSet<u16> = keys.map(|key| part_of(key.as_bytes())).collect();
                if slots.is_empty() {
                    return None;
                }
                let slots: Vec<String> = slots.iter().map(u16::to_string).collect();
                let table = self.tables.lock(self.dialect);
                sql.push(&format!(
                    "SELECT slot FROM {table} WHERE slot IN ({}) ORDER BY slot FOR UPDATE",
                    slots.join(",")
                ));
            }
            Dialect::Sqlite => return None,
        }
        Some(sql.done())
    }

    fn statement(&self, style: ParamStyle, rows: &mut std::iter::Peekable<impl Iterator<Item = Row>>) -> Statement {
        let notify = self.notify && self.dialect == Dialect::Postgres;
        let mut sql = Sql::styled(self.dialect, style);
        if notify {
            sql.push("WITH written AS (");
        }
        sql.push(&format!(
            "INSERT INTO {} (state, part, event_id, routing_key, exchange, ordering_key, tenant, available_at, headers, body, created_at) VALUES ",
            self.tables.outbox(self.dialect)
        ));
        let most = if self.dialect == Dialect::MySql { MAX_BYTES_MYSQL } else { MAX_BYTES };
        let (mut count, mut bytes) = (0, 0);
        while let Some(row) = rows.next_if(|row| count == 0 || count < MAX_ROWS && bytes + row.bytes() <= most) {
            bytes += row.bytes();
            sql.push(if count == 0 { "(" } else { ", (" });
            for (at, value) in row.values(self.dialect).into_iter().enumerate() {
                if at > 0 {
                    sql.push(", ");
                }
                sql.push_value(value);
            }
            sql.push(", ");
            sql.push(self.dialect.now());
            sql.push(")");
            count += 1;
        }
        if notify {
            sql.push(") SELECT pg_notify(");
            sql.push_value(self.tables.channel());
            sql.push(", '')");
        }
        sql.done()
    }
}

impl std::fmt::Debug for OutboxWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxWriter")
            .field("dialect", &self.dialect)
            .field("tables", &self.tables)
            .field("notify", &self.notify)
            .field("serialize", &self.serialize)
            .finish_non_exhaustive()
    }
}

/// What writes `events` into the default tables, with the parameters that the database's own driver takes.
pub fn outbox_insert(dialect: Dialect, events: &[OutboxEvent]) -> Result<Vec<Statement>> {
    OutboxWriter::new(dialect).insert(dialect.default_style(), events)
}

/// One row, checked.
struct Row {
    event: DomainEvent,
    part: u16,
    exchange: Option<Arc<str>>,
    available_at: Option<i64>,
    headers: Option<Vec<u8>>,
    body: Vec<u8>,
}

impl Row {
    fn bytes(&self) -> usize {
        self.body.len() + self.headers.as_ref().map_or(0, Vec::len)
    }

    fn values(self, dialect: Dialect) -> [Value; ROW] {
        [
            Value::Int(i64::from(self.available_at.is_some())),
            Value::Int(self.part.into()),
            text(dialect, self.event.id()),
            text(dialect, self.event.routing_key()),
            self.exchange.map_or(Value::Null, |exchange| text(dialect, &exchange)),
            self.event.key().map_or(Value::Null, |key| key_column(dialect, key)),
            key_column(dialect, self.event.tenant().unwrap_or_default()),
            self.available_at.map_or(Value::Null, Value::Int),
            self.headers.map_or(Value::Null, Value::Bytes),
            Value::Bytes(self.body),
        ]
    }
}

/// Text as the dialect's columns hold it.
pub(crate) fn text(dialect: Dialect, text: &str) -> Value {
    match dialect {
        // Binary, whatever character set the connection has.
        Dialect::MySql => Value::Bytes(text.as_bytes().to_vec()),
        // PostgreSQL's text has no NUL. The body has it, escaped.
        Dialect::Postgres if text.contains('\0') => Value::Text(text.replace('\0', "\u{FFFD}")),
        Dialect::Postgres | Dialect::Sqlite => Value::Text(text.to_owned()),
    }
}

/// Text as the dialect's columns hold it, and never the same for two texts.
pub(crate) fn escaped(dialect: Dialect, value: &str) -> Value {
    if dialect == Dialect::Postgres && value.contains(['\0', '\u{1}']) {
        return Value::Text(value.replace('\u{1}', "\u{1}\u{1}").replace('\0', "\u{1}0"));
    }
    text(dialect, value)
}

/// A key as its column holds it: a long one is cut and made unique by its hash, for a column only tells keys apart.
pub(crate) fn key_column(dialect: Dialect, key: &str) -> Value {
    if key.len() <= MAX_COLUMN {
        return text(dialect, key);
    }
    let mut end = MAX_COLUMN - 18;
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    text(dialect, &format!("{}~{:016x}", &key[..end], hash(key.as_bytes())))
}

/// The part of an event: its key's, or without a key any.
fn part(event: &DomainEvent) -> u16 {
    part_of(event.key().unwrap_or(event.id()).as_bytes())
}

fn part_of(key: &[u8]) -> u16 {
    let hash = hash(key);
    u16::try_from((hash ^ (hash >> 32)) % u64::from(PARTS)).unwrap_or(0)
}

/// FNV-1a, 64 bits. Part of the schema, as relays of all versions must agree on the part of a key.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn json(headers: &Headers) -> Result<Vec<u8>> {
    serde_json::to_vec(headers).map_err(|e| {
        Error::new(ErrorKind::InvalidHeader, format!("the headers have no JSON form: {e}"))
            .remedy("NaN and Infinity cannot be kept in a header")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &str) -> OutboxEvent {
        DomainEvent::from_json("a.b", "1").unwrap().with_key(key).into()
    }

    #[test]
    fn a_batch_is_one_statement_until_it_is_large() {
        let events: Vec<_> = (0..7000).map(|i| event(&i.to_string())).collect();
        for &dialect in Dialect::ALL {
            let statements = outbox_insert(dialect, &events).unwrap();
            let rows: Vec<_> = statements.iter().map(|s| s.params.len() / ROW).collect();
            assert_eq!(rows, [3000, 3000, 1000], "{dialect:?}");
        }
        assert!(outbox_insert(Dialect::Postgres, &[]).unwrap().is_empty());
    }

    #[test]
    fn percent_signs_and_colons_of_names_are_no_parameters() {
        let tables = Tables::new("100%:x").unwrap();
        let writer = OutboxWriter::new(Dialect::Postgres).tables(tables);
        let sql = |style| writer.insert(style, &[event("k")]).unwrap().remove(0).sql;
        assert!(sql(ParamStyle::Format).starts_with(r#"INSERT INTO "100%%:x" "#));
        assert!(sql(ParamStyle::Named).starts_with(r#"INSERT INTO "100%\:x" "#));
        assert!(sql(ParamStyle::Dollar).starts_with(r#"INSERT INTO "100%:x" "#));
    }

    #[test]
    fn locks_are_taken_in_one_order() {
        let writer = OutboxWriter::new(Dialect::Postgres).serialize(true);
        let locks = |keys: &[&str]| {
            let events: Vec<_> = keys.iter().map(|key| event(key)).collect();
            writer.insert(ParamStyle::Dollar, &events).unwrap().remove(0).params
        };
        assert_eq!(locks(&["a", "b", "c", "a"]), locks(&["c", "b", "a"]));
        assert_eq!(locks(&["a", "b", "c"]).len(), 3);
    }

    #[test]
    fn long_keys_stay_apart() {
        let (a, b) = ("ä".repeat(200), "ä".repeat(201));
        let (a, b) = (key_column(Dialect::Sqlite, &a), key_column(Dialect::Sqlite, &b));
        assert_ne!(a, b);
        assert!(a.into_text().unwrap().len() <= MAX_COLUMN);
    }

    #[test]
    fn parts_are_what_they_always_were() {
        assert_eq!(["", "7", "order-1", "Zoë"].map(|key| part_of(key.as_bytes())), [193, 218, 242, 209]);
        let mut counts = [0u32; PARTS as usize];
        for i in 0..25_600 {
            counts[usize::from(part_of(format!("aircraft-{i}").as_bytes()))] += 1;
        }
        assert!(counts.iter().all(|count| (40..200).contains(count)), "{counts:?}");
    }
}
