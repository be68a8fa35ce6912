//! The director: sets the scene, breaks and repairs things while the services work, and checks the books at the end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidings::outbox::Outbox;
use tidings::transport::{Ordered, registry};
use tidings::{BoxError, Broker, DeadLetterEntry, DeadLetterFilter, Replay, ReplayAction, ReplayReport};

use crate::audit::{Evidence, audit, repetitions};
use crate::flights::{Day, Happening};
use crate::stage::{Service, Setting, Stage, Stuck};
use crate::story::{Counts, Story, rate, thousands};
use crate::{aircraft_log, books, ledger};

/// The gateway is repaired once an event has been tried so often in vain.
const ATTEMPTS_WHILE_DOWN: usize = 5;
/// While this file is there, the notifier's gateway is down.
const GATEWAY_IS_DOWN: &str = "gateway-is-down";
/// A day is played so many times faster than it was. What is longer is played as fast as it goes.
const PACE: u32 = 30_000;
const A_DAY: usize = 10_000;

/// Plays the day on the broker that `BROKER` names, else on a new file. `false`: a figure differs.
pub(crate) async fn run(data: &Path) -> Result<bool, BoxError> {
    let day = Day::read(data)?;
    let dir = tempfile::Builder::new().prefix("tidings-airport-").tempdir()?;
    let given = std::env::var("BROKER").ok().filter(|url| !url.is_empty());
    let broker_url = given.clone().unwrap_or_else(|| format!("sqlite:{}", dir.path().join("events.db").display()));
    // On a broker that others use too, this run's subscriptions get names of their own.
    let prefix = given.map_or_else(String::new, |_| format!("airport-{}-", std::process::id()));
    let broker = Broker::connect(&broker_url).await?;
    let can = broker.capabilities();
    if !can.multi_process {
        let why = "lives inside one process, and this demo has several";
        return Err(format!("{}: {why}; leave out BROKER, or use sqlite:path.db or amqp://…", can.name).into());
    }

    let mut story = Story::begin(day.events.len());
    let (flights, events) = (thousands(day.flights), thousands(day.events.len()));
    let a_day = day.events.len() < A_DAY;
    let what = if a_day { "day" } else { "year" };
    story.line(&format!("Tidings: a real {what} at New York's airports, {flights} flights, {events} events."));
    story.line(&format!("  data    {}", data.display()));
    story.line(&format!("  broker  {}\n", registry::redact(&broker_url)));
    let pace = if a_day { PACE } else { 0 };
    let setting = Setting { broker_url, prefix: prefix.clone(), dir: dir.path().into(), data: data.into(), pace };
    let evidence = Evidence { ordered: can.ordered != Ordered::No, ..Evidence::default() };
    let mut play = Play { day, broker, prefix, dir: dir.path().into(), stage: Stage::new(setting, story), evidence };

    let played = tokio::select! {
        played = play.acts() => played,
        () = asked_to_end() => Err(Interrupted.into()),
    };
    play.stage.clear().await;
    let same = match played {
        Ok(()) => play.check(),
        Err(error) if error.is::<Stuck>() => {
            play.stage.story.line(&format!("\n{error}. The books as they are:"));
            play.check().map(|_| false)
        }
        Err(error) => Err(error),
    };
    let tidied = play.tidy(dir).await;
    same.and_then(|same| tidied.map(|()| same))
}

/// Waits for Ctrl-C, or for the polite end that `kill` and `timeout` ask for.
async fn asked_to_end() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _interrupted = tokio::signal::ctrl_c().await;
}

/// Ctrl-C.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; every service has ended")
    }
}

impl std::error::Error for Interrupted {}

struct Play {
    day: Day,
    broker: Broker,
    prefix: String,
    dir: PathBuf,
    stage: Stage,
    evidence: Evidence,
}

