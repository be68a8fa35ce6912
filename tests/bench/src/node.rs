//! Node: Tidings beside amqplib and rabbitmq-client, each measured in a process of its own (`tests/bench/node`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use tidings::Broker;

use crate::amqp::{ByHand, EXCHANGE, Server, WINDOW};
use crate::measure::{BoxError, Contender, Sample, Spread, Watch, alternate};
use crate::options::Options;
use crate::results::Results;

const PREFETCH: u16 = 1000;
/// Events handed over at once where batches are.
const BATCH: usize = 100;
/// Events before the measurement: what runs once, and what is compiled only when it has run often.
const WARM: usize = 4000;
/// Most that loading the package may add to bare Node, in milliseconds of CPU.
const LOADING: f64 = 25.0;

/// The package in its release build, and the peers.
pub(crate) struct Node {
    /// Where npm has put the peers.
    peers: PathBuf,
    programs: PathBuf,
}

/// What a process found.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Found {
    seconds: f64,
    /// CPU seconds of the process.
    cpu: f64,
    /// CPU seconds of the thread that runs JavaScript.
    thread: f64,
    delay_p99_ms: f64,
}

/// What the processes of a match found, by contender.
type Notes = RefCell<BTreeMap<&'static str, Vec<(usize, Found)>>>;

impl Node {
    /// Builds the package and installs the peers; `None` where there is no Node.
    pub(crate) fn prepare(options: &Options) -> Result<Option<Self>, BoxError> {
        let Some(peers) = peers(options)? else { return Ok(None) };
        let rig = Path::new(env!("CARGO_MANIFEST_DIR"));
        succeed(Command::new(rig.join("../node")).args(["addon", "--release"]))?;
        Ok(Some(Self { peers, programs: rig.join("node") }))
    }

    /// One measurement in a process of its own.
    pub(crate) fn measure(
        &self,
        contender: &str,
        settings: &Value,
        broker: Option<&str>,
    ) -> Result<(Found, Sample), BoxError> {
        let mut command = Command::new("node");
        command.arg(self.programs.join("measure.mjs")).args([contender, &settings.to_string()]);
        command.env("TIDINGS_BENCH_PEERS", &self.peers);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let measured = talk(&mut child, settings, broker);
        if measured.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        if status.success() { measured } else { Err(format!("the process ended with {status}").into()) }
    }
}

/// Installs the peers, and says where; `None` where there is no Node.
pub(crate) fn peers(options: &Options) -> Result<Option<PathBuf>, BoxError> {
    if Command::new("npm").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED node: there is no npm");
        return Ok(None);
    }
    let (programs, peers) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("node"), options.output.with_file_name("node"));
    std::fs::create_dir_all(&peers)?;
    // One of them is compiled, which takes a minute: what npm has put there to the end is not put there again.
    let lock = "package-lock.json";
    let installed =
        std::fs::read(peers.join(lock)).ok().filter(|_| peers.join("node_modules/.package-lock.json").exists());
    if installed == Some(std::fs::read(programs.join(lock))?) {
        return Ok(Some(peers.canonicalize()?));
    }
    for file in ["package.json", lock] {
        std::fs::copy(programs.join(file), peers.join(file))?;
    }
    let quietly = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
    succeed(Command::new("npm").args(quietly).current_dir(&peers))?;
    Ok(Some(peers.canonicalize()?))
}

fn talk(child: &mut Child, settings: &Value, broker: Option<&str>) -> Result<(Found, Sample), BoxError> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the process has no pipes".into());
    };
    let mut lines = BufReader::new(output).lines();
    if lines.next().transpose()?.as_deref() != Some("ready") {
        return Err("the process did not get ready".into());
    }
    let watch = Watch::start(broker);
    input.write_all(b"go\n")?;
    let found: Found = serde_json::from_str(&lines.next().ok_or("the process found nothing")??)?;
    let count = settings["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    Ok((
        found,
        Sample { rate: per(count, found.seconds), client_cpu: Some(each(count, found.cpu)), ..watch.stop(count) },
    ))
}

