//! The outbox: the statements for a caller's transaction, and the store with its relay.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use napi::bindgen_prelude::{Buffer, Either4, Null};
use napi_derive::napi;
use parking_lot::Mutex;
use tidings::inbox::InboxWriter;
use tidings::outbox::{
    Dialect, Outbox, OutboxEvent, OutboxWriter, ParamStyle, RunningRelay, Statement, Tables, Value, outbox_schema,
};
use tidings::{Broker, DomainEvent, Error, ErrorKind, Result};

use crate::bridge::{Answer, Bridge, Shared};
use crate::convert::{headers, timestamp};
use crate::error::thrown;
use crate::{log, runtime};

/// Largest whole number that JavaScript has exactly.
const EXACT: i64 = (1 << 53) - 1;

/// An event that is to be written.
#[napi(object)]
pub struct OutboxRow {
    pub routing_key: String,
    /// Its data, as JSON.
    pub data: String,
    pub id: String,
    /// Seconds since the Unix epoch.
    pub timestamp: f64,
    pub domain_object_id: Option<String>,
    /// Headers, as JSON.
    pub headers: Option<String>,
    /// Not published before: seconds since the Unix epoch.
    pub available_at: Option<f64>,
    pub exchange: Option<String>,
}

/// How statements are rendered.
#[napi(object)]
pub struct Rendering {
    pub dialect: String,
    pub style: String,
    pub table: String,
    pub notify: bool,
    pub serialize: bool,
    pub max_payload: u32,
}

/// A statement with its parameters.
#[napi(object)]
pub struct Rendered {
    pub sql: String,
    pub params: Vec<Either4<Null, f64, String, Buffer>>,
}

/// What writes events, to be run in the caller's transaction.
#[napi]
pub fn outbox_insert(how: Rendering, rows: Vec<OutboxRow>) -> napi::Result<Vec<Rendered>> {
    insert(how, rows).map_err(|error| thrown(&error))
}

fn insert(how: Rendering, rows: Vec<OutboxRow>) -> Result<Vec<Rendered>> {
    let writer = OutboxWriter::new(Dialect::of_name(&how.dialect)?).tables(Tables::new(&how.table)?);
    let writer = writer.notify(how.notify).serialize(how.serialize).max_payload(how.max_payload as usize);
    let events: Vec<OutboxEvent> = rows.into_iter().map(event).collect::<Result<_>>()?;
    Ok(writer.insert(ParamStyle::of_name(&how.style)?, &events)?.into_iter().map(rendered).collect())
}

fn event(row: OutboxRow) -> Result<OutboxEvent> {
    let available_at = row.available_at;
    let exchange = row.exchange.clone();
    let mut event = OutboxEvent::new(plain(row)?);
    if let Some(seconds) = available_at {
        event = event.available_at(timestamp("availableAt", seconds)?);
    }
    Ok(match exchange {
        Some(exchange) => event.exchange(exchange),
        None => event,
    })
}

pub(crate) fn plain(row: OutboxRow) -> Result<DomainEvent> {
    let mut event = DomainEvent::from_json(&row.routing_key, row.data)?.with_id(&row.id)?;
    event = event.with_timestamp(timestamp("timestamp", row.timestamp)?);
    if let Some(id) = row.domain_object_id {
        event = event.with_domain_object_id(id);
    }
    if let Some(json) = row.headers {
        let table = serde_json::from_str(&json).map_err(|error| {
            Error::new(ErrorKind::InvalidHeader, format!("the headers are not an object: {error}"))
                .field("headers", &json)
                .remedy("use text, numbers, booleans, null, arrays and objects of these")
        })?;
        for (name, value) in headers(table).iter() {
            event = event.with_header(name, value.clone());
        }
    }
    Ok(event)
}

pub(crate) fn rendered(statement: Statement) -> Rendered {
    let params = statement.params.into_iter().map(|value| match value {
        #[allow(clippy::cast_precision_loss, reason = "exact up to here")]
        Value::Int(number) if (-EXACT..=EXACT).contains(&number) => Either4::B(number as f64),
        // As text, which every driver hands on as it is.
        Value::Int(number) => Either4::C(number.to_string()),
        Value::Text(text) => Either4::C(text),
        Value::Bytes(bytes) => Either4::D(bytes.into()),
        // Null; arrays are never rendered for callers.
        _ => Either4::A(Null),
    });
    Rendered { sql: statement.sql, params: params.collect() }
}

/// The tables as SQL.
#[napi]
pub fn outbox_sql(dialect: String, table: String, inbox: bool) -> napi::Result<String> {
    let sql = || -> Result<String> {
        let dialect = Dialect::of_name(&dialect)?;
        if inbox {
            return Ok(InboxWriter::new(dialect).table(&table)?.schema());
        }
        Ok(outbox_schema(dialect, &Tables::new(&table)?))
    };
    sql().map_err(|error| thrown(&error))
}

