//! A gateway is down twice; the retry policy tries again, with growing delays.

use std::time::Duration;

use serde_json::json;
use tidings::{BoxError, Broker, DomainEvent, RetryPolicy};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::from_env().await?;
    let (said, mut lines) = mpsc::channel(8);

    // 100 ms, 200 ms, 400 ms … at most 5 s, and at most five times.
    let policy = RetryPolicy::exponential(5, Duration::from_millis(100), 2.0, Duration::from_secs(5));
    let subscriber = broker.subscriber();
    subscriber.subscription("payments").bind("order.placed").retry(policy).handle(move |event: DomainEvent| {
        let said = said.clone();
        async move {
            // How often this event was tried before: it travels with the event.
            let attempt = event.retries() + 1;
            if attempt < 3 {
                said.send(format!("attempt {attempt}: the gateway is down")).await?;
                return Err::<(), BoxError>("the gateway is down".into()); // any error is retried
            }
            said.send(format!("attempt {attempt}: paid")).await?;
            Ok(())
        }
    })?;
    let running = subscriber.start().await?;

    broker.publisher().publish(DomainEvent::new("order.placed", &json!({"id": 7}))?).await?;
    for _ in 0..3 {
        println!("{}", lines.recv().await.ok_or("the handler is gone")?);
    }
    running.stop().await?;
    Ok(broker.close().await?)
}
