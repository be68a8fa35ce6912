//! The aircraft log: one entry per event, each aircraft's in order. Its first version needs a tail number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidings::transport::Ordered;
use tidings::{BoxError, DeadLetter, DomainEvent};

use crate::flights::Flight;
use crate::ledger::{Ledger, Recorded};
use crate::role::{EXCHANGE, Report, Role, count, say};
use crate::story::thousands;

pub(crate) const NAME: &str = "aircraft-log";
pub(crate) const LEDGER: &str = "aircraft-log.jsonl";
/// What the log could not handle, so that it can say how much; the events themselves are dead letters.
const REFUSED: &str = "aircraft-log-refused.jsonl";
/// Why it gives up on an event: short and stable, replays filter by it.
pub(crate) const NO_TAIL: &str = "no-tail-number";

/// How the log is started.
pub(crate) struct Options {
    /// The second version, which copes with unknown aircraft.
    pub(crate) fixed: bool,
    /// Stops dead once so many entries are written, before the last one is acknowledged: the moment for a kill -9.
    pub(crate) hold_at: Option<usize>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self, BoxError> {
        let mut options = Self { fixed: false, hold_at: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--fixed" => options.fixed = true,
                "--hold-at" => options.hold_at = Some(args.next().ok_or("--hold-at needs a number")?.parse()?),
                other => return Err(format!("the aircraft log knows --fixed and --hold-at N, not {other}").into()),
            }
        }
        Ok(options)
    }
}

pub(crate) async fn run(mut role: Role, options: Options) -> Result<(), BoxError> {
    let log = Arc::new(AircraftLog {
        options,
        entries: Ledger::open(&role.file(LEDGER))?,
        refused: Ledger::open(&role.file(REFUSED))?,
        repeated: AtomicUsize::new(0),
    });
    let subscriber = role.broker.subscriber().drain_timeout(Duration::from_secs(5));
    let mut subscription = subscriber
        .subscription(&role.subscription(NAME))
        .exchange(EXCHANGE)
        .bind("flight.*")
        .concurrency(8)
        .prefetch(64)
        // On a file: what a killed process had in hand is free again after this time. The default is 30 s.
        .lease(Duration::from_secs(2));
    if role.broker.capabilities().ordered != Ordered::No {
        subscription = subscription.ordered();
    }
    let handler = log.clone();
    subscription.handle(move |event| {
        let log = handler.clone();
        async move { log.add(&event).await }
    })?;
    let running = subscriber.start().await?;
    say(log.greeting());
    Report::Ready.send();

    role.over().await;
    running.stop().await?;
    role.broker.close().await?;
    Ok(())
}

struct AircraftLog {
    options: Options,
    entries: Ledger,
    refused: Ledger,
    repeated: AtomicUsize,
}

impl AircraftLog {
    async fn add(&self, event: &DomainEvent) -> Result<(), BoxError> {
        let flight: Flight = event.data()?;
        if flight.tail.is_none() && !self.options.fixed {
            self.refused.record(event, &flight)?;
            count("refused", self.refused.len());
            let details = format!("{} {} names no aircraft", event.routing_key(), flight.number);
            return Err(DeadLetter::because(NO_TAIL).details(details).into());
        }
        // The entry is written first and the event acknowledged afterwards, when this returns. A crash in between brings
        // the event again; the ledger knows it by its id.
        match self.entries.record(event, &flight)? {
            Recorded::Again => {
                // One line of the story is enough; the table counts them all.
                if self.repeated.fetch_add(1, Relaxed) == 0 {
                    say(format!("{} {} came again, it is in the log already", event.routing_key(), flight.number));
                }
            }
            Recorded::New(entries) => {
                count("logged", entries);
                if self.options.hold_at == Some(entries) {
                    count("log-holds", entries);
                    std::future::pending::<()>().await;
                }
            }
        }
        Ok(())
    }

    fn greeting(&self) -> String {
        let version = if self.options.fixed { "the fixed version, unknown aircraft are fine" } else { "version 1" };
        match self.entries.len() {
            0 => format!("listening for every flight; {version}"),
            entries => format!("back with {} entries in its file; {version}", thousands(entries)),
        }
    }
}
