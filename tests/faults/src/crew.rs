//! The client processes of one case, and the pipe through which all of them are heard.

use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tidings_test_client::process::{Client, Said};
use tidings_test_client::protocol::{Command, HandlerKind, Publish, Subscribe};

use crate::clocks::Clocks;

/// Longest wait for an answer that does not depend on a fault.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// A process that publishes.
pub(crate) struct Publisher {
    pub(crate) client: Client,
    pub(crate) prefix: String,
    pub(crate) count: u64,
    command: u64,
}

/// A process that subscribes.
pub(crate) struct Subscriber {
    pub(crate) client: Client,
    /// It was frozen, or has just been started: not one that others are judged by.
    pub(crate) frozen: bool,
    /// One of its handlers is going to end it.
    pub(crate) exits: bool,
}

/// All processes of a case.
pub(crate) struct Crew<'a> {
    program: &'a Path,
    url: String,
    clocks: Option<&'a Clocks>,
    /// The ordering key of each event, where it is given.
    pub(crate) keys_from: Option<PathBuf>,
    /// The password in the URL. Nobody may ever print it.
    secret: String,
    leaks: Vec<String>,
    speak: Sender<Said>,
    heard: Receiver<Said>,
    next: usize,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) subscribers: Vec<Subscriber>,
}

impl<'a> Crew<'a> {
    pub(crate) fn new(program: &'a Path, url: String) -> Self {
        let (speak, heard) = channel();
        let (publishers, subscribers) = (Vec::new(), Vec::new());
        // One that is everywhere in the output anyway is none.
        let password = url.split_once("//").and_then(|(_, rest)| rest.split_once('@')?.0.split_once(':'));
        let secret = password.map_or("", |(_, password)| password).to_owned();
        let secret = if secret == "guest" { String::new() } else { secret };
        Self {
            program,
            url,
            clocks: None,
            keys_from: None,
            secret,
            leaks: Vec::new(),
            speak,
            heard,
            next: 1,
            publishers,
            subscribers,
        }
    }

    /// The clocks of those who are to start from now on.
    pub(crate) fn by(self, clocks: Option<&'a Clocks>) -> Self {
        Self { clocks, ..self }
    }

    /// The keys of what is published from now on.
    pub(crate) fn keyed_by(self, keys_from: Option<&Path>) -> Self {
        Self { keys_from: keys_from.map(Path::to_owned), ..self }
    }

    /// Starts a client that is connected.
    pub(crate) fn client(&mut self) -> Result<Client, String> {
        let mut program = Program::new(self.program);
        let wound = self.clocks.map_or(Ok(()), |clocks| clocks.wind(&mut program, self.next));
        let (number, speak) = (self.next, self.speak.clone());
        let started = wound.and_then(|()| match &*self.secret {
            "" => Client::spawn(&mut program, number, speak),
            secret => Client::guard(&mut program, number, speak, secret),
        });
        let mut client = started.map_err(|e| e.to_string())?;
        self.next += 1;
        client.ask(Command::Connect { url: self.url.clone() }, ANSWER)?;
        Ok(client)
    }

    /// Starts a publisher on `count` events whose ids begin with `prefix`.
    pub(crate) fn publish(&mut self, prefix: String, count: u64, rate: Option<f64>) -> Result<(), String> {
        self.publish_as(Publish {
            count,
            prefix,
            first: 0,
            keys: 50,
            skewed: false,
            keys_from: None,
            in_flight: 500,
            rate,
            bytes: 240,
            routing_key: "rig.event".to_owned(),
            delay_ms: None,
            batch: 1,
        })
    }

    /// Starts a publisher.
    pub(crate) fn publish_as(&mut self, work: Publish) -> Result<(), String> {
        let work = Publish { keys_from: self.keys_from.clone(), ..work };
        let client = self.client()?;
        let (prefix, count) = (work.prefix.clone(), work.count);
        self.work(client, Command::Publish(work), prefix, count)
    }

    /// Puts a client to work on `count` events whose ids begin with `prefix`.
    pub(crate) fn work(
        &mut self,
        mut client: Client,
        command: Command,
        prefix: String,
        count: u64,
    ) -> Result<(), String> {
        let command = client.send(command)?;
        self.publishers.push(Publisher { client, prefix, count, command });
        Ok(())
    }

    /// Starts a subscriber.
    pub(crate) fn subscribe(&mut self, what: &Subscribe) -> Result<(), String> {
        let client = self.client()?;
        self.subscribe_with(client, what)
    }

    /// Has a client subscribe.
    pub(crate) fn subscribe_with(&mut self, mut client: Client, what: &Subscribe) -> Result<(), String> {
        client.ask(Command::Subscribe(what.clone()), ANSWER)?;
        let exits = matches!(what.handler, HandlerKind::Troubled { exit_after: 1.., .. });
        self.subscribers.push(Subscriber { client, frozen: false, exits });
        Ok(())
    }

