//! An ordered subscription, disturbed: processes compete for it, owners are killed again and again, frozen, cut off and
//! deployed anew, the broker is killed, while heads are retried, parked and dead.

mod diary;
mod plan;
mod strike;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidings_test_client::process::{Client, Said};
use tidings_test_client::protocol::{Action, Command, HandlerKind, Publish, Subscribe};

use self::diary::Diary;
use self::plan::Disturbance;
pub(crate) use self::plan::Plan;
use crate::crew::Crew;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::place::Place;
use crate::servers::Refused;
use crate::tally::{Report, Tally};

/// Ordering keys.
const KEYS: u64 = 1000;
/// Most retries of one event; the handler asks for no more.
const MAX_RETRIES: u32 = 3;
/// Longest answer of a process that may be in the middle of a takeover.
const ANSWER: Duration = Duration::from_secs(60);
/// Without any effect for so long, it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// One run.
pub(crate) struct OrderedRun<'a> {
    place: &'a Place,
    crew: Crew<'a>,
    ledger: Ledger,
    diary: Diary,
    rng: Rng,
    what: Subscribe,
    plan: &'a Plan,
    /// What comes next is the last.
    disturbances: Vec<Disturbance>,
    kills: usize,
    broker_kills: usize,
    /// Queues that had no leader after a kill of the broker.
    leaderless: u64,
    disturbed: u64,
    /// Who said last that it handles an event: the owner.
    owner: Option<usize>,
    /// Since the last kill of the owner, and how long it took until somebody else began.
    killed: Option<(Instant, usize)>,
    takeovers: Vec<Duration>,
    progress: Instant,
    replayed: u64,
    /// What took place behind the inbox, in order.
    effects: Vec<String>,
    /// Where what happened is written if something is wrong.
    story: PathBuf,
}

impl<'a> OrderedRun<'a> {
    pub(crate) fn new(plan: &'a Plan, options: &Options, seed: u64, client: &'a Path, place: &'a Place) -> Self {
        let name = format!("rig-ordered-{}-{seed}", std::process::id());
        let story = std::env::temp_dir().join(format!("{name}.txt"));
        let what = Subscribe {
            concurrency: 8,
            prefetch: Some(100),
            ordered: true,
            partitions: Some(plan.partitions),
            max_retries: MAX_RETRIES,
            inbox: plan.inbox,
            classic: plan.classic,
            lease_ms: Some(1500),
            hold_max_ms: Some(if plan.parking { 400 } else { 60_000 }),
            handler: HandlerKind::Unsteady {
                short_ms: 120,
                long_ms: 1200,
                mended_after_ms: if plan.parking { 4000 } else { 0 },
            },
            ..Subscribe::new(name, "rig.#")
        };
        let mut rng = Rng::with_seed(seed);
        let mut disturbances = plan.in_order(&mut rng);
        disturbances.reverse();
        Self {
            place,
            crew: Crew::new(client, place.url.clone()).keyed_by(options.keys.as_deref()),
            ledger: Ledger::default(),
            diary: Diary::default(),
            rng,
            what,
            plan,
            disturbances,
            kills: 0,
            broker_kills: 0,
            leaderless: 0,
            disturbed: 0,
            owner: None,
            killed: None,
            takeovers: Vec::new(),
            progress: Instant::now(),
            replayed: 0,
            effects: Vec::new(),
            story,
        }
    }

    /// The report, or what is wrong; `Err` outside where the rig itself could not go on.
    pub(crate) fn go(mut self) -> Result<Report, Refused> {
        self.play().map_err(Refused::Failed).and_then(|skip| skip.map_or(Ok(()), |why| Err(Refused::Skip(why))))?;
        Ok(self.report())
    }

