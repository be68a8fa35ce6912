//! An ordered subscription, disturbed: processes compete for it, owners are killed again and again, frozen, cut off and
//! deployed anew, the broker is killed, while heads are retried, parked and dead.

mod diary;
mod plan;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidings_test_client::process::{Client, Said};
use tidings_test_client::protocol::{Action, Command, HandlerKind, Publish, Subscribe};

use self::diary::{Diary, now_us};
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
/// Longer than RabbitMQ waits for a heartbeat of 2 s.
const FREEZE: Duration = Duration::from_millis(6500);
/// RabbitMQ writes its directory of quorum queues every five seconds.
const DIRECTORY_SAVED: Duration = Duration::from_secs(6);
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
    disturbed: u64,
    /// Who said last that it handles an event: the owner.
    owner: Option<usize>,
    /// Since the last kill of the owner, and how long it took until somebody else began.
    killed: Option<(Instant, usize)>,
    takeovers: Vec<Duration>,
    progress: Instant,
    replayed: u64,
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
            disturbed: 0,
            owner: None,
            killed: None,
            takeovers: Vec::new(),
            progress: Instant::now(),
            replayed: 0,
            story,
        }
    }

    /// The report, or what is wrong; `Err` outside where the rig itself could not go on.
    pub(crate) fn go(mut self) -> Result<Report, Refused> {
        self.play().map_err(Refused::Failed).and_then(|skip| skip.map_or(Ok(()), |why| Err(Refused::Skip(why))))?;
        Ok(self.report())
    }

    fn play(&mut self) -> Result<Option<String>, String> {
        for _ in 0..self.plan.members {
            self.crew.subscribe(&self.what)?;
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
                self.crew.subscribe(&self.what)?;
            }
        }
        let mut control = self.crew.client()?;
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
        }
        // Duplicates may come late.
        self.listen_for(Duration::from_secs(1))?;
        control.finish(ANSWER)?;
        Ok(None)
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

    /// The member that owns the subscription, most of the time; some other one else.
    fn victim(&mut self) -> usize {
        let owner = self.crew.subscribers.iter().position(|member| Some(member.client.number) == self.owner);
        let any = self.rng.usize(..self.crew.subscribers.len());
        owner.filter(|_| self.rng.u8(..8) > 0).unwrap_or(any)
    }

    fn disturb(&mut self, disturbance: Disturbance) -> Result<(), Refused> {
        self.disturbed += 1;
        match disturbance {
            Disturbance::Kill => {
                let victim = self.victim();
                let mut dead = self.crew.subscribers.swap_remove(victim);
                self.diary.note(format!("kills {}", dead.client.number));
                dead.client.kill();
                self.kills += 1;
                // Where several own a part, whoever begins next need not be the one who took over.
                if Some(dead.client.number) == self.owner && self.plan.one_owner(self.place) {
                    self.killed = Some((Instant::now(), dead.client.number));
                }
                self.crew.subscribe(&self.what).map_err(Refused::Failed)
            }
            Disturbance::Freeze => {
                let victim = self.victim();
                let from = now_us();
                self.crew.subscribers[victim].client.signal("STOP").map_err(Refused::Failed)?;
                let listened = self.listen_for(FREEZE);
                let client = &self.crew.subscribers[victim].client;
                client.signal("CONT").map_err(Refused::Failed)?;
                self.diary.frozen(client.number, from, now_us());
                listened.map_err(Refused::Failed)
            }
            Disturbance::Cut => self.place.close_connections(),
            Disturbance::Deploy => {
                for _ in 0..self.crew.subscribers.len() {
                    let old = self.crew.subscribers.remove(0);
                    old.client.finish(ANSWER).map_err(Refused::Failed)?;
                    self.crew.subscribe(&self.what).map_err(Refused::Failed)?;
                    self.listen_for(Duration::from_millis(200)).map_err(Refused::Failed)?;
                }
                Ok(())
            }
            Disturbance::Scale(members) => {
                while self.crew.subscribers.len() > members {
                    let old = self.crew.subscribers.remove(0);
                    old.client.finish(ANSWER).map_err(Refused::Failed)?;
                }
                while self.crew.subscribers.len() < members {
                    self.crew.subscribe(&self.what).map_err(Refused::Failed)?;
                }
                // They have to find their shares before the next one strikes.
                self.listen_for(Duration::from_secs(2)).map_err(Refused::Failed)
            }
            Disturbance::KillBroker => {
                // RabbitMQ 4.0 brings a quorum queue that is seconds old back with no leader.
                self.listen_for(DIRECTORY_SAVED).map_err(Refused::Failed)?;
                self.place.restart_broker()?;
                self.broker_kills += 1;
                // The next one strikes when somebody has handled something again.
                let back = Instant::now();
                while self.progress < back && self.ledger.missing > 0 && back.elapsed() < STUCK {
                    self.listen_for(Duration::from_millis(100)).map_err(Refused::Failed)?;
                }
                Ok(())
            }
        }
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
        self.takeovers.sort_unstable();
        let middle = self.takeovers.get(self.takeovers.len() / 2).map_or(0, Duration::as_millis);
        let longest = self.takeovers.last().map_or(0, Duration::as_millis);
        let text = format!(
            "{} confirmed, {} lost, {stuck} stuck, {} first-occurrence violations, {} overlapping runs, {} attempts too \
             many, {} duplicated, {} runs over a freeze, {} replayed; {} kills, {} of the broker, takeover {middle} ms \
             (longest {longest} ms, of {})",
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
            self.takeovers.len(),
        );
        let mut wrong = Vec::new();
        if missing > 0 && !self.plan.best_effort {
            wrong.push(format!("missing: {}", self.ledger.examples_of_missing().join(" ")));
        }
        for (what, all) in
            [("violations", &found.violations), ("overlaps", &found.overlaps), ("attempts", &found.attempts)]
        {
            if !all.is_empty() {
                wrong.push(format!("{what}: {}", all[..all.len().min(5)].join(" · ")));
            }
        }
        if !self.ledger.invented.is_empty() {
            wrong.push(format!("invented: {}", self.ledger.invented.join(" ")));
        }
        if !wrong.is_empty() {
            wrong.push(match std::fs::write(&self.story, self.diary.story(&found)) {
                Ok(()) => format!("the story of these keys: {}", self.story.display()),
                Err(error) => format!("{}: {error}", self.story.display()),
            });
        }
        let tally = Tally {
            events: self.ledger.confirmed,
            faults: self.disturbed,
            lost: if self.plan.best_effort { 0 } else { missing - stuck },
            let_go: if self.plan.best_effort { missing } else { 0 },
            stuck: if self.plan.best_effort { 0 } else { stuck },
            invented: self.ledger.invented.len() as u64,
            duplicated: self.ledger.duplicated,
            out_of_order: found.violations.len() as u64,
            ..Tally::default()
        };
        if let Err(error) = self.crew.dismiss(&[&self.what.name]) {
            wrong.push(error);
        }
        Report { text, wrong, tally }
    }
}
