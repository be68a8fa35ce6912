//! The notifier: tells passengers about cancellations and diversions, by way of a gateway that is down at first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tidings::{BoxError, DomainEvent, RetryPolicy};

use crate::flights::{CANCELLED, DIVERTED, Flight};
use crate::ledger::{Ledger, Recorded};
use crate::role::{EXCHANGE, Report, Role, count, say};
use crate::waits::Waits;

pub(crate) const NAME: &str = "notifier";
pub(crate) const LEDGER: &str = "notices.jsonl";
/// What the director writes to stdin to repair the gateway.
pub(crate) const GATEWAY_UP: &str = "gateway up";

/// 100, 200, 400, 800, then every 1,600 ms; enough retries for a minute and a half.
pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy::exponential(60, Duration::from_millis(100), 2.0, Duration::from_millis(1600)).retry_on("GatewayDown")
}

pub(crate) async fn run(mut role: Role) -> Result<(), BoxError> {
    let notifier = Arc::new(Notifier {
        gateway: Gateway { up: AtomicBool::new(false) },
        notices: Ledger::open(&role.file(LEDGER))?,
        waits: Waits::new(policy()),
    });
    let subscriber = role.broker.subscriber().drain_timeout(Duration::from_secs(5));
    let handler = notifier.clone();
    subscriber
        .subscription(&role.subscription(NAME))
        .exchange(EXCHANGE)
        .bind(CANCELLED)
        .bind(DIVERTED)
        .retry(policy())
        .concurrency(8)
        .handle(move |event| {
            let notifier = handler.clone();
            async move { notifier.notify(&event) }
        })?;
    let running = subscriber.start().await?;
    say("listening for cancellations and diversions; its gateway is down");
    Report::Ready.send();

    while let Some(command) = role.command().await {
        if command == GATEWAY_UP {
            notifier.gateway.up.store(true, SeqCst);
        }
    }
    running.stop().await?;
    role.broker.close().await?;
    notifier.waits.tell();
    Ok(())
}

struct Notifier {
    gateway: Gateway,
    notices: Ledger,
    waits: Waits,
}

impl Notifier {
    /// An error is retried by the policy if its type is covered, else the event becomes a dead letter.
    fn notify(&self, event: &DomainEvent) -> Result<(), BoxError> {
        let flight: Flight = event.data()?;
        self.waits.attempt(event);
        if !self.notices.contains(event.id()) {
            self.gateway.send(event.routing_key(), &flight).inspect_err(|_| self.waits.failed(event))?;
        }
        if let Recorded::New(notified) = self.notices.record(event, &flight)? {
            count("notified", notified);
        }
        Ok(())
    }
}

/// Stands for a mail or text message provider.
struct Gateway {
    up: AtomicBool,
}

impl Gateway {
    fn send(&self, _what: &str, flight: &Flight) -> Result<(), GatewayDown> {
        if self.up.load(SeqCst) { Ok(()) } else { Err(GatewayDown { flight: flight.number.clone() }) }
    }
}

#[derive(Debug)]
struct GatewayDown {
    flight: String,
}

impl std::fmt::Display for GatewayDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the gateway is down; {} waits", self.flight)
    }
}

impl std::error::Error for GatewayDown {}