impl Play {
    async fn acts(&mut self) -> Result<(), BoxError> {
        self.the_day_begins().await?;
        self.the_relay_is_killed_and_the_gateway_repaired().await?;
        self.the_log_is_killed().await?;
        self.the_notifier_is_killed().await?;
        self.the_day_ends().await?;
        self.the_log_is_fixed().await?;
        self.evidence.left = self.left_over(&self.subscriptions()).await?;
        Ok(())
    }

    async fn the_day_begins(&mut self) -> Result<(), BoxError> {
        if !self.evidence.ordered {
            let name = self.broker.capabilities().name;
            self.say(&format!("{name} keeps no order per key, so the aircraft log goes without"));
        }
        std::fs::write(self.dir.join(GATEWAY_IS_DOWN), "")?;
        let half_the_news = self.day.count(Happening::is_news) / 2;
        let crash_at = self.loggable() * 2 / 3;
        self.stage.start(Service::Notifier, &[&half_the_news.to_string()]).await?;
        self.stage.start(Service::AircraftLog, &["--hold-at", &crash_at.to_string()]).await?;
        self.stage.start(Service::Operations, &[]).await?;
        self.stage.start(Service::Relay, &[]).await
    }

    /// Whichever is due first: that depends on how fast the day goes by.
    async fn the_relay_is_killed_and_the_gateway_repaired(&mut self) -> Result<(), BoxError> {
        let half = self.day.events.len() / 2;
        let relay_is_due = |counts: &Counts| counts.get("written").is_some_and(|n| *n >= half);
        let tried = |counts: &Counts| counts.get("failed-attempts").is_some_and(|n| *n >= ATTEMPTS_WHILE_DOWN);
        let (mut relay, mut gateway) = (true, true);
        while relay || gateway {
            let due = |counts: &Counts| relay && relay_is_due(counts) || gateway && tried(counts);
            self.stage.until("half of the day has passed, and the gateway was tried in vain", due).await?;
            if relay && relay_is_due(&self.stage.counts) {
                relay = false;
                self.the_relay_is_killed().await?;
            } else {
                gateway = false;
                std::fs::remove_file(self.dir.join(GATEWAY_IS_DOWN))?;
                self.say(&format!("the gateway is repaired, after up to {ATTEMPTS_WHILE_DOWN} attempts of an event"));
            }
        }
        Ok(())
    }

    async fn the_relay_is_killed(&mut self) -> Result<(), BoxError> {
        let id = self.stage.kill(Service::Relay).await?;
        self.say(&format!("kill -9 of the relay (process {id}); operations goes on without it"));
        let (events, written) = (self.day.events.len(), self.stage.count("written"));
        let later = (written + events / 10).min(events);
        let go_on = |counts: &Counts| counts.get("written").is_some_and(|n| *n >= later);
        self.stage.until("operations has gone on", go_on).await?;
        let outbox = self.outbox().await?;
        let waiting = outbox.status().await?.pending;
        outbox.close().await?;
        let waiting = thousands(usize::try_from(waiting)?);
        self.say(&format!("{waiting} events wait in the outbox; another relay takes over"));
        self.stage.start(Service::Relay, &[]).await
    }

    /// In the worst moment: an entry is written, its event not yet acknowledged.
    async fn the_log_is_killed(&mut self) -> Result<(), BoxError> {
        self.stage.until("the aircraft log has an event in hand", |counts| counts.contains_key("log-holds")).await?;
        let entry = thousands(self.stage.count("log-holds"));
        let id = self.stage.kill(Service::AircraftLog).await?;
        self.say(&format!("kill -9 of the aircraft log (process {id}): entry {entry} written, not acknowledged"));
        self.stage.start(Service::AircraftLog, &[]).await
    }

    /// In the worst moment again: the notice is committed, its event not yet acknowledged.
    async fn the_notifier_is_killed(&mut self) -> Result<(), BoxError> {
        let holds = |counts: &Counts| counts.contains_key("notifier-holds");
        self.stage.until("the notifier has an event in hand", holds).await?;
        let notice = thousands(self.stage.count("notifier-holds"));
        let id = self.stage.kill(Service::Notifier).await?;
        self.say(&format!("kill -9 of the notifier (process {id}): notice {notice} committed, not acknowledged"));
        self.stage.start(Service::Notifier, &[]).await
    }

