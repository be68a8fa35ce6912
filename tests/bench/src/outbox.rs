//! The outbox: rows of PostgreSQL from their commit until RabbitMQ has confirmed them and they are deleted.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use tidings::outbox::{OnFailed, Outbox, RunningRelay, Tables};
use tidings::{Broker, Metric};
use tidings_test_client::usage;
use tokio_postgres::{Client, NoTls};

use crate::amqp::{ByHand, EXCHANGE, Server, confirmed, process};
use crate::event::ROUTING_KEY;
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::node;
use crate::options::Options;
use crate::outbox_peers::{self, Peer};
use crate::results::Results;

/// Rows of one batch, for everybody.
const BATCH: i64 = 1000;
/// How often it is looked whether everything is published.
const LOOK: Duration = Duration::from_millis(2);

/// A database and a broker.
pub(crate) struct Setting<'a> {
    pub(crate) server: &'a Server,
    pub(crate) database: String,
    pub(crate) tables: Tables,
    pub(crate) client: Client,
    pub(crate) admin: ByHand,
    pub(crate) queue: String,
}

impl<'a> Setting<'a> {
    /// Tables and a queue of its own; `None` where there is no PostgreSQL.
    pub(crate) async fn open(server: &'a Server) -> Result<Option<Self>, BoxError> {
        let Ok(database) = std::env::var("DATABASE_URL") else {
            println!("SKIPPED outbox: DATABASE_URL is not set");
            return Ok(None);
        };
        let tables = Tables::new(&format!("bench_outbox_{}", std::process::id()))?;
        Outbox::connect_to(&database, tables.clone()).await?.install().await?;
        let client = connect(&database).await?;
        let admin = ByHand::connect(&server.url).await?;
        let queue = format!("bench-outbox-{}", std::process::id());
        admin.declare(&queue, false).await?;
        Ok(Some(Self { server, database, tables, client, admin, queue }))
    }

    /// Removes what was made.
    pub(crate) async fn close(self) -> Result<(), BoxError> {
        let table = self.tables.name();
        self.client
            .batch_execute(&format!(
                "DROP VIEW {table}_status; DROP TABLE {table}, {table}_relay, {table}_part;
                 DELETE FROM tidings_schema WHERE component = 'outbox:{table}'"
            ))
            .await?;
        self.admin.remove(&self.queue).await?;
        self.admin.close().await
    }

    /// Writes so many rows in a transaction that stays open.
    pub(crate) async fn write(&self, rows: usize) -> Result<(), BoxError> {
        self.admin.purge(&self.queue).await?;
        let table = self.tables.name();
        self.client
            .batch_execute(&format!(
                r#"BEGIN; INSERT INTO {table} (part, event_id, routing_key, ordering_key, body, created_at)
                SELECT i % 256, id, '{ROUTING_KEY}', 'k' || i % 256, convert_to(format(
                  '{{"routing_key":"{ROUTING_KEY}","data":{{"user_id":%s,"name":"User Number %s","email":"user-%s@example.com","made":0}},"domain_object_id":"k%s","uuid_string":"%s","timestamp":1700000000.5}}',
                  i, i, i, i % 256, id), 'UTF8'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                FROM (SELECT i, gen_random_uuid()::text AS id FROM generate_series(1, {rows}) AS i) AS new"#
            ))
            .await?;
        Ok(())
    }

    /// Commits it, and wakes whoever listens.
    pub(crate) async fn commit(&self) -> Result<(), BoxError> {
        self.client.batch_execute(&format!("NOTIFY {}; COMMIT", self.tables.name())).await?;
        Ok(())
    }

    /// A relay that is at work and has nothing to do.
    pub(crate) async fn relay(&self, broker: &Broker) -> Result<RunningRelay, BoxError> {
        self.relay_that(broker, OnFailed::Block).await
    }

    /// As [`relay`](Self::relay); one that passes keeps no order behind a failed row.
    async fn relay_that(&self, broker: &Broker, on_failed: OnFailed) -> Result<RunningRelay, BoxError> {
        let outbox = Outbox::connect_to(&self.database, self.tables.clone()).await?;
        Ok(outbox.relay(broker).exchange(EXCHANGE).listen(true).on_failed(on_failed).start().await?)
    }

    fn watch(&self) -> Watch<'_> {
        Watch::start(self.server.pid.as_deref())
    }
}

/// A connection of hand-written code.
pub(crate) async fn connect(url: &str) -> Result<Client, BoxError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Measures.
pub(crate) async fn run(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let Some(setting) = Setting::open(server).await? else { return Ok(()) };
    let rows = options.events(12_000.0);
    let peers = node::peers(options)?;
    let programs = [
        ("faststream-outbox, 32 workers", Peer::FastStream, 1_000.0),
        ("pg-transactional-outbox, polling", Peer::PgOutbox, 500.0),
    ]
    .map(|(name, peer, rate)| (name, peer, peer.program(peers.as_deref()), options.events(rate)));
    let mut contenders = vec![
        Contender::new("tidings, order per key", true, || ours(&setting, rows, 1, OnFailed::Block)),
        Contender::new("tidings, no order (pass)", true, || ours(&setting, rows, 1, OnFailed::Pass)),
        Contender::new("tidings, two relays", true, || ours(&setting, rows, 2, OnFailed::Block)),
        Contender::new("by hand: SKIP LOCKED, lapin, one DELETE", false, || by_hand(&setting, rows)),
    ];
    for (name, peer, program, rows) in &programs {
        if let Some(program) = program {
            let setting = &setting;
            contenders.push(Contender::new(name, false, move || outbox_peers::relay(setting, *peer, program, *rows)));
        }
    }
    alternate(options, &mut contenders).await?;
    let work = format!("{} outbox, commit to confirmed and deleted", server.name);
    let pairs = [
        ("tidings, no order (pass)", "by hand", Some(0.9)),
        ("tidings, order per key", "by hand", Some(0.9)),
        ("tidings, order per key", "tidings, no order (pass)", Some(0.7)),
        ("tidings, two relays", "by hand", None),
        ("tidings, order per key", "faststream-outbox", Some(8.0)),
        ("tidings, order per key", "pg-transactional-outbox", Some(8.0)),
    ];
    results.against(&work, &contenders, &pairs);
    drop(contenders);
    setting.close().await
}

