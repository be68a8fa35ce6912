//! An order without an address becomes a dead letter; after the fix it is looked at and replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};
use tidings::{BoxError, Broker, DeadLetter, DeadLetterFilter, DomainEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let broker = Broker::from_env().await?;
    let (said, mut lines) = mpsc::channel(8);
    let pickup_is_known = Arc::new(AtomicBool::new(false));

    let subscriber = broker.subscriber();
    let fixed = pickup_is_known.clone();
    subscriber.subscription("shipping").bind("order.*").handle(move |event: DomainEvent| {
        let (said, fixed) = (said.clone(), fixed.clone());
        async move {
            let order: Value = event.data()?;
            if order["address"].is_null() && !fixed.load(SeqCst) {
                said.send("order 7 has no address".to_owned()).await?;
                return Err::<(), BoxError>(DeadLetter::because("no-address").into());
            }
            said.send("order 7 is shipped".to_owned()).await?;
            Ok(())
        }
    })?;
    let running = subscriber.start().await?;
    broker.publisher().publish(DomainEvent::new("order.placed", &json!({"id": 7}))?).await?;
    println!("{}", lines.recv().await.ok_or("the handler is gone")?);
    running.stop().await?;

    // Looking changes nothing. A dead letter keeps why, when and how often.
    for dead in broker.dead_letters("shipping", &DeadLetterFilter::new(), 10).await? {
        println!("dead letter: {}, {}, {} attempt", dead.routing_key(), dead.reason(), dead.attempts());
    }

    pickup_is_known.store(true, SeqCst);
    let running = subscriber.start().await?;
    let report = broker.replay("shipping").filter(DeadLetterFilter::new().reason("no-address")).run().await?;
    println!("replayed {}, {} remain", report.replayed, report.remaining);
    println!("{}", lines.recv().await.ok_or("the handler is gone")?);
    running.stop().await?;
    Ok(broker.close().await?)
}