    async fn the_day_ends(&mut self) -> Result<(), BoxError> {
        let (events, news) = (self.day.events.len(), self.day.count(Happening::is_news));
        let (loggable, refused) = (self.loggable(), events - self.loggable());
        self.stage.until("everything has happened", |counts| counts.get("written") == Some(&events)).await?;
        let done = |counts: &Counts| counts.get("logged") == Some(&loggable) && counts.get("refused") == Some(&refused);
        self.stage.until("the aircraft log has seen everything", done).await?;
        self.stage.until("every notice is sent", |counts| counts.get("notified") == Some(&news)).await?;

        let outbox = self.outbox().await?;
        outbox.drain(Duration::from_secs(30)).await?;
        let status = outbox.status().await?;
        self.evidence.unpublished = usize::try_from(status.pending + status.failed)?;
        outbox.close().await?;
        self.stage.stop(Service::Relay).await?;
        self.stage.stop(Service::Operations).await?;

        let notifier = self.subscription(Service::Notifier);
        self.nothing_is_left(std::slice::from_ref(&notifier)).await?;
        self.stage.stop(Service::Notifier).await?;
        let given_up = self.broker.dead_letters(&notifier, &DeadLetterFilter::new(), usize::MAX).await?;
        self.evidence.notices_given_up = given_up.len();
        self.tell_the_waits()?;
        // Once it has ended, all that it gave up on is settled.
        self.stage.stop(Service::AircraftLog).await
    }

    /// How the retries of the notices kept to their growing delays.
    fn tell_the_waits(&mut self) -> Result<(), BoxError> {
        for wait in books::waits(&self.dir)? {
            let (events, due) = (thousands(wait.events), wait.due.as_millis());
            let (shortest, longest) = (wait.shortest.as_millis(), wait.longest.as_millis());
            let text = format!("retry {}: due after {due} ms, came after {shortest} to {longest} ms", wait.retry);
            self.say(&format!("{text} ({events} events)"));
            self.evidence.early += wait.early;
        }
        Ok(())
    }

    async fn the_log_is_fixed(&mut self) -> Result<(), BoxError> {
        let log = self.subscription(Service::AircraftLog);
        for letter in self.broker.dead_letters(&log, &DeadLetterFilter::new(), usize::MAX).await? {
            let dead = self.evidence.dead.entry(letter.reason().to_owned()).or_default();
            letter.error().unwrap_or("no details").clone_into(&mut dead.example);
            dead.ids.insert(letter.id().to_owned());
        }
        for (reason, dead) in self.evidence.dead.clone() {
            self.say(&format!("{} dead letters, reason {reason:?} (such as: {})", dead.ids.len(), dead.example));
        }
        let (report, ids) = self.replay(&log, Replay::dry_run).await?;
        self.say(&format!("replay, dry run: {} would go back, {} would be removed", report.replayed, report.discarded));
        self.evidence.dry_run = ids.len();

        self.stage.start(Service::AircraftLog, &["--fixed"]).await?;
        let (report, ids) = self.replay(&log, |replay| replay).await?;
        self.say(&format!("replay: {} went back, {} dead letters remain", report.replayed, report.remaining));
        self.evidence.replayed = ids.len();
        let events = self.day.events.len();
        self.stage.until("the replayed events are logged", |counts| counts.get("logged") == Some(&events)).await?;
        self.nothing_is_left(&self.subscriptions()).await?;
        self.stage.stop(Service::AircraftLog).await
    }

