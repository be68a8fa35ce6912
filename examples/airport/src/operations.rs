//! Flight operations: announces the day, event by event.

use std::path::Path;

use tidings::{BoxError, DomainEvent, Timestamp};

use crate::flights::{Day, Happening};
use crate::role::{EXCHANGE, Report, Role, count, say};
use crate::story::{rate, thousands};

pub(crate) const NAME: &str = "operations";
/// Events that are confirmed together: on a file, one synchronous write.
const BATCH: usize = 100;
/// 8 February 2013, 00:00 in New York.
const MIDNIGHT: i64 = 1_360_299_600;

pub(crate) async fn run(mut role: Role, data: &Path) -> Result<(), BoxError> {
    let day = Day::read(data)?;
    let publisher = role.broker.publisher().exchange(EXCHANGE)?;
    Report::Ready.send();

    let started = std::time::Instant::now();
    let (mut sent, mut wanted) = (0, 0);
    for batch in day.events.chunks(BATCH) {
        let events = batch.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        // When it returns, the broker has the events durably, in this order for each aircraft.
        for receipt in publisher.publish_batch(events).await {
            sent += 1;
            wanted += usize::from(receipt?.routed != Some(false));
        }
        count("published", sent);
    }
    count("wanted", wanted);
    say(format!("{} events published and confirmed ({} per second)", thousands(sent), rate(sent, started.elapsed())));

    while role.command().await.is_some() {}
    role.broker.close().await?;
    Ok(())
}

/// The event as it travels. The aircraft is its ordering key; an event without a key has no order.
fn event(happening: &Happening) -> tidings::Result<DomainEvent> {
    let event = DomainEvent::new(happening.routing_key, &happening.flight)?
        .with_timestamp(Timestamp::from_micros((MIDNIGHT + happening.minute * 60) * 1_000_000));
    Ok(match &happening.flight.tail {
        Some(tail) => event.with_key(tail.as_str()),
        None => event,
    })
}
