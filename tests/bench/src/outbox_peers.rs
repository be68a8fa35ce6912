//! What Python and Node programs use instead: libraries that relay a table of their own, each in a process of its own.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_test_client::usage;

use crate::amqp::EXCHANGE;
use crate::event::ROUTING_KEY;
use crate::measure::{BoxError, Sample, Watch};
use crate::outbox::Setting;
use crate::python;

/// How often it is looked whether everything is published.
const LOOK: Duration = Duration::from_millis(5);
/// Events like those of the other contenders.
const DATA: &str =
    r#"format('{"user_id":%s,"name":"User Number %s","email":"user-%s@example.com","made":0}', i, i, i)"#;

/// A library beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// faststream-outbox: one connection of the database for each worker.
    FastStream,
    /// pg-transactional-outbox, its polling listener.
    PgOutbox,
}

impl Peer {
    /// A program that relays, with its arguments; `peers` is where npm's are. Or `None` where its language is missing.
    pub(crate) fn program(self, peers: Option<&Path>) -> Option<Vec<String>> {
        let folder = env!("CARGO_MANIFEST_DIR");
        match self {
            Self::FastStream => match python::interpreter() {
                Ok(python) => Some(vec![python.display().to_string(), format!("{folder}/python/relay_faststream.py")]),
                Err(error) => {
                    println!("SKIPPED faststream-outbox: {error}");
                    None
                }
            },
            Self::PgOutbox => peers.map(|peers| {
                let peers = format!("TIDINGS_BENCH_PEERS={}", peers.display());
                vec!["env".into(), peers, "node".into(), format!("{folder}/node/relay-pg-outbox.mjs")]
            }),
        }
    }

    /// The settings with which it was fastest here, of several that were tried.
    fn settings(self) -> Value {
        match self {
            Self::FastStream => json!({"workers": 32, "flush": 100}),
            Self::PgOutbox => json!({"connections": 16, "batch": 32}),
        }
    }

    /// What writes so many rows, and what asks how many are left.
    fn statements(self, table: &str, rows: usize) -> (String, String) {
        let body = format!(
            r#"format('{{"routing_key":"{ROUTING_KEY}","data":%s,"domain_object_id":"k%s","uuid_string":"%s","timestamp":1700000000.5}}', {DATA}, i % 256, id)"#
        );
        let new = format!("(SELECT i, gen_random_uuid() AS id FROM generate_series(1, {rows}) AS i) AS new");
        match self {
            Self::FastStream => (
                format!(
                    r#"INSERT INTO {table} (queue, payload, headers) SELECT 'bench', convert_to({body}, 'UTF8'), '{{"content-type":"application/json"}}' FROM {new}; NOTIFY "outbox_{table}""#
                ),
                format!("SELECT count(*) FROM {table}"),
            ),
            Self::PgOutbox => (
                format!(
                    "INSERT INTO {table} (id, aggregate_type, aggregate_id, message_type, concurrency, payload) SELECT id, 'user', 'k' || i % 256, '{ROUTING_KEY}', 'parallel', {body}::jsonb FROM {new}"
                ),
                format!("SELECT count(*) FROM {table} WHERE processed_at IS NULL"),
            ),
        }
    }
}

/// From commit to confirmed and deleted, or marked. The last hundredth is not waited for: pg-transactional-outbox now and then
/// leaves a row until its lock ends.
pub(crate) async fn relay(s: &Setting<'_>, peer: Peer, program: &[String], rows: usize) -> Result<Sample, BoxError> {
    let table = format!("bench_peer_{}", std::process::id());
    s.admin.purge(&s.queue).await?;
    let mut settings = peer.settings();
    for (name, value) in [
        ("database", s.database.as_str()),
        ("broker", &s.server.url),
        ("table", &table),
        ("exchange", EXCHANGE),
        ("routing_key", ROUTING_KEY),
    ] {
        settings[name] = value.into();
    }
    let mut process = Process::start(program, &settings)?;
    let (write, left) = peer.statements(&table, rows);
    s.client.batch_execute(&format!("BEGIN; {write}")).await?;
    process.go()?;
    let (watch, before) = (Watch::start(s.server.pid.as_deref()), process.cpu());
    s.client.batch_execute("COMMIT").await?;
    let unwaited = i64::try_from(rows / 100)?;
    while s.client.query_one(&left, &[]).await?.try_get::<_, i64>(0)? > unwaited {
        tokio::time::sleep(LOOK).await;
    }
    let sample = watch.stop(rows);
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let cpu = before.zip(process.cpu()).map(|(before, after)| (after - before) * 1e6 / rows as f64);
    process.end()?;
    s.client.batch_execute(&format!("DROP TABLE {table} CASCADE")).await?;
    Ok(Sample { client_cpu: cpu, ..sample })
}

/// A program that is told line by line what to do.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it, and waits until it has made its table.
    fn start(program: &[String], settings: &Value) -> Result<Self, BoxError> {
        let (name, arguments) = program.split_first().ok_or("no program")?;
        let mut command = Command::new(name);
        command.args(arguments).arg(settings.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("the process has no output")?);
        let mut process = Self { child, input, lines: BufReader::new(output).lines() };
        process.hears("installed")?;
        Ok(process)
    }

    /// Has it relay.
    fn go(&mut self) -> Result<(), BoxError> {
        self.input.as_mut().ok_or("the process has no input")?.write_all(b"go\n")?;
        self.hears("ready")
    }

    fn hears(&mut self, word: &str) -> Result<(), BoxError> {
        match self.lines.next().transpose()? {
            Some(line) if line == word => Ok(()),
            other => Err(format!("the process said {other:?} instead of {word}").into()),
        }
    }

    /// CPU seconds so far.
    fn cpu(&self) -> Option<f64> {
        usage::cpu_seconds(&self.child.id().to_string())
    }

    /// Ends it.
    fn end(mut self) -> Result<(), BoxError> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the process ended with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is none of ours any more.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            let _reaped = self.child.wait();
        }
    }
}
