//! Announces that Ada has registered.

use serde_json::json;
use tidings::{Broker, DomainEvent};

#[tokio::main]
async fn main() -> tidings::Result<()> {
    let broker = Broker::from_env().await?;

    let event = DomainEvent::new("user.registered", &json!({"user_id": 7, "name": "Ada"}))?.with_domain_object_id("7");
    let receipt = broker.publisher().publish(event).await?;

    // The broker has it durably. A receipt also tells whether any subscription wanted it.
    let wanted = if receipt.routed == Some(true) { "somebody" } else { "nobody yet" };
    println!("published user.registered, wanted by {wanted}");
    broker.close().await
}