    /// Each event that has no tail number goes back once. A kill between "the dead letter is written" and "the event is
    /// acknowledged" leaves it twice on brokers without transactions; the copy is removed.
    async fn replay(&self, log: &str, how: fn(Replay) -> Replay) -> Result<(ReplayReport, HashSet<String>), BoxError> {
        let mut ids = HashSet::new();
        let replay = self.broker.replay(log).filter(DeadLetterFilter::new().reason(aircraft_log::NO_TAIL));
        let once = |letter: &DeadLetterEntry| {
            if ids.insert(letter.id().to_owned()) { ReplayAction::Retry } else { ReplayAction::Discard }
        };
        let report = how(replay).decide(once).await?;
        Ok((report, ids))
    }

    /// Waits until the subscriptions are empty: what a killed process had in hand comes again when its lease is over.
    /// Brokers do not announce this, so they are asked.
    async fn nothing_is_left(&self, subscriptions: &[String]) -> Result<(), BoxError> {
        let mut ask = tokio::time::interval(Duration::from_millis(50));
        let empty = async {
            while self.left_over(subscriptions).await? > 0 {
                ask.tick().await;
            }
            Ok(())
        };
        // What is left after this time is shown in the table.
        tokio::time::timeout(Duration::from_secs(10), empty).await.unwrap_or(Ok(()))
    }

    /// Events of flights that name their aircraft.
    fn loggable(&self) -> usize {
        self.day.count(|event| !event.has_no_tail())
    }

    async fn left_over(&self, subscriptions: &[String]) -> Result<usize, BoxError> {
        let all = self.broker.subscriptions().await?.into_iter().filter(|info| subscriptions.contains(&info.name));
        Ok(usize::try_from(all.map(|info| info.ready + info.in_flight.unwrap_or(0) + info.dead).sum::<u64>())?)
    }

    fn subscriptions(&self) -> [String; 2] {
        [Service::Notifier, Service::AircraftLog].map(|service| self.subscription(service))
    }

    fn subscription(&self, service: Service) -> String {
        format!("{}{service}", self.prefix)
    }

    async fn outbox(&self) -> Result<Outbox, BoxError> {
        Ok(Outbox::connect(&format!("sqlite:{}?mode=rw", self.dir.join("operations.db").display())).await?)
    }

    fn say(&mut self, text: &str) {
        self.stage.story.say("director", text);
    }

    /// The books: what the services wrote down, next to what the file says.
    fn check(&mut self) -> Result<bool, BoxError> {
        let took = self.stage.story.elapsed();
        self.evidence.log = ledger::read(&self.dir.join(aircraft_log::LEDGER))?;
        self.evidence.notices = books::notices(&self.dir)?;
        self.evidence.flights = books::flights(&self.dir)?;
        self.evidence.committed = self.stage.count("written");
        let findings = audit(&self.day, &self.evidence);
        let story = &mut self.stage.story;
        story.line(&format!("\n{}", findings.table));
        story.line(&repetitions(&self.evidence));
        let order = if self.evidence.ordered { "" } else { " (not promised on this broker)" };
        story.line(&format!(
            "{} events, {} lost, {} out of order{order}; {:.1} s with every wait, {} events per second.",
            thousands(self.day.events.len()),
            thousands(findings.lost),
            thousands(findings.out_of_order),
            took.as_secs_f64(),
            rate(self.day.events.len(), took)
        ));
        if findings.table.differences() > 0 {
            story.line(&format!("Figures that differ from what the file says: {}.", findings.table.differences()));
        }
        Ok(findings.table.differences() == 0)
    }

    /// Leaves nothing behind: no subscription on a shared broker, no file in the temp folder unless `KEEP=1`.
    async fn tidy(mut self, dir: TempDir) -> Result<(), BoxError> {
        if !self.prefix.is_empty() {
            for name in self.subscriptions() {
                self.broker.delete_subscription(&name).await?;
            }
        }
        self.broker.close().await?;
        if std::env::var("KEEP").is_ok_and(|keep| !["", "0"].contains(&keep.as_str())) {
            let kept = dir.keep();
            self.stage.story.line(&format!("Kept: {}", kept.display()));
        }
        Ok(())
    }
}
