//! One case from beginning to end: load, faults at seeded moments, then the count.

mod strike;

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidings_test_client::process::Said;

use crate::case::{Case, Kind};
use crate::crew::{Crew, subscription, troubled};
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::ordered::OrderedRun;
use crate::outbox::Servers;
use crate::place::Place;
use crate::servers::Refused;
use crate::tally::{Report, Tally};

/// How a case ended.
pub(crate) enum Verdict {
    Ran(Report),
    Skipped(String),
}

impl From<Result<Report, Refused>> for Verdict {
    fn from(result: Result<Report, Refused>) -> Self {
        match result {
            Ok(report) => Self::Ran(report),
            Err(Refused::Failed(why)) => Self::Ran(Report { wrong: vec![why], ..Report::default() }),
            Err(Refused::Skip(why)) => Self::Skipped(why),
        }
    }
}

/// How long the short profile's load takes where nothing goes wrong.
const SHORT_LOAD: f64 = 2.0;
/// Processes of each kind.
const CREW: u64 = 2;
/// RabbitMQ writes its directory of quorum queues every five seconds. It forgets who leads a younger one when it is killed.
pub(crate) const DIRECTORY_SAVED: Duration = Duration::from_secs(6);
/// Events that are published at the end to see that the subscribers consume again.
const PROBES: u64 = 50;

/// Handlers of one process of [`Kind::Troubled`] that begin before it ends.
const EXIT_AFTER: std::ops::Range<u64> = 100..400;

/// Runs a case.
pub(crate) fn run(case: &Case, options: &Options, seed: u64, client: &Path, servers: &Rc<Servers>) -> Verdict {
    let result = Place::new(case, servers).and_then(|place| match &case.kind {
        Kind::Ordered(plan) => OrderedRun::new(plan, options, seed, client, &place).go(),
        _ => Run::new(case, options, seed, client, &place).go(),
    });
    result.into()
}

