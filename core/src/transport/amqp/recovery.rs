//! How a source gets its consumer, and gets it back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use parking_lot::Mutex;

use super::connection::{answer_in_time, backoff};
use super::headers::name_of;
use super::source::{AmqpSource, Intake, Link, close_channel};
use super::topology::Declarer;
use super::unsettled::Unsettled;
use crate::{ErrorKind, Result};

impl AmqpSource {
    /// Declares the subscription with all that belongs to it.
    pub(super) async fn declare(&self) -> Result<()> {
        let declarer = Declarer::open(&self.connector).await?;
        let result = declarer.subscription(&self.spec, self.queue_type, self.infrastructure, false).await;
        declarer.close_after(result).await
    }

    /// Starts a consumer, on the channel there is or on a new one.
    pub(super) async fn consume(&self, intake: &mut Intake) -> Result<()> {
        let link = match self.link().filter(|link| link.channel.status().connected()) {
            Some(link) => link,
            None => self.new_link().await?,
        };
        intake.consumers += 1;
        // It holds for consumers that begin after it.
        let prefetch = link.channel.basic_qos(intake.prefetch.begin(), BasicQosOptions::default());
        answer_in_time(prefetch, "the prefetch").await?;
        let tag = name_of(format!("tidings-{}-{}", link.generation, intake.consumers));
        let options = BasicConsumeOptions::default();
        let asked = link.channel.basic_consume(name_of(&*self.name), tag, options, FieldTable::default());
        let consumer = answer_in_time(asked, &format!("consuming from queue {}", self.name)).await?;
        intake.consumer = Some(consumer);
        self.consuming.store(true, Ordering::Release);
        Ok(())
    }

    async fn new_link(&self) -> Result<Arc<Link>> {
        let (channel, live) = self.connector.channel().await?;
        let generation = self.generations.fetch_add(1, Ordering::AcqRel) + 1;
        let link = Arc::new(Link { generation, channel, unsettled: Mutex::new(Unsettled::new()), live });
        *self.link.lock() = Some(link.clone());
        Ok(link)
    }

    /// Gets a consumer, whatever that takes. An error is final; `false`: fetching was stopped meanwhile.
    pub(super) async fn recover(&self, intake: &mut Intake) -> Result<bool> {
        let mut attempt = 0;
        loop {
            let error = match self.consume(intake).await {
                Ok(()) => {
                    if attempt > 0 {
                        tracing::info!(subscription = %self.name, "consuming again");
                    }
                    return Ok(true);
                }
                Err(error) => error,
            };
            let missing = error.kind() == ErrorKind::SubscriptionNotFound;
            let error = if missing {
                tracing::warn!(subscription = %self.name, "the queue is gone, declaring it again");
                match self.declare().await {
                    Ok(()) if attempt == 0 => {
                        attempt = 1;
                        continue;
                    }
                    Ok(()) => error,
                    Err(error) => error,
                }
            } else {
                error
            };
            self.trouble(&error.to_string());
            // An exclusive queue may still belong to the connection that was lost.
            let conflict = error.kind() == ErrorKind::SubscriptionConflict && error.field_value() != Some("exclusive");
            if conflict || error.kind() == ErrorKind::Closed {
                return Err(error);
            }
            if attempt == 0 {
                tracing::warn!(subscription = %self.name, %error, "not consuming, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff(attempt)) => {}
                changed = intake.control.changed() => {
                    let control = *intake.control.borrow();
                    if changed.is_err() || control.stopped || !control.open {
                        return Ok(false);
                    }
                }
            }
            attempt += 1;
        }
    }

    fn trouble(&self, text: &str) {
        self.troubles.lock().last_error = Some(text.to_owned());
    }

    /// The consumer has ended by itself: its channel with all that it delivered is given up.
    pub(super) async fn lose(&self, intake: &mut Intake, error: Option<lapin::Error>) {
        intake.consumer = None;
        self.consuming.store(false, Ordering::Release);
        let text = error.map_or_else(|| "the broker cancelled the consumer".to_owned(), |error| error.to_string());
        tracing::warn!(subscription = %self.name, error = %text, "lost the consumer, recovering");
        {
            let mut troubles = self.troubles.lock();
            troubles.recoveries += 1;
            troubles.last_error = Some(text);
        }
        let link = self.link.lock().take();
        if let Some(link) = link.filter(|link| link.channel.status().connected()) {
            close_channel(&link.channel).await;
        }
    }
}
