//! The outbox for hosts of other languages: operations with their request and answer as JSON.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{OnFailed, Outbox, Relay};
use crate::{Error, ErrorKind, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailedRequest {
    #[serde(default)]
    after: i64,
    limit: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    ids: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayRequest {
    exchange: Option<String>,
    batch: Option<usize>,
    max_payload: Option<usize>,
    lease: Option<f64>,
    poll_interval: Option<f64>,
    publish_timeout: Option<f64>,
    max_attempts: Option<u32>,
    initial_backoff: Option<f64>,
    max_backoff: Option<f64>,
    on_failed: Option<String>,
    keep: Option<f64>,
    listen: Option<bool>,
}

impl Outbox {
    /// For hosts of other languages: an operation by its name, its request and its answer as JSON.
    ///
    /// | operation | request | answer |
    /// |---|---|---|
    /// | `install` | `{}` | `null` |
    /// | `status` | `{}` | `{"pending", "processed", "failed", "oldest": seconds or null}` |
    /// | `failed` | `{"after", "limit"}` | `[{"id", "event_id", "routing_key", "key", "attempts", "error"}]` |
    /// | `retry`, `discard` | `{"ids"}` | how many |
    /// | `drain` | `{"seconds"}` | `null` |
    /// | `purge` | `{"seconds"}` | how many |
    ///
    /// Errors: those of the operation, and `INVALID_OPTION` for a request that is not one.
    pub async fn call(&self, operation: &str, request: &str) -> Result<String> {
        let answer = match operation {
            "install" => self.install().await.map(|()| Value::Null)?,
            "status" => {
                let status = self.status().await?;
                json!({"pending": status.pending, "processed": status.processed, "failed": status.failed,
                    "oldest": status.oldest.map(|age| age.as_secs_f64())})
            }
            "failed" => {
                let request: FailedRequest = read(request)?;
                let rows = self.failed(request.after, request.limit).await?;
                rows.into_iter()
                    .map(|row| {
                        json!({"id": row.id, "event_id": row.event_id, "routing_key": row.routing_key, "key": row.key,
                            "attempts": row.attempts, "error": row.error})
                    })
                    .collect()
            }
            "retry" => self.retry(&read::<Ids>(request)?.ids).await?.into(),
            "discard" => self.discard(&read::<Ids>(request)?.ids).await?.into(),
            "drain" => self.drain(read::<Seconds>(request)?.length()?).await.map(|()| Value::Null)?,
            "purge" => self.purge(read::<Seconds>(request)?.length()?).await?.into(),
            _ => {
                return Err(Error::new(ErrorKind::InvalidOption, "the outbox has no such operation")
                    .field("operation", operation)
                    .remedy("use install, status, failed, retry, discard, drain or purge"));
            }
        };
        Ok(answer.to_string())
    }
}

impl Seconds {
    fn length(&self) -> Result<Duration> {
        length("seconds", self.seconds)
    }
}

impl Relay {
    /// For hosts of other languages: settings as JSON, lengths of time in seconds. What is left out stays as it is.
    ///
    /// `exchange`, `batch`, `max_payload`, `lease`, `poll_interval`, `publish_timeout`, `max_attempts`, `initial_backoff`,
    /// `max_backoff`, `on_failed` (`block`, `pass`), `keep`, `listen`. `INVALID_OPTION` for anything else.
    pub fn settings(mut self, settings: &str) -> Result<Self> {
        let given: RelayRequest = read(settings)?;
        if let Some(exchange) = given.exchange {
            self = self.exchange(exchange);
        }
        if let Some(batch) = given.batch {
            self = self.batch(batch);
        }
        if let Some(bytes) = given.max_payload {
            self = self.max_payload(bytes);
        }
        if let Some(lease) = given.lease {
            self = self.lease(length("lease", lease)?);
        }
        if let Some(interval) = given.poll_interval {
            self = self.poll_interval(length("poll_interval", interval)?);
        }
        if let Some(timeout) = given.publish_timeout {
            self = self.publish_timeout(length("publish_timeout", timeout)?);
        }
        if let Some(attempts) = given.max_attempts {
            self = self.max_attempts(attempts);
        }
        if given.initial_backoff.is_some() || given.max_backoff.is_some() {
            let initial = length("initial_backoff", given.initial_backoff.unwrap_or(1.0))?;
            let max = length("max_backoff", given.max_backoff.unwrap_or(300.0))?;
            self = self.backoff(initial, max.max(initial));
        }
        match given.on_failed.as_deref() {
            None => {}
            Some("block") => self = self.on_failed(OnFailed::Block),
            Some("pass") => self = self.on_failed(OnFailed::Pass),
            Some(other) => {
                return Err(Error::new(ErrorKind::InvalidOption, "later rows of a key can wait or pass")
                    .field("on_failed", other)
                    .remedy("use block or pass"));
            }
        }
        if let Some(age) = given.keep {
            self = self.keep(length("keep", age)?);
        }
        if let Some(listen) = given.listen {
            self = self.listen(listen);
        }
        Ok(self)
    }
}

fn read<T: DeserializeOwned>(request: &str) -> Result<T> {
    serde_json::from_str(request).map_err(|e| {
        Error::new(ErrorKind::InvalidOption, format!("the request is not understood: {e}"))
            .field("request", request)
            .remedy("see the operation's documentation for its fields")
    })
}

fn length(field: &'static str, seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        Error::new(ErrorKind::InvalidOption, format!("{field} is no length of time"))
            .field(field, seconds)
            .remedy("use a number of seconds, 0 or more")
    })
}
