//! The Python package beside what Python programs use instead: every contender is a process of its own.
//!
//! `tests/bench/python` holds the contenders and makes their environment, with the release wheel in it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command as Program;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde::Serialize;
use tidings_test_client::process::{Client, Said};
use tidings_test_client::usage;

use crate::amqp::{ByHand, Sent, Server, WINDOW, confirmed};
use crate::measure::{BoxError, Contender, Sample, Spread, Watch, alternate};
use crate::options::Options;
use crate::results::Results;

const ANSWER: Duration = Duration::from_secs(120);
const PREFETCH: u16 = 100;
/// Where domain-event-broker's `publish_domain_event` publishes to.
const UPSTREAM_EXCHANGE: &str = "domain-events";
const MIB: f64 = 1_048_576.0;

/// What contenders are told.
#[derive(Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Do<'a> {
    Connect { url: &'a str },
    Publish { count: usize, in_flight: usize },
    Consume { name: &'a str, count: usize, prefetch: u16, classic: bool },
    Import { module: &'a str },
}

/// The interpreter with the wheel and its peers, or why there is none. `BENCH_PYTHON` names one that is ready.
pub(crate) fn interpreter() -> Result<PathBuf, BoxError> {
    if let Some(ready) = std::env::var_os("BENCH_PYTHON") {
        return Ok(ready.into());
    }
    let prepare = concat!(env!("CARGO_MANIFEST_DIR"), "/python/prepare");
    let made = Program::new(prepare).stderr(std::process::Stdio::inherit()).output()?;
    if !made.status.success() {
        return Err(format!("{prepare} ended with {}", made.status).into());
    }
    Ok(String::from_utf8(made.stdout)?.trim().into())
}

/// Starts a contender.
pub(crate) fn spawn(python: &PathBuf, name: &str, speak: Sender<Said>) -> Result<Client, BoxError> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/contender.py");
    Ok(Client::spawn(Program::new(python).arg(script).arg(name), 1, speak)?)
}

fn start(python: &PathBuf, name: &str, url: &str) -> Result<Client, BoxError> {
    let (speak, _heard) = channel();
    let mut client = spawn(python, name, speak)?;
    client.ask(Do::Connect { url }, ANSWER)?;
    Ok(client)
}

struct Setting<'a> {
    options: &'a Options,
    server: &'a Server,
    python: PathBuf,
    queue: String,
    classic: bool,
    admin: ByHand,
}

/// Measures on one server.
pub(crate) async fn run(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let work = |what: &str| format!("{} python {what}", server.name);
    let works = ["one by one", "publish quorum", "publish classic", "consume quorum", "consume classic", "idle"];
    if !works.iter().any(|what| options.wants(&work(what))) {
        return Ok(());
    }
    let python = match interpreter() {
        Ok(python) => python,
        Err(error) => {
            println!("SKIPPED {} python: {error}", server.name);
            return Ok(());
        }
    };
    for classic in [true, false] {
        let kind = if classic { "classic" } else { "quorum" };
        let admin = ByHand::confirming(&server.url).await?;
        let queue = format!("bench-python-{}", std::process::id());
        admin.declare(&queue, classic).await?;
        admin.bind(&queue, UPSTREAM_EXCHANGE).await?;
        let s = Setting { options, server, python: python.clone(), queue, classic, admin };
        if classic && options.wants(&work("one by one")) {
            s.one_by_one(results, &work("one by one")).await?;
        }
        if options.wants(&work(&format!("publish {kind}"))) {
            s.publish(results, &work(&format!("publish {kind}"))).await?;
        }
        s.admin.remove(&s.queue).await?;
        if options.wants(&work(&format!("consume {kind}"))) {
            s.consume(results, &work(&format!("consume {kind}"))).await?;
        }
        if classic && options.wants(&work("idle")) {
            s.idle(results, &work("idle")).await?;
        }
        s.admin.close().await?;
    }
    Ok(())
}

