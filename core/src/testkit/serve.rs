//! The child's side of scenarios with several processes.
//!
//! One command per line on standard input, one answer per line on standard output:
//!
//! ```text
//! subscribe <name> <binding key> <queue type> <prefetch> <max_deliveries>   ok
//! next <max>                                                                events <number>:<retries>:<suspect> …
//! ack                                                                       ok           (all in hand)
//! publish <routing key> <number>                                            ok
//! close                                                                     ok, and ends
//! ```
//!
//! An answer `error <text>` says what went wrong. The process that is killed says nothing.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use crate::transport::QueueType;
use crate::{BoxError, Broker, Deliveries, Delivery, DomainEvent, Outcome};

/// Serves the suite on standard input and output until it says `close` or goes away. For the process of
/// [`Subject::child`](super::Subject::child).
pub async fn serve(broker: Broker) -> Result<(), BoxError> {
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut child = Child { broker, deliveries: None, hand: Vec::new() };
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = child.obey(&words).await.unwrap_or_else(|error| format!("error {error}"));
        println!("{}", answer.replace('\n', " "));
        std::io::stdout().flush()?;
        if words == ["close"] {
            break;
        }
    }
    Ok(())
}

struct Child {
    broker: Broker,
    deliveries: Option<Deliveries>,
    hand: Vec<Delivery>,
}

impl Child {
    async fn obey(&mut self, words: &[&str]) -> Result<String, BoxError> {
        match words {
            ["subscribe", name, key, queue_type, prefetch, max_deliveries] => {
                let queue_type = if *queue_type == "classic" { QueueType::Classic } else { QueueType::Quorum };
                let subscriber = self.broker.subscriber();
                let subscription = subscriber.subscription(name).bind(*key).queue_type(queue_type);
                let subscription = subscription.lease(Duration::from_secs(1)).prefetch(prefetch.parse()?);
                self.deliveries = Some(subscription.max_deliveries(max_deliveries.parse()?).deliveries().await?);
            }
            ["next", max] => {
                let deliveries = self.deliveries.as_ref().ok_or("not subscribed")?;
                let taken = deliveries.next(max.parse()?).await?;
                let answer = taken.iter().map(show).collect::<Vec<_>>().join(" ");
                self.hand.extend(taken);
                return Ok(format!("events {answer}"));
            }
            ["ack"] => {
                let deliveries = self.deliveries.as_ref().ok_or("not subscribed")?;
                deliveries.settle(self.hand.drain(..).map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
            }
            ["publish", key, number] => {
                let event = DomainEvent::new(key, &number.parse::<u64>()?)?;
                self.broker.publisher().publish(event).await?;
            }
            ["close"] => {
                self.hand.clear();
                if let Some(deliveries) = self.deliveries.take() {
                    deliveries.close(Duration::from_secs(5)).await?;
                }
                self.broker.close().await?;
            }
            _ => return Err(format!("no such command: {words:?}").into()),
        }
        Ok("ok".to_owned())
    }
}

fn show(delivery: &Delivery) -> String {
    let number: u64 = delivery.event().data().unwrap_or(u64::MAX);
    let suspect = crate::settlement::is_suspect(delivery.event().headers());
    format!("{number}:{}:{suspect}", delivery.retries())
}
