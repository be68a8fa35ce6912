//! Told to stop: the handler that runs finishes, the other events go back with no attempt spent.

use std::time::Duration;

use tidings::{BoxError, Broker, DomainEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::from_env().await?;
    let (said, mut lines) = mpsc::channel(8);

    let subscriber = broker.subscriber().drain_timeout(Duration::from_secs(10));
    subscriber.subscription("reports").bind("report.*").handle(move |event: DomainEvent| {
        let said = said.clone();
        async move {
            let number: u32 = event.data()?;
            said.send(format!("report {number} begins")).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            said.send(format!("report {number} is done")).await?;
            Ok::<(), BoxError>(())
        }
    })?;
    let running = subscriber.start().await?;
    for number in 1..=3 {
        broker.publisher().publish(DomainEvent::new("report.wanted", &number)?).await?;
    }
    println!("{}", lines.recv().await.ok_or("the handler is gone")?);

    // In a service: tokio::signal::ctrl_c().await?
    println!("asked to stop");
    let unfinished = running.stop().await?;
    println!("{}", lines.recv().await.ok_or("the handler is gone")?);
    let waiting = broker.subscription("reports").await?.map_or(0, |info| info.ready);
    println!("{unfinished} unfinished, {waiting} wait for the next process");
    Ok(broker.close().await?)
}
