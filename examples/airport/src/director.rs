//! The director: sets the scene, breaks and repairs things while the services work, and checks the books at the end.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidings::transport::{Ordered, registry};
use tidings::{BoxError, Broker, DeadLetterEntry, DeadLetterFilter, Replay, ReplayAction, ReplayReport};

use crate::audit::{Evidence, audit, repetitions};
use crate::flights::{Day, Happening};
use crate::stage::{Setting, Stage, Stuck};
use crate::story::{Counts, Story, rate, thousands};
use crate::{aircraft_log, ledger, notifier, operations};

/// The gateway is repaired once an event has been tried so often in vain.
const ATTEMPTS_WHILE_DOWN: usize = 5;

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

    let mut story = Story::begin();
    story.line("Tidings: a real day of events. 8 February 2013, a blizzard closes New York's airports.");
    let (flights, events) = (thousands(day.flights), thousands(day.events.len()));
    story.line(&format!("  data    {} ({flights} flights, {events} events)", data.display()));
    story.line(&format!("  broker  {}\n", registry::redact(&broker_url)));
    let setting = Setting { broker_url, prefix: prefix.clone(), dir: dir.path().to_owned() };
    let evidence = Evidence { ordered: can.ordered != Ordered::No, ..Evidence::default() };
    let mut play = Play { day, broker, prefix, stage: Stage::new(setting, story), evidence };

    let played = tokio::select! {
        played = play.acts() => played,
        () = asked_to_end() => Err(Interrupted.into()),
    };
    play.stage.clear().await;
    let same = match played {
        Ok(()) => play.check(dir.path()),
        Err(error) if error.is::<Stuck>() => {
            play.stage.story.line(&format!("\n{error}. The books as they are:"));
            play.check(dir.path()).map(|_| false)
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
    stage: Stage,
    evidence: Evidence,
}

impl Play {
    async fn acts(&mut self) -> Result<(), BoxError> {
        self.the_day_begins().await?;
        self.the_log_is_killed().await?;
        self.the_gateway_comes_back().await?;
        self.the_log_is_fixed().await?;
        self.evidence.left = self.left_over().await?;
        Ok(())
    }

    async fn the_day_begins(&mut self) -> Result<(), BoxError> {
        if !self.evidence.ordered {
            let name = self.broker.capabilities().name;
            let text =
                format!("{name}: does not keep order per key yet (UNSUPPORTED), so the aircraft log goes without");
            self.say(&text);
        }
        let crash_at = self.loggable() / 3;
        self.stage.start(notifier::NAME, &[]).await?;
        self.stage.start(aircraft_log::NAME, &["--hold-at", &crash_at.to_string()]).await?;
        self.stage.start(operations::NAME, &[]).await
    }

    /// In the worst moment: an entry is written, its event not yet acknowledged.
    async fn the_log_is_killed(&mut self) -> Result<(), BoxError> {
        self.stage.until("the aircraft log has an event in hand", |counts| counts.contains_key("holding")).await?;
        let entry = thousands(self.stage.count("holding"));
        let id = self.stage.kill(aircraft_log::NAME).await?;
        self.say(&format!("kill -9 of the aircraft log (process {id}): entry {entry} written, not acknowledged"));
        self.stage.start(aircraft_log::NAME, &[]).await
    }

    async fn the_gateway_comes_back(&mut self) -> Result<(), BoxError> {
        let (events, news) = (self.day.events.len(), self.day.count(Happening::is_news));
        self.stage.until("all events are published", |counts| counts.get("wanted").is_some()).await?;
        self.evidence.published = self.stage.count("published");
        self.evidence.wanted = self.stage.count("wanted");
        self.stage.stop(operations::NAME).await?;
        let tried = |counts: &Counts| counts.get("most-attempts").is_some_and(|n| *n >= ATTEMPTS_WHILE_DOWN);
        self.stage.until("the notifier has retried for a while", tried).await?;
        self.say("the gateway is repaired");
        self.stage.tell(notifier::NAME, notifier::GATEWAY_UP).await?;
        self.stage.until("every notice is sent", |counts| counts.get("notified") == Some(&news)).await?;
        self.stage.stop(notifier::NAME).await?;
        self.evidence.early = self.stage.count("early");
        let name = self.subscription(notifier::NAME);
        let given_up = self.broker.dead_letters(&name, &DeadLetterFilter::new(), usize::MAX).await?;
        self.evidence.notices_given_up = given_up.len();

        let (loggable, refused) = (self.loggable(), events - self.loggable());
        let done = |counts: &Counts| counts.get("logged") == Some(&loggable) && counts.get("refused") == Some(&refused);
        self.stage.until("the aircraft log has seen everything", done).await?;
        // Once it has ended, all that it gave up on is settled.
        self.stage.stop(aircraft_log::NAME).await
    }

    async fn the_log_is_fixed(&mut self) -> Result<(), BoxError> {
        let log = self.subscription(aircraft_log::NAME);
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

        self.stage.start(aircraft_log::NAME, &["--fixed"]).await?;
        let (report, ids) = self.replay(&log, |replay| replay).await?;
        self.say(&format!("replay: {} went back, {} dead letters remain", report.replayed, report.remaining));
        self.evidence.replayed = ids.len();
        let events = self.day.events.len();
        self.stage.until("the replayed events are logged", |counts| counts.get("logged") == Some(&events)).await?;
        self.nothing_is_left().await?;
        self.stage.stop(aircraft_log::NAME).await
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
    async fn nothing_is_left(&self) -> Result<(), BoxError> {
        let mut ask = tokio::time::interval(Duration::from_millis(50));
        let empty = async {
            while self.left_over().await? > 0 {
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

    async fn left_over(&self) -> Result<usize, BoxError> {
        let ours = self.subscriptions();
        let all = self.broker.subscriptions().await?.into_iter().filter(|info| ours.contains(&info.name));
        Ok(usize::try_from(all.map(|info| info.ready + info.in_flight.unwrap_or(0) + info.dead).sum::<u64>())?)
    }

    fn subscriptions(&self) -> [String; 2] {
        [notifier::NAME, aircraft_log::NAME].map(|name| self.subscription(name))
    }

    fn subscription(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn say(&mut self, text: &str) {
        self.stage.story.say("director", text);
    }

    /// The books: what the services wrote down, next to what the file says.
    fn check(&mut self, dir: &Path) -> Result<bool, BoxError> {
        let took = self.stage.story.elapsed();
        self.evidence.log = ledger::read(&dir.join(aircraft_log::LEDGER))?;
        self.evidence.notices = ledger::read(&dir.join(notifier::LEDGER))?;
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
