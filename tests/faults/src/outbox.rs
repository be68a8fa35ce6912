//! The outbox, disturbed: writers with transactions, two relays, a subscriber that sees in which order events arrive, and
//! handlers with an inbox, while one after the other is killed or frozen, the database and the broker too.

mod plan;
mod report;
mod secrets;
mod servers;
mod strike;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidings_test_client::process::{Client, Said};
use tidings_test_client::protocol::{Command, HandlerKind, Publish, Subscribe, Write};

pub(crate) use self::plan::Plan;
use self::plan::{Blow, Database, Place};
pub(crate) use self::servers::Servers;
use crate::clocks::Clocks;
use crate::crew::{ANSWER, Crew};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::run::{DIRECTORY_SAVED, Verdict};
use crate::servers::Refused;
use crate::tally::Report;

/// Processes that write, relay, and handle with an inbox, each.
const CREW: u64 = 2;
const LEASE: Duration = Duration::from_millis(1500);
/// Without anything new for so long, it is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// How long the short profile's load takes where nothing goes wrong.
const SHORT_LOAD: f64 = 8.0;
/// Events that are written at the end to see that everything still works.
const PROBES: u64 = 50;

/// Runs a case.
pub(crate) fn run(plan: &Plan, options: &Options, seed: u64, client: &Path, servers: &Servers) -> Verdict {
    Place::new(plan)
        .and_then(|place| OutboxRun::new(plan, options, seed, client, servers, &place).and_then(OutboxRun::go))
        .into()
}

struct OutboxRun<'a> {
    database: Database,
    servers: &'a Servers,
    place: &'a Place,
    clocks: Option<&'a Clocks>,
    store: String,
    table: String,
    crew: Crew<'a>,
    relays: Vec<Client>,
    /// As the first subscriber sees it.
    ledger: Ledger,
    /// The last sequence number of each key, by first deliveries.
    last: HashMap<String, u64>,
    disordered: Vec<String>,
    unknown: u64,
    rng: Rng,
    name: String,
    events: u64,
    rate: Option<f64>,
    incarnations: u64,
    /// What strikes next, and after how many first deliveries.
    blows: VecDeque<(u64, Blow)>,
    seen: u64,
    /// What struck, and how long after the start.
    struck: Vec<(Duration, Blow)>,
    /// What had arrived twice before each of them.
    duplicated_before: Vec<u64>,
    started: Instant,
    /// Prefix of the writer that says that it has written and not committed.
    written: Option<String>,
    /// When the last blow was over, until something arrives.
    healed: Option<Instant>,
    back_after: Vec<Duration>,
    progress: Instant,
}

impl<'a> OutboxRun<'a> {
    fn new(
        plan: &Plan,
        options: &Options,
        seed: u64,
        client: &'a Path,
        servers: &'a Servers,
        place: &'a Place,
    ) -> Result<Self, Refused> {
        let store = match plan.database.server() {
            Some(name) => servers.url(name)?,
            None => format!("sqlite:{}?shared=true", place.folder.path().join("app.db").display()),
        };
        for name in plan.database.server().into_iter().chain(["rabbitmq3"]) {
            servers.may_disturb(name)?;
        }
        let mut rng = Rng::with_seed(seed);
        let mut blows = plan.blows.clone();
        rng.shuffle(&mut blows);
        // Somewhere in its part of the first two thirds: what is rolled back never arrives.
        let (part, count) = (options.events * 2 / 3, blows.len() as u64);
        let blows = (0..).zip(blows).map(|(i, blow)| (rng.u64(part * i / count..=part * (i + 1) / count), blow));
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (!options.long).then_some(options.events as f64 / SHORT_LOAD / CREW as f64);
        Ok(Self {
            database: plan.database,
            servers,
            place,
            clocks: place.clocks.as_ref(),
            store,
            table: format!("rig_{}_{seed}", std::process::id()),
            crew: Crew::new(client, servers.broker()?).by(place.clocks.as_ref()).keyed_by(options.keys.as_deref()),
            relays: Vec::new(),
            ledger: Ledger::default(),
            last: HashMap::new(),
            disordered: Vec::new(),
            unknown: 0,
            blows: blows.collect(),
            rng,
            name: format!("rig-outbox-{}-{seed}", std::process::id()),
            events: options.events,
            rate,
            incarnations: 0,
            seen: 0,
            struck: Vec::new(),
            duplicated_before: Vec::new(),
            started: Instant::now(),
            written: None,
            healed: None,
            back_after: Vec::new(),
            progress: Instant::now(),
        })
    }

