//! How long an ordered subscription stands still when the process that owns its keys is killed: from `kill -9` until
//! another process begins with an event.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tidings_test_client::process::{Client, Said, rust_client};
use tidings_test_client::protocol::{Command, HandlerKind, Publish, Subscribe};

use crate::amqp::Server;
use crate::measure::{BoxError, Spread};
use crate::options::Options;
use crate::results::Results;

/// Processes that compete.
const MEMBERS: usize = 3;
const KEYS: u64 = 1000;
/// Events a second, so that there is something to begin with.
const RATE: f64 = 500.0;
/// Kills of one measurement.
const KILLS: usize = 4;
/// From one takeover to the next kill.
const CALM: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(60);

/// Over RabbitMQ: on a file there is no owner, and the keys that a process had in hand wait for the end of its lease.
pub(crate) fn run(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let program = rust_client()?;
    let mut took = Vec::new();
    for _ in 0..options.rounds {
        took.extend(round(&program, &server.url)?);
    }
    let work = format!("{} takeover of ordered keys after kill -9", server.name);
    results.less(&work, "ms", Spread::of(took.into_iter()), None, None);
    Ok(())
}

struct Crew<'a> {
    program: &'a Path,
    url: &'a str,
    what: Subscribe,
    speak: Sender<Said>,
    heard: Receiver<Said>,
    next: usize,
    members: Vec<Client>,
}

/// Milliseconds of each takeover.
fn round(program: &Path, url: &str) -> Result<Vec<f64>, BoxError> {
    let (speak, heard) = channel();
    let what = Subscribe {
        concurrency: 8,
        prefetch: Some(100),
        ordered: true,
        handler: HandlerKind::Sleep { ms: 1 },
        ..Subscribe::new(format!("bench-takeover-{}", tidings::event::new_id()), "bench.takeover")
    };
    let mut crew = Crew { program, url, what, speak, heard, next: 1, members: Vec::new() };
    for _ in 0..MEMBERS {
        crew.join()?;
    }
    let mut publisher = crew.client()?;
    publisher.send(Command::Publish(Publish {
        count: 1_000_000,
        prefix: format!("{}.", crew.what.name),
        first: 0,
        keys: KEYS,
        skewed: false,
        keys_from: None,
        in_flight: 100,
        rate: Some(RATE),
        bytes: 200,
        routing_key: "bench.takeover".into(),
        delay_ms: None,
        batch: 1,
    }))?;
    let mut took = Vec::new();
    for _ in 0..KILLS {
        let calm = Instant::now() + CALM;
        let mut owner = crew.effect()?;
        while Instant::now() < calm {
            owner = crew.effect()?;
        }
        let Some(at) = crew.members.iter().position(|member| member.number == owner) else { continue };
        let mut victim = crew.members.swap_remove(at);
        let killed = Instant::now();
        victim.kill();
        // What it said before it died is heard first.
        while crew.effect()? == owner {}
        took.push(killed.elapsed().as_secs_f64() * 1000.0);
        crew.join()?;
    }
    publisher.kill();
    let name = crew.what.name.clone();
    for member in std::mem::take(&mut crew.members) {
        member.finish(PATIENCE)?;
    }
    let mut keeper = crew.client()?;
    keeper.ask(Command::Delete { name }, PATIENCE)?;
    keeper.finish(PATIENCE)?;
    Ok(took)
}

impl Crew<'_> {
    fn client(&mut self) -> Result<Client, BoxError> {
        let mut client = Client::start(self.program, self.next, self.speak.clone())?;
        self.next += 1;
        client.ask(Command::Connect { url: self.url.to_owned() }, PATIENCE)?;
        Ok(client)
    }

    fn join(&mut self) -> Result<(), BoxError> {
        let mut client = self.client()?;
        client.ask(Command::Subscribe(self.what.clone()), PATIENCE)?;
        self.members.push(client);
        Ok(())
    }

    /// Who handled the next event.
    fn effect(&self) -> Result<usize, BoxError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said { client, line: Some(line), .. }) if line.did == "effect" => return Ok(client),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err("nobody handled anything for a minute".into());
                }
            }
        }
    }
}
