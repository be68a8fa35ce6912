//! Durable queues in a file, in three languages: Tidings beside plain SQLite, litequeue (Python) and plainjob (Node).
//!
//! All of them with `synchronous=NORMAL`, which litequeue and plainjob set themselves. Both leave what is done in the file;
//! Tidings and the code by hand remove it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_test_client::process::Client;

use crate::amqp::EXCHANGE;
use crate::measure::{BoxError, Contender, Sample, alternate};
use crate::node::Node;
use crate::options::Options;
use crate::python;
use crate::results::Results;
use crate::sqlite_publish::{fresh, publish_batches};
use crate::{sqlite_consume, sqlite_publish};

const NORMAL: &str = "NORMAL";
const BATCH: usize = 100;
const PREFETCH: usize = 1000;
const ANSWER: Duration = Duration::from_secs(120);

/// What contenders in Python are told.
#[derive(Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Do<'a> {
    Connect { url: &'a str },
    Publish { count: usize, in_flight: usize },
    Consume { name: &'a str, count: usize, prefetch: usize, classic: bool },
}

/// What there is of the other languages.
pub(crate) struct Others {
    python: Option<PathBuf>,
    node: Option<Node>,
}

impl Others {
    /// Says what is skipped.
    pub(crate) fn prepare(options: &Options) -> Result<Self, BoxError> {
        let python = python::interpreter().inspect_err(|error| println!("SKIPPED embedded in Python: {error}")).ok();
        Ok(Self { python, node: Node::prepare(options)? })
    }

    /// Adds contenders that publish, `at_once` events a call.
    fn publish<'a>(
        &'a self,
        contenders: &mut Vec<Contender<'a>>,
        events: usize,
        at_once: usize,
    ) -> Result<(), BoxError> {
        if let Some(python) = &self.python {
            let work = move |client: &mut Client, url: &str| {
                client.ask(Do::Connect { url }, ANSWER)?;
                Ok(client.ask(Do::Publish { count: events, in_flight: at_once }, ANSWER)?.rest)
            };
            contenders.push(in_python(python, "tidings in Python", "embedded:tidings", events, work)?);
            if at_once == 1 {
                contenders.push(in_python(python, "litequeue, put", "embedded:litequeue", events, work)?);
            }
        }
        if let Some(node) = &self.node {
            let settings = json!({
                "work": "publish", "exchange": EXCHANGE, "window": at_once, "count": events, "warm": BATCH,
                "batch": (at_once > 1).then_some(at_once),
            });
            let peer = if at_once == 1 { "plainjob, add" } else { "plainjob, addMany" };
            contenders.push(in_node(node, "tidings in Node", "tidings", settings.clone(), false));
            contenders.push(in_node(node, peer, "plainjob", settings, false));
        }
        Ok(())
    }

    /// Adds contenders that drain a file.
    fn consume<'a>(&'a self, contenders: &mut Vec<Contender<'a>>, events: usize) -> Result<(), BoxError> {
        if let Some(python) = &self.python {
            let work = move |client: &mut Client, url: &str| {
                client.ask(Do::Connect { url }, ANSWER)?;
                client.ask(Do::Publish { count: events, in_flight: BATCH }, ANSWER)?;
                let drain = Do::Consume { name: "bench", count: events, prefetch: PREFETCH, classic: false };
                Ok(client.ask(drain, ANSWER)?.rest)
            };
            contenders.push(in_python(python, "tidings in Python", "embedded:tidings", events, work)?);
            contenders.push(in_python(python, "litequeue, pop and done", "embedded:litequeue", events, work)?);
        }
        if let Some(node) = &self.node {
            let settings = json!({
                "work": "consume", "exchange": EXCHANGE, "queue": "bench", "classic": false, "count": events,
                "prefetch": PREFETCH, "concurrency": 1,
            });
            contenders.push(in_node(node, "tidings in Node", "tidings", settings.clone(), true));
            contenders.push(in_node(node, "plainjob, worker", "plainjob", settings, true));
        }
        Ok(())
    }
}

