//! Two accounts, four handlers at once: the events of each account stay in order.

use std::collections::BTreeMap;

use tidings::{BoxError, Broker, DomainEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::from_env().await?;
    let (booked, mut bookings) = mpsc::channel(64);

    let subscriber = broker.subscriber();
    // Different keys run at once; the events of one key run one at a time, in the order of their publishing.
    subscriber.subscription("ledger").bind("account.*").ordered().concurrency(4).handle(
        move |event: DomainEvent| {
            let booked = booked.clone();
            async move {
                let account = event.key().unwrap_or_default().to_owned();
                booked.send((account, event.data::<u32>()?)).await?;
                Ok::<(), BoxError>(())
            }
        },
    )?;
    let running = subscriber.start().await?;

    let events = (1..=5).flat_map(|n| ["alice", "bob"].map(|account| (account, n)));
    let events = events.map(|(account, n)| Ok(DomainEvent::new("account.changed", &n)?.with_key(account)));
    for receipt in broker.publisher().publish_batch(events.collect::<tidings::Result<Vec<_>>>()?).await {
        receipt?;
    }

    let mut ledger: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..10 {
        let (account, n) = bookings.recv().await.ok_or("the handler is gone")?;
        ledger.entry(account).or_default().push(n.to_string());
    }
    for (account, entries) in ledger {
        println!("{account}: {}", entries.join(" "));
    }
    running.stop().await?;
    Ok(broker.close().await?)
}