    /// Lets go of a subscriber that has ended, if it was to end by itself.
    pub(crate) fn exited(&mut self, number: usize) -> bool {
        let at = self.subscribers.iter().position(|s| s.client.number == number && s.exits);
        at.map(|at| self.subscribers.swap_remove(at)).is_some()
    }

    /// What somebody said, at the latest after `timeout`.
    pub(crate) fn listen(&mut self, timeout: Duration) -> Option<Said> {
        // We hold a sender, so an error is a time-out.
        let said = self.heard.recv_timeout(timeout).ok()?;
        if let Some(line) = said.line.as_ref().filter(|line| line.did == "leaked") {
            self.leaks.push(format!("client {}: {}", said.client, line.rest["line"]));
        }
        Some(said)
    }

    /// Has a client fail in ways that have it talk about its URL.
    fn provoke(&mut self) -> Result<(), String> {
        let url = self.url.clone();
        let Some((base, _)) = url.split_once('?') else { return Ok(()) };
        let mut client = self.client()?;
        for url in [
            format!("{base}-none"),
            format!("{base}?frobnicate=1"),
            format!("{base}?cacertfile=/none"),
            format!("x{base}"),
        ] {
            if client.ask(Command::Connect { url }, ANSWER).is_ok() {
                return Err("a URL that is wrong was good enough".to_owned());
            }
        }
        client.finish(ANSWER)
    }

    /// Lets go of publishers that are done.
    pub(crate) fn dismiss_publishers(&mut self) -> Result<(), String> {
        let mut i = 0;
        while i < self.publishers.len() {
            match self.publishers[i].client.answer(self.publishers[i].command) {
                Some(line) => {
                    if let Some(error) = line.error {
                        return Err(format!("publish: {}", error.message));
                    }
                    self.publishers.swap_remove(i).client.finish(ANSWER)?;
                }
                None => i += 1,
            }
        }
        Ok(())
    }

    /// Whether a client of this number is at work.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.publishers.iter().any(|p| p.client.number == number)
            || self.subscribers.iter().any(|s| s.client.number == number)
    }

    /// The subscribers that say of themselves that they do not consume.
    pub(crate) fn idle_subscribers(&mut self) -> Result<usize, String> {
        let mut idle = 0;
        for subscriber in &mut self.subscribers {
            let line = subscriber.client.ask(Command::Health, ANSWER)?;
            let all = line.rest.get("subscriptions").and_then(|s| s.as_array().cloned()).unwrap_or_default();
            idle += usize::from(all.is_empty() || all.iter().any(|one| one["consuming"] != true));
        }
        Ok(idle)
    }

    /// Events that the broker still has for a subscription, dead letters included; 0 where it cannot be told.
    pub(crate) fn stored(&mut self, name: &str) -> u64 {
        let mut ask = || {
            let line = self.client()?.ask(Command::Depths { names: vec![name.to_owned()] }, ANSWER)?;
            Ok::<_, String>(line.rest["subscriptions"][0].clone())
        };
        let depths = ask().unwrap_or_default();
        ["ready", "in_flight", "dead"].iter().map(|field| depths[*field].as_u64().unwrap_or(0)).sum()
    }

    /// Deletes the subscriptions and ends everybody.
    pub(crate) fn dismiss(mut self, subscriptions: &[&str]) -> Result<(), String> {
        for subscriber in std::mem::take(&mut self.subscribers) {
            subscriber.client.finish(ANSWER)?;
        }
        let mut client = self.client()?;
        for name in subscriptions {
            client.ask(Command::Delete { name: (*name).to_owned() }, ANSWER)?;
        }
        client.finish(ANSWER)?;
        if !self.secret.is_empty() {
            self.provoke()?;
        }
        // What the last ones said.
        while self.listen(Duration::from_millis(20)).is_some() {}
        if self.leaks.is_empty() { Ok(()) } else { Err(format!("the password shows: {}", self.leaks.join(" · "))) }
    }
}

/// The subscription of a case: a share of the events is retried, so that some wait for their retry when a fault strikes.
pub(crate) fn subscription(name: &str, classic: bool, long: bool) -> Subscribe {
    let delays_ms = if long { vec![400, 2300, 1100] } else { vec![200, 900] };
    let times = u32::try_from(delays_ms.len()).unwrap_or(1);
    Subscribe {
        concurrency: 8,
        prefetch: Some(200),
        max_retries: times,
        classic,
        lease_ms: Some(1500),
        handler: HandlerKind::RetryFirst { times, every: 4, delays_ms },
        ..Subscribe::new(name, "rig.#")
    }
}

/// One whose handlers are slow, hang until they are given up on, and end their process if `exit_after` says when.
pub(crate) fn troubled(name: &str, exit_after: u64) -> Subscribe {
    Subscribe {
        concurrency: 8,
        prefetch: Some(100),
        // Those who hang once, and what the others lose with the process.
        max_retries: 10,
        lease_ms: Some(1500),
        timeout_ms: Some(700),
        handler: HandlerKind::Troubled { slow_every: 25, slow_ms: 300, hang_every: 200, exit_after },
        ..Subscribe::new(name, "rig.#")
    }
}