#[allow(clippy::cast_precision_loss, reason = "millions at most")]
fn per(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Microseconds for each event.
fn each(count: usize, seconds: f64) -> f64 {
    1e6 / per(count, seconds)
}

fn succeed(command: &mut Command) -> Result<(), BoxError> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Confirmed publish with 1,000 in flight.
pub(crate) async fn publish(
    node: &Node,
    options: &Options,
    results: &mut Results,
    server: &Server,
    classic: bool,
) -> Result<(), BoxError> {
    let work = format!("{} node publish {}", server.name, kind(classic));
    let admin = ByHand::connect(&server.url).await?;
    let queue = format!("bench-node-publish-{}", std::process::id());
    admin.declare(&queue, classic).await?;
    let count = options.events(if classic { 16_000.0 } else { 24_000.0 }) / WINDOW * WINDOW;
    let settings = json!({
        "work": "publish", "url": server.url, "exchange": EXCHANGE, "window": WINDOW, "count": count.max(WINDOW),
        "warm": WARM,
    });
    let in_batches = merged(&settings, &json!({ "batch": BATCH }));
    // Tidings publishes with both, and its receipts say whether a queue took the event.
    let alike = merged(&settings, &json!({ "mandatory": true }));
    let notes = Notes::default();
    let run = |name: &'static str, ours: bool, program: &'static str, settings: &Value| {
        let (settings, admin, queue, notes) = (settings.clone(), &admin, &queue, &notes);
        Contender::new(name, ours, move || {
            let settings = settings.clone();
            async move {
                admin.purge(queue).await?;
                noted(node, notes, name, program, &settings, server)
            }
        })
    };
    let mut contenders = vec![
        run("tidings, publish", true, "tidings", &settings),
        run("amqplib, confirm channel", false, "amqplib", &settings),
        run("amqplib, mandatory, timestamp", false, "amqplib", &alike),
        run("rabbitmq-client", false, "rabbitmq-client", &settings),
        run("tidings, publishBatch of 100", true, "tidings", &in_batches),
    ];
    alternate(options, &mut contenders).await?;
    let batches = contenders.iter().position(|contender| contender.name.contains("publishBatch"));
    let singles = &contenders[..batches.unwrap_or(contenders.len())];
    results.compare(&work, singles, Some(1.0));
    threads(results, &format!("{work}, JS thread"), singles, &notes);
    if batches.is_some_and(|at| at > 0) {
        results.compare(&format!("{work}, batches"), &contenders[1..], Some(1.0));
    }
    drop(contenders);
    admin.remove(&queue).await?;
    admin.close().await
}

/// Draining a preloaded queue with a trivial async handler, prefetch 1,000.
pub(crate) async fn consume(
    node: &Node,
    options: &Options,
    results: &mut Results,
    server: &Server,
    classic: bool,
) -> Result<(), BoxError> {
    let work = format!("{} node consume {}", server.name, kind(classic));
    let loader = ByHand::confirming(&server.url).await?;
    let queue = format!("bench-node-consume-{}", std::process::id());
    // Tidings declares the queue, so that it has the arguments that its users' queues have.
    let broker = Broker::connect(&server.url).await?;
    crate::amqp_consume::declare(&broker, &queue, classic).await?;
    let count = options.events(24_000.0);
    let settings = json!({
        "work": "consume", "url": server.url, "exchange": EXCHANGE, "queue": queue, "classic": classic, "count": count,
        "prefetch": PREFETCH, "concurrency": PREFETCH,
    });
    let one = merged(&settings, &json!({ "concurrency": 1 }));
    let notes = Notes::default();
    let run = |name: &'static str, ours: bool, program: &'static str, settings: &Value| {
        let (settings, loader, queue, notes) = (settings.clone(), &loader, &queue, &notes);
        Contender::new(name, ours, move || {
            let settings = settings.clone();
            async move {
                loader.purge(queue).await?;
                loader.publish(count).await?;
                noted(node, notes, name, program, &settings, server)
            }
        })
    };
    let mut contenders = vec![
        run("tidings, 1000 handlers", true, "tidings", &settings),
        run("amqplib, ack each", false, "amqplib", &settings),
        run("rabbitmq-client", false, "rabbitmq-client", &settings),
        run("tidings, 1 handler", true, "tidings", &one),
    ];
    alternate(options, &mut contenders).await?;
    let lone = contenders.iter().position(|contender| contender.name.contains("1 handler"));
    let many = &contenders[..lone.unwrap_or(contenders.len())];
    results.compare(&work, many, Some(1.2));
    threads(results, &format!("{work}, JS thread"), many, &notes);
    delays(results, &format!("{work}, delay of the event loop p99"), many, &notes);
    if lone.is_some_and(|at| at > 0) {
        results.compare(&format!("{work}, one at a time"), &contenders[1..], None);
    }
    drop(contenders);
    broker.delete_subscription(&queue).await?;
    broker.close().await?;
    loader.close().await
}

/// What loading the package costs beside bare Node, in CPU of the process.
pub(crate) fn loading(node: &Node, results: &mut Results) -> Result<(), BoxError> {
    let package = node.programs.join("../../../node/dist/index.js").canonicalize()?;
    let program = format!("require({})", Value::from(package.to_string_lossy()));
    let mut bare = Vec::new();
    let mut loaded = Vec::new();
    for _ in 0..15 {
        bare.push(cpu_of("")?);
        loaded.push(cpu_of(&program)?);
    }
    let (bare, loaded) = (Spread::of(bare.into_iter()), Spread::of(loaded.into_iter()));
    results.limit("node require, beside bare Node", "ms CPU", loaded.median - bare.median, LOADING);
    Ok(())
}

/// Milliseconds of CPU of a Node process that runs this program.
fn cpu_of(program: &str) -> Result<f64, BoxError> {
    let measured = format!("{program};const u=process.cpuUsage();process.stdout.write(String((u.user+u.system)/1000))");
    let output = Command::new("node").args(["-e", &measured]).stderr(Stdio::inherit()).output()?;
    Ok(String::from_utf8(output.stdout)?.parse()?)
}

fn noted(
    node: &Node,
    notes: &Notes,
    name: &'static str,
    program: &str,
    settings: &Value,
    server: &Server,
) -> Result<Sample, BoxError> {
    let (found, sample) = node.measure(program, settings, server.pid.as_deref())?;
    let count = settings["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    notes.borrow_mut().entry(name).or_default().push((count, found));
    Ok(sample)
}

/// CPU of the thread that runs JavaScript: it is the one that a program cannot have twice.
fn threads(results: &mut Results, work: &str, contenders: &[Contender<'_>], notes: &Notes) {
    less(results, work, "µs CPU/event", contenders, notes, |(count, found)| each(*count, found.thread));
}

fn delays(results: &mut Results, work: &str, contenders: &[Contender<'_>], notes: &Notes) {
    less(results, work, "ms", contenders, notes, |(_, found)| found.delay_p99_ms);
}

/// Ours beside amqplib's, less is better.
fn less(
    results: &mut Results,
    work: &str,
    unit: &'static str,
    contenders: &[Contender<'_>],
    notes: &Notes,
    figure: fn(&(usize, Found)) -> f64,
) {
    let notes = notes.borrow();
    let of = |ours: bool| {
        let contender = contenders.iter().find(|contender| contender.ours == ours)?;
        Some((contender.name, Spread::of(notes.get(contender.name)?.iter().map(figure))))
    };
    if let Some((_, ours)) = of(true) {
        results.less(work, unit, ours, of(false), Some(1.0));
    }
}

fn kind(classic: bool) -> &'static str {
    if classic { "classic" } else { "quorum" }
}

fn merged(settings: &Value, more: &Value) -> Value {
    let mut merged = settings.clone();
    if let (Some(merged), Some(more)) = (merged.as_object_mut(), more.as_object()) {
        merged.extend(more.clone());
    }
    merged
}
