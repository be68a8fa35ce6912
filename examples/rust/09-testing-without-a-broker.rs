//! An hour of retries in a test that takes a millisecond: `memory:` runs on Tokio's clock, which a test can pause.
//!
//! In a test the attribute is `#[tokio::test(start_paused = true)]`.

use std::time::Duration;

use tidings::{BoxError, Broker, DomainEvent, RetryPolicy};
use tokio::sync::mpsc;
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::connect("memory:").await?;
    let (said, mut attempts) = mpsc::channel(8);
    let begun = Instant::now();

    let subscriber = broker.subscriber();
    let policy = RetryPolicy::fixed(2, Duration::from_secs(30 * 60));
    subscriber.subscription("payments").bind("order.*").retry(policy).handle(move |event: DomainEvent| {
        let said = said.clone();
        async move {
            said.send(event.retries()).await?;
            if event.retries() < 2 { Err("not yet".into()) } else { Ok::<(), BoxError>(()) }
        }
    })?;
    let running = subscriber.start().await?;
    broker.publisher().publish(DomainEvent::new("order.placed", &7)?).await?;

    // Time jumps to the next thing that is due whenever everybody waits.
    for _ in 0..3 {
        let retries = attempts.recv().await.ok_or("the handler is gone")?;
        println!("attempt {} after {} minutes", retries + 1, begun.elapsed().as_secs() / 60);
    }
    running.stop().await?;
    Ok(broker.close().await?)
}