impl Setting<'_> {
    /// A contender that is a process; `work` is one measurement of so many events.
    fn process<'a>(
        &'a self,
        name: &'static str,
        of: &str,
        events: usize,
        work: impl Fn(&mut Client) -> Result<tidings_test_client::protocol::Line, String> + 'a,
        load: bool,
    ) -> Result<Contender<'a>, BoxError> {
        let client = Rc::new(RefCell::new(start(&self.python, of, &self.server.url)?));
        let work = Rc::new(work);
        Ok(Contender::new(name, name.starts_with("tidings"), move || {
            let (client, work) = (client.clone(), work.clone());
            async move {
                self.admin.purge(&self.queue).await?;
                if load {
                    self.admin.publish(events).await?;
                }
                let watch = Watch::start(self.server.pid.as_deref());
                let line = work(&mut client.borrow_mut())?;
                let broker_cpu = watch.stop(events).broker_cpu;
                let figure = |name: &str| line.rest[name].as_f64().ok_or_else(|| format!("no {name} in the answer"));
                #[allow(clippy::cast_precision_loss, reason = "thousands")]
                let count = events as f64;
                let (rate, cpu) = (count / figure("seconds")?, figure("cpu_seconds")? * 1e6 / count);
                Ok(Sample { rate, client_cpu: Some(cpu), broker_cpu })
            }
        }))
    }

    fn publishing(&self, name: &'static str, of: &str, rate: f64, in_flight: usize) -> Result<Contender<'_>, BoxError> {
        let count = self.options.events(rate);
        self.process(name, of, count, move |client| client.ask(Do::Publish { count, in_flight }, ANSWER), false)
    }

    fn consuming(&self, name: &'static str, of: &str, rate: f64) -> Result<Contender<'_>, BoxError> {
        let (count, classic) = (self.options.events(rate), self.classic);
        let work = move |client: &mut Client| {
            client.ask(Do::Consume { name: &self.queue, count, prefetch: PREFETCH, classic }, ANSWER)
        };
        self.process(name, of, count, work, true)
    }

    /// One event after the other, each confirmed; what domain-event-broker does is not.
    async fn one_by_one(&self, results: &mut Results, work: &str) -> Result<(), BoxError> {
        let mut contenders = vec![
            self.publishing("tidings, publish_domain_event", "tidings:one", 2_000.0, 1)?,
            Contender::new("lapin, awaited confirms", false, || self.lapin_one_by_one(Sent::Bare)),
            Contender::new("same message by lapin, awaited", false, || self.lapin_one_by_one(Sent::Same)),
            self.publishing("pika, confirms", "blocking:pika", 1_500.0, 1)?,
            self.publishing("domain-event-broker, unconfirmed", "upstream:", 200.0, 1)?,
        ];
        alternate(self.options, &mut contenders).await?;
        results.against(
            work,
            &contenders,
            &[
                ("tidings", "lapin", Some(0.9)),
                ("tidings", "same message by lapin", Some(0.9)),
                ("tidings", "domain-event-broker", None),
            ],
        );
        Ok(())
    }

    /// 1,000 unconfirmed at a time.
    async fn publish(&self, results: &mut Results, work: &str) -> Result<(), BoxError> {
        let mut contenders = vec![
            self.publishing("tidings aio, publish × 1000, uvloop", "tidings_aio:uvloop", 20_000.0, WINDOW)?,
            self.publishing("tidings, publish_batch of 250 on 4 threads", "tidings:threads", 20_000.0, WINDOW)?,
            self.publishing("aio-pika, publish × 1000, uvloop", "aio:aio-pika", 8_000.0, WINDOW)?,
            Contender::new("lapin, 1000 concurrent", false, || self.lapin_concurrent(Sent::Bare)),
            Contender::new("same message by lapin, 1000 concurrent", false, || self.lapin_concurrent(Sent::Same)),
        ];
        alternate(self.options, &mut contenders).await?;
        let (aio_pika, lapin) = if self.classic { (None, Some(0.95)) } else { (Some(2.5), None) };
        let pairs = [
            ("tidings", "aio-pika", aio_pika),
            ("tidings", "lapin", lapin),
            ("tidings", "same message by lapin", lapin),
        ];
        results.against(work, &contenders, &pairs);
        Ok(())
    }

    /// Draining a queue with a trivial handler.
    async fn consume(&self, results: &mut Results, work: &str) -> Result<(), BoxError> {
        // Tidings declares the queue, so that it has the arguments that its users' queues have.
        let broker = tidings::Broker::connect(&self.server.url).await?;
        crate::amqp_consume::declare(&broker, &self.queue, self.classic).await?;
        let mut contenders = vec![
            self.consuming("tidings, threads", "tidings:threads", 16_000.0)?,
            self.consuming("tidings aio, uvloop", "tidings_aio:uvloop", 16_000.0)?,
            self.consuming("tidings aio, asyncio", "tidings_aio:loop", 16_000.0)?,
            self.consuming("tidings aio, uvloop, 100 handlers", "tidings_aio:many", 16_000.0)?,
            self.consuming("pika, prefetch 100", "blocking:pika", 10_000.0)?,
            self.consuming("kombu, prefetch 100", "blocking:kombu", 10_000.0)?,
            self.consuming("aio-pika, prefetch 100, uvloop", "aio:aio-pika", 8_000.0)?,
            self.consuming("faststream, prefetch 100, uvloop", "aio:faststream", 5_000.0)?,
        ];
        if self.classic {
            contenders.push(self.consuming("domain-event-broker", "upstream:", 2_500.0)?);
        }
        alternate(self.options, &mut contenders).await?;
        for ours in ["tidings, threads", "tidings aio, uvloop"] {
            let pairs =
                [(ours, "domain-event-broker", Some(10.0)), (ours, "kombu", Some(2.5)), (ours, "aio-pika", Some(4.0))];
            results.against(work, &contenders, &pairs);
        }
        broker.delete_subscription(&self.queue).await?;
        broker.close().await?;
        Ok(())
    }

    /// Memory of a subscriber that has nothing to do.
    async fn idle(&self, results: &mut Results, work: &str) -> Result<(), BoxError> {
        let names = [
            ("tidings, threads", "tidings:threads"),
            ("tidings aio", "tidings_aio:loop"),
            ("domain-event-broker", "upstream:"),
            ("kombu", "blocking:kombu"),
            ("aio-pika", "aio:aio-pika"),
            ("faststream", "aio:faststream"),
        ];
        let mut found = Vec::new();
        for (name, of) in names {
            self.admin.declare(&self.queue, true).await?;
            let mut client = start(&self.python, of, &self.server.url)?;
            client.send(Do::Consume { name: &self.queue, count: 0, prefetch: PREFETCH, classic: true })?;
            while self.admin.consumers(&self.queue).await? == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // What it needed to get going is given back, if it is.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let rss = usage::rss_bytes(&client.pid().to_string()).ok_or("no /proc")?;
            client.kill();
            // What Tidings has beside its queue, too.
            let broker = tidings::Broker::connect(&self.server.url).await?;
            broker.delete_subscription(&self.queue).await?;
            broker.close().await?;
            self.admin.remove(&self.queue).await?;
            #[allow(clippy::cast_precision_loss, reason = "megabytes")]
            found.push((name, rss as f64 / MIB));
        }
        results.memory(work, &found, "faststream", 0.5);
        Ok(())
    }

    async fn lapin_one_by_one(&self, sent: Sent) -> Result<Sample, BoxError> {
        self.admin.purge(&self.queue).await?;
        let by_hand = ByHand::confirming(&self.server.url).await?;
        by_hand.publish(1).await?;
        let events = self.options.events(2_000.0);
        let watch = Watch::start(self.server.pid.as_deref());
        for n in 0..events {
            confirmed(by_hand.send_as(sent, n).await?).await?;
        }
        let sample = watch.stop(events);
        by_hand.close().await?;
        Ok(sample)
    }

    async fn lapin_concurrent(&self, sent: Sent) -> Result<Sample, BoxError> {
        self.admin.purge(&self.queue).await?;
        let events = self.options.events(20_000.0);
        crate::amqp_publish::concurrent(self.server, events, sent).await
    }
}

/// CPU that importing costs, over the bare interpreter.
pub(crate) fn imports(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let python = match interpreter() {
        Ok(python) => python,
        Err(error) => {
            println!("SKIPPED python import: {error}");
            return Ok(());
        }
    };
    let mut client = start(&python, "tidings:threads", "memory:")?;
    let names = ["sys", "tidings", "pika", "aio_pika", "faststream.rabbit"];
    let mut found: Vec<Vec<f64>> = names.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds.max(7) {
        for (module, figures) in names.iter().zip(&mut found) {
            let line = client.ask(Do::Import { module }, ANSWER)?;
            figures.push(line.rest["cpu_seconds"].as_f64().ok_or("no cpu_seconds")? * 1000.0);
        }
    }
    let medians: Vec<f64> = found.into_iter().map(|figures| Spread::of(figures.into_iter()).median).collect();
    for (name, median) in names.iter().zip(&medians).skip(2) {
        println!("  import {name}: {:.1} ms of CPU over the bare interpreter", median - medians[0]);
    }
    results.limit("python import tidings", "ms CPU", medians[1] - medians[0], 30.0);
    Ok(())
}