/// Measures.
pub(crate) async fn run(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let others = Others::prepare(options)?;
    if options.wants("embedded publish one by one") {
        let events = options.events(10_000.0);
        let mut contenders = vec![
            Contender::new("tidings in Rust", true, || sqlite_publish::ours(NORMAL, events, 1)),
            Contender::new("rusqlite, 1 per transaction", false, || sqlite_publish::peer(NORMAL, events, 1)),
        ];
        others.publish(&mut contenders, events, 1)?;
        alternate(options, &mut contenders).await?;
        let pairs =
            [("tidings in Rust", "rusqlite"), ("tidings in Python", "litequeue"), ("tidings in Node", "plainjob")];
        let pairs = pairs.map(|(ours, peer)| (ours, peer, None));
        results.against("embedded publish one by one, NORMAL", &contenders, &pairs);
    }
    if options.wants("embedded publish in batches") {
        let events = options.events(40_000.0) / BATCH * BATCH;
        let mut contenders = vec![
            Contender::new("tidings in Rust", true, || sqlite_publish::in_batches(NORMAL, events)),
            Contender::new("rusqlite, 100 per transaction", false, || sqlite_publish::peer(NORMAL, events, BATCH)),
        ];
        others.publish(&mut contenders, events, BATCH)?;
        alternate(options, &mut contenders).await?;
        let pairs = [("tidings in Rust", "rusqlite", None), ("tidings in Node", "plainjob", None)];
        results.against("embedded publish in batches of 100, NORMAL", &contenders, &pairs);
    }
    if options.wants("embedded consume") {
        // litequeue takes a millisecond for each.
        let events = options.events(4_000.0) / BATCH * BATCH;
        let mut contenders = vec![
            Contender::new("tidings in Rust", true, || sqlite_consume::ours(NORMAL, events)),
            Contender::new("rusqlite, claim and delete 100", false, || sqlite_consume::peer(NORMAL, events)),
        ];
        others.consume(&mut contenders, events)?;
        alternate(options, &mut contenders).await?;
        let pairs =
            [("tidings in Rust", "rusqlite"), ("tidings in Python", "litequeue"), ("tidings in Node", "plainjob")];
        let pairs = pairs.map(|(ours, peer)| (ours, peer, None));
        results.against("embedded consume, NORMAL", &contenders, &pairs);
    }
    Ok(())
}

/// A fresh file with a subscription in it, and its URL.
async fn file(events: usize) -> Result<(TempDir, String), BoxError> {
    let (folder, broker) = fresh(NORMAL).await?;
    publish_batches(&broker.publisher().exchange(EXCHANGE)?, events).await?;
    broker.close().await?;
    let url = format!("sqlite:{}?synchronous=normal", folder.path().join("events.db").display());
    Ok((folder, url))
}

type Answer = serde_json::Map<String, Value>;

fn in_python<'a>(
    python: &PathBuf,
    name: &'static str,
    of: &str,
    events: usize,
    work: impl Fn(&mut Client, &str) -> Result<Answer, String> + 'a,
) -> Result<Contender<'a>, BoxError> {
    let (speak, _heard) = channel();
    let client = Rc::new(RefCell::new(python::spawn(python, of, speak)?));
    let work = Rc::new(work);
    Ok(Contender::new(name, name.starts_with("tidings"), move || {
        let (client, work) = (client.clone(), work.clone());
        async move {
            let (_folder, url) = file(0).await?;
            let answer = work(&mut client.borrow_mut(), &url)?;
            let figure = |name: &str| answer[name].as_f64().ok_or_else(|| format!("no {name} in the answer"));
            #[allow(clippy::cast_precision_loss, reason = "thousands")]
            let count = events as f64;
            let (rate, cpu) = (count / figure("seconds")?, figure("cpu_seconds")? * 1e6 / count);
            Ok(Sample { rate, client_cpu: Some(cpu), broker_cpu: None })
        }
    }))
}

/// `filled`: the file has the events already; plainjob fills its own.
fn in_node<'a>(node: &'a Node, name: &'static str, of: &'static str, settings: Value, filled: bool) -> Contender<'a> {
    Contender::new(name, name.starts_with("tidings"), move || {
        let mut settings = settings.clone();
        async move {
            let events = settings["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            let (_folder, url) = file(if filled && of == "tidings" { events } else { 0 }).await?;
            settings["url"] = url.into();
            Ok(node.measure(of, &settings, None)?.1)
        }
    })
}