/// The table of an outbox, reached with connections of its own.
#[napi]
pub struct OutboxStore {
    bridge: Arc<Shared>,
    core: Arc<OnceLock<Outbox>>,
}

#[napi]
impl OutboxStore {
    /// Nothing is reached before `connect`.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge) -> Self {
        Self { bridge: bridge.shared(), core: Arc::default() }
    }

    /// Reaches the database that `url` names.
    #[napi]
    pub fn connect(&self, op: u32, url: String, table: String) {
        log::install();
        let core = self.core.clone();
        self.run(op, async move {
            let outbox = Outbox::connect_to(&url, Tables::new(&table)?).await?;
            // A second connect finds the first one's.
            core.get_or_init(|| outbox);
            Ok(Answer::Nothing)
        });
    }

    /// Does what `operation` names; answers its result as JSON.
    #[napi]
    pub fn call(&self, op: u32, operation: String, request: String) {
        let core = self.core.clone();
        self.run(op, async move { Ok(Answer::Json(reached(&core)?.call(&operation, &request).await?)) });
    }

    /// Lets go of the database.
    #[napi]
    pub fn close(&self, op: u32) {
        let core = self.core.clone();
        self.run(op, async move {
            match core.get() {
                Some(outbox) => outbox.close().await.map(|()| Answer::Nothing),
                None => Ok(Answer::Nothing),
            }
        });
    }

    fn run(&self, op: u32, work: impl Future<Output = Result<Answer>> + Send + 'static) {
        match runtime::shared() {
            Ok(handle) => self.bridge.run(&handle, op, work),
            Err(error) => self.bridge.answer(op, Err(error)),
        }
    }
}

fn reached(core: &OnceLock<Outbox>) -> Result<&Outbox> {
    core.get()
        .ok_or_else(|| Error::new(ErrorKind::Closed, "the outbox is not connected").remedy("wait for connect() first"))
}

/// A relay and the broker that it publishes to.
type Running = Arc<(Broker, RunningRelay)>;

/// A relay; it runs on the engine's threads, also while the event loop is busy.
#[napi]
pub struct OutboxRelay {
    bridge: Arc<Shared>,
    store: Arc<OnceLock<Outbox>>,
    running: Arc<Mutex<Option<Running>>>,
}

#[napi]
impl OutboxRelay {
    /// A relay of this store.
    #[napi(constructor)]
    pub fn new(store: &OutboxStore) -> Self {
        Self { bridge: store.bridge.clone(), store: store.core.clone(), running: Arc::default() }
    }

    /// Starts it, to the broker of `url`, or of the environment where there is none.
    #[napi]
    pub fn start(&self, op: u32, url: Option<String>, settings: String) {
        let (store, running) = (self.store.clone(), self.running.clone());
        self.run(op, async move {
            let broker = match url {
                Some(url) => Broker::connect(&url).await?,
                None => Broker::from_env().await?,
            };
            let relay = reached(&store)?.relay(&broker).settings(&settings)?.start().await?;
            *running.lock() = Some(Arc::new((broker, relay)));
            Ok(Answer::Nothing)
        });
    }

    /// Hands over to other relays and ends.
    #[napi]
    pub fn stop(&self, op: u32) {
        let running = self.running.lock().take();
        self.run(op, async move {
            if let Some(running) = running {
                running.1.stop().await?;
                running.0.close().await?;
            }
            Ok(Answer::Nothing)
        });
    }

    /// What it is doing, as JSON.
    #[napi]
    pub fn health(&self) -> String {
        let health = self.running.lock().as_ref().map(|running| running.1.health()).unwrap_or_default();
        serde_json::json!({
            "working": health.working, "parts": health.parts,
            "oldestSeconds": health.oldest.map(|age: Duration| age.as_secs_f64()), "lastError": health.last_error,
        })
        .to_string()
    }

    /// Its counters and gauges by name, as JSON.
    #[napi]
    pub fn metrics(&self) -> String {
        let metrics = self.running.lock().as_ref().map(|running| running.1.metrics()).unwrap_or_default();
        let table: serde_json::Map<_, _> =
            metrics.into_iter().map(|metric| (metric.name.to_owned(), metric.value.into())).collect();
        serde_json::Value::Object(table).to_string()
    }

    fn run(&self, op: u32, work: impl Future<Output = Result<Answer>> + Send + 'static) {
        match runtime::shared() {
            Ok(handle) => self.bridge.run(&handle, op, work),
            Err(error) => self.bridge.answer(op, Err(error)),
        }
    }
}