struct Run<'a> {
    case: &'a Case,
    place: &'a Place,
    crew: Crew<'a>,
    ledger: Ledger,
    rng: Rng,
    name: String,
    long: bool,
    events: u64,
    rate: Option<f64>,
    incarnations: u64,
    /// Faults that struck.
    struck: u64,
    /// What strikes next, and after how many confirms.
    plan: VecDeque<(u64, Fault)>,
    /// When the last fault was over, until an effect shows that somebody consumes.
    healed: Option<Instant>,
    /// How long that took, after each fault.
    back_after: Vec<Duration>,
    progress: Instant,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, options: &Options, seed: u64, client: &'a Path, place: &'a Place) -> Self {
        let mut rng = Rng::with_seed(seed);
        let name = format!("rig-faults-{}-{seed}", std::process::id());
        let parts = case.faults.len() as u64;
        let mut plan = VecDeque::new();
        for (i, fault) in (0..).zip(&case.faults) {
            // Somewhere in the middle of its part of the first 80 %.
            let (from, to) = (options.events * 8 * i / (10 * parts), options.events * 8 * (i + 1) / (10 * parts));
            plan.push_back((rng.u64(from + (to - from) / 4..to.max(from + 1)), *fault));
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (!options.long).then_some(options.events as f64 / SHORT_LOAD / CREW as f64);
        Self {
            case,
            place,
            crew: Crew::new(client, place.url.clone()).by(place.clocks.as_ref()).keyed_by(options.keys.as_deref()),
            ledger: Ledger::default(),
            rng,
            name,
            long: options.long,
            events: options.events,
            rate,
            incarnations: 0,
            struck: 0,
            plan,
            healed: None,
            back_after: Vec::new(),
            progress: Instant::now(),
        }
    }

    /// The report, or what is wrong; `Err` outside where the rig itself could not go on.
    fn go(mut self) -> Result<Report, Refused> {
        for _ in 0..CREW {
            let exit_after = self.rng.u64(EXIT_AFTER);
            let what = match self.case.kind {
                Kind::Troubled => troubled(&self.name, exit_after),
                _ => subscription(&self.name, self.case.classic, self.long),
            };
            self.crew.subscribe(&what).map_err(Refused::Failed)?;
        }
        if self.case.server.is_rabbitmq() && self.case.faults.contains(&Fault::KillBroker) {
            self.let_broker_save()?;
        }
        for i in 0..CREW {
            let share = self.events / CREW + u64::from(i < self.events % CREW);
            self.publish(share)?;
        }
        self.progress = Instant::now();
        while self.load_goes_on() && !self.stalled() {
            self.step()?;
            self.leave_something()?;
        }
        self.settle(false)?;
        self.publish(PROBES)?;
        self.progress = Instant::now();
        while !self.crew.publishers.is_empty() && !self.stalled() {
            self.step()?;
        }
        self.settle(true)?;
        let idle = self.crew.idle_subscribers().map_err(Refused::Failed)?;
        Ok(self.report(idle))
    }

    /// Has everything declared, and waits until it is on disk: RabbitMQ 4.0 forgets a quorum queue that is seconds old when
    /// it is killed, and brings it back with no leader, so that whoever publishes to it waits for ever.
    fn let_broker_save(&mut self) -> Result<(), Refused> {
        self.publish(PROBES)?;
        self.progress = Instant::now();
        while (self.ledger.confirmed < PROBES || self.ledger.missing > 0) && !self.stalled() {
            self.step()?;
        }
        self.listen_for(DIRECTORY_SAVED)
    }

    fn load_goes_on(&self) -> bool {
        !self.crew.publishers.is_empty() || !self.plan.is_empty()
    }

    /// Waits until everything confirmed was finished, or nothing moves any more.
    fn settle(&mut self, to_the_end: bool) -> Result<(), Refused> {
        self.progress = Instant::now();
        loop {
            while self.ledger.missing > 0 && !self.stalled() {
                self.step()?;
            }
            // Duplicates and inventions may come late; and what the last publisher said may not have been read before.
            let quiet = Instant::now() + Duration::from_millis(if to_the_end { 500 } else { 0 });
            while Instant::now() < quiet {
                self.step()?;
            }
            if self.ledger.missing == 0 || self.stalled() {
                return Ok(());
            }
        }
    }

    fn stalled(&self) -> bool {
        self.progress.elapsed() > self.patience()
    }

    fn patience(&self) -> Duration {
        // At-least-once dead-lettering tries again every three minutes: longer than that is stuck.
        Duration::from_secs(match self.case.best_effort {
            true if !self.case.classic => 10,
            _ if self.long => 240,
            _ => 40,
        })
    }

    /// A subscriber that has to show that it consumes again may find that the others have handled everything; and where publishes
    /// fail at once, as on a full disk, all of them may be over before everything has struck.
    fn leave_something(&mut self) -> Result<(), Refused> {
        let waiting = self.healed.is_some_and(|healed| healed.elapsed() < self.patience());
        let struck = self.plan.is_empty() || self.healed.is_some();
        if !self.crew.publishers.is_empty() || self.ledger.missing > 0 || (struck && !waiting) {
            return Ok(());
        }
        self.publish(if waiting { PROBES } else { self.events / 10 })
    }

    fn step(&mut self) -> Result<(), Refused> {
        if let Some(said) = self.crew.listen(Duration::from_millis(20)) {
            self.note(said)?;
        }
        if self.plan.front().is_some_and(|(at, _)| self.ledger.confirmed >= *at && self.healed.is_none())
            && let Some((_, fault)) = self.plan.pop_front()
        {
            self.strike(fault)?;
        }
        self.crew.dismiss_publishers().map_err(Refused::Failed)
    }

    fn note(&mut self, said: Said) -> Result<(), Refused> {
        let Some(line) = said.line else {
            if self.crew.exited(said.client) {
                self.struck += 1;
                (self.healed, self.progress) = (Some(Instant::now()), Instant::now());
                return self.crew.subscribe(&troubled(&self.name, 0)).map_err(Refused::Failed);
            }
            if self.crew.has(said.client) {
                return Err(Refused::Failed(format!("client {} ended by itself", said.client)));
            }
            return Ok(());
        };
        let id = line.rest.get("id").and_then(|id| id.as_str()).unwrap_or_default();
        match line.did.as_str() {
            "confirmed" => {
                self.progress = self.progress.max(said.at);
                for id in line.rest.get("ids").and_then(|ids| ids.as_array()).into_iter().flatten() {
                    self.ledger.confirm(id.as_str().unwrap_or_default());
                }
            }
            "failed" => self.ledger.failed += 1,
            "effect" => {
                self.progress = self.progress.max(said.at);
                if self.healed.is_some_and(|healed| said.at > healed) && self.is_judge(said.client) {
                    self.back_after.extend(self.healed.take().map(|healed| said.at - healed));
                }
                if line.rest.get("outcome").is_some_and(|outcome| outcome == "retry") {
                    self.ledger.retry(id);
                } else {
                    self.ledger.finish(id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_judge(&self, client: usize) -> bool {
        let frozen = self.crew.subscribers.iter().any(|s| s.frozen);
        self.crew.subscribers.iter().any(|s| s.client.number == client && (s.frozen || !frozen))
    }

    fn publish(&mut self, count: u64) -> Result<(), Refused> {
        self.incarnations += 1;
        let prefix = format!("{}.{}.", self.name, self.incarnations);
        self.ledger.hand_out(&prefix, count);
        self.crew.publish(prefix, count, self.rate).map_err(Refused::Failed)
    }

    fn report(mut self, idle: usize) -> Report {
        let missing = self.ledger.missing;
        let stuck = if missing > 0 { self.crew.stored(&self.name).min(missing) } else { 0 };
        let lost = missing - stuck;
        let back: Vec<String> = self.back_after.iter().map(|d| format!("{:.1}", d.as_secs_f64())).collect();
        let l = &self.ledger;
        let label = if self.case.best_effort { " (best effort: what is lost is reported)" } else { "" };
        let text = format!(
            "{} confirmed, {lost} lost, {} invented, {} duplicated, {stuck} stuck, {} retries, {} unknown; {} faults, \
             consuming again after {} s{label}",
            l.confirmed,
            l.invented.len(),
            l.duplicated,
            l.retried,
            l.failed,
            self.struck,
            back.join(" "),
        );
        let mut wrong = Vec::new();
        if missing > 0 && !(self.case.best_effort && stuck == 0) {
            wrong.push(format!("missing: {}", l.examples_of_missing().join(" ")));
        }
        if !l.invented.is_empty() {
            wrong.push(format!("invented: {}", l.invented[..l.invented.len().min(5)].join(" ")));
        }
        if !l.nonsense.is_empty() {
            wrong.push(format!("confirmed twice: {}", l.nonsense[..l.nonsense.len().min(5)].join(" ")));
        }
        if !self.plan.is_empty() {
            wrong.push(format!("{} faults never struck", self.plan.len()));
        }
        if idle > 0 || self.healed.is_some() {
            wrong.push(format!("{idle} subscribers do not consume"));
        }
        let tally = Tally {
            events: l.confirmed,
            faults: self.struck,
            lost: if self.case.best_effort { 0 } else { lost },
            let_go: if self.case.best_effort { lost } else { 0 },
            stuck,
            invented: l.invented.len() as u64,
            duplicated: l.duplicated,
            ..Tally::default()
        };
        if let Err(error) = self.crew.dismiss(&[&self.name]) {
            wrong.push(error);
        }
        Report { text, wrong, tally }
    }
}
