//! The subscription `welcome` greets everybody who registers.

use serde::{Deserialize, Serialize};
use tidings::{BoxError, Broker, DomainEvent};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Registered {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::from_env().await?;
    let (greeted, mut greetings) = mpsc::channel(8);

    let subscriber = broker.subscriber();
    subscriber.subscription("welcome").bind("user.registered").handle(move |event: DomainEvent| {
        let greeted = greeted.clone();
        async move {
            let user: Registered = event.data()?;
            greeted.send(format!("welcome, {}", user.name)).await?;
            Ok::<(), BoxError>(()) // Ok acknowledges the event
        }
    })?;
    // The subscription exists from here on, and collects events even while nobody runs.
    let running = subscriber.start().await?;

    for name in ["Ada", "Grace"] {
        let data = Registered { name: name.to_owned() };
        broker.publisher().publish(DomainEvent::new("user.registered", &data)?).await?;
    }
    for _ in 0..2 {
        println!("{}", greetings.recv().await.ok_or("the handler is gone")?);
    }
    running.stop().await?;
    Ok(broker.close().await?)
}