    fn play(&mut self) -> Result<Option<String>, String> {
        let mut control = self.client(true)?;
        for _ in 0..self.plan.members {
            self.join()?;
        }
        if self.plan.backlog {
            // It collects from here on.
            for member in std::mem::take(&mut self.crew.subscribers) {
                member.client.finish(ANSWER)?;
            }
        }
        let (prefix, events) = (format!("{}.", self.what.name), self.plan.events);
        self.ledger.hand_out(&prefix, events);
        // Spread over most of the disturbances: each takes a second or two, and a broker longer.
        let seconds = |what: &Disturbance| if *what == Disturbance::KillBroker { 8.0 } else { 1.2 };
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = events as f64 / self.disturbances.iter().map(seconds).sum::<f64>();
        self.crew.publish_as(Publish {
            count: events,
            prefix,
            first: 0,
            keys: KEYS,
            skewed: true,
            keys_from: None,
            // One call after the other: many at once need not be taken up in the order in which they were made.
            in_flight: 20,
            rate: (!self.plan.backlog).then_some(rate),
            bytes: 240,
            routing_key: "rig.event".into(),
            delay_ms: None,
            batch: 20,
        })?;
        if self.plan.backlog {
            self.progress = Instant::now();
            while self.ledger.confirmed < events && self.progress.elapsed() < STUCK {
                let before = self.ledger.confirmed;
                self.listen_for(Duration::from_millis(100))?;
                if self.ledger.confirmed > before {
                    self.progress = Instant::now();
                }
            }
            for _ in 0..self.plan.members {
                self.join()?;
            }
        }
        self.progress = Instant::now();
        while let Some(disturbance) = self.disturbances.pop() {
            let pause = Duration::from_millis(self.rng.u64(400..1600));
            self.listen_for(pause)?;
            self.diary.note(format!("{disturbance:?}; the owner is {:?}", self.owner));
            match self.disturb(disturbance) {
                Ok(()) => {}
                Err(Refused::Skip(why)) => return Ok(Some(why)),
                Err(Refused::Failed(why)) => return Err(why),
            }
            self.replay(&mut control)?;
        }
        self.progress = Instant::now();
        while (self.ledger.missing > 0 || !self.crew.publishers.is_empty()) && self.progress.elapsed() < STUCK {
            self.listen_for(Duration::from_millis(500))?;
            self.replay(&mut control)?;
            if self.broker_kills > 0 && self.progress.elapsed() > ANSWER / 4 {
                self.help_queues().map_err(|(Refused::Failed(why) | Refused::Skip(why))| why)?;
            }
        }
        // Duplicates may come late.
        self.listen_for(Duration::from_secs(1))?;
        if self.plan.inbox {
            self.effects = self.committed(&mut control)?;
            for member in std::mem::take(&mut self.crew.subscribers) {
                member.client.finish(ANSWER)?;
            }
            control.ask(Command::Uninstall, ANSWER)?;
        }
        control.finish(ANSWER)?;
        Ok(None)
    }

    /// Waits for the last commits. The effects in the order in which they were written.
    fn committed(&mut self, control: &mut Client) -> Result<Vec<String>, String> {
        self.progress = Instant::now();
        loop {
            let line = control.ask(Command::Effects, ANSWER)?;
            let ids = line.rest.get("ids").and_then(|ids| ids.as_array()).into_iter().flatten();
            let ids: Vec<_> = ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
            if ids.len() as u64 >= self.ledger.confirmed || self.progress.elapsed() > STUCK {
                return Ok(ids);
            }
            self.listen_for(Duration::from_millis(200))?;
        }
    }

    /// A client, with the database if handlers have an inbox.
    fn client(&mut self, install: bool) -> Result<Client, String> {
        let mut client = self.crew.client()?;
        if let Some(url) = &self.place.store {
            let (url, table) = (url.clone(), self.what.name.replace('-', "_"));
            client.ask(Command::Store { url, table, install }, ANSWER)?;
        }
        Ok(client)
    }

    /// One more member.
    fn join(&mut self) -> Result<(), String> {
        let client = self.client(false)?;
        self.crew.subscribe_with(client, &self.what)
    }

    /// Puts dead heads back: those that are too young still die again.
    fn replay(&mut self, control: &mut Client) -> Result<(), String> {
        let ask = Command::Replay { name: self.what.name.clone(), action: Action::Retry };
        // Where connections were just closed, the next one succeeds.
        if let Ok(line) = control.ask(ask, ANSWER) {
            let replayed = line.rest.get("replayed").and_then(serde_json::Value::as_u64).unwrap_or(0);
            self.replayed += replayed;
            self.diary.note(format!("{replayed} replayed"));
        }
        self.crew.dismiss_publishers()
    }

