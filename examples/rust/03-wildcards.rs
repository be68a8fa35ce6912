//! Three subscriptions with patterns: `*` is exactly one word, `#` any number of them.

use std::time::Duration;

use tidings::{Broker, DomainEvent, Outcome};

/// Name, pattern, and how many of the events below match it.
const SUBSCRIPTIONS: [(&str, &str, usize); 3] =
    [("users", "user.*", 2), ("registrations", "*.registered", 2), ("audit", "#", 4)];

#[tokio::main]
async fn main() -> tidings::Result<()> {
    let broker = Broker::from_env().await?;
    let subscriber = broker.subscriber();

    let mut open = Vec::new();
    for (name, pattern, matching) in SUBSCRIPTIONS {
        open.push((name, matching, subscriber.subscription(name).bind(pattern).deliveries().await?));
    }
    for routing_key in ["user.registered", "user.deleted", "company.registered", "order.line.added"] {
        broker.publisher().publish(DomainEvent::new(routing_key, &())?).await?;
    }

    // Each subscription has its own copy of every event that it is bound to.
    for (name, matching, deliveries) in open {
        let mut got = Vec::new();
        while got.len() < matching {
            for delivery in deliveries.next(matching).await? {
                got.push(delivery.event().routing_key().to_owned());
                delivery.settle(Outcome::Ok).await?;
            }
        }
        println!("{name}: {}", got.join(", "));
        deliveries.close(Duration::from_secs(5)).await?;
    }
    broker.close().await
}
