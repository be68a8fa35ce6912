//! What an outbox costs beside the throughput: latency, the writer's transaction, a relay that rests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings::Broker;
use tidings::outbox::{Dialect, OutboxWriter, ParamStyle, Value};
use tidings_test_client::usage;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::amqp::{EXCHANGE, Server};
use crate::event::{self, Payload};
use crate::measure::{BoxError, Contender, Sample, Spread, Watch, alternate, percentile};
use crate::options::Options;
use crate::outbox::{Setting, connect};
use crate::results::Results;

/// Commit to handler at 200 events per second, woken by NOTIFY.
pub(crate) async fn latency(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let Some(setting) = Setting::open(server).await? else { return Ok(()) };
    let broker = Broker::connect(&server.url).await?;
    let seen: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
    let subscriber = broker.subscriber();
    let name = format!("bench-outbox-latency-{}", std::process::id());
    let heard = seen.clone();
    subscriber.subscription(&name).exchange(EXCHANGE).bind("#").handle(move |event| {
        let heard = heard.clone();
        async move {
            heard.lock().insert(event.data::<Payload>()?.user_id, Instant::now());
            Ok::<_, tidings::Error>(())
        }
    })?;
    let running = subscriber.start().await?;
    let relay = setting.relay(&broker).await?;
    while relay.health().parts != 256 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let writer = OutboxWriter::new(Dialect::Postgres).tables(setting.tables.clone()).notify(true);
    let count = options.events(200.0);
    let mut committed = Vec::with_capacity(count);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for n in 0..count {
        tick.tick().await;
        for statement in writer.insert(ParamStyle::Dollar, &[event::ours(n)?.into()])? {
            run(&setting.client, &statement.sql, &statement.params).await?;
        }
        committed.push(Instant::now());
    }
    while seen.lock().len() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut all: Vec<f64> = committed
        .iter()
        .zip(0u64..)
        .filter_map(|(at, n)| Some(seen.lock().get(&n)?.saturating_duration_since(*at).as_secs_f64() * 1e3))
        .collect();
    all.sort_by(f64::total_cmp);
    results.limit(&format!("{} outbox latency at 200/s, p50", server.name), "ms", percentile(&all, 0.5), 5.0);
    results.limit(&format!("{} outbox latency at 200/s, p99", server.name), "ms", percentile(&all, 0.99), 25.0);
    running.stop().await?;
    relay.stop().await?;
    broker.delete_subscription(&name).await?;
    broker.close().await?;
    setting.close().await
}

/// A transaction with one row: what the writer renders, beside a prepared INSERT of the same row.
pub(crate) async fn writing(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let Some(setting) = Setting::open(server).await? else { return Ok(()) };
    let rows = options.events(600.0);
    let writer = OutboxWriter::new(Dialect::Postgres).tables(setting.tables.clone());
    let mut contenders = vec![
        Contender::new("tidings, OutboxWriter", true, || ours(&setting, &writer, rows)),
        Contender::new("bare INSERT, prepared", false, || bare(&setting, &writer, rows)),
    ];
    alternate(options, &mut contenders).await?;
    results.compare("outbox, transactions with one row", &contenders, None);
    drop(contenders);
    setting.close().await
}

async fn ours(s: &Setting<'_>, writer: &OutboxWriter, rows: usize) -> Result<Sample, BoxError> {
    let client = connect(&s.database).await?;
    let watch = Watch::start(None);
    for n in 0..rows {
        client.batch_execute("BEGIN").await?;
        for statement in writer.insert(ParamStyle::Dollar, &[event::ours(n)?.into()])? {
            run(&client, &statement.sql, &statement.params).await?;
        }
        client.batch_execute("COMMIT").await?;
    }
    let sample = watch.stop(rows);
    empty(s).await?;
    Ok(sample)
}

async fn bare(s: &Setting<'_>, writer: &OutboxWriter, rows: usize) -> Result<Sample, BoxError> {
    let client = connect(&s.database).await?;
    let first = writer.insert(ParamStyle::Dollar, &[event::ours(0)?.into()])?.remove(0);
    let insert = client.prepare(&first.sql).await?;
    let watch = Watch::start(None);
    for n in 0..rows {
        client.batch_execute("BEGIN").await?;
        let (id, key, body) = event::by_hand(n)?;
        let (state, part) = (0i16, i16::try_from(n % 256)?);
        let (nothing, none) = (None::<String>, None::<Vec<u8>>);
        let params: [&(dyn ToSql + Sync); 10] =
            [&state, &part, &id, &event::ROUTING_KEY, &nothing, &key, &"", &None::<i64>, &none, &body];
        client.execute(&insert, &params).await?;
        client.batch_execute("COMMIT").await?;
    }
    let sample = watch.stop(rows);
    empty(s).await?;
    Ok(sample)
}

async fn empty(s: &Setting<'_>) -> Result<(), BoxError> {
    s.client.batch_execute(&format!("TRUNCATE {}", s.tables.name())).await?;
    Ok(())
}

/// Statements per minute of a relay that rests, as the database counts them.
pub(crate) async fn idle(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let Some(setting) = Setting::open(server).await? else { return Ok(()) };
    let broker = Broker::connect(&server.url).await?;
    let relay = setting.relay(&broker).await?;
    while relay.health().parts != 256 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What taking the parts has cost is counted by the server some seconds late.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let time = if options.is_quick() { Duration::from_secs(12) } else { Duration::from_secs(40) };
    let (before, cpu) = (statements(&setting).await?, usage::cpu_seconds("self"));
    tokio::time::sleep(time).await;
    let per_minute = (statements(&setting).await? - before) * 60.0 / time.as_secs_f64();
    if let (Some(before), Some(after)) = (cpu, usage::cpu_seconds("self")) {
        let busy = Spread::of([(after - before) * 60e3 / time.as_secs_f64()].into_iter());
        results.less("outbox, CPU of an idle relay", "ms/min", busy, None, None);
    }
    results.less(
        "outbox, scans of the table per minute by an idle relay",
        "/min",
        Spread::of([per_minute].into_iter()),
        None,
        None,
    );
    relay.stop().await?;
    broker.close().await?;
    setting.close().await
}

/// Scans of the outbox's tables so far: every statement of a relay is at least one.
async fn statements(s: &Setting<'_>) -> Result<f64, BoxError> {
    s.client.batch_execute("SELECT pg_stat_clear_snapshot()").await?;
    let table = s.tables.name();
    let sql = format!(
        "SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0)::float8 FROM pg_stat_user_tables WHERE relname IN ('{table}', '{table}_relay', '{table}_part')"
    );
    Ok(s.client.query_one(&sql, &[]).await?.try_get(0)?)
}

async fn run(client: &Client, sql: &str, params: &[Value]) -> Result<(), BoxError> {
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = params
        .iter()
        .map(|value| -> (&(dyn ToSql + Sync), Type) {
            match value {
                Value::Int(number) => (number, Type::INT8),
                Value::Text(text) => (text, Type::TEXT),
                Value::Bytes(bytes) => (bytes, Type::BYTEA),
                _ => (&None::<&str>, Type::UNKNOWN),
            }
        })
        .collect();
    client.query_typed(sql, &typed).await?;
    Ok(())
}