    /// The report, or what is wrong; `Err` outside where the rig itself could not go on.
    fn go(mut self) -> Result<Report, Refused> {
        let effects = self.play().map_err(Refused::Failed)?;
        Ok(self.report(&effects))
    }

    /// Everything up to the count. Returns the effects of the handlers with an inbox.
    fn play(&mut self) -> Result<Ledger, String> {
        let mut keeper = self.client(true)?;
        self.crew.subscribe(&Subscribe { prefetch: Some(500), ..Subscribe::new(self.order(), "rig.#") })?;
        for _ in 0..CREW {
            self.subscribe_with_inbox()?;
            self.relay()?;
        }
        if self.blows.iter().any(|(_, blow)| *blow == Blow::KillBroker) {
            self.listen_for(DIRECTORY_SAVED)?;
        }
        for i in 0..CREW {
            let share = self.events / CREW + u64::from(i < self.events % CREW);
            self.write(share)?;
        }
        self.progress = Instant::now();
        while (!self.crew.publishers.is_empty() || !self.blows.is_empty()) && !self.stuck() {
            if self.crew.publishers.is_empty() {
                // The blows take longer than the load.
                self.write(self.events / 10)?;
            }
            self.step()?;
        }
        self.settle()?;
        self.write(PROBES)?;
        while !self.crew.publishers.is_empty() && !self.stuck() {
            self.step()?;
        }
        self.settle()?;
        let effects = self.effects(&mut keeper)?;
        // What was said meanwhile may still wait to be read.
        self.settle()?;
        Ok(effects)
    }

    /// Waits until everything committed has arrived, or nothing moves any more.
    fn settle(&mut self) -> Result<(), String> {
        self.progress = Instant::now();
        while self.ledger.missing > 0 && !self.stuck() {
            self.step()?;
        }
        Ok(())
    }

    /// Waits until the handlers have done what arrived, and the outbox is empty.
    fn effects(&mut self, keeper: &mut Client) -> Result<Ledger, String> {
        self.progress = Instant::now();
        let mut best = u64::MAX;
        loop {
            // What it could not do at once it does when it is asked again: the database may have been away.
            let line = keeper.ask(Command::Effects, ANSWER)?;
            let mut effects = self.ledger.anew();
            for id in line.rest.get("ids").and_then(|ids| ids.as_array()).into_iter().flatten() {
                effects.finish(id.as_str().unwrap_or_default());
            }
            let waiting = keeper.ask(Command::Outbox, ANSWER)?.rest["pending"].as_u64().unwrap_or(1);
            if effects.missing + waiting < best {
                (best, self.progress) = (effects.missing + waiting, Instant::now());
            }
            if best == 0 || self.stuck() {
                return Ok(effects);
            }
            self.listen_for(Duration::from_millis(200))?;
        }
    }