fn value(metrics: &[Metric], name: &str) -> f64 {
    metrics.iter().find(|metric| metric.name == name).map_or(0.0, |metric| metric.value)
}

/// Waits until relays have done so much together.
#[allow(clippy::cast_precision_loss, reason = "millions at most")]
pub(crate) async fn published(relays: &[RunningRelay], rows: usize) {
    while relays.iter().map(|relay| value(&relay.metrics(), "tidings_outbox_published_total")).sum::<f64>()
        < rows as f64
    {
        tokio::time::sleep(LOOK).await;
    }
}

async fn ours(s: &Setting<'_>, rows: usize, relays: usize, on_failed: OnFailed) -> Result<Sample, BoxError> {
    let broker = Broker::connect(&s.server.url).await?;
    s.write(rows).await?;
    let relays = try_join_all((0..relays).map(|_| s.relay_that(&broker, on_failed))).await?;
    while relays.iter().any(|relay| relay.health().parts != 256 / relays.len()) {
        tokio::time::sleep(LOOK).await;
    }
    let watch = s.watch();
    s.commit().await?;
    published(&relays, rows).await;
    let sample = watch.stop(rows);
    for relay in relays {
        relay.stop().await?;
    }
    broker.close().await?;
    Ok(sample)
}

async fn by_hand(s: &Setting<'_>, rows: usize) -> Result<Sample, BoxError> {
    let table = s.tables.name();
    let broker = ByHand::confirming(&s.server.url).await?;
    let client = connect(&s.database).await?;
    let claim = format!(
        "SELECT id, event_id, body FROM {table} WHERE state = 0 ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    );
    let claim = client.prepare(&claim).await?;
    let delete = client.prepare(&format!("DELETE FROM {table} WHERE state = 0 AND id = ANY($1)")).await?;
    s.write(rows).await?;
    let watch = s.watch();
    s.commit().await?;
    let mut done = 0;
    while done < rows {
        client.batch_execute("BEGIN").await?;
        let found = client.query(&claim, &[]).await?;
        let mut ids: Vec<i64> = Vec::with_capacity(found.len());
        let mut confirms = Vec::with_capacity(found.len());
        for row in &found {
            ids.push(row.try_get(0)?);
            let id: String = row.try_get(1)?;
            let body: &[u8] = row.try_get(2)?;
            let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.into());
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            confirms.push(
                broker.channel.basic_publish(EXCHANGE.into(), ROUTING_KEY.into(), options, body, properties).await?,
            );
        }
        for confirm in confirms {
            confirmed(confirm).await?;
        }
        client.execute(&delete, &[&ids]).await?;
        client.batch_execute("COMMIT").await?;
        done += ids.len();
    }
    let sample = watch.stop(rows);
    broker.close().await?;
    Ok(sample)
}

/// A million rows that wait: of each tenth of them the rate, and what the database has spent on a row.
pub(crate) async fn growth(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let Some(setting) = Setting::open(server).await? else { return Ok(()) };
    let broker = Broker::connect(&server.url).await?;
    let rows = if options.is_quick() { 20_000 } else { 1_000_000 };
    let step = rows / 10;
    setting.write(rows).await?;
    setting.commit().await?;
    // What the inserts have left to do is not the relay's.
    setting.client.batch_execute(&format!("ANALYZE {}; CHECKPOINT", setting.tables.name())).await?;
    let database = process(&setting.database, 5432);
    let relays = [setting.relay(&broker).await?];
    let mut tenths = Vec::new();
    for tenth in 1..=10 {
        let (started, before) = (Instant::now(), database.as_deref().and_then(usage::family_cpu_seconds));
        published(&relays, tenth * step).await;
        let after = database.as_deref().and_then(usage::family_cpu_seconds);
        #[allow(clippy::cast_precision_loss, reason = "a million at most")]
        let (count, left) = (step as f64, (rows - tenth * step) as f64);
        let rate = count / started.elapsed().as_secs_f64();
        let cpu = before.zip(after).map(|(before, after)| (after - before) * 1e6 / count);
        let spent = cpu.map_or_else(|| "not known".to_owned(), |cpu| format!("{cpu:.1} µs a row"));
        println!("  outbox growth: {left:>9} rows left, {rate:.0} rows/s, CPU of the database {spent}");
        tenths.push((rate, cpu));
        // The queue is not what is measured.
        setting.admin.purge(&setting.queue).await?;
    }
    // The first tenth has the start in it.
    let ((first, cpu_first), (last, cpu_last)) = (tenths[1], tenths[9]);
    let work = format!("{} outbox, {rows} rows wait", server.name);
    results.limit(&format!("{work}: speed with none left ÷ with 80 %"), "×", last / first, 1.25);
    if let (Some(first), Some(last)) = (cpu_first, cpu_last) {
        results.limit(
            &format!("{work}: CPU of the database a row, with 80 % ÷ with none left"),
            "×",
            first / last,
            1.25,
        );
    }
    for relay in relays {
        relay.stop().await?;
    }
    broker.close().await?;
    setting.close().await
}