    fn listen_for(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Some(said) = self.crew.listen(Duration::from_millis(20)) {
                self.note(&said)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, said: &Said) -> Result<(), String> {
        let Some(line) = &said.line else {
            return if self.crew.has(said.client) {
                Err(format!("client {} ended by itself", said.client))
            } else {
                Ok(())
            };
        };
        let text = |field: &str| line.rest.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        match line.did.as_str() {
            "confirmed" => {
                for id in line.rest.get("ids").and_then(|ids| ids.as_array()).into_iter().flatten() {
                    self.ledger.confirm(id.as_str().unwrap_or_default());
                }
            }
            "failed" => self.ledger.failed += 1,
            "begin" => {
                self.diary.begin(said.client, &line.rest);
                self.owner = Some(said.client);
                if let Some((at, _)) = self.killed.filter(|(_, victim)| *victim != said.client) {
                    self.takeovers.push(said.at.saturating_duration_since(at));
                    self.killed = None;
                }
            }
            "effect" => {
                self.diary.end(said.client, &line.rest);
                match text("outcome") {
                    "ok" => {
                        if self.ledger.finish(text("id")) {
                            self.progress = self.progress.max(said.at);
                        }
                    }
                    _ => self.ledger.retry(text("id")),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn report(mut self) -> Report {
        let missing = self.ledger.missing;
        let stuck = if missing > 0 { self.crew.stored(&self.what.name).min(missing) } else { 0 };
        if missing > 0 {
            // What they say of themselves goes into the story.
            for member in &mut self.crew.subscribers {
                let said = member.client.ask(Command::Health, ANSWER).map(|line| format!("{:?}", line.rest));
                let number = member.client.number;
                self.diary.note(format!("{number} says {}", said.unwrap_or_else(|error| error)));
            }
            self.diary.note(format!("missing: {}", self.ledger.examples_of_missing().join(" ")));
        }
        let found = self.diary.judge(MAX_RETRIES);
        let behind_inbox = self.diary.judge_effects(&self.effects);
        self.takeovers.sort_unstable();
        let middle = self.takeovers.get(self.takeovers.len() / 2).map_or(0, Duration::as_millis);
        let longest = self.takeovers.last().map_or(0, Duration::as_millis);
        let effects = if self.plan.inbox {
            let (twice, late) = (behind_inbox.twice.len(), behind_inbox.disordered.len());
            format!("; behind the inbox {} effects, {twice} twice, {late} out of order", self.effects.len())
        } else {
            String::new()
        };
        let text = format!(
            "{} confirmed, {} lost, {stuck} stuck, {} first-occurrence violations, {} overlapping runs, {} attempts too \
             many, {} duplicated, {} runs over a freeze, {} replayed; {} kills, {} of the broker ({} queues helped to a \
             leader), takeover {middle} ms (longest {longest} ms, of {}){effects}",
            self.ledger.confirmed,
            missing - stuck,
            found.violations.len(),
            found.overlaps.len(),
            found.attempts.len(),
            self.ledger.duplicated,
            found.frozen,
            self.replayed,
            self.kills,
            self.broker_kills,
            self.leaderless,
            self.takeovers.len(),
        );
        let mut wrong = Vec::new();
        if missing > 0 && !self.plan.best_effort {
            wrong.push(format!("missing: {}", self.ledger.examples_of_missing().join(" ")));
        }
        if self.plan.inbox && (self.effects.len() as u64) < self.ledger.confirmed {
            wrong.push(format!("only {} effects", self.effects.len()));
        }
        for (what, all) in [
            ("violations", &found.violations),
            ("overlaps", &found.overlaps),
            ("attempts", &found.attempts),
            ("effects twice", &behind_inbox.twice),
            ("effects out of order", &behind_inbox.disordered),
        ] {
            if !all.is_empty() {
                wrong.push(format!("{what}: {}", all[..all.len().min(5)].join(" · ")));
            }
        }
        if !self.ledger.invented.is_empty() {
            wrong.push(format!("invented: {}", self.ledger.invented.join(" ")));
        }
        if !wrong.is_empty() {
            wrong.push(
                match std::fs::write(&self.story, self.diary.story(&found, &self.ledger.examples_of_missing())) {
                    Ok(()) => format!("the story of these keys: {}", self.story.display()),
                    Err(error) => format!("{}: {error}", self.story.display()),
                },
            );
        }
        let tally = Tally {
            events: self.ledger.confirmed,
            faults: self.disturbed,
            lost: if self.plan.best_effort { 0 } else { missing - stuck },
            let_go: if self.plan.best_effort { missing } else { 0 },
            stuck: if self.plan.best_effort { 0 } else { stuck },
            invented: self.ledger.invented.len() as u64,
            duplicated: self.ledger.duplicated,
            out_of_order: (found.violations.len() + behind_inbox.disordered.len()) as u64,
            effects_twice: behind_inbox.twice.len() as u64,
        };
        if let Err(error) = self.crew.dismiss(&[&self.what.name]) {
            wrong.push(error);
        }
        Report { text, wrong, tally }
    }
}