    fn listen_for(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.listen()?;
        }
        Ok(())
    }

    fn stuck(&self) -> bool {
        self.progress.elapsed() > STUCK
    }

    fn step(&mut self) -> Result<(), String> {
        self.listen()?;
        if self.healed.is_none()
            && self.blows.front().is_some_and(|(at, _)| self.seen >= *at)
            && let Some((_, blow)) = self.blows.pop_front()
        {
            self.strike(blow)?;
        }
        self.crew.dismiss_publishers()
    }

    fn listen(&mut self) -> Result<(), String> {
        match self.crew.listen(Duration::from_millis(20)) {
            Some(said) => self.note(&said),
            None => Ok(()),
        }
    }

    fn note(&mut self, said: &Said) -> Result<(), String> {
        let Some(line) = &said.line else {
            let relay = self.relays.iter().any(|relay| relay.number == said.client);
            let ended = relay || self.crew.has(said.client);
            return if ended { Err(format!("client {} ended by itself", said.client)) } else { Ok(()) };
        };
        let text = |field: &str| line.rest.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        let ids = line.rest.get("ids").and_then(|ids| ids.as_array()).into_iter().flatten();
        let mut ids = ids.filter_map(|id| id.as_str());
        match line.did.as_str() {
            "confirmed" => {
                // After a blow it is arriving that counts: writers go on, whatever became of the rest.
                if self.healed.is_none() {
                    self.progress = self.progress.max(said.at);
                }
                ids.for_each(|id| self.ledger.confirm(id));
            }
            "rolled_back" => ids.for_each(|id| self.ledger.forbid(id)),
            "unknown" => self.unknown += ids.by_ref().count() as u64,
            "written" => self.written = Some(text("prefix").to_owned()),
            "effect" if text("name") == self.order() => {
                self.arrived(text("id"), text("key"), line.rest["seq"].as_u64().unwrap_or(0), said.at);
            }
            _ => {}
        }
        Ok(())
    }

    fn arrived(&mut self, id: &str, key: &str, seq: u64, at: Instant) {
        if !self.ledger.finish(id) {
            return;
        }
        // What was said while something was done to a server is heard when that is over.
        (self.progress, self.seen) = (self.progress.max(at), self.seen + 1);
        if self.healed.is_some_and(|healed| at > healed) {
            self.back_after.extend(self.healed.take().map(|healed| at - healed));
        }
        if let Some(before) = self.last.insert(key.to_owned(), seq)
            && before > seq
        {
            self.disordered.push(format!("{id} after {before}"));
        }
    }

    /// The subscription that sees the order. Its queue, one handler at a time, changes none.
    fn order(&self) -> String {
        format!("{}-seen", self.name)
    }

    fn inbox(&self) -> String {
        format!("{}-inbox", self.name)
    }

    /// A client that has reached the database too.
    fn client(&mut self, install: bool) -> Result<Client, String> {
        let mut client = self.crew.client()?;
        client.ask(Command::Store { url: self.store.clone(), table: self.table.clone(), install }, ANSWER)?;
        Ok(client)
    }

    fn batch(&self) -> usize {
        if self.rate.is_some() { 100 } else { 1000 }
    }

    fn relay(&mut self) -> Result<(), String> {
        let mut client = self.client(false)?;
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        client.ask(Command::Relay { lease_ms, batch: self.batch() }, ANSWER)?;
        self.relays.push(client);
        Ok(())
    }

    fn subscribe_with_inbox(&mut self) -> Result<(), String> {
        let client = self.client(false)?;
        let what = Subscribe {
            // SQLite has one writer at a time.
            concurrency: if self.database == Database::Sqlite { 1 } else { 8 },
            prefetch: Some(200),
            // One for the handler below, the others for a database that is away in the middle of it.
            max_retries: 50,
            // Some fail behind their effect, which is rolled back.
            handler: HandlerKind::RetryFirst { times: 1, every: 10, delays_ms: vec![0] },
            inbox: true,
            ..Subscribe::new(self.inbox(), "rig.#")
        };
        self.crew.subscribe_with(client, &what)
    }

    fn work(&mut self, count: u64, hang: bool) -> Write {
        self.incarnations += 1;
        let prefix = format!("{}.{}.", self.name, self.incarnations);
        self.ledger.hand_out(&prefix, count);
        let events = Publish {
            count,
            prefix,
            first: 0,
            keys: 20,
            skewed: false,
            keys_from: self.crew.keys_from.clone(),
            in_flight: 1,
            rate: self.rate,
            bytes: 300,
            routing_key: "rig.event".to_owned(),
            delay_ms: None,
            batch: 10,
        };
        Write { events, roll_back_every: 10, hang }
    }

    fn write(&mut self, count: u64) -> Result<(), String> {
        let client = self.client(false)?;
        let work = self.work(count, false);
        let prefix = work.events.prefix.clone();
        self.crew.work(client, Command::Write(work), prefix, count)
    }

    fn dismiss(mut self) -> Result<(), String> {
        for relay in std::mem::take(&mut self.relays) {
            relay.finish(ANSWER)?;
        }
        let mut keeper = self.client(false)?;
        let (order, inbox) = (self.order(), self.inbox());
        self.keeps_secrets()?;
        self.crew.dismiss(&[&order, &inbox])?;
        keeper.ask(Command::Uninstall, ANSWER)?;
        keeper.finish(ANSWER)
    }
}
